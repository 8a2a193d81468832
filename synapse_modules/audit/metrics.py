"""What operators watch. Those of the queue are in every process, the others in the one that runs background tasks."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

__all__ = [
    "CHECKPOINT_AGE",
    "COMMIT_SECONDS",
    "DAMAGED",
    "EVENTS_LAG",
    "QUEUE_LENGTH",
    "REQUESTS_LOST",
    "UNORDERED",
    "UNRECORDED",
]

_SERVER = ("server_name",)

QUEUE_LENGTH = Gauge(
    "synapse_governance_audit_queue_length", "Audit records of this process that wait to be written", _SERVER
)
COMMIT_SECONDS = Histogram(
    "synapse_governance_audit_commit_seconds",
    "How long a batch of audit records took to become durable",
    _SERVER,
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
UNRECORDED = Counter(
    "synapse_governance_audit_unrecorded",
    "Actions that could not be recorded in time, by class, and what came of them",
    (*_SERVER, "action_class", "reaction"),
)
REQUESTS_LOST = Counter(
    "synapse_governance_audit_requests_lost", "Requests that should stand in the audit log and do not", _SERVER
)
UNORDERED = Gauge("synapse_governance_audit_unordered_records", "Audit records that have no index yet", _SERVER)
EVENTS_LAG = Gauge(
    "synapse_governance_audit_events_lag_seconds", "Seconds since the audit log had followed all room events", _SERVER
)
CHECKPOINT_AGE = Gauge(
    "synapse_governance_audit_checkpoint_age_seconds",
    "Seconds since the newest checkpoint was signed; grows while nothing happens",
    _SERVER,
)
DAMAGED = Gauge(
    "synapse_governance_audit_damaged",
    "1 where the audit log contradicts itself or has lost records: see the status and the operator's guide",
    _SERVER,
)
