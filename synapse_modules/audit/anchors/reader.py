"""What anchors read of the log: proofs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse_modules.audit import store
from synapse_modules.audit.anchors.model import AnchorFailed
from synapse_modules.audit.proof import consistency_proof

if TYPE_CHECKING:
    from synapse_modules.storage.database import Database

__all__ = ["StoredLog"]


class StoredLog:
    """The log in its database; a :class:`~synapse_modules.audit.anchors.model.LogReader`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def consistency(self, old: int, new: int) -> list[bytes]:
        """The proof that the tree of ``old`` leaves is a prefix of that of ``new`` leaves.

        Raises:
            AnchorFailed: a part of the tree is gone.
        """
        try:
            return self._database.run(
                lambda transaction: consistency_proof(store.nodes(transaction, new), old, new), read_only=True
            )
        except IndexError:
            raise AnchorFailed(f"the log has no whole tree of {new} leaves any more") from None
