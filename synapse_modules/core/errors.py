"""One family of errors. Each says where, what was found, what was expected and what to do."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Conflict", "Denied", "Elsewhere", "GovernanceError", "InvalidInput", "NotFound", "Unavailable", "nearest"]


class GovernanceError(Exception):
    """Base of every error the product raises on purpose.

    Attributes:
        where: the file, key path, route or object that is wrong; empty when there is none.
        problem: what is wrong, one sentence without a full stop.
        advice: what the reader can do about it; empty when nothing can be done.
    """

    def __init__(self, problem: str, *, where: str = "", advice: str = "") -> None:
        self.where = where
        self.problem = problem
        self.advice = advice
        super().__init__(self.sentence())

    def sentence(self) -> str:
        """The whole error as one line."""
        text = f"{self.where}: {self.problem}" if self.where else self.problem
        return f"{text}. {self.advice}" if self.advice else text


class InvalidInput(GovernanceError, ValueError):
    """Input that can never be right: refused as a whole, nothing half applied.

    A ``ValueError`` too, so that one raised inside a pydantic validator comes out with the path of the field.

    Args:
        where: path of the mistake, such as ``roles.help_desk.allow[2]``.
        found: what stands there, shown with ``repr``.
        expected: what would be right, in words.
        suggestion: the nearest valid name, when there is one.
    """

    def __init__(self, where: str, found: object, expected: str, *, suggestion: str | None = None) -> None:
        self.found = found
        self.expected = expected
        self.suggestion = suggestion
        advice = f"Did you mean {suggestion!r}?" if suggestion else ""
        super().__init__(f"found {_short(found)}, expected {expected}", where=where, advice=advice)


class NotFound(GovernanceError):
    """The named thing does not exist, or the caller may not know that it does."""


class Conflict(GovernanceError):
    """Somebody else changed the thing meanwhile: read it again, look at the difference, then try again (HTTP 409)."""


class Unavailable(GovernanceError):
    """Something the operation depends on does not answer. Callers that guard something must then deny."""


class Elsewhere(Unavailable):
    """This process cannot do it, but another one of the same homeserver can: the error says which."""


class Denied(GovernanceError):
    """A policy said no.

    Attributes:
        rule: the rule that decided, as :class:`synapse_modules.core.ports.Decision` names it.
        permission: the permission that was asked for.
    """

    def __init__(self, problem: str, *, rule: str, permission: str) -> None:
        self.rule = rule
        self.permission = permission
        super().__init__(problem)


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name most like ``name``, or None when nothing is near."""
    matches = difflib.get_close_matches(name, [str(each) for each in valid], n=1, cutoff=0.6)
    return str(matches[0]) if matches else None


def _short(value: object, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
