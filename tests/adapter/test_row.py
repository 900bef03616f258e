"""When failures of different jobs in a row are the upstream's."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.adapter.row import (
    LONG,
    PAUSE_S,
    QUIET_S,
    Row,
    Stage,
    after_failure,
    after_look,
    after_success,
    is_doubtful,
    kind_of,
    tells_of_its_input,
)

NOW = 1000.0
OUT_OF_MEMORY, OTHER = "out of memory", "no output"
SHUT = Row(
    kind=OUT_OF_MEMORY,
    inputs=frozenset("abc"),
    stage=Stage.SHUT,
    shut_until=NOW + PAUSE_S,
    quiet_until=NOW + QUIET_S,
)
TRIAL = replace(SHUT, stage=Stage.TRIAL)


def failed(row: Row, inputs: str, *, kind: str = OUT_OF_MEMORY, now: float = NOW) -> tuple[Row, list[bool]]:
    """The row after a job for each letter has failed, and which of them were doubtful."""
    doubtful = []
    for letter in inputs:
        after = after_failure(row, kind=kind, fingerprint=letter, now=now)
        doubtful.append(is_doubtful(row, after, kind=kind, fingerprint=letter))
        row = after
    return row, doubtful


@pytest.mark.parametrize(
    ("inputs", "stage", "doubtful"),
    [
        ("a", Stage.OPEN, [False]),
        ("aaaaaa", Stage.OPEN, [False] * 6),  # one bad input, sent over and over
        ("ab", Stage.OPEN, [False, True]),
        ("abbb", Stage.OPEN, [False, True, False, False]),  # a job fails for good when it does so again
        ("ababab", Stage.OPEN, [False, True, False, False, False, False]),
        ("abc", Stage.SHUT, [False, True, True]),
        ("abcd", Stage.SHUT, [False, True, True, True]),  # of another slot, begun before
    ],
)
def test_different_jobs_that_fail_in_the_same_way_make_a_row(inputs: str, stage: Stage, doubtful: list[bool]) -> None:
    row, found = failed(Row(), inputs)
    assert (row.stage, found) == (stage, doubtful)


def test_another_kind_of_failure_begins_another_row() -> None:
    row, _ = failed(Row(), "ab")
    row, doubtful = failed(row, "c", kind=OTHER)
    assert (row.stage, row.inputs, doubtful) == (Stage.OPEN, frozenset("c"), [False])


def test_a_success_ends_the_row() -> None:
    row, _ = failed(Row(), "ab")
    row, doubtful = failed(after_success(row), "c")
    assert (row.stage, doubtful) == (Stage.OPEN, [False])


@pytest.mark.parametrize(
    ("looks", "later_s", "stage"),
    [
        ([True], 0.0, Stage.SHUT),  # not restarted yet
        ([False], 0.0, Stage.SHUT),
        ([False, True], 0.0, Stage.TRIAL),  # restarted
        ([True], PAUSE_S, Stage.TRIAL),  # nobody restarts it
        ([False], PAUSE_S, Stage.SHUT),
    ],
)
def test_a_job_is_tried_when_the_upstream_is_back_or_after_a_pause(
    looks: list[bool], later_s: float, stage: Stage
) -> None:
    row = SHUT
    for is_healthy in looks:
        row = after_look(row, is_healthy=is_healthy, now=NOW + later_s)
    assert row.stage is stage


@pytest.mark.parametrize("kind", [OUT_OF_MEMORY, OTHER])
@pytest.mark.parametrize("letter", ["c", "d"])
def test_a_job_that_fails_on_trial_is_believed(kind: str, letter: str) -> None:
    row, doubtful = failed(TRIAL, letter, kind=kind)
    assert (row.stage, doubtful) == (Stage.OPEN, [False])


def test_after_a_trial_no_row_is_suspected_for_a_while() -> None:
    """So whoever sends bad input over and over does not block the others for ever."""
    row, _ = failed(TRIAL, "d")
    row, doubtful = failed(row, "efghi", now=NOW + QUIET_S - 1)
    assert (row.stage, doubtful) == (Stage.OPEN, [False] * 5)
    row, doubtful = failed(row, "klm", now=NOW + QUIET_S)
    assert (row.stage, doubtful) == (Stage.SHUT, [False, True, True])


def test_a_success_between_does_not_shorten_the_while() -> None:
    row, doubtful = failed(after_success(TRIAL), "efg")
    assert (row.stage, doubtful) == (Stage.OPEN, [False] * 3)


def test_the_gate_is_shut_for_a_tenth_of_the_time_at_the_most() -> None:
    assert PAUSE_S <= QUIET_S / 10
    assert LONG == 3


@pytest.mark.parametrize(
    ("message", "of_its_input"),
    [
        ("HTTP Error 404: Not Found", True),
        ("HTTP Error 400: Bad Request", True),
        ("An error occurred (NoSuchKey) when calling the GetObject operation", True),
        ("unknown url type: 'ftp://a/b'", True),
        ("<urlopen error timed out>", True),
        ("LoadImage: cannot identify image file 'x.jpg'", True),
        ("No output images generated", False),  # also what a node out of memory looks like
        ("HTTP Error 503: Service Unavailable", False),
        ("CUDA error: an illegal memory access was encountered", False),
    ],
)
def test_a_failure_that_tells_of_its_input_is_no_sign(message: str, of_its_input: bool) -> None:
    assert tells_of_its_input(message) is of_its_input


def test_failures_that_differ_in_numbers_are_of_one_kind() -> None:
    one, other = "CUDA out of memory. Tried to allocate 2.50 GiB", "CUDA out of memory. Tried to allocate 14 GiB"
    assert kind_of(one) == kind_of(other)
    assert kind_of(one) != kind_of("No output images generated")
