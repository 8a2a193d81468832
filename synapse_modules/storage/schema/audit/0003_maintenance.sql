-- What erasing and pruning leave behind. On PostgreSQL a role of its own, which serves nothing else, may write these
-- tables, take personal values out of records and delete pruned ones; the role that records and orders may only read them.

-- How far the log was pruned: entries with an index below the largest size are gone, their hashes stay in the tiles.
CREATE TABLE governance_audit_prunings (
    size BIGINT NOT NULL PRIMARY KEY,
    -- The root of the tree of all pruned entries.
    root $BYTES NOT NULL,
    pruned_ms BIGINT NOT NULL
);

-- Writers whose first records were pruned and that may go on: the number of the first one after, and when each began.
CREATE TABLE governance_audit_floors (
    writer TEXT NOT NULL PRIMARY KEY,
    wseq BIGINT NOT NULL,
    began_ms BIGINT NOT NULL
);

-- Keys of pruned records that may still be met again: the first 16 bytes of the SHA-256 of each.
CREATE TABLE governance_audit_pruned_keys (
    key_hash $BYTES NOT NULL PRIMARY KEY
);

-- Which checkpoint was the newest at a given time.
CREATE INDEX governance_audit_checkpoints_created ON governance_audit_checkpoints (created_ms);
