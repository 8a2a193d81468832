-- What searches are quick by, beside the index of each condition. Only ever inserted into and read; all of it can be made
-- again from the entries.

-- Which of 4,096 neighbouring entries may be of a given time: clocks differ and jump, so order and time are nearly the same
-- and no more. Entries of the newest, still growing span stand in none.
CREATE TABLE governance_audit_spans (
    n BIGINT NOT NULL PRIMARY KEY,
    from_ms BIGINT NOT NULL,
    to_ms BIGINT NOT NULL
);

-- Which of 256 neighbouring entries have a word in what is no personal field. All of a row is in its key, so that a search
-- reads nothing else.
CREATE TABLE governance_audit_words (
    -- The first 8 bytes of the word's SHA-256.
    word BIGINT NOT NULL,
    n BIGINT NOT NULL,
    -- Which of the 256: one byte for each, or one bit for each where that is shorter.
    places $BYTES NOT NULL,
    PRIMARY KEY (word, n, places)
);

-- By spans instead.
DROP INDEX governance_audit_entries_time;

-- Two conditions that are each met often and together hardly ever. Nearly all entries are messages, and successes.
CREATE INDEX governance_audit_entries_actor_action ON governance_audit_entries (actor, action, idx)
    WHERE actor IS NOT NULL AND action <> 'message.send';
CREATE INDEX governance_audit_entries_room_action ON governance_audit_entries (room_id, action, idx)
    WHERE room_id IS NOT NULL AND action <> 'message.send';
CREATE INDEX governance_audit_entries_actor_outcome ON governance_audit_entries (actor, outcome, idx)
    WHERE actor IS NOT NULL AND outcome <> 'success';
CREATE INDEX governance_audit_entries_action_outcome ON governance_audit_entries (action, outcome, idx)
    WHERE outcome <> 'success';
