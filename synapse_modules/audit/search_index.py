"""What makes searches by time and by text quick, kept up to date behind the sequencer.

By *time*: for every 4,096 entries their earliest and latest time. By *text*: for every 256 entries the hash of each
word in them, and which of them have it. Both say only where to look, and what is found there is compared with what was
asked for. Entries that are not covered yet are looked through one by one.

Words are what :data:`TEXT_FIELDS` and the texts in ``details`` consist of. Nothing of it is personal, so that no
erasure has to look for it here.
"""

from __future__ import annotations

import functools
import itertools
import json
import operator
import re
from collections import defaultdict
from hashlib import sha256
from typing import TYPE_CHECKING

from synapse_modules.audit import store
from synapse_modules.storage.statements import StatementHome

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from synapse_modules.core.ports import Transaction
    from synapse_modules.storage.database import Database

__all__ = [
    "BLOCK",
    "SPAN",
    "TEXT_FIELDS",
    "SearchIndex",
    "covered",
    "has_words",
    "spans_in",
    "word_hashes",
    "word_places",
    "words_of",
]

BLOCK = 256
"""Entries that share a row for each of their words."""
SPAN = 4096
"""Entries that share a row for their times."""
TEXT_FIELDS = ("case", "reason", "rule")
"""The fields of a leaf that are searched by text, beside its details."""

_BLOCKS_AT_ONCE = 4
_FIRST_BLOCKS = 16
_MOST_BLOCKS = 1024
_BITMAP_BYTES = BLOCK // 8
_ROWS_PER_STATEMENT = 500
_STREAM = "search"
_WORD = re.compile(r"\w+")

_SQL = StatementHome("audit.search_index", database="audit")

_LEAVES = _SQL.add(
    "leaves with their indexes",
    """
    SELECT entry.idx, record.leaf FROM governance_audit_entries AS entry
    JOIN governance_audit_records AS record ON record.writer = entry.writer AND record.wseq = entry.wseq
    WHERE entry.idx >= ? AND entry.idx < ? ORDER BY entry.idx
    """,
)
_INSERT_WORDS = _SQL.add("keep words", "INSERT INTO governance_audit_words (word, n, places) VALUES (?, ?, ?)")
_INSERT_SPANS = _SQL.add(
    "keep the times of entries",
    f"""
    INSERT INTO governance_audit_spans (n, from_ms, to_ms)
    SELECT idx / {SPAN}, MIN(time_ms), MAX(time_ms) FROM governance_audit_entries WHERE idx >= ? AND idx < ?
    GROUP BY idx / {SPAN}
    """,
)
_SPANS = _SQL.add(
    "runs of neighbouring entries that may be of a time",
    """
    SELECT MIN(n), MAX(n) FROM (
        SELECT n, n - ROW_NUMBER() OVER (ORDER BY n) AS run FROM governance_audit_spans
        WHERE to_ms >= ? AND from_ms < ? AND n >= ? AND n < ?
    ) AS spans
    GROUP BY run ORDER BY MIN(n) DESC
    """,
)


def _blocks_sql(words: int) -> str:
    """The newest blocks that have all of so many words, each with the places of each word."""
    names = [f"word{number}" for number in range(words)]
    joined = "".join(f" JOIN governance_audit_words AS {name} ON {name}.n = word0.n" for name in names[1:])
    wanted = "".join(f"{name}.word = ? AND " for name in names)
    return (
        f"SELECT word0.n, {', '.join(f'{name}.places' for name in names)} FROM governance_audit_words AS word0{joined}"
        f" WHERE {wanted}word0.n >= ? AND word0.n < ? ORDER BY word0.n DESC LIMIT ?"
    )


_SQL.add("entries that have a word", _blocks_sql(1))
_SQL.add("entries that have all words", _blocks_sql(3))


