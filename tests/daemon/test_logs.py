"""What really leaves a process, in each of the three forms."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from socket import socket
from typing import Any

import pytest

from tests.daemon.conftest import Start
from tests.daemon.datagrams import journal_fields, receiving_at, waiting
from tests.daemon.programs import LINES

SECRET = "hunter2"


async def logged(start: Start, form: str, journal_path: str = "") -> str:
    """The program's stderr; it says nothing on stdout."""
    process = await start("logging", form, journal_path)
    out, err = await process.communicate()
    assert (process.returncode, out) == (0, b"")
    return err.decode()


async def json_lines(start: Start) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (await logged(start, "json")).splitlines()]


async def test_a_json_line_is_an_event_with_its_ids(start: Start) -> None:
    lines = await json_lines(start)
    claimed = next(line for line in lines if line["event"] == "task.claimed")
    assert claimed.pop("at").endswith("Z")
    assert claimed == {
        "event": "task.claimed",
        "level": "info",
        "service": "sample",
        "job_id": "j-1",
        "attempt": 2,
        "worker": None,
        "text": "two\nlines \N{SNOWMAN}",
    }


async def test_libraries_are_heard_from_warning_on_and_we_from_our_level_on(start: Start) -> None:
    lines = await json_lines(start)
    assert [(line["level"], line["event"]) for line in lines] == [
        ("info", "task.claimed"),
        ("warning", "unclosed session"),
        ("info", "ours, said plainly"),
        ("error", "task.failed"),
        ("error", "unhandled"),
    ]


async def test_a_json_traceback_has_its_causes_but_no_frame_locals(start: Start) -> None:
    text = await logged(start, "json")
    assert SECRET not in text
    failures = [json.loads(line) for line in text.splitlines() if "exception" in json.loads(line)]
    assert len(failures) == 2
    for failure in failures:
        outer, cause = failure["exception"]
        assert (outer["exc_type"], outer["exc_value"]) == ("ValueError", "wrong")
        assert cause["exc_value"].startswith("invalid literal")
        assert all("locals" not in frame for part in (outer, cause) for frame in part["frames"])


async def test_a_terminal_gets_lines_and_tracebacks_without_frame_locals_or_colours(start: Start) -> None:
    text = await logged(start, "console")
    assert "task.claimed" in text
    assert "job_id=j-1" in text
    assert "Traceback (most recent call last)" in text
    assert "ValueError: wrong" in text
    assert "task.looked_at" not in text
    assert SECRET not in text
    assert "\x1b" not in text


@pytest.fixture
def journal_path(tmp_path: Path) -> str:
    return str(tmp_path / "journal")


@pytest.fixture
def journal(journal_path: str) -> Iterator[socket]:
    with receiving_at(journal_path) as receiver:
        yield receiver


async def journalled(start: Start, journal: socket, path: str) -> list[dict[str, str]]:
    assert await logged(start, "journal", path) == ""
    return [dict(journal_fields(datagram)) for datagram in waiting(journal)]


async def test_the_journal_gets_a_line_for_people_and_fields_to_search_by(
    start: Start, journal: socket, journal_path: str
) -> None:
    claimed = (await journalled(start, journal, journal_path))[0]
    assert claimed == {
        "MESSAGE": "task.claimed attempt=2 text=two\nlines \N{SNOWMAN} job_id=j-1 service=sample",
        "PRIORITY": "6",
        "EVENT": "task.claimed",
        "SERVICE": "sample",
        "JOB_ID": "j-1",
        "ATTEMPT": "2",
        "TEXT": "two\nlines \N{SNOWMAN}",
    }


async def test_the_journal_hears_whom_the_other_forms_hear(start: Start, journal: socket, journal_path: str) -> None:
    entries = await journalled(start, journal, journal_path)
    assert [(entry["PRIORITY"], entry["EVENT"]) for entry in entries] == [
        ("6", "task.claimed"),
        ("4", "unclosed session"),
        ("6", "ours, said plainly"),
        ("3", "task.failed"),
        ("3", "unhandled"),
    ]


async def test_a_traceback_in_the_journal_has_no_frame_locals(start: Start, journal: socket, journal_path: str) -> None:
    failed = (await journalled(start, journal, journal_path))[3]
    assert failed["JOB_ID"] == "j-2"
    assert failed["MESSAGE"].startswith("task.failed job_id=j-2 service=sample\nTraceback (most recent call last)")
    assert failed["MESSAGE"].endswith("ValueError: wrong")
    assert SECRET not in str(failed)


async def test_where_the_journal_is_missing_it_is_said_once_and_the_console_is_used(
    start: Start, journal_path: str
) -> None:
    text = await logged(start, "journal", journal_path)
    first, *rest = text.splitlines()
    assert first == f"no journal at {journal_path} (No such file or directory): logging to the console instead"
    assert any("task.claimed" in line and "job_id=j-1" in line for line in rest)
    assert "FileNotFoundError" not in text


@pytest.mark.parametrize("form", ["json", "console"])
async def test_a_reader_that_stalls_costs_lines_and_holds_up_nothing(start: Start, form: str) -> None:
    process = await start("chatter", form, "")
    assert process.stdin is not None
    assert process.stdout is not None
    # Nobody has read a line of its log so far, and far more was said than pipe and memory may hold.
    assert await process.stdout.readline() == b"went on\n"
    _, err = await process.communicate(b"\n")
    assert process.returncode == 0
    text = err.decode()
    dropped = sum(int(count) for count in re.findall(r"(\d+) lines were dropped", text))
    assert dropped > 0
    assert text.count("task.looked_at") + text.count("the last word") + dropped == LINES + 1


async def test_a_journal_that_does_not_read_costs_entries_and_holds_up_nothing(
    start: Start, journal: socket, journal_path: str
) -> None:
    process = await start("chatter", "journal", journal_path)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"went on\n"
    # It ends, too, although nobody ever takes its last words.
    await process.communicate(b"\n")
    assert process.returncode == 0
    assert waiting(journal)


async def test_what_repeats_by_the_thousand_is_told_by_its_number(start: Start) -> None:
    process = await start("repeating", "json", "")
    _, err = await process.communicate()
    lines = [json.loads(line) for line in err.decode().splitlines()]
    warnings = [line["event"] for line in lines if line["level"] != "info"]
    left_out = sum(int(number) for line in warnings for number in re.findall(r"(\d+) more lines of", line))
    assert left_out > 0
    assert warnings.count("aws.failed") + sum(line.startswith("accept()") for line in warnings) + left_out == 2000
    # Other lines, and those that say what goes on, are all there.
    assert warnings.count("disk.full") == 1
    assert sum(line["event"] == "task.looked_at" for line in lines) == 1000
