"""Searches by time and by text, of logs large enough to have spans and blocks, on both engines."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

from synapse_modules.audit import store
from synapse_modules.audit.search import EntryFilter, Page, find, read_out
from synapse_modules.audit.search_index import BLOCK, SPAN, SearchIndex, covered, has_words, words_of
from synapse_modules.core.actions import Action, Outcome
from synapse_modules.core.errors import InvalidInput
from synapse_modules.core.ports import AuditEvent
from tests.support.audit_log import execute, rows
from tests.support.filled_log import FilledLog

if TYPE_CHECKING:
    from collections.abc import Callable

    from synapse_modules.storage.database import Database

SIZE = 2 * SPAN + 3 * BLOCK + 50
FIRST_MS = 1_700_000_000_000
OUTLIER, STRAGGLER = 300, SPAN + 10


def event(number: int) -> AuditEvent:
    """An event a second after the one before, by clocks that differ by up to ten and that have jumped twice."""
    jump = {OUTLIER: 10**12, STRAGGLER: -(10**12)}.get(number, 0)
    return AuditEvent(
        Action.MESSAGE_SEND if number % 3 else Action.ACCESS_DENIED,
        Outcome.SUCCESS if number % 3 else Outcome.DENIED,
        actor=f"@user{number % 7}:synapse.test",
        target="@Secret:synapse.test",
        room_id=f"!room{number % 5}:synapse.test",
        rule=f"rule-{number % 1000}",
        reason="Größe of the STRASSE" if number % 100 == 0 else None,
        details={"event_id": f"$event{number}", "before": {"list": ["Deep", number]}},
        occurred_ms=FIRST_MS + 1000 * number + (number * 7919) % 10_000 - 5000 + jump,
    )


EVENTS = [event(number) for number in range(SIZE)]


@pytest.fixture
def log(empty_database: Database) -> FilledLog:
    log = FilledLog(empty_database)
    log.fill(EVENTS)
    cover(log)
    return log


def cover(log: FilledLog) -> None:
    """Let the search index cover all that it can."""
    index = SearchIndex(log.database)
    while index.run_cycle():
        pass


def page(log: FilledLog, limit: int = SIZE, enough: Callable[[], bool] = lambda: False, **wanted: Any) -> Page:
    wish = EntryFilter(**wanted)
    return log.database.run(lambda transaction: find(transaction, wish, limit, enough), read_only=True)


def indexes(log: FilledLog, limit: int = SIZE, **wanted: Any) -> list[int]:
    return [entry.index for entry in page(log, limit, **wanted).entries]


def exported(log: FilledLog, **wanted: Any) -> list[int]:
    wish = EntryFilter(**wanted)
    return [row[0] for row in log.database.run(lambda transaction: read_out(transaction, wish, SIZE))]


def expected(**wanted: Any) -> list[int]:
    """What ``wanted`` finds, found by looking at every event."""
    wish = EntryFilter(**wanted)
    texts = [" ".join([each.rule or "", each.reason or "", str(each.details["event_id"]), "Deep"]) for each in EVENTS]
    found = [
        number
        for number, each in enumerate(EVENTS)
        if (wish.since_ms is None or (each.occurred_ms or 0) >= wish.since_ms)
        and (wish.until_ms is None or (each.occurred_ms or 0) < wish.until_ms)
        and wish.actor in {None, each.actor}
        and wish.action in {None, each.action}
        and set(wish.words) <= set(words_of(texts[number]))
        and wish.begin <= number < (SIZE if wish.end is None else wish.end)
    ]
    return found[::-1]


SECOND = 1000
CASES: list[dict[str, Any]] = [
    {"since_ms": FIRST_MS + 100 * SECOND, "until_ms": FIRST_MS + 120 * SECOND},
    {"since_ms": FIRST_MS + (SPAN - 3) * SECOND, "until_ms": FIRST_MS + (SPAN + 3) * SECOND},
    {"since_ms": FIRST_MS + (SIZE - 20) * SECOND},
    {"until_ms": FIRST_MS + 9 * SECOND},
    {"until_ms": FIRST_MS - 10**6},
    {"since_ms": FIRST_MS + 10**11},
    {"since_ms": FIRST_MS + 200 * SECOND, "until_ms": FIRST_MS + 5000 * SECOND, "actor": "@user3:synapse.test"},
    {"since_ms": FIRST_MS + 4000 * SECOND, "begin": SPAN - 7, "end": SPAN + 7},
    {"text": "$event4711"},
    {"text": f"event{SIZE - 1}"},
    {"text": "strasse größe"},
    {"text": "STRAẞE OF"},
    {"text": "deep"},
    {"text": "rule 77"},
    {"text": "rule 77 event77"},
    {"text": "event1 event2"},
    {"text": "nowhere"},
    {"text": "rule 77", "actor": "@user0:synapse.test"},
    {"text": "deep", "action": Action.ACCESS_DENIED, "begin": 255, "end": 515},
    {"text": "rule 5", "since_ms": FIRST_MS + 1000 * SECOND, "until_ms": FIRST_MS + 4100 * SECOND},
    {"text": "rule 5", "begin": 6 * BLOCK - 1, "end": SPAN + BLOCK + 1},
]


def test_a_search_finds_what_looking_at_every_entry_finds(log: FilledLog) -> None:
    for wanted in CASES:
        assert indexes(log, **wanted) == expected(**wanted), wanted
        assert exported(log, **wanted) == expected(**wanted)[::-1], wanted


def test_it_finds_the_same_before_anything_is_covered_and_after_each_part(empty_database: Database) -> None:
    log = FilledLog(empty_database)
    log.fill(EVENTS)
    index = SearchIndex(log.database)
    parts = 0
    while parts == 0 or index.run_cycle():
        parts += 1
        for wanted in (CASES[1], CASES[8], CASES[13]):
            assert indexes(log, **wanted) == expected(**wanted)
    assert parts > 2
    assert log.database.run(covered) == SIZE // BLOCK * BLOCK


def test_pages_by_text_and_time_follow_one_another_without_gap_or_repetition(log: FilledLog) -> None:
    for wanted in ({"text": "rule"}, {"until_ms": FIRST_MS + 6000 * SECOND}, {"text": "of", "actor": EVENTS[0].actor}):
        found: list[int] = []
        end: int | None = SIZE
        while end:
            some = page(log, 500, end=end, **wanted)
            found += [entry.index for entry in some.entries]
            end = some.reached
        assert found == expected(**wanted)


def test_a_search_that_takes_long_ends_early_and_says_how_far_it_has_come(log: FilledLog) -> None:
    wanted: dict[str, Any] = {"text": "deep rule 77"}
    found: list[int] = []
    end: int | None = SIZE
    pages = 0
    while end:
        some = page(log, enough=lambda: True, end=end, **wanted)
        assert some.reached < end
        found += [entry.index for entry in some.entries]
        end, pages = some.reached, pages + 1
    assert found == expected(**wanted)
    assert pages > 2


def test_what_is_erased_stays_searchable_by_text_and_was_never_found_by_a_name(log: FilledLog) -> None:
    assert indexes(log, text="secret") == []
    execute(log.database, "UPDATE governance_audit_records SET disclosures = '{}', actor = NULL, target = NULL")
    execute(log.database, "UPDATE governance_audit_entries SET actor = NULL, target = NULL, address = NULL")
    assert indexes(log, text="rule 77") == expected(text="rule 77")


def test_a_log_that_was_pruned_is_covered_and_searched_from_what_is_left(empty_database: Database) -> None:
    log = FilledLog(empty_database)
    log.fill(EVENTS)
    kept = SPAN + 100
    execute(log.database, "DELETE FROM governance_audit_records WHERE wseq < ?", (kept,))
    execute(log.database, "DELETE FROM governance_audit_entries WHERE idx < ?", (kept,))
    cover(log)
    for wanted in ({"text": "rule 77"}, {"since_ms": FIRST_MS, "until_ms": FIRST_MS + 4500 * SECOND}):
        assert indexes(log, **wanted) == [number for number in expected(**wanted) if number >= kept]


def test_of_two_processes_that_cover_the_same_one_loses(log: FilledLog, monkeypatch: pytest.MonkeyPatch) -> None:
    before = rows(log.database, "SELECT COUNT(*) FROM governance_audit_words")
    monkeypatch.setattr(store, "cursor", lambda *_: (0, None))  # as it was before the other one had covered anything
    assert SearchIndex(log.database).run_cycle() == 0
    assert rows(log.database, "SELECT COUNT(*) FROM governance_audit_words") == before


def test_every_word_of_a_block_is_kept_once(log: FilledLog) -> None:
    kept = rows(log.database, "SELECT COUNT(*) FROM governance_audit_words WHERE n = 0")
    words = set(itertools.chain(*(words_of(f"{each.rule} {each.details['event_id']}") for each in EVENTS[:BLOCK])))
    assert kept == [(len(words | set(words_of("Größe of the STRASSE Deep"))),)]
    longest = rows(log.database, "SELECT MAX(LENGTH(places)) FROM governance_audit_words")
    assert longest == [(BLOCK // 8,)]


@pytest.mark.parametrize("text", ["", "  ", "?!", " ".join(f"w{number}" for number in range(17))])
def test_a_text_without_words_or_with_too_many_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="one to 16 words"):
        EntryFilter(text=text)


def test_words_are_whole_and_names_of_details_are_none() -> None:
    leaf = b'{"action":"a.b","details":{"key":"value-1","list":[{"x":"Y"},2,null,true]},"reason":"Some Thing"}'
    assert has_words(leaf, ["value", "1", "y", "some", "thing"])
    for word in ("key", "val", "2", "list", "action", "b"):
        assert not has_words(leaf, [word])
