"""Role-based access control: who may do what, where, until when, and why.

Pure: :mod:`.model`, :mod:`.messages`, :mod:`.parsing`, :mod:`.tables`, :mod:`.decide`, :mod:`.explain`, :mod:`.plan`,
:mod:`.who_can`, :mod:`.changes`, :mod:`.records`. The rest does I/O.
"""
