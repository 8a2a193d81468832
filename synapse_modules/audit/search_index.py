"""What makes searches by time and by text quick, kept up to date behind the sequencer.

By *time*: for every 4,096 entries their earliest and latest time. By *text*: for every 256 entries the hashes of all
words in them. Both say only where to look, and what is found there is compared with what was asked for: neither can
make a search wrong, only slow. Entries that are not covered yet are looked through one by one.

Words are what :data:`TEXT_FIELDS` and the texts in ``details`` consist of. Nothing of it is personal, so that no
erasure has to look for it here.
"""

from __future__ import annotations

import itertools
import json
import re
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
    "block_words",
    "covered",
    "has_words",
    "spans_in",
    "word_blocks",
    "words_of",
]

BLOCK = 256
"""Entries that share their words."""
SPAN = 4096
"""Entries that share their times."""
TEXT_FIELDS = ("case", "reason", "rule")
"""The fields of a leaf that are searched by text, beside its details."""

_BLOCKS_AT_ONCE = 16
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
_INSERT_WORDS = _SQL.add("keep words", "INSERT INTO governance_audit_words (word, n) VALUES (?, ?)")
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
_BLOCKS = "SELECT n FROM governance_audit_words WHERE word = ? AND n >= ? AND n < ?"
_AND_WORD = " AND EXISTS (SELECT 1 FROM governance_audit_words AS other WHERE other.word = ? AND other.n = {name}.n)"


def _blocks_sql(words: int) -> str:
    more = _AND_WORD.format(name="governance_audit_words") * (words - 1)
    return f"{_BLOCKS}{more} ORDER BY n DESC LIMIT ?"


_SQL.add("entries that may have a word", _blocks_sql(1))
_SQL.add("entries that may have all words", _blocks_sql(3))


class SearchIndex:
    """Covers what the sequencer has given an index.

    Args:
        database: the audit log's.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def run_cycle(self) -> int:
        """Cover what is new, at most some thousands of entries; returns how many."""
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
    _insert_words(transaction, sorted(block_words(transaction, begin * BLOCK, end * BLOCK)))
    spans = (begin * BLOCK // SPAN * SPAN, end * BLOCK // SPAN * SPAN)
    transaction.execute(_INSERT_SPANS.text(transaction.dialect), spans)
    store.advance_cursor(transaction, _STREAM, generation, str(end))
    return (end - begin) * BLOCK


def block_words(transaction: Transaction, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """The hash of each word of the entries ``begin`` up to ``end``, and in which block it is."""
    for n, block in itertools.groupby(_LEAVES.rows(transaction, (begin, end)), lambda row: row[0] // BLOCK):
        texts = " ".join(text for _, leaf in block for text in _leaf_texts(leaf))
        for word in set(_WORD.findall(texts.casefold())):
            yield _hash(word), n


def _insert_words(transaction: Transaction, rows: Sequence[tuple[int, int]]) -> None:
    statement = _INSERT_WORDS.text(transaction.dialect)
    for start in range(0, len(rows), _ROWS_PER_STATEMENT):
        page = rows[start : start + _ROWS_PER_STATEMENT]
        transaction.execute(statement + ", (?, ?)" * (len(page) - 1), [value for row in page for value in row])


# ------------------------------------------------------------------------------------------------------------- reading


def covered(transaction: Transaction) -> int:
    """The index up to which, not included, entries are covered."""
    return int(store.cursor(transaction, _STREAM)[1] or 0) * BLOCK


def spans_in(transaction: Transaction, since_ms: int, until_ms: int, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Ranges of the indexes ``begin`` up to ``end`` outside of which no entry is of that time, the newest first."""
    known = min(end, covered(transaction) // SPAN * SPAN)
    if max(begin, known) < end:
        yield max(begin, known), end
    bounds = (since_ms, until_ms, begin // SPAN, -(-known // SPAN))
    for first, last in _SPANS.rows(transaction, bounds):
        yield max(begin, first * SPAN), min(known, (last + 1) * SPAN)


def word_blocks(transaction: Transaction, words: Sequence[str], begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Ranges of the indexes ``begin`` up to ``end`` outside of which no entry has all ``words``, the newest first."""
    known = min(end, covered(transaction))
    for stop in range(end, max(begin, known), -BLOCK):
        yield max(begin, known, stop - BLOCK), stop
    hashes = [_hash(word) for word in words]
    stop = -(-known // BLOCK)
    while True:
        bounds = (hashes[0], begin // BLOCK, stop, *hashes[1:], BLOCK)
        transaction.execute(_blocks_sql(len(words)), bounds)
        blocks = transaction.fetchall()
        for (n,) in blocks:
            yield max(begin, n * BLOCK), min(known, (n + 1) * BLOCK)
        if len(blocks) < BLOCK:
            return
        stop = blocks[-1][0]


# --------------------------------------------------------------------------------------------------------------- words


def words_of(text: str) -> list[str]:
    """The words of ``text``, each once: letters, digits and low lines, whatever their case."""
    return list(dict.fromkeys(_WORD.findall(text.casefold())))


def has_words(leaf: bytes, words: Iterable[str]) -> bool:
    """Whether a leaf has all of ``words``."""
    return set(words) <= set(words_of(" ".join(_leaf_texts(leaf))))


def _leaf_texts(leaf: bytes) -> list[str]:
    """What is searched by text; of the details all texts, but not the names of their parts."""
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
    return texts


def _hash(word: str) -> int:
    return int.from_bytes(sha256(word.encode()).digest()[:8], "big", signed=True)
