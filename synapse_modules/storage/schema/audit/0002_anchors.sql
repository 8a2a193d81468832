-- Checkpoints that anchors outside this database have taken, and what each gave for it: a witness its cosignature, a time
-- stamping authority its answer, an HTTP endpoint the body of its answer. Only ever inserted into and read.
CREATE TABLE governance_audit_anchors (
    anchor TEXT NOT NULL,
    size BIGINT NOT NULL,
    kind TEXT NOT NULL,
    -- The signed checkpoint as it was sent, so that a receipt proves something by itself.
    note TEXT NOT NULL,
    anchored_ms BIGINT NOT NULL,
    receipt $BYTES NOT NULL,
    PRIMARY KEY (anchor, size)
);

CREATE INDEX governance_audit_anchors_size ON governance_audit_anchors (size, kind);

-- Where the log went on under another origin, because a checkpoint outside contradicted it, and that checkpoint.
CREATE TABLE governance_audit_discontinuities (
    origin TEXT NOT NULL PRIMARY KEY,
    previous TEXT NOT NULL UNIQUE,
    -- The newest checkpoint that the log still had: what comes after it is new.
    size BIGINT NOT NULL,
    root $BYTES NOT NULL,
    anchor TEXT NOT NULL,
    evidence TEXT NOT NULL,
    reason TEXT NOT NULL,
    recorded_ms BIGINT NOT NULL
);
