"""How far each writer's events have been followed, and which ids between have not been seen yet.

Synapse gives every event an id from one sequence, *before* it stores the event, and tells for each process that writes
events (a *writer*) the position up to which all its events are committed. A *lane* is one writer in one of the two
streams, live events or imported history (:data:`~synapse_modules.core.ports.BACKFILL`), and has its own cursor. Ids of
imported history count downwards: here they are without their sign, so that every lane counts upwards.

A position can be wrong in one case. When a writer was killed and starts again, it claims everything up to the last id
of the sequence, while its old connection may still be committing a lower one. So ids that nobody had stored when a
cursor passed them are kept as *gaps*, and looked for until every transaction that was open then has ended.

A writer that is seen for the first time may have written ever since following began, long before others were followed
beyond it. Such a *newcomer* is read once every transaction that was open when it was seen has ended: what it had
written by then is all there, and the years of ids that belong to nobody make no gaps.

A position may also fall behind a cursor: by a little when the process that follows starts again, by more when the
database was set back to an older state, which gives the same ids to other events. The cursor then goes back too. What
is read twice is recorded once, by its key.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from synapse_modules.core.ports import BACKFILL

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = ["MAX_GAPS", "Cursors", "Gap", "Lane", "Newcomer", "Span", "bounded", "holes"]

MAX_GAPS = 32
"""With more of them, those of a stream become one *coarse* gap, which holds ids that were seen, too."""


@dataclass(frozen=True, slots=True)
class Lane:
    """One writer's part of one stream."""

    name: str

    @property
    def backwards(self) -> bool:
        """Whether its ids count downwards in Synapse's tables."""
        return self.name.startswith(BACKFILL)

    @property
    def writer(self) -> str:
        """The name of the process, as it stands in Synapse's tables."""
        return self.name.removeprefix(BACKFILL)

    @property
    def stream(self) -> str:
        """Which of the two streams it belongs to."""
        return BACKFILL if self.backwards else ""


class Gap(NamedTuple):
    """Ids ``first`` to ``last`` that were not there when a cursor passed them.

    Attributes:
        stream: which stream, see :attr:`Lane.stream`.
        horizon: when every transaction with a lower number has ended, they never will be.
        coarse: some of the ids were there. To be looked through once, at the end.
    """

    stream: str
    first: int
    last: int
    horizon: int
    coarse: bool = False


class Newcomer(NamedTuple):
    """A lane that was seen for the first time, and has not been read up to where it was then.

    Attributes:
        upto: its position then. horizon: as of a gap; 0 as long as nobody has looked for it.
    """

    upto: int
    horizon: int = 0


class Span(NamedTuple):
    """What is to be read of a lane: ids after ``after``, up to and with ``upto``."""

    lane: Lane
    after: int
    upto: int


