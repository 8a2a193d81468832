"""CSV, CEF and RFC 5424 to the letter."""

from __future__ import annotations

import csv
import io

import pytest

from synapse_modules.audit.formats.cef import CEF
from synapse_modules.audit.formats.csv_rows import COLUMNS, CSV, defused
from synapse_modules.audit.formats.entry import Entry
from synapse_modules.audit.formats.rfc5424 import SYSLOG, octet_counted, syslog_format
from synapse_modules.core.action_specs import SPECS
from tests.unit.audit.formats.readers import cef_parts, syslog_parts

ENTRY = Entry(
    idx=42,
    id="0f" * 16,
    time_ms=1_735_776_000_123,
    action="auth.login",
    outcome="denied",
    server="synapse.test",
    process="worker1",
    details={"permission": "login", "x": 'a "quoted" = ] \\ line\n'},
    rule="role:guest deny login",
    case="C|1",
    reason="Not = here,\nnot now.",
    actor="@alice:synapse.test",
    address="192.0.2.7",
    user_agent='Element "1"]',
    device="PHONE",
    erased=("target",),
)


def test_a_row_of_csv() -> None:
    assert CSV.header == ",".join(COLUMNS)
    assert CSV.encode(ENTRY) == (
        "42,0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f,2025-01-02T00:00:00.123Z,1735776000123,auth.login,denied,"
        '\'@alice:synapse.test,,,192.0.2.7,"Element ""1""]",PHONE,"Not = here,\nnot now.",role:guest deny login,'
        'C|1,synapse.test,worker1,"{""permission"":""login"",""x"":""a \\""quoted\\"" = ] \\\\ line\\n""}",target'
    )


def test_a_line_of_cef() -> None:
    assert CEF.encode(ENTRY) == (
        "CEF:0|synapse-governance|audit|0.1.0|auth.login|somebody logged in, or tried to|5|rt=1735776000123 "
        "externalId=0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f cn1Label=leafIndex cn1=42 cat=login outcome=denied "
        "dvchost=synapse.test deviceProcessName=worker1 suser=@alice:synapse.test src=192.0.2.7 "
        r'requestClientApplication=Element "1"] reason=Not \= here,\nnot now. cs2Label=rule cs2=role:guest deny login '
        r'cs3Label=case cs3=C|1 cs4Label=device cs4=PHONE cs5Label=details cs5={"permission":"login","x":'
        r'"a \\"quoted\\" \= ] \\\\ line\\n"} cs6Label=erased cs6=target'
    )


def test_a_message_of_rfc_5424() -> None:
    assert SYSLOG.encode(ENTRY) == (
        "<108>1 2025-01-02T00:00:00.123Z synapse.test synapse-governance worker1 auth.login "
        '[governance@32473 index="42" id="0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f" timeMs="1735776000123" outcome="denied" '
        r'actor="@alice:synapse.test" address="192.0.2.7" userAgent="Element \"1\"\]" device="PHONE" '
        'reason="Not = here,␊not now." rule="role:guest deny login" case="C|1" '
        r'details="{\"permission\":\"login\",\"x\":\"a \\\"quoted\\\" = \] \\\\ line\\n\"}" erased="target"]'
        '[origin software="synapse-governance" swVersion="0.1.0"] \ufeffsomebody logged in, or tried to'
    )


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r", "\n", "\0", "＝", "＋", "－", "＠", "'"])  # noqa: RUF001
def test_no_cell_of_csv_begins_as_a_formula(first: str) -> None:
    assert defused(f"{first}1") == f"'{first}1"
    (row,) = csv.reader(io.StringIO(CSV.encode(ENTRY._replace(reason=f"{first}cmd")), newline=""))
    assert row[COLUMNS.index("reason")] == f"'{first}cmd"


def test_what_is_no_formula_stays_as_it_is_in_csv() -> None:
    assert [defused(text) for text in ("a=1", "1", "é", "", None)] == ["a=1", "1", "é", "", ""]


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.7", "src"),
        ("2001:db8::1", "c6a2"),
        ("fe80::1%eth0", "shost"),
        ("192.0.2.7:80", "shost"),
        ("", "shost"),
    ],
)
def test_cef_has_a_key_for_each_kind_of_address(address: str, key: str) -> None:
    pairs = cef_parts(CEF.encode(ENTRY._replace(address=address)))[1]
    assert pairs[key] == address
    assert [each for each in ("src", "c6a2", "shost") if each in pairs] == [key]


def test_cef_numbers_severities_up_to_ten() -> None:
    severities = {
        action: cef_parts(CEF.encode(ENTRY._replace(action=action, outcome="success")))[0][5]
        for action in ("message.send", "auth.login", "role.grant", "hold.release", "audit.rollback")
    }
    assert list(severities.values()) == ["1", "3", "5", "8", "10"]


def test_a_header_of_cef_cannot_be_broken() -> None:
    header = cef_parts(CEF.encode(ENTRY._replace(action="a|b\\c\nd")))[0]
    assert header[3] == "a|b\\c␊d"


def test_syslog_has_priorities_of_the_facility_for_audit_logs() -> None:
    priorities = [
        syslog_parts(SYSLOG.encode(ENTRY._replace(action=action, outcome="success")))[0]["priority"]
        for action in ("message.send", "auth.login", "role.grant", "hold.release", "audit.rollback")
    ]
    assert priorities == ["110", "109", "108", "107", "106"]


def test_the_header_of_a_syslog_message_is_printable_ascii_within_its_limits() -> None:
    header, _ = syslog_parts(SYSLOG.encode(ENTRY._replace(server="é x\n" * 99, process="", action="x" * 99)))
    assert header["host"] == ("??x?" * 99)[:255]
    assert (header["process"], header["message_id"]) == ("-", "x" * 32)


def test_no_action_is_too_long_for_the_id_of_a_syslog_message() -> None:
    assert max(len(action) for action in SPECS) <= 32


def test_structured_data_carry_the_operators_own_enterprise_number() -> None:
    assert set(syslog_parts(syslog_format(99999).encode(ENTRY))[1]) == {"governance@99999", "origin"}


def test_a_frame_counts_octets_and_not_characters() -> None:
    assert octet_counted("é".encode()) == b"2 \xc3\xa9"
