from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.daemon.journal import JournalSender, encode_field, field_name
from tests.daemon.datagrams import journal_fields, receiving_at, waiting


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "journal")


@pytest.fixture
def sender(path: str) -> Iterator[JournalSender]:
    sender = JournalSender(path)
    yield sender
    sender.close()


def entry(path: str, sender: JournalSender, level: str, message: str, fields: dict[str, Any]) -> dict[str, str]:
    """What the journal got of one event."""
    with receiving_at(path) as journal:
        sender.send(level, message, fields)
        (datagram,) = waiting(journal)
    pairs = journal_fields(datagram)
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def test_an_event_is_one_entry_of_fields(path: str, sender: JournalSender) -> None:
    assert entry(path, sender, "info", "task.claimed", {"job_id": "j-1", "attempt": 2, "worker": None}) == {
        "MESSAGE": "task.claimed",
        "PRIORITY": "6",
        "JOB_ID": "j-1",
        "ATTEMPT": "2",
    }


def test_line_breaks_survive(path: str, sender: JournalSender) -> None:
    text = "one\ntwo=2\n\nlast"
    got = entry(path, sender, "error", text, {"stderr": "\n", "after": "x"})
    assert got == {"MESSAGE": text, "PRIORITY": "3", "STDERR": "\n", "AFTER": "x"}


@pytest.mark.parametrize(
    ("level", "priority"),
    [("critical", "2"), ("error", "3"), ("warning", "4"), ("info", "6"), ("debug", "7"), ("invented", "6")],
)
def test_a_level_is_a_priority_of_syslog(path: str, sender: JournalSender, level: str, priority: str) -> None:
    assert entry(path, sender, level, "x", {})["PRIORITY"] == priority


def test_an_event_cannot_replace_its_message_or_priority(path: str, sender: JournalSender) -> None:
    got = entry(path, sender, "info", "task.failed", {"message": "upstream said no", "priority": "high"})
    assert got == {"MESSAGE": "task.failed", "PRIORITY": "6"}


def test_text_no_encoding_has_is_sent_as_well_as_can_be(path: str, sender: JournalSender) -> None:
    assert entry(path, sender, "info", "a \ud800 b", {})["MESSAGE"] == "a ? b"


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("job_id", "JOB_ID"),
        ("jobId2", "JOBID2"),
        ("job.id-1", "JOB_ID_1"),
        ("_private", "PRIVATE"),
        ("1st", "ST"),
        ("größe", "GR_SSE"),
        ("", "FIELD"),
        ("__", "FIELD"),
        ("x" * 100, "X" * 64),
    ],
)
def test_a_key_becomes_a_name_the_journal_takes(key: str, name: str) -> None:
    assert field_name(key) == name


@given(st.text())
def test_any_key_becomes_a_name_the_journal_takes(key: str) -> None:
    """Anything else the journal drops silently; names with a leading underscore are its own."""
    name = field_name(key)
    assert 1 <= len(name) <= 64
    assert name[0].isalpha()
    assert name.isascii()
    assert set(name) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")


@given(st.lists(st.text(), min_size=1))
def test_any_values_can_be_told_apart_again(values: list[str]) -> None:
    datagram = b"".join(encode_field(f"F{number}", value) for number, value in enumerate(values))
    assert journal_fields(datagram) == [(f"F{number}", value) for number, value in enumerate(values)]
