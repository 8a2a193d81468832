-- Legal hold, in force below every caller. A room under hold refuses deletion; an event of a person under hold is copied
-- before it is deleted; an event under either is copied before its content is rewritten, and never replaced by another.
-- Copies never overwrite one another: NOT EXISTS instead of OR IGNORE, because an outer OR REPLACE would take precedence
-- over the latter.

CREATE TRIGGER governance_hold_events_refuse BEFORE DELETE ON events
WHEN EXISTS (SELECT 1 FROM governance_holds WHERE released_ms IS NULL AND kind = 'room' AND subject = OLD.room_id)
BEGIN
    SELECT RAISE(ABORT, 'legal hold: the room is under hold, and nothing in it can be deleted');
END;

CREATE TRIGGER governance_hold_json_refuse BEFORE DELETE ON event_json
WHEN EXISTS (SELECT 1 FROM governance_holds WHERE released_ms IS NULL AND kind = 'room' AND subject = OLD.room_id)
BEGIN
    SELECT RAISE(ABORT, 'legal hold: the room is under hold, and nothing in it can be deleted');
END;

CREATE TRIGGER governance_hold_events_copy BEFORE DELETE ON events
WHEN EXISTS (SELECT 1 FROM governance_holds WHERE released_ms IS NULL AND kind = 'user' AND subject = OLD.sender)
BEGIN
    INSERT INTO governance_held_events (
        event_id, room_id, sender, type, state_key, origin_server_ts, received_ts, stream_ordering,
        topological_ordering, format_version, internal_metadata, json, cause, copied_ms
    )
    SELECT
        OLD.event_id, OLD.room_id, OLD.sender, OLD.type, OLD.state_key, OLD.origin_server_ts, OLD.received_ts,
        OLD.stream_ordering, OLD.topological_ordering, j.format_version, j.internal_metadata, j.json, 'deleted',
        CAST(strftime('%s', 'now') AS INTEGER) * 1000
    FROM (SELECT 1) LEFT JOIN event_json AS j ON j.event_id = OLD.event_id
    WHERE NOT EXISTS (SELECT 1 FROM governance_held_events WHERE event_id = OLD.event_id);
END;

CREATE TRIGGER governance_hold_json_copy BEFORE DELETE ON event_json
WHEN EXISTS (SELECT 1 FROM governance_holds WHERE released_ms IS NULL AND kind = 'user')
BEGIN
    INSERT INTO governance_held_events (
        event_id, room_id, sender, type, state_key, origin_server_ts, received_ts, stream_ordering,
        topological_ordering, format_version, internal_metadata, json, cause, copied_ms
    )
    SELECT
        OLD.event_id, OLD.room_id, e.sender, e.type, e.state_key, e.origin_server_ts, e.received_ts,
        e.stream_ordering, e.topological_ordering, OLD.format_version, OLD.internal_metadata, OLD.json, 'deleted',
        CAST(strftime('%s', 'now') AS INTEGER) * 1000
    FROM events AS e
    WHERE
        e.event_id = OLD.event_id
        AND EXISTS (SELECT 1 FROM governance_holds WHERE released_ms IS NULL AND kind = 'user' AND subject = e.sender)
        AND NOT EXISTS (SELECT 1 FROM governance_held_events WHERE event_id = OLD.event_id);
END;

CREATE TRIGGER governance_hold_json_rewrite BEFORE UPDATE OF json ON event_json
WHEN OLD.json IS NOT NEW.json AND EXISTS (SELECT 1 FROM governance_holds WHERE released_ms IS NULL)
BEGIN
    INSERT INTO governance_held_events (
        event_id, room_id, sender, type, state_key, origin_server_ts, received_ts, stream_ordering,
        topological_ordering, format_version, internal_metadata, json, cause, copied_ms
    )
    SELECT
        OLD.event_id, OLD.room_id, e.sender, e.type, e.state_key, e.origin_server_ts, e.received_ts,
        e.stream_ordering, e.topological_ordering, OLD.format_version, OLD.internal_metadata, OLD.json, 'rewritten',
        CAST(strftime('%s', 'now') AS INTEGER) * 1000
    FROM (SELECT 1) LEFT JOIN events AS e ON e.event_id = OLD.event_id
    WHERE
        EXISTS (
            SELECT 1 FROM governance_holds
            WHERE
                released_ms IS NULL
                AND ((kind = 'room' AND subject = OLD.room_id) OR (kind = 'user' AND subject = e.sender))
        )
        AND NOT EXISTS (SELECT 1 FROM governance_held_events WHERE event_id = OLD.event_id);
