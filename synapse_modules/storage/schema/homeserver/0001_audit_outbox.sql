-- Audit records of changes to this database, written in the transaction that makes the change. The background process
-- copies each into the audit log and then deletes it, so that this table is all but empty.
CREATE TABLE governance_audit_outbox (
    id $IDENTITY,
    record_id TEXT NOT NULL UNIQUE,
    leaf $BYTES NOT NULL,
    disclosures TEXT NOT NULL,
    dedupe_key TEXT
);
