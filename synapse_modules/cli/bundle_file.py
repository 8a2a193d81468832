"""A bundle on its way into a file: whole and under its name at the end, or not there at all."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from typing import TYPE_CHECKING

from synapse_modules.audit.bundle import MAX_LINE_BYTES, Manifest
from synapse_modules.audit.checkpoint import VerifierKey
from synapse_modules.audit.known_keys import KnownKeys
from synapse_modules.audit.verify import VerifiedBundle, verify_bundle
from synapse_modules.core.config import parse_document
from synapse_modules.core.errors import GovernanceError, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import BinaryIO

__all__ = ["Arriving", "arriving", "require_free"]


class Arriving:
    """A file that has no name yet.

    Attributes:
        path: where it is for now. file: open for writing.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self.file = file

    def key(self, known: KnownKeys) -> VerifierKey:
        """The key that the bundle says is its log's; of several the one that is known, else the newest.

        Raises:
            GovernanceError: it does not begin as a bundle does.
        """
        self.file.flush()
        with self.path.open("rb") as file:
            line = file.readline(MAX_LINE_BYTES)
        try:
            manifest = parse_document(Manifest, json.loads(line)["manifest"], "manifest")
            keys = [VerifierKey.parse(text) for text in manifest.keys]
        except (ValueError, TypeError, KeyError) as error:
            problem = error.sentence() if isinstance(error, InvalidInput) else "it does not begin as one"
            raise GovernanceError(f"the server sent no bundle: {problem}") from None
        return next((key for key in keys if key in known), keys[0])

    def verify(self, key: VerifierKey, progress: Callable[[int], object]) -> VerifiedBundle:
        """Check the whole bundle.

        Raises:
            GovernanceError: the first thing that is wrong.
        """
        self.file.flush()
        with self.path.open("rb") as file:
            return verify_bundle(file, KnownKeys([key]), progress)

    def size(self) -> int:
        """Bytes so far."""
        self.file.flush()
        return self.path.stat().st_size


def require_free(path: Path, *, force: bool) -> None:
    """Check that ``path`` may be written.

    Raises:
        GovernanceError: something is there already and ``force`` does not say that it may go, or it is no place for a
            file.
    """
    if path.is_dir():
        raise GovernanceError("is a folder", where=str(path))
    if path.exists() and not force:
        raise GovernanceError("exists already", where=str(path), advice="--force replaces it")


@contextlib.contextmanager
def arriving(path: Path, *, force: bool) -> Iterator[Arriving]:
    """A file beside ``path`` that takes its name when the block ends well, and is gone when it does not.

    Readable by its owner alone: what is exported names people.

    Raises:
        GovernanceError: it cannot be written, the disk is full, or ``path`` came into being meanwhile.
    """
    require_free(path, force=force)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            yield Arriving(temporary, file)
            file.flush()
            os.fsync(file.fileno())
        require_free(path, force=force)
        temporary.replace(path)
    except OSError as error:
        raise GovernanceError(f"cannot be written: {error.strerror}", where=str(path)) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
