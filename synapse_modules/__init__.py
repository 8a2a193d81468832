"""Governance for a stock Synapse homeserver: access control, audit log, retention with legal hold."""

__version__ = "0.1.0"

__all__ = ["__version__"]