END;

-- What tells whether an event is under hold cannot be changed while it is.
CREATE TRIGGER governance_hold_events_identity BEFORE UPDATE OF event_id, room_id, sender, type ON events
WHEN
    (
        OLD.event_id IS NOT NEW.event_id OR OLD.room_id IS NOT NEW.room_id
        OR OLD.sender IS NOT NEW.sender OR OLD.type IS NOT NEW.type
    )
    AND EXISTS (
        SELECT 1 FROM governance_holds
        WHERE
            released_ms IS NULL
            AND ((kind = 'room' AND subject = OLD.room_id) OR (kind = 'user' AND subject = OLD.sender))
    )
BEGIN
    SELECT RAISE(ABORT, 'legal hold: whose and where an event under hold is cannot be changed');
END;

CREATE TRIGGER governance_hold_json_identity BEFORE UPDATE OF event_id, room_id ON event_json
WHEN
    (OLD.event_id IS NOT NEW.event_id OR OLD.room_id IS NOT NEW.room_id)
    AND EXISTS (
        SELECT 1 FROM governance_holds
        WHERE
            released_ms IS NULL
            AND (
                (kind = 'room' AND subject = OLD.room_id)
                OR (kind = 'user' AND subject = (SELECT sender FROM events WHERE event_id = OLD.event_id))
            )
    )
BEGIN
    SELECT RAISE(ABORT, 'legal hold: whose and where an event under hold is cannot be changed');
END;

-- REPLACE, on insertion or on update, takes away the row that is in its way, by any unique key or by its rowid, and fires no
-- trigger of deletion. The first condition is all that an insertion costs where nothing is under hold; NEW.rowid is -1
-- where the insertion leaves it to SQLite.
CREATE TRIGGER governance_hold_events_replace BEFORE INSERT ON events
WHEN
    EXISTS (SELECT 1 FROM governance_holds WHERE released_ms IS NULL)
    AND EXISTS (
        SELECT 1 FROM events AS e
        JOIN governance_holds AS h
            ON
                h.released_ms IS NULL
                AND ((h.kind = 'room' AND h.subject = e.room_id) OR (h.kind = 'user' AND h.subject = e.sender))
        WHERE e.event_id = NEW.event_id OR e.stream_ordering = NEW.stream_ordering
    )
BEGIN
    SELECT RAISE(ABORT, 'legal hold: an event under hold is never replaced');
END;

CREATE TRIGGER governance_hold_json_replace BEFORE INSERT ON event_json
WHEN
    EXISTS (SELECT 1 FROM governance_holds WHERE released_ms IS NULL)
    AND EXISTS (
        SELECT 1 FROM event_json AS j
        LEFT JOIN events AS e ON e.event_id = j.event_id
        JOIN governance_holds AS h
            ON
                h.released_ms IS NULL
                AND ((h.kind = 'room' AND h.subject = j.room_id) OR (h.kind = 'user' AND h.subject = e.sender))
        WHERE j.event_id = NEW.event_id OR (j.rowid = NEW.rowid AND NEW.rowid <> -1)
    )
BEGIN
    SELECT RAISE(ABORT, 'legal hold: an event under hold is never replaced');
END;

