"""Role-based access control: who may do what, where, until when, and why.

Pure: :mod:`.model`, :mod:`.messages`, :mod:`.parsing`, :mod:`.decide`, :mod:`.explain`, :mod:`.plan`.
The rest does I/O.
"""
