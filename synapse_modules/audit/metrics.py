"""What operators watch. Those of the queue are in every process, the others in the one that runs background tasks."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

__all__ = [
    "CHECKPOINT_AGE",
    "COMMIT_SECONDS",
    "DAMAGED",
    "EVENTS_BEHIND",
    "EVENTS_LAG",
    "EVENTS_MISSED",
    "HEARTBEAT_AGE",
    "ORDER_LAG",
    "PROCESS_PROBLEM",
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
EVENTS_BEHIND = Gauge(
    "synapse_governance_audit_events_behind",
    "How far the audit log's following of room events is behind each writer of events, in positions of its stream",
    (*_SERVER, "writer"),
)
EVENTS_MISSED = Counter(
    "synapse_governance_audit_events_missed",
    "Room events that the daily check found without a record, and recorded",
    _SERVER,
)
ORDER_LAG = Gauge(
    "synapse_governance_audit_order_lag_seconds",
    "Seconds since every audit record that could be read had an index",
    _SERVER,
)
HEARTBEAT_AGE = Gauge(
    "synapse_governance_audit_heartbeat_age_seconds",
    "For how long there was no sign of a process of the homeserver in the audit log",
    (*_SERVER, "process"),
)
PROCESS_PROBLEM = Gauge(
    "synapse_governance_audit_process_problem",
    "1 where a process of the homeserver is silent, or runs another version or other modules: see the status",
    (*_SERVER, "process"),
)
CHECKPOINT_AGE = Gauge(
    "synapse_governance_audit_checkpoint_age_seconds",
    "Seconds since the newest checkpoint was signed; with heartbeats there is always something new",
    _SERVER,
)
DAMAGED = Gauge(
    "synapse_governance_audit_damaged",
    "1 where the audit log contradicts itself or has lost records: see the status and the operator's guide",
    _SERVER,
)
