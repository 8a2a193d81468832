"""Cosignatures, made by a witness that shares no code with the product."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest

from synapse_modules.audit.checkpoint import VerifierKey, open_note, sign_note
from synapse_modules.audit.cosignature import WitnessKey, add_signatures, cosignatures
from synapse_modules.core.errors import InvalidInput
from tests.support.anchor_servers import Witness
from tests.unit.audit.samples import KEY, ORIGIN, SampleLog, make_records

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXT = SampleLog(make_records(5)).checkpoint().text()
NOTE = sign_note(TEXT, [KEY])


def cosigned(witness: Witness, text: str = TEXT) -> str:
    return witness.cosign(text).rstrip("\n")


@pytest.fixture(scope="module")
def witness() -> Iterator[Witness]:
    with Witness({ORIGIN: str(KEY.verifier)}) as server:
        yield server


def test_a_witness_key_reads_back_as_it_was_written(witness: Witness) -> None:
    key = WitnessKey.parse(witness.verifier_key)
    assert (key.name, str(key)) == (witness.name, witness.verifier_key)


def test_a_cosignature_is_found_with_its_time_beside_the_logs_own_signature(witness: Witness) -> None:
    line = cosigned(witness)
    note = add_signatures(NOTE, [line])
    (found,) = cosignatures(note, [WitnessKey.parse(witness.verifier_key)])
    assert (found.witness.name, found.line) == (witness.name, line)
    assert found.time > 1_700_000_000
    assert open_note(note, [KEY.verifier]) == (TEXT, [KEY.verifier])


def test_cosignatures_by_strangers_and_the_logs_own_signature_are_no_cosignatures(witness: Witness) -> None:
    with Witness({}, seed=bytes(32)) as stranger:
        note = add_signatures(NOTE, [cosigned(stranger)])
    assert cosignatures(note, [WitnessKey.parse(witness.verifier_key)]) == []
    assert cosignatures(note, []) == []


def test_a_cosignature_is_not_taken_for_a_signature_of_the_log(witness: Witness) -> None:
    note = f"{TEXT}\n{cosigned(witness)}\n"
    with pytest.raises(InvalidInput, match="no signature by a known key"):
        open_note(note, [KEY.verifier, VerifierKey(witness.name, WitnessKey.parse(witness.verifier_key).public)])


def test_a_cosignature_of_another_checkpoint_is_wrong(witness: Witness) -> None:
    other = SampleLog(make_records(6)).checkpoint().text()
    with pytest.raises(InvalidInput, match=r"a wrong cosignature by witness\.test/w1"):
        cosignatures(add_signatures(NOTE, [cosigned(witness, other)]), [WitnessKey.parse(witness.verifier_key)])


@pytest.mark.parametrize("position", range(4, 76))
def test_no_byte_of_a_cosignature_can_be_changed(witness: Witness, position: int) -> None:
    prefix, _, encoded = cosigned(witness).rpartition(" ")
    data = bytearray(base64.b64decode(encoded))
    data[position] ^= 1
    line = f"{prefix} {base64.b64encode(data).decode()}"
    with pytest.raises(InvalidInput, match="a wrong cosignature"):
        cosignatures(add_signatures(NOTE, [line]), [WitnessKey.parse(witness.verifier_key)])


@pytest.mark.parametrize("size", [0, 7, 8, 63, 64, 71, 73, 200])
def test_a_cosignature_of_another_length_is_wrong(witness: Witness, size: int) -> None:
    key = WitnessKey.parse(witness.verifier_key)
    line = f"— {witness.name} {base64.b64encode(key.key_id + b'x' * max(size, 1)).decode()}"
    with pytest.raises(InvalidInput, match="a wrong cosignature"):
        cosignatures(add_signatures(NOTE, [line]), [key])


def test_a_cosignature_without_a_time_is_wrong(witness: Witness) -> None:
    line = witness.cosign(TEXT, now=0).rstrip("\n")
    with pytest.raises(InvalidInput, match="a wrong cosignature"):
        cosignatures(add_signatures(NOTE, [line]), [WitnessKey.parse(witness.verifier_key)])


def test_a_signature_that_is_there_already_is_not_added_again(witness: Witness) -> None:
    line = cosigned(witness)
    note = add_signatures(NOTE, [line])
    assert add_signatures(note, [line, line]) == note


@pytest.mark.parametrize("text", ["", "witness.test/w1", str(KEY.verifier), "witness.test/w1+00000000+BA=="])
def test_what_is_no_key_of_a_witness_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="cosignature key, type 0x04"):
        WitnessKey.parse(text)
