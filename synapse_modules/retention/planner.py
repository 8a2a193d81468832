"""Works out what a run would delete, from the rules, the room classes, the holds and Synapse's tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse_modules.core.errors import Conflict, InvalidInput
from synapse_modules.homeserver.internals import cutoff_at
from synapse_modules.homeserver.rooms import room_facts_after
from synapse_modules.retention.due import due_messages
from synapse_modules.retention.holds import copies_without_hold, holds_on_rooms
from synapse_modules.retention.precedence import decide
from synapse_modules.retention.rules import check_classes
from synapse_modules.retention.simulation import RoomPlan, Simulation, plan_room

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from synapse_modules.core.ports import RoomClassSource, RoomFacts, Transaction
    from synapse_modules.core.room_classes import RoomClassifier
    from synapse_modules.homeserver.history import Cutoff
    from synapse_modules.homeserver.public import Homeserver
    from synapse_modules.retention.precedence import Verdict
    from synapse_modules.retention.rules import Rules
    from synapse_modules.retention.store import StoredRules

__all__ = ["Planner"]

_PAGE = 100


class Planner:
    """Makes simulations; a run follows one.

    Args:
        homeserver: whose rooms. classes: the room classes in force.
    """

    def __init__(self, homeserver: Homeserver, classes: RoomClassSource) -> None:
        self._homeserver = homeserver
        self._classes = classes

    async def plan(self, stored: StoredRules, now_ms: int, *, sized: bool = True) -> Simulation:
        """What a run at ``now_ms`` under these rules would do, room by room; without ``sized`` sizes are 0.

        Raises:
            Conflict: the access policy has no such class any more as one of the rules is for.
            Unavailable: the room classes are not known just now.
        """
        classifier = await self._classifier(stored.rules)
        cutoffs = await self._cutoffs(stored.rules, now_ms)
        plans: list[RoomPlan] = []
        last = ""
        while page := await self._page(last):
            last = page[-1].room_id
            verdicts = await self._verdicts(page, classifier, stored.rules)
            plans += await self._due(verdicts, cutoffs, now_ms, sized=sized)
        copies = await self._homeserver.database.run("retention_copies", copies_without_hold)
        plans.sort(key=lambda plan: (-plan.due.events, plan.room_id))
        return Simulation(now_ms, stored.version, tuple(plans), copies)

    async def check(self, rules: Rules, root: str) -> None:
        """Refuse rules for classes that do not exist.

        Raises:
            InvalidInput: with the rule's path below ``root``, and the nearest class.
            Unavailable: the room classes are not known just now.
        """
        check_classes(rules, (await self._classes.classifier()).names, root)

    async def _classifier(self, rules: Rules) -> RoomClassifier:
        classifier = await self._classes.classifier()
        try:
            check_classes(rules, classifier.names, "")
        except InvalidInput as error:
            raise Conflict(
                f"the retention rules name the room class {error.found}, which the access policy no longer defines",
                advice="Apply rules or a policy that fit together; until then nothing is deleted",
            ) from error
        return classifier

    async def _cutoffs(self, rules: Rules, now_ms: int) -> Mapping[int, Cutoff]:
        """For each age at which something is deleted, what is older."""
        ages = {rule.delete_after_ms for rule in (*rules.rules, rules.default)} - {None}
        return {age: await cutoff_at(self._homeserver.api, now_ms - age) for age in ages if age is not None}

    async def _page(self, after: str) -> list[RoomFacts]:
        return await self._homeserver.database.run("retention_rooms", lambda tx: room_facts_after(tx, after, _PAGE))

    async def _verdicts(
        self, page: Sequence[RoomFacts], classifier: RoomClassifier, rules: Rules
    ) -> list[tuple[str, Verdict]]:
        holds = await self._homeserver.database.run("retention_holds", holds_on_rooms)
        return [
            (facts.room_id, decide(classifier.classify(facts), rules, holds.get(facts.room_id, ()))) for facts in page
        ]

    async def _due(
        self, verdicts: Sequence[tuple[str, Verdict]], cutoffs: Mapping[int, Cutoff], now_ms: int, *, sized: bool
    ) -> list[RoomPlan]:
        def work(transaction: Transaction) -> list[RoomPlan | None]:
            return [
                plan_room(room_id, verdict, now_ms, due_messages(transaction, room_id, cutoffs[age], sized=sized))
                for room_id, verdict in verdicts
                if (age := verdict.delete_after_ms) is not None
            ]

        found = await self._homeserver.database.run("retention_due", work)
        return [plan for plan in found if plan is not None]