CREATE TRIGGER governance_hold_events_replace_moved BEFORE UPDATE ON events
WHEN
    (OLD.rowid IS NOT NEW.rowid OR OLD.event_id IS NOT NEW.event_id)
    AND EXISTS (SELECT 1 FROM governance_holds WHERE released_ms IS NULL)
    AND EXISTS (
        SELECT 1 FROM events AS e
        JOIN governance_holds AS h
            ON
                h.released_ms IS NULL
                AND ((h.kind = 'room' AND h.subject = e.room_id) OR (h.kind = 'user' AND h.subject = e.sender))
        WHERE (e.event_id = NEW.event_id OR e.rowid = NEW.rowid) AND e.rowid <> OLD.rowid
    )
BEGIN
    SELECT RAISE(ABORT, 'legal hold: an event under hold is never replaced');
END;

CREATE TRIGGER governance_hold_json_replace_moved BEFORE UPDATE ON event_json
WHEN
    (OLD.rowid IS NOT NEW.rowid OR OLD.event_id IS NOT NEW.event_id)
    AND EXISTS (SELECT 1 FROM governance_holds WHERE released_ms IS NULL)
    AND EXISTS (
        SELECT 1 FROM event_json AS j
        LEFT JOIN events AS e ON e.event_id = j.event_id
        JOIN governance_holds AS h
            ON
                h.released_ms IS NULL
                AND ((h.kind = 'room' AND h.subject = j.room_id) OR (h.kind = 'user' AND h.subject = e.sender))
        WHERE (j.event_id = NEW.event_id OR j.rowid = NEW.rowid) AND j.rowid <> OLD.rowid
    )
BEGIN
    SELECT RAISE(ABORT, 'legal hold: an event under hold is never replaced');
END;

-- The evidence and the holds themselves.
CREATE TRIGGER governance_hold_copies_keep BEFORE DELETE ON governance_held_events
WHEN EXISTS (
    SELECT 1 FROM governance_holds
    WHERE
        released_ms IS NULL AND ((kind = 'room' AND subject = OLD.room_id) OR (kind = 'user' AND subject = OLD.sender))
)
BEGIN
    SELECT RAISE(ABORT, 'legal hold: the copy is still under hold');
END;

CREATE TRIGGER governance_hold_copies_frozen BEFORE UPDATE ON governance_held_events
BEGIN
    SELECT RAISE(ABORT, 'legal hold: a copy is never changed');
END;

CREATE TRIGGER governance_hold_copies_replace BEFORE INSERT ON governance_held_events
WHEN EXISTS (
    SELECT 1 FROM governance_held_events
    WHERE event_id = NEW.event_id OR (rowid = NEW.rowid AND NEW.rowid <> -1)
)
BEGIN
    SELECT RAISE(ABORT, 'legal hold: a copy is never replaced');
END;

CREATE TRIGGER governance_hold_keep BEFORE DELETE ON governance_holds
BEGIN
    SELECT RAISE(ABORT, 'legal hold: a hold is released, never deleted');
END;

CREATE TRIGGER governance_hold_frozen
BEFORE UPDATE OF hold_id, kind, subject, case_id, owner, reason, created_ms ON governance_holds
BEGIN
    SELECT RAISE(ABORT, 'legal hold: a hold is never changed but by its release');
END;

CREATE TRIGGER governance_hold_replace BEFORE INSERT ON governance_holds
WHEN EXISTS (
    SELECT 1 FROM governance_holds WHERE hold_id = NEW.hold_id OR (rowid = NEW.rowid AND NEW.rowid <> -1)
)
BEGIN
    SELECT RAISE(ABORT, 'legal hold: a hold is never replaced');
END;

CREATE TRIGGER governance_hold_replace_moved BEFORE UPDATE ON governance_holds WHEN OLD.rowid IS NOT NEW.rowid
BEGIN
    SELECT RAISE(ABORT, 'legal hold: a hold is never replaced');
END;

CREATE TRIGGER governance_hold_released
BEFORE UPDATE OF released_ms, released_by, release_reason ON governance_holds WHEN OLD.released_ms IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'legal hold: a hold is released once, for good');
END;
