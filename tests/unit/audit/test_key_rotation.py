"""Which keys a log may sign with, and what has to be written down before it does."""

from __future__ import annotations

import pytest

from synapse_modules.audit.checkpoint import SigningKey, VerifierKey
from synapse_modules.audit.key_rotation import KeySteps, WrongKey, plan_steps

ORIGIN = "synapse.test/governance-audit"


def key(number: int, origin: str = ORIGIN) -> VerifierKey:
    return SigningKey(origin, bytes([number]) * 32).verifier


A, B, C = key(1), key(2), key(3)
OLD_ORIGIN = key(9, "synapse.test/before")


@pytest.mark.parametrize(
    ("recorded", "removed", "held", "steps"),
    [
        ([], [], [A], KeySteps(added=(A,))),
        ([], [], [A, B], KeySteps(added=(A, B))),
        ([A], [], [A], KeySteps()),
        ([A], [], [A, B], KeySteps(added=(B,))),
        ([A, B], [], [A, B], KeySteps()),
        ([A, B], [], [B, A], KeySteps()),
        ([A, B], [], [B], KeySteps(removed=(A,))),
        ([A, B], [], [A], KeySteps(removed=(B,))),
        ([A, B], [A], [B], KeySteps()),
        ([A, B], [A], [B, C], KeySteps(added=(C,))),
        ([A, B], [], [B, C], KeySteps(added=(C,), removed=(A,))),
        ([OLD_ORIGIN, A], [], [A], KeySteps()),
        ([OLD_ORIGIN, A], [], [A, B], KeySteps(added=(B,))),
    ],
)
def test_what_is_written_down(
    recorded: list[VerifierKey], removed: list[VerifierKey], held: list[VerifierKey], steps: KeySteps
) -> None:
    assert plan_steps(recorded, removed, held) == steps


@pytest.mark.parametrize(
    ("recorded", "removed", "held", "problem"),
    [
        ([A], [], [B], "next_signing_key_path first"),
        ([A], [], [B, A], "next_signing_key_path first"),
        ([A, B], [A], [A], "That key was given up"),
        ([A, B], [A], [A, B], "That key was given up"),
        ([A, B], [A], [B, A], "was given up"),
        ([A], [], [OLD_ORIGIN], "point to another database"),
        ([OLD_ORIGIN, A], [], [OLD_ORIGIN], "point to another database"),
    ],
)
def test_a_log_is_not_signed_with_other_keys(
    recorded: list[VerifierKey], removed: list[VerifierKey], held: list[VerifierKey], problem: str
) -> None:
    with pytest.raises(WrongKey) as caught:
        plan_steps(recorded, removed, held)
    assert problem in caught.value.sentence()
