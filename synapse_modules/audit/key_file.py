"""The file with the key that signs checkpoints: one line, readable by its owner alone.

Beside it lies a mark once the key has signed: where a key has signed and the log is empty, that is not its log.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from synapse_modules.audit.checkpoint import SigningKey
from synapse_modules.core.errors import InvalidInput
from synapse_modules.core.files import sync_folder

if TYPE_CHECKING:
    from pathlib import Path

    from synapse_modules.core.clock import RandomBytes

__all__ = ["generate_key", "load_key", "mark_used", "was_used"]

_MARK = ".signed"
_MARK_TEXT = "The key beside this file has signed an audit log. Keep both together: it must not sign another one.\n"
_OWNER_ONLY = 0o600
_OTHERS = 0o077


def load_key(path: Path, origin: str) -> SigningKey:
    """The key in the file ``path``.

    Raises:
        InvalidInput: there is none, it can be read by others, it is malformed, or it is the key of another log than
            ``origin``. The error never shows it.
    """
    try:
        with path.open(encoding="utf-8") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(str(path), _cause(error), "a key file that this process can read") from None
    if mode & _OTHERS:
        raise InvalidInput(str(path), f"mode {mode:04o}", f"mode {_OWNER_ONLY:04o}: others must not read the key")
    try:
        key = SigningKey.parse(text)
    except InvalidInput as error:
        raise InvalidInput(str(path), error.found, error.expected) from None
    if key.verifier.name != origin:
        raise InvalidInput(str(path), f"the key of {key.verifier.name!r}", f"the key of this log, {origin!r}")
    return key


def generate_key(path: Path, origin: str, random: RandomBytes) -> SigningKey:
    """Make a key file, unless somebody else makes it at the same time; the key that then stands in it.

    Raises:
        InvalidInput: it cannot be made there, or as :func:`load_key`.
    """
    key = SigningKey.generate(origin, random)
    draft = path.with_name(f".{path.name}.{random(8).hex()}")
    try:
        _write(draft, key.private_text() + "\n")
        try:
            os.link(draft, path)  # never replaces a file, and shows it only when it is whole
        except FileExistsError:
            return load_key(path, origin)
        finally:
            draft.unlink()
        sync_folder(path.parent)
    except OSError as error:
        raise InvalidInput(str(path), _cause(error), "a path where this process can make its key file") from None
    return key


def mark_used(path: Path) -> None:
    """Leave a mark beside the key file that it has signed; nothing happens where there is one.

    Raises:
        OSError: it cannot be made there.
    """
    mark = _mark(path)
    if not mark.exists():
        with contextlib.suppress(FileExistsError):
            _write(mark, _MARK_TEXT)
            sync_folder(path.parent)


def was_used(path: Path) -> bool:
    """Whether the key file has a mark that it has signed."""
    return _mark(path).exists()


def _mark(path: Path) -> Path:
    return path.with_name(path.name + _MARK)


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)


def _cause(error: OSError | UnicodeDecodeError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "something that is no text"
