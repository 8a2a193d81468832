"""How anchoring goes, for Prometheus."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

__all__ = ["AGE", "CONTRADICTION", "FAILURES", "SIZE", "WAITING"]

_LABELS = ("server_name", "anchor", "kind")

AGE = Gauge(
    "synapse_governance_audit_anchor_age_seconds",
    "How long ago the newest checkpoint that this anchor took was taken; not a number before the first",
    _LABELS,
)
WAITING = Gauge(
    "synapse_governance_audit_anchor_waiting_seconds",
    "How long the oldest checkpoint beyond the anchor's has waited for it; 0 while it has the newest",
    _LABELS,
)
SIZE = Gauge("synapse_governance_audit_anchor_size", "Entries of the newest checkpoint that this anchor took", _LABELS)
FAILURES = Counter(
    "synapse_governance_audit_anchor_failures", "Times that an anchor took nothing or did not answer", _LABELS
)
CONTRADICTION = Gauge(
    "synapse_governance_audit_anchor_contradiction",
    "1 while the anchor holds a checkpoint that the log does not continue: the log was rolled back, and does not sign",
    _LABELS,
)
