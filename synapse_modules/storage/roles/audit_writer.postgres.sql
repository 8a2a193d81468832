-- The role of every process of the homeserver in the audit log's own database: it adds and reads, and changes nothing.
REVOKE ALL ON
    governance_schema,
    governance_audit_records,
    governance_audit_entries,
    governance_audit_heads,
    governance_audit_checkpoints,
    governance_audit_tiles,
    governance_audit_cursors,
    governance_audit_keys,
    governance_audit_key_notes,
    governance_audit_problems,
    governance_audit_anchors,
    governance_audit_discontinuities,
    governance_audit_prunings,
    governance_audit_floors,
    governance_audit_pruned_keys,
    governance_audit_spans,
    governance_audit_words
FROM $ROLE;

GRANT SELECT ON
    governance_schema,
    governance_audit_prunings,
    governance_audit_floors,
    governance_audit_pruned_keys
TO $ROLE;

GRANT SELECT, INSERT ON
    governance_audit_records,
    governance_audit_entries,
    governance_audit_heads,
    governance_audit_checkpoints,
    governance_audit_tiles,
    governance_audit_cursors,
    governance_audit_keys,
    governance_audit_key_notes,
    governance_audit_problems,
    governance_audit_anchors,
    governance_audit_discontinuities,
    governance_audit_spans,
    governance_audit_words
TO $ROLE;
