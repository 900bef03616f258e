"""What ComfyUI's answers say of a job whose end the Unified API does not tell."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.adapter.wedge import Ended, Sight, end_of, is_idle, verdict, wedged_since

JOB = "0b5c4a52-5a6e-4a41-9a5b-54fbd2d6c0a1"
AFTER_S = 90.0
IDLE_AND_ENDED = Sight(is_idle=True, ended=Ended())


def entry(status: dict[str, Any], *, image: str = f"{JOB}_input.jpg") -> dict[str, Any]:
    graph = {"31": {"class_type": "KSampler", "inputs": {"steps": 8}}, "41": {"inputs": {"image": image}}}
    return {"prompt": [7, "prompt-1", graph, {"client_id": "x"}, ["80"]], "outputs": {}, "status": status}


RAISED = ["execution_error", {"node_type": "LoadImage", "exception_message": "cannot identify image file\n"}]
INTERRUPTED = ["execution_interrupted", {"prompt_id": "prompt-1"}]
STARTED = ["execution_start", {"prompt_id": "prompt-1"}]


@pytest.mark.parametrize(
    ("history", "ended"),
    [
        ({"p": entry({"status_str": "success", "messages": [STARTED]})}, Ended()),
        ({"p": entry({"status_str": "success"}, image=f"{JOB}_image1.jpg")}, Ended()),
        ({"p": entry({"status_str": "success"}, image="another_input.jpg")}, None),
        ({"p": entry({"status_str": "success"}, image=JOB)}, None),
        (
            {"p": entry({"status_str": "error", "messages": [STARTED, RAISED]})},
            Ended("LoadImage: cannot identify image file"),
        ),
        ({"p": entry({"status_str": "error", "messages": [INTERRUPTED]})}, Ended("interrupted in ComfyUI")),
        ({"p": entry({"status_str": "error", "messages": None})}, Ended("ComfyUI gave no reason")),
        ({"p": entry({"status_str": "error"}), "q": entry({"status_str": "success"})}, Ended()),  # queued again
        ({}, None),
        ([], None),
        (None, None),
    ],
)
def test_a_job_is_found_by_the_name_of_its_input(history: Any, ended: Ended | None) -> None:
    assert end_of(history, JOB) == ended


@pytest.mark.parametrize(
    ("queue", "idle"),
    [
        ({"queue_running": [], "queue_pending": []}, True),
        ({"queue_running": [[7]], "queue_pending": []}, False),
        ({"queue_running": [], "queue_pending": [[8]]}, False),
        ({"queue_running": []}, False),
        ({}, False),
        (None, False),
    ],
)
def test_idle_is_what_runs_nothing_and_has_nothing_waiting(queue: Any, idle: bool) -> None:
    assert is_idle(queue) is idle


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["prompt", "inputs", "status", "status_str", "messages", "image", "queue_running"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(ANYTHING)
def test_nonsense_is_never_an_error(said: Any) -> None:
    assert is_idle(said) in (True, False)
    assert end_of(said, JOB) is None
    assert end_of({"p": entry({"status_str": "error", "messages": said})}, JOB) is not None
    assert end_of({"p": entry(said)}, JOB) is not None


@pytest.mark.parametrize(
    ("sights", "since"),
    [
        ([IDLE_AND_ENDED], 0.0),
        ([IDLE_AND_ENDED, IDLE_AND_ENDED], 0.0),
        ([IDLE_AND_ENDED, None], 0.0),  # ComfyUI did not answer
        ([IDLE_AND_ENDED, Sight(is_idle=False, ended=Ended())], None),  # works for somebody
        ([Sight(is_idle=True, ended=None)], None),  # the picture is still being fetched
        ([Sight(is_idle=False, ended=None), IDLE_AND_ENDED], 1.0),
        ([None], None),
    ],
)
def test_the_upstream_is_wedged_since_an_unbroken_row_of_looks_began(
    sights: list[Sight | None], since: float | None
) -> None:
    found: float | None = None
    for now, sight in enumerate(sights):
        found = wedged_since(found, sight, now=float(now))
    assert found == since


@pytest.mark.parametrize(
    ("sight", "since", "now", "ended"),
    [
        (IDLE_AND_ENDED, 0.0, AFTER_S, Ended()),
        (IDLE_AND_ENDED, 0.0, AFTER_S - 0.1, None),  # it may be uploading
        (IDLE_AND_ENDED, None, AFTER_S, None),
        (None, 0.0, AFTER_S, None),
        (Sight(is_idle=True, ended=Ended("no")), 0.0, AFTER_S, Ended("no")),
    ],
)
def test_the_true_end_is_taken_only_after_the_time_an_upload_may_take(
    sight: Sight | None, since: float | None, now: float, ended: Ended | None
) -> None:
    assert verdict(sight, since, now=now, after_s=AFTER_S) == ended