class SearchIndex:
    """Covers what the sequencer has given an index.

    Args:
        database: the audit log's.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def run_cycle(self) -> int:
        """Cover what is new, at most a thousand entries, since sealing goes first; returns how many."""
        try:
            return self._database.run(_advance)
        except Exception as error:
            if store.is_conflict(error):
                return 0  # another process covers the same
            raise


def _advance(transaction: Transaction) -> int:
    generation, state = store.cursor(transaction, _STREAM)
    head = store.head(transaction)
    begin = int(state or 0)
    end = min((head.size if head else 0) // BLOCK, begin + _BLOCKS_AT_ONCE)
    if end <= begin:
        return 0
    store.advance_cursor(transaction, _STREAM, generation, str(end))
    _insert_words(transaction, sorted(_words(transaction, begin * BLOCK, end * BLOCK)))
    spans = (begin * BLOCK // SPAN * SPAN, end * BLOCK // SPAN * SPAN)
    transaction.execute(_INSERT_SPANS.text(transaction.dialect), spans)
    return (end - begin) * BLOCK


def _words(transaction: Transaction, begin: int, end: int) -> Iterator[tuple[int, int, bytes]]:
    """The hash of each word, in which block it is, and where in that."""
    for n, block in itertools.groupby(_LEAVES.rows(transaction, (begin, end)), lambda row: row[0] // BLOCK):
        places: defaultdict[int, list[int]] = defaultdict(list)
        for index, leaf in block:
            for word in _leaf_words(leaf):
                places[_hash(word)].append(index % BLOCK)
        for hashed, found in places.items():
            yield hashed, n, _pack(found)


def _insert_words(transaction: Transaction, rows: Sequence[tuple[int, int, bytes]]) -> None:
    statement = _INSERT_WORDS.text(transaction.dialect)
    for start in range(0, len(rows), _ROWS_PER_STATEMENT):
        page = rows[start : start + _ROWS_PER_STATEMENT]
        transaction.execute(statement + ", (?, ?, ?)" * (len(page) - 1), [value for row in page for value in row])


# ------------------------------------------------------------------------------------------------------------- reading


def covered(transaction: Transaction) -> int:
    """The index up to which, not included, entries are covered."""
    return int(store.cursor(transaction, _STREAM)[1] or 0) * BLOCK


def spans_in(transaction: Transaction, since_ms: int, until_ms: int, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Ranges of the indexes ``begin`` up to ``end`` outside of which no entry is of that time, the newest first."""
    known = max(begin, min(end, covered(transaction) // SPAN * SPAN))
    if known < end:
        yield known, end
    bounds = (since_ms, until_ms, begin // SPAN, -(-known // SPAN))
    for first, last in _SPANS.rows(transaction, bounds):
        yield max(begin, first * SPAN), min(known, (last + 1) * SPAN)


def word_places(transaction: Transaction, words: Sequence[str], begin: int, end: int) -> Iterator[list[int]]:
    """The covered indexes from ``begin`` up to ``end`` that have all ``words``, the newest first, some at a time."""
    hashes, stop, most = [_hash(word) for word in words], -(-end // BLOCK), _FIRST_BLOCKS
    while True:
        transaction.execute(_blocks_sql(len(words)), (*hashes, begin // BLOCK, stop, most))
        blocks = transaction.fetchall()
        found = [n * BLOCK + place for n, *places in blocks for place in _common(places)]
        yield [index for index in found if begin <= index < end]
        if len(blocks) < most:
            return
        stop, most = blocks[-1][0], min(2 * most, _MOST_BLOCKS)


def _common(packed: Iterable[bytes]) -> list[int]:
    """The places that stand in each of ``packed``, the highest first."""
    bits = functools.reduce(operator.and_, map(_bits, packed))
    places = []
    while bits:
        places.append(bits.bit_length() - 1)
        bits ^= 1 << places[-1]
    return places


def _pack(places: Sequence[int]) -> bytes:
    if len(places) < _BITMAP_BYTES:
        return bytes(places)
    return sum(1 << place for place in set(places)).to_bytes(_BITMAP_BYTES)


def _bits(packed: bytes) -> int:
    """A number with the bit of each place."""
    if len(packed) < _BITMAP_BYTES:
        return sum(1 << place for place in set(packed))
    return int.from_bytes(packed)


# --------------------------------------------------------------------------------------------------------------- words


def words_of(text: str) -> list[str]:
    """The words of ``text``, each once: letters, digits and low lines, whatever their case."""
    return list(dict.fromkeys(_WORD.findall(text.casefold())))


def word_hashes(leaves: Iterable[bytes]) -> set[int]:
    """By what the words of ``leaves`` are kept; pruning takes them out."""
    return {_hash(word) for leaf in leaves for word in _leaf_words(leaf)}


def has_words(leaf: bytes, words: Iterable[str]) -> bool:
    """Whether a leaf has all of ``words``."""
    return _leaf_words(leaf).issuperset(words)


def _leaf_words(leaf: bytes) -> set[str]:
    """The words of what is searched by text; of the details all texts, but not the names of their parts."""
    document = json.loads(leaf.decode())
    texts = [document[name] for name in TEXT_FIELDS if name in document]
    left = [document["details"]]
    while left:
        value = left.pop()
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, dict):
            left += value.values()
        elif isinstance(value, list):
            left += value
    return set(_WORD.findall(" ".join(texts).casefold()))


def _hash(word: str) -> int:
    return int.from_bytes(sha256(word.encode()).digest()[:8], "big", signed=True)
