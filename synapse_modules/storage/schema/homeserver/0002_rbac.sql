-- The access policy, normalised so that a small change writes few rows. Lists are JSON arrays of text.

-- One row. Whoever applies a policy raises `version` from the one they have seen; everybody else polls it.
CREATE TABLE governance_rbac_state (
    singleton BIGINT NOT NULL PRIMARY KEY CHECK (singleton = 1),
    version BIGINT NOT NULL,
    next_number BIGINT NOT NULL,
    applied_ms BIGINT NOT NULL,
    applied_by TEXT,
    room_classes TEXT NOT NULL
);
INSERT INTO governance_rbac_state (singleton, version, next_number, applied_ms, applied_by, room_classes)
VALUES (1, 0, 1, 0, NULL, '[]');

CREATE TABLE governance_rbac_groups (
    name TEXT NOT NULL PRIMARY KEY,
    description TEXT NOT NULL,
    inner_groups TEXT NOT NULL
);

CREATE TABLE governance_rbac_members (
    group_name TEXT NOT NULL,
    user_id TEXT NOT NULL,
    PRIMARY KEY (group_name, user_id)
);

CREATE TABLE governance_rbac_roles (
    name TEXT NOT NULL PRIMARY KEY,
    description TEXT NOT NULL,
    inherits TEXT NOT NULL,
    allows TEXT NOT NULL,
    denies TEXT NOT NULL
);

CREATE TABLE governance_rbac_bindings (
    number BIGINT NOT NULL PRIMARY KEY,
    role TEXT NOT NULL,
    subject_kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    scope TEXT NOT NULL,
    not_before_ms BIGINT,
    expires_ms BIGINT,
    justification TEXT NOT NULL,
    case_id TEXT NOT NULL,
    granted_ms BIGINT NOT NULL,
    granted_by TEXT,
    UNIQUE (role, subject_kind, subject, scope)
);
