-- The audit log. Only ever inserted into and read: a database role with INSERT and SELECT on these tables is enough.

-- Every record, durable as soon as it stands here. Each writer numbers its records from 0 without gaps, and commits them
-- in that order, so that what is visible of a writer is always the beginning of what it will have written.
CREATE TABLE governance_audit_records (
    writer TEXT NOT NULL,
    wseq BIGINT NOT NULL,
    time_ms BIGINT NOT NULL,
    action TEXT NOT NULL,
    outcome TEXT NOT NULL,
    actor TEXT,
    target TEXT,
    room_id TEXT,
    address TEXT,
    leaf $BYTES NOT NULL,
    disclosures TEXT NOT NULL,
    -- The same key is recorded once only.
    dedupe_key TEXT UNIQUE,
    -- 1 for the last record of a writer: none may follow.
    closes INTEGER NOT NULL,
    PRIMARY KEY (writer, wseq)
);

-- Which writers there are, and which have ended.
CREATE INDEX governance_audit_records_first ON governance_audit_records (time_ms) WHERE wseq = 0;
CREATE INDEX governance_audit_records_closing ON governance_audit_records (writer) WHERE closes = 1;

-- The order of the log: which record has which index, and what it is searched by.
CREATE TABLE governance_audit_entries (
    idx BIGINT NOT NULL PRIMARY KEY,
    writer TEXT NOT NULL,
    wseq BIGINT NOT NULL,
    time_ms BIGINT NOT NULL,
    action TEXT NOT NULL,
    outcome TEXT NOT NULL,
    actor TEXT,
    target TEXT,
    room_id TEXT,
    address TEXT,
    UNIQUE (writer, wseq)
);

CREATE INDEX governance_audit_entries_time ON governance_audit_entries (time_ms, idx);
CREATE INDEX governance_audit_entries_action ON governance_audit_entries (action, idx);
CREATE INDEX governance_audit_entries_outcome ON governance_audit_entries (outcome, idx) WHERE outcome <> 'success';
CREATE INDEX governance_audit_entries_actor ON governance_audit_entries (actor, idx) WHERE actor IS NOT NULL;
CREATE INDEX governance_audit_entries_target ON governance_audit_entries (target, idx) WHERE target IS NOT NULL;
CREATE INDEX governance_audit_entries_room ON governance_audit_entries (room_id, idx) WHERE room_id IS NOT NULL;
CREATE INDEX governance_audit_entries_address ON governance_audit_entries (address, idx) WHERE address IS NOT NULL;

-- The head of the log, moved by compare-and-swap: whoever inserts the next one must name the present one, and only one can.
CREATE TABLE governance_audit_heads (
    size BIGINT NOT NULL PRIMARY KEY,
    previous BIGINT NOT NULL UNIQUE,
    root $BYTES NOT NULL,
    created_ms BIGINT NOT NULL
);

-- Heads that were recomputed from what is stored, and then signed.
CREATE TABLE governance_audit_checkpoints (
    size BIGINT NOT NULL PRIMARY KEY,
    root $BYTES NOT NULL,
    note TEXT NOT NULL,
    created_ms BIGINT NOT NULL
);

-- Full hash tiles as C2SP's tlog-tiles cuts them: 256 hashes of one level, and the hash of the subtree they make.
CREATE TABLE governance_audit_tiles (
    level INTEGER NOT NULL,
    n BIGINT NOT NULL,
    root $BYTES NOT NULL,
    hashes $BYTES NOT NULL,
    PRIMARY KEY (level, n)
);

-- How far each source outside this database has been followed; the highest generation counts.
CREATE TABLE governance_audit_cursors (
    stream TEXT NOT NULL,
    generation BIGINT NOT NULL,
    state TEXT NOT NULL,
    PRIMARY KEY (stream, generation)
);

-- The log's verifier keys, and since when each signs.
CREATE TABLE governance_audit_keys (
    verifier_key TEXT NOT NULL PRIMARY KEY,
    from_ms BIGINT NOT NULL
);

-- What is wrong with the log, as the process that orders it sees it: the newest row of each source counts, and none is
-- wrong where its text is NULL.
CREATE TABLE governance_audit_problems (
    source TEXT NOT NULL,
    number BIGINT NOT NULL,
    noticed_ms BIGINT NOT NULL,
    problem TEXT,
    PRIMARY KEY (source, number)
);
