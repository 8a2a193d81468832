-- Legal hold, in force below every caller. A room under hold refuses deletion; an event of a person under hold is copied
-- as it is deleted; an event under either is copied before its content is rewritten. The first copy stays.
--
-- Deletions are looked at once a statement, by transition tables: without any hold the look costs two reads of tiny tables,
-- however many rows go. Before it looks, a function shares a lock on the state of the holds. Whoever creates a hold waits
-- for that lock, and a transaction that began before the hold was created fails to get it in REPEATABLE READ and sees
-- the hold in READ COMMITTED: no deletion passes a hold that was acknowledged.

CREATE FUNCTION governance_hold_any() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM governance_hold_state FOR SHARE;
    RETURN EXISTS (SELECT 1 FROM governance_holds WHERE released_ms IS NULL);
END $$;

CREATE FUNCTION governance_hold_on_room(room text) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT 1 FROM governance_holds WHERE released_ms IS NULL AND kind = 'room' AND subject = room)
$$;

CREATE FUNCTION governance_hold_on_user(person text) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT 1 FROM governance_holds WHERE released_ms IS NULL AND kind = 'user' AND subject = person)
$$;

CREATE FUNCTION governance_hold_now_ms() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint
$$;

CREATE FUNCTION governance_hold_events_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT governance_hold_any() THEN
        RETURN NULL;
    END IF;
    IF EXISTS (
        SELECT 1 FROM governance_holds AS h
        WHERE h.released_ms IS NULL AND h.kind = 'room' AND EXISTS (SELECT 1 FROM gone WHERE gone.room_id = h.subject)
    ) THEN
        RAISE EXCEPTION 'legal hold: the room is under hold, and nothing in it can be deleted';
    END IF;
    INSERT INTO governance_held_events (
        event_id, room_id, sender, type, state_key, origin_server_ts, received_ts, stream_ordering,
        topological_ordering, format_version, internal_metadata, json, cause, copied_ms
    )
    SELECT
        e.event_id, e.room_id, e.sender, e.type, e.state_key, e.origin_server_ts, e.received_ts, e.stream_ordering,
        e.topological_ordering, j.format_version, j.internal_metadata, j.json, 'deleted', governance_hold_now_ms()
    FROM gone AS e LEFT JOIN event_json AS j ON j.event_id = e.event_id
    WHERE e.sender IN (SELECT subject FROM governance_holds WHERE released_ms IS NULL AND kind = 'user')
    ON CONFLICT (event_id) DO NOTHING;
    RETURN NULL;
END $$;

CREATE FUNCTION governance_hold_json_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT governance_hold_any() THEN
        RETURN NULL;
    END IF;
    IF EXISTS (
        SELECT 1 FROM governance_holds AS h
        WHERE h.released_ms IS NULL AND h.kind = 'room' AND EXISTS (SELECT 1 FROM gone WHERE gone.room_id = h.subject)
    ) THEN
        RAISE EXCEPTION 'legal hold: the room is under hold, and nothing in it can be deleted';
    END IF;
    INSERT INTO governance_held_events (
        event_id, room_id, sender, type, state_key, origin_server_ts, received_ts, stream_ordering,
        topological_ordering, format_version, internal_metadata, json, cause, copied_ms
    )
    SELECT
        j.event_id, j.room_id, e.sender, e.type, e.state_key, e.origin_server_ts, e.received_ts, e.stream_ordering,
        e.topological_ordering, j.format_version, j.internal_metadata, j.json, 'deleted', governance_hold_now_ms()
    FROM gone AS j JOIN events AS e ON e.event_id = j.event_id
    WHERE e.sender IN (SELECT subject FROM governance_holds WHERE released_ms IS NULL AND kind = 'user')
    ON CONFLICT (event_id) DO NOTHING;
    RETURN NULL;
END $$;

CREATE FUNCTION governance_hold_json_rewritten() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT governance_hold_any() THEN
        RETURN NEW;
    END IF;
    INSERT INTO governance_held_events (
        event_id, room_id, sender, type, state_key, origin_server_ts, received_ts, stream_ordering,
        topological_ordering, format_version, internal_metadata, json, cause, copied_ms
    )
    SELECT
        OLD.event_id, OLD.room_id, e.sender, e.type, e.state_key, e.origin_server_ts, e.received_ts, e.stream_ordering,
        e.topological_ordering, OLD.format_version, OLD.internal_metadata, OLD.json, 'rewritten',
        governance_hold_now_ms()
    FROM (SELECT 1) AS one LEFT JOIN events AS e ON e.event_id = OLD.event_id
    WHERE governance_hold_on_room(OLD.room_id) OR governance_hold_on_user(e.sender)
    ON CONFLICT (event_id) DO NOTHING;
    RETURN NEW;
