-- Retention rules, legal holds and the runs that delete what is due.

-- One row. Whoever applies rules raises `version` from the one they have seen.
CREATE TABLE governance_retention_state (
    singleton BIGINT NOT NULL PRIMARY KEY CHECK (singleton = 1),
    version BIGINT NOT NULL
);
INSERT INTO governance_retention_state (singleton, version) VALUES (1, 0);

-- Every version that was ever in force: a record of a purge names the version it followed.
CREATE TABLE governance_retention_rules (
    version BIGINT NOT NULL PRIMARY KEY,
    document TEXT NOT NULL,
    applied_ms BIGINT NOT NULL,
    applied_by TEXT
);

-- Holds are released, never deleted. Several may lie on one subject; it is held until the last is released.
CREATE TABLE governance_holds (
    hold_id TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('room', 'user')),
    subject TEXT NOT NULL,
    case_id TEXT NOT NULL,
    owner TEXT NOT NULL,
    reason TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    released_ms BIGINT,
    released_by TEXT,
    release_reason TEXT,
    CHECK ((released_ms IS NULL) = (released_by IS NULL) AND (released_ms IS NULL) = (release_reason IS NULL))
);
CREATE INDEX governance_holds_in_force ON governance_holds (subject, kind) WHERE released_ms IS NULL;
CREATE INDEX governance_holds_created ON governance_holds (created_ms, hold_id);

-- One row. Whoever creates or releases a hold raises `version`; on PostgreSQL a deletion shares a lock on it, so that a
-- hold is acknowledged only once every deletion that could not know of it has ended.
CREATE TABLE governance_hold_state (
    singleton BIGINT NOT NULL PRIMARY KEY CHECK (singleton = 1),
    version BIGINT NOT NULL
);
INSERT INTO governance_hold_state (singleton, version) VALUES (1, 0);

-- Copies of events under hold, made by triggers as the event was deleted or rewritten. The first copy is the original.
CREATE TABLE governance_held_events (
    event_id TEXT NOT NULL PRIMARY KEY,
    room_id TEXT NOT NULL,
    sender TEXT,
    type TEXT,
    state_key TEXT,
    origin_server_ts BIGINT,
    received_ts BIGINT,
    stream_ordering BIGINT,
    topological_ordering BIGINT,
    format_version INTEGER,
    internal_metadata TEXT,
    json TEXT,
    cause TEXT NOT NULL CHECK (cause IN ('deleted', 'rewritten')),
    copied_ms BIGINT NOT NULL
);
CREATE INDEX governance_held_events_room ON governance_held_events (room_id);
CREATE INDEX governance_held_events_sender ON governance_held_events (sender);

-- One row: the run that is going on. A heartbeat that stands still means that its process has died.
CREATE TABLE governance_retention_lock (
    singleton BIGINT NOT NULL PRIMARY KEY CHECK (singleton = 1),
    run_id TEXT,
    heartbeat_ms BIGINT NOT NULL
);
INSERT INTO governance_retention_lock (singleton, run_id, heartbeat_ms) VALUES (1, NULL, 0);

CREATE TABLE governance_retention_runs (
    run_id TEXT NOT NULL PRIMARY KEY,
    state TEXT NOT NULL CHECK (state IN ('running', 'done', 'failed', 'interrupted')),
    rules_version BIGINT NOT NULL,
    started_ms BIGINT NOT NULL,
    started_by TEXT,
    ended_ms BIGINT,
    rooms_planned BIGINT NOT NULL,
    rooms_done BIGINT NOT NULL,
    due BIGINT NOT NULL,
    deleted BIGINT NOT NULL,
    kept_by_hold BIGINT NOT NULL,
    copied_for_hold BIGINT NOT NULL,
    copies_dropped BIGINT NOT NULL,
    problems BIGINT NOT NULL,
    problem TEXT
);
CREATE INDEX governance_retention_runs_started ON governance_retention_runs (started_ms);

-- A purge that has begun and is not yet on record. What a killed process leaves here, the next run settles.
CREATE TABLE governance_retention_intents (
    run_id TEXT NOT NULL,
    room_id TEXT NOT NULL,
    room_class TEXT,
    rule TEXT NOT NULL,
    cutoff_ms BIGINT NOT NULL,
    due BIGINT NOT NULL,
    copies BIGINT NOT NULL,
    PRIMARY KEY (run_id, room_id)
);
