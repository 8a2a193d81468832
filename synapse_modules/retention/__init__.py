"""Retention and legal hold: what is deleted when, what must stay, and the run that carries it out.

Pure: :mod:`.rules`, :mod:`.precedence`, :mod:`.simulation`, :mod:`.records`. The rest does I/O.

Holds are in force by triggers in the database (``storage/schema/homeserver/0004_hold_triggers``), not by the good
behaviour of anything here.
"""