@dataclass(frozen=True, slots=True)
class Cursors:
    """How far events have been followed.

    Attributes:
        begin: by stream, where following began: nothing older is ever recorded.
        reached: by lane, the id up to which everything was looked at.
        gaps: what is still to be looked for.
        newcomers: by lane, those that are.
    """

    begin: Mapping[str, int]
    reached: Mapping[str, int]
    gaps: tuple[Gap, ...] = ()
    newcomers: Mapping[str, Newcomer] = field(default_factory=dict)

    @classmethod
    def starting_at(cls, positions: Mapping[str, int]) -> Cursors:
        """Follow what comes after ``positions``."""
        reached = _unsigned(positions)
        return cls(_tops(reached), reached)

    @classmethod
    def parse(cls, text: str) -> Cursors:
        """The cursors that :meth:`text` has written."""
        state = json.loads(text)
        newcomers = {name: Newcomer(*newcomer) for name, newcomer in state["newcomers"].items()}
        return cls(dict(state["begin"]), dict(state["reached"]), tuple(Gap(*gap) for gap in state["gaps"]), newcomers)

    def text(self) -> str:
        """As JSON, to be stored."""
        state = {"begin": self.begin, "reached": self.reached, "gaps": self.gaps, "newcomers": self.newcomers}
        return json.dumps(state, sort_keys=True, separators=(",", ":"))

    def moved_to(self, positions: Mapping[str, int]) -> Cursors:
        """With a cursor for each lane that has a position, none beyond it.

        A writer that is new begins where following began, as a newcomer. One that has no position is configured no
        longer: it stays where it is, or goes on while there is something of it.
        """
        known = _unsigned(positions)
        reached, newcomers = dict(self.reached), dict(self.newcomers)
        for name, position in known.items():
            if name in newcomers or name not in reached:
                newcomer = newcomers.get(name, Newcomer(position))
                newcomers[name] = newcomer._replace(upto=min(newcomer.upto, position))
            cursor = reached.get(name, self.begin.get(Lane(name).stream, position))
            reached[name] = min(cursor, position)
        return Cursors(self.begin, reached, tuple(_passed(self.gaps, _tops(reached))), _unread(newcomers, reached))

    def read_to(self, reached: Mapping[str, int], gaps: Iterable[Gap]) -> Cursors:
        """With cursors at ``reached`` and with ``gaps``, without overlaps and not too many."""
        return Cursors(self.begin, reached, bounded(gaps), _unread(self.newcomers, reached))

    def followed(self, stream: str) -> int:
        """The id up to which every lane of ``stream`` was followed."""
        return min((reached for name, reached in self.reached.items() if Lane(name).stream == stream), default=0)

    def looks_for(self, stream: str, number: int) -> bool:
        """Whether the id ``number`` is one that is still to be looked for."""
        return any(gap.stream == stream and gap.first <= number <= gap.last for gap in self.gaps)

    def fallen_behind(self, former: Cursors) -> list[str]:
        """The lanes whose cursors are behind those of ``former``."""
        return [name for name, cursor in former.reached.items() if self.reached[name] < cursor]

    def behind(self, positions: Mapping[str, int]) -> list[Span]:
        """What is to be read up to ``positions``; :meth:`moved_to` comes first."""
        known = _unsigned(positions)
        tops = _tops(known)
        spans = []
        for name, after in self.reached.items():
            lane = Lane(name)
            upto = known.get(name, tops.get(lane.stream, after))
            if upto > after:
                spans.append(Span(lane, after, upto))
        return spans


def holes(after: int, upto: int, present: Iterable[int]) -> Iterator[tuple[int, int]]:
    """The ranges of ids after ``after``, up to and with ``upto``, that are not ``present``, which ascends."""
    for number in present:
        if number > after + 1:
            yield after + 1, number - 1
        after = number
    if after < upto:
        yield after + 1, upto


def bounded(gaps: Iterable[Gap]) -> tuple[Gap, ...]:
    """The gaps without overlaps; where there are too many, one coarse gap for each stream."""
    apart: list[Gap] = []
    for gap in sorted(gaps):
        overlaps = apart and apart[-1].stream == gap.stream and gap.first <= apart[-1].last
        apart.append(_union([apart.pop(), gap]) if overlaps else gap)
    if len(apart) <= MAX_GAPS:
        return tuple(apart)
    streams = sorted({gap.stream for gap in apart})
    return tuple(_union([gap for gap in apart if gap.stream == stream])._replace(coarse=True) for stream in streams)


def _union(gaps: Sequence[Gap]) -> Gap:
    first, last = min(gap.first for gap in gaps), max(gap.last for gap in gaps)
    horizon, coarse = max(gap.horizon for gap in gaps), any(gap.coarse for gap in gaps)
    return Gap(gaps[0].stream, first, last, horizon, coarse)


def _passed(gaps: Iterable[Gap], tops: Mapping[str, int]) -> Iterator[Gap]:
    """The part of ``gaps`` that some cursor has passed."""
    for gap in gaps:
        last = min(gap.last, tops.get(gap.stream, 0))
        if gap.first <= last:
            yield gap._replace(last=last)


def _unread(newcomers: Mapping[str, Newcomer], reached: Mapping[str, int]) -> dict[str, Newcomer]:
    """Those of ``newcomers`` that have not been read up to where they were."""
    return {name: newcomer for name, newcomer in newcomers.items() if reached[name] < newcomer.upto}


def _unsigned(positions: Mapping[str, int]) -> dict[str, int]:
    return {name: abs(position) for name, position in positions.items()}


def _tops(positions: Mapping[str, int]) -> dict[str, int]:
    """By stream, the highest position of all."""
    tops: dict[str, int] = {}
    for name, position in positions.items():
        stream = Lane(name).stream
        tops[stream] = max(position, tops.get(stream, 0))
    return tops
