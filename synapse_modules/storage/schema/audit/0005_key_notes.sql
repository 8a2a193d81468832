-- How the log came by its keys and gave them up: signed statements, in their order. Only ever inserted into and read.
CREATE TABLE governance_audit_key_notes (
    number BIGINT NOT NULL PRIMARY KEY,
    note TEXT NOT NULL,
    recorded_ms BIGINT NOT NULL
);
