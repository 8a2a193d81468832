-- Answers to mutations that a client named by an `Idempotency-Key`, for a day, so that a repeat is answered and not done.
CREATE TABLE governance_idempotency (
    user_id TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    -- SHA-256 of method, path and body: the same key for another request is a mistake.
    fingerprint TEXT NOT NULL,
    begun_ms BIGINT NOT NULL,
    -- NULL while the first attempt goes on, and for ever if its process died.
    answer TEXT,
    PRIMARY KEY (user_id, idempotency_key)
);

CREATE INDEX governance_idempotency_begun ON governance_idempotency (begun_ms);
