"""Our errors as Matrix clients know errors: status, ``errcode``, ``error`` and, from policies, ``governance``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse.module_api.errors import Codes, SynapseError

from synapse_modules.core.errors import Conflict, Denied, Elsewhere, InvalidInput, NotFound, Unavailable

if TYPE_CHECKING:
    from synapse_modules.core.errors import GovernanceError

__all__ = ["bad_json", "matrix_error", "method_not_allowed", "not_json", "too_large", "unrecognised"]


def matrix_error(error: GovernanceError) -> SynapseError:
    """The answer to a client whose call ended in ``error``.

    What is wrong with a client's own input is told in full. What is wrong inside is told in general, because it may
    name hosts and databases; the log has the rest.
    """
    match error:
        case InvalidInput():
            return SynapseError(400, error.sentence(), Codes.INVALID_PARAM)
        case NotFound():
            return SynapseError(404, error.sentence(), Codes.NOT_FOUND)
        case Conflict():
            return SynapseError(409, error.sentence(), Codes.UNKNOWN)
        case Denied():
            governance = {"rule": error.rule, "permission": error.permission}
            return SynapseError(403, error.sentence(), Codes.FORBIDDEN, {"governance": governance})
        case Unavailable():
            general = "The server cannot do this just now. Nothing was done; please try again."
            return SynapseError(503, error.sentence() if isinstance(error, Elsewhere) else general)
        case _:
            return SynapseError(500, "Internal server error")


def bad_json(error: InvalidInput) -> SynapseError:
    """The body is JSON, but not what the route takes."""
    return SynapseError(400, error.sentence(), Codes.BAD_JSON)


def not_json(problem: str) -> SynapseError:
    """The body is not JSON."""
    return SynapseError(400, f"The body is not JSON: {problem}", Codes.NOT_JSON)


def too_large(limit: int) -> SynapseError:
    """The body is longer than the route takes."""
    return SynapseError(413, f"The body is larger than {limit} bytes", Codes.TOO_LARGE)


def unrecognised() -> SynapseError:
    """There is no such route."""
    return SynapseError(404, "Unrecognised request", Codes.UNRECOGNIZED)


def method_not_allowed(allowed: str) -> SynapseError:
    """The path exists, for other methods."""
    return SynapseError(405, f"Use {allowed} here", Codes.UNRECOGNIZED, headers={"Allow": allowed})