END $$;

CREATE FUNCTION governance_hold_events_identity() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF governance_hold_any() AND (governance_hold_on_room(OLD.room_id) OR governance_hold_on_user(OLD.sender)) THEN
        RAISE EXCEPTION 'legal hold: whose and where an event under hold is cannot be changed';
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION governance_hold_json_identity() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF governance_hold_any() AND (
        governance_hold_on_room(OLD.room_id)
        OR governance_hold_on_user((SELECT sender FROM events WHERE event_id = OLD.event_id))
    ) THEN
        RAISE EXCEPTION 'legal hold: whose and where an event under hold is cannot be changed';
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION governance_hold_copies_keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF governance_hold_any() AND (governance_hold_on_room(OLD.room_id) OR governance_hold_on_user(OLD.sender)) THEN
        RAISE EXCEPTION 'legal hold: the copy is still under hold';
    END IF;
    RETURN OLD;
END $$;

CREATE FUNCTION governance_hold_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'legal hold: %', TG_ARGV[0];
END $$;

CREATE FUNCTION governance_hold_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF governance_hold_any() THEN
        RAISE EXCEPTION 'legal hold: a table with events under hold cannot be emptied';
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER governance_hold_events_delete AFTER DELETE ON events
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION governance_hold_events_deleted();
CREATE TRIGGER governance_hold_json_delete AFTER DELETE ON event_json
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION governance_hold_json_deleted();
CREATE TRIGGER governance_hold_json_rewrite BEFORE UPDATE OF json ON event_json FOR EACH ROW
    WHEN (OLD.json IS DISTINCT FROM NEW.json) EXECUTE FUNCTION governance_hold_json_rewritten();
CREATE TRIGGER governance_hold_events_identity BEFORE UPDATE OF event_id, room_id, sender, type ON events FOR EACH ROW
    WHEN ((OLD.event_id, OLD.room_id, OLD.sender, OLD.type)
        IS DISTINCT FROM (NEW.event_id, NEW.room_id, NEW.sender, NEW.type))
    EXECUTE FUNCTION governance_hold_events_identity();
CREATE TRIGGER governance_hold_json_identity BEFORE UPDATE OF event_id, room_id ON event_json FOR EACH ROW
    WHEN ((OLD.event_id, OLD.room_id) IS DISTINCT FROM (NEW.event_id, NEW.room_id))
    EXECUTE FUNCTION governance_hold_json_identity();

CREATE TRIGGER governance_hold_copies_keep BEFORE DELETE ON governance_held_events FOR EACH ROW
    EXECUTE FUNCTION governance_hold_copies_keep();
CREATE TRIGGER governance_hold_copies_frozen BEFORE UPDATE ON governance_held_events FOR EACH ROW
    EXECUTE FUNCTION governance_hold_refuse('a copy is never changed');
CREATE TRIGGER governance_hold_keep BEFORE DELETE ON governance_holds FOR EACH ROW
    EXECUTE FUNCTION governance_hold_refuse('a hold is released, never deleted');
CREATE TRIGGER governance_hold_frozen
    BEFORE UPDATE OF hold_id, kind, subject, case_id, owner, reason, created_ms ON governance_holds FOR EACH ROW
    EXECUTE FUNCTION governance_hold_refuse('a hold is never changed but by its release');
CREATE TRIGGER governance_hold_released
    BEFORE UPDATE OF released_ms, released_by, release_reason ON governance_holds FOR EACH ROW
    WHEN (OLD.released_ms IS NOT NULL)
    EXECUTE FUNCTION governance_hold_refuse('a hold is released once, for good');

CREATE TRIGGER governance_hold_events_truncate BEFORE TRUNCATE ON events EXECUTE FUNCTION governance_hold_truncate();
CREATE TRIGGER governance_hold_json_truncate BEFORE TRUNCATE ON event_json EXECUTE FUNCTION governance_hold_truncate();
CREATE TRIGGER governance_hold_copies_truncate BEFORE TRUNCATE ON governance_held_events
    EXECUTE FUNCTION governance_hold_truncate();
CREATE TRIGGER governance_hold_holds_truncate BEFORE TRUNCATE ON governance_holds
    EXECUTE FUNCTION governance_hold_truncate();

-- A temporary table of a caller must not stand in for the holds.
DO $$
DECLARE
    each regprocedure;
BEGIN
    FOR each IN
        SELECT oid::regprocedure FROM pg_proc
        WHERE proname LIKE 'governance\_hold\_%' AND pronamespace = current_schema()::regnamespace
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = pg_catalog, %I, pg_temp', each, current_schema());
    END LOOP;
END $$;
