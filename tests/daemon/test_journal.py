from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.daemon.journal import JournalSender, encode_entry, encode_field, field_name
from tests.daemon.datagrams import journal_fields, receiving_at, waiting


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "journal")


def entry(path: str, level: str, message: str, fields: dict[str, Any]) -> dict[str, str]:
    """What the journal got of one event."""
    with receiving_at(path) as journal, closing(JournalSender(path)) as sender:
        sender.send(encode_entry(level, message, fields))
        (datagram,) = waiting(journal)
    pairs = journal_fields(datagram)
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def test_an_event_is_one_entry_of_fields(path: str) -> None:
    assert entry(path, "info", "task.claimed", {"job_id": "j-1", "attempt": 2, "worker": None}) == {
        "MESSAGE": "task.claimed",
        "PRIORITY": "6",
        "JOB_ID": "j-1",
        "ATTEMPT": "2",
    }


def test_line_breaks_survive(path: str) -> None:
    text = "one\ntwo=2\n\nlast"
    got = entry(path, "error", text, {"stderr": "\n", "after": "x"})
    assert got == {"MESSAGE": text, "PRIORITY": "3", "STDERR": "\n", "AFTER": "x"}


@pytest.mark.parametrize(
    ("level", "priority"),
    [("critical", "2"), ("error", "3"), ("warning", "4"), ("info", "6"), ("debug", "7"), ("invented", "6")],
)
def test_a_level_is_a_priority_of_syslog(path: str, level: str, priority: str) -> None:
    assert entry(path, level, "x", {})["PRIORITY"] == priority


def test_an_event_cannot_replace_its_message_or_priority(path: str) -> None:
    got = entry(path, "info", "task.failed", {"message": "upstream said no", "priority": "high"})
    assert got == {"MESSAGE": "task.failed", "PRIORITY": "6"}


def test_text_no_encoding_has_is_sent_as_well_as_can_be(path: str) -> None:
    assert entry(path, "info", "a \ud800 b", {})["MESSAGE"] == "a ? b"


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


def test_an_entry_that_no_datagram_can_hold_arrives_whole(path: str) -> None:
    text = "x" * 1_000_000
    got = entry(path, "error", text, {"job_id": "j-1"})
    assert got == {"MESSAGE": text, "PRIORITY": "3", "JOB_ID": "j-1"}


def test_a_journal_that_was_started_anew_is_found_again(path: str) -> None:
    with receiving_at(path):
        sender = JournalSender(path)
    with closing(sender):
        with pytest.raises(OSError, match="refused"):
            sender.send(b"MESSAGE=nobody is there\n")
        Path(path).unlink()
        with receiving_at(path) as journal:
            sender.send(b"MESSAGE=here again\n")
            assert waiting(journal) == [b"MESSAGE=here again\n"]


def test_where_there_is_no_journal_a_sender_says_so(path: str) -> None:
    with pytest.raises(FileNotFoundError):
        JournalSender(path)
