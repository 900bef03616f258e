"""The shipped units under a real systemd as PID 1, with a real journal.

Shortened: WatchdogSec and RestartSec (a drop-in) and the adapter's times (its environment file). Nothing of the sandbox
is lifted.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.systemd.conftest import ADAPTER, ADAPTER_ENVIRONMENT, ORCHESTRATOR, UPSTREAM
from tests.systemd.emulated_aws import lines
from tests.systemd.machine import Machine

INSIDE = ("/opt/venv/bin/python", "-m", "tests.systemd.inside")
ENVIRONMENT = "/etc/sqs-adapter/environment"


@pytest.fixture
def box(machine: Machine) -> Machine:
    """The machine with everything at work, whatever the test before left."""
    if machine.state(ADAPTER) != "active/running":
        machine.run("systemctl", "reset-failed", ADAPTER, check=False)
        machine.run("systemctl", "start", ADAPTER)
    machine.wait_for(ADAPTER, "active/running")
    return machine


def test_boot_order_is_the_unified_api_then_the_adapter_which_pulled_it_in(box: Machine) -> None:
    assert box.state(UPSTREAM) == "active/running"
    assert box.number(ADAPTER, "ExecMainStartTimestampMonotonic") > box.number(
        UPSTREAM, "ActiveEnterTimestampMonotonic"
    )
    assert box.show(ADAPTER, "StatusText").startswith(("idle", "receiving nothing"))


def test_a_job_runs_in_the_sandbox_and_journalctl_tells_its_story(box: Machine) -> None:
    job_id = submit(box, "make it blue", steps=1)
    wait_for_job(box, job_id, "completed")
    entries = box.journal(f"JOB_ID={job_id}")
    story = [entry["EVENT"] for entry in entries]
    assert [event for event in story if event in ("task.claimed", "task.submitted", "task.completed")] == [
        "task.claimed",
        "task.submitted",
        "task.completed",
    ]
    assert {entry["_SYSTEMD_UNIT"] for entry in entries} == {ORCHESTRATOR, ADAPTER}


def test_the_adapter_is_active_only_once_it_knows_its_instance(box: Machine) -> None:
    """The metadata service answers late: until then `systemctl start` waits, because READY is still to come."""
    box.run("systemctl", "stop", ADAPTER)
    box.run("systemctl", "kill", "--signal=STOP", "metadata.service")
    box.run("systemctl", "start", "--no-block", ADAPTER)
    # Its first question has been asked: the kernel has taken the connection for the stopped service.
    box.wait_until(lambda: ":1338" in box.run("ss", "-Htn", "state", "established"), ADAPTER)
    assert box.state(ADAPTER) == "activating/start"
    box.run("systemctl", "kill", "--signal=CONT", "metadata.service")
    box.wait_for(ADAPTER, "active/running")


def test_a_hung_adapter_is_killed_by_the_watchdog_and_started_again(box: Machine) -> None:
    pid, restarts = box.number(ADAPTER, "MainPID"), box.number(ADAPTER, "NRestarts")
    box.run("kill", "-STOP", str(pid))
    box.wait_until(lambda: box.number(ADAPTER, "NRestarts") == restarts + 1, ADAPTER, limit_s=40)
    box.wait_for(ADAPTER, "active/running")
    assert box.number(ADAPTER, "MainPID") != pid
    said = [str(entry["MESSAGE"]) for entry in box.journal(f"UNIT={ADAPTER}", "_PID=1")]
    assert any("Watchdog timeout" in line for line in said)
    assert any("Failed with result 'watchdog'" in line for line in said)


def test_a_stop_lets_the_running_job_end_and_exits_0(box: Machine) -> None:
    job_id = submit(box, "make it green", steps=8)
    box.wait_until(lambda: submitted(box, job_id), ADAPTER)
    box.run("systemctl", "stop", ADAPTER)
    assert job(box, job_id)["status"] == "completed"
    assert (box.show(ADAPTER, "Result"), box.number(ADAPTER, "ExecMainStatus")) == ("success", 0)
    assert box.state(ADAPTER) == "inactive/dead"


def test_a_wrong_setting_is_not_tried_again(box: Machine) -> None:
    wrong = {name: value for name, value in ADAPTER_ENVIRONMENT.items() if name != "DYNAMODB_TABLE"}
    box.write(ENVIRONMENT, lines(wrong))
    try:
        box.run("systemctl", "restart", ADAPTER, check=False)
        box.wait_for(ADAPTER, "failed/failed")
        assert box.number(ADAPTER, "ExecMainStatus") == 78
        assert box.number(ADAPTER, "NRestarts") == 0
        said = [str(entry["MESSAGE"]) for entry in box.journal(f"_SYSTEMD_UNIT={ADAPTER}")]
        assert "configuration: DYNAMODB_TABLE is not set" in said
    finally:
        box.write(ENVIRONMENT, lines(ADAPTER_ENVIRONMENT))


def test_a_unified_api_that_hangs_is_restarted_because_the_adapter_asked(box: Machine) -> None:
    hung = box.number(UPSTREAM, "MainPID")
    lost = submit(box, "hang", steps=1)
    wait_for_job(box, lost, "failed")
    box.wait_until(lambda: box.number(UPSTREAM, "MainPID") not in (0, hung), "comfyui-restart.service", limit_s=40)
    box.wait_for("comfyui-restart.path", "active/waiting")
    found = submit(box, "after the restart", steps=1)
    wait_for_job(box, found, "completed")
    assert box.journal("EVENT=upstream.restart_requested", f"_SYSTEMD_UNIT={ADAPTER}")


def test_the_orchestrator_stops_within_its_time_and_exits_0(box: Machine) -> None:
    box.run("systemctl", "stop", ORCHESTRATOR)
    try:
        assert (box.show(ORCHESTRATOR, "Result"), box.number(ORCHESTRATOR, "ExecMainStatus")) == ("success", 0)
    finally:
        box.run("systemctl", "start", ORCHESTRATOR)


def submit(box: Machine, prompt: str, *, steps: int) -> str:
    return inside(box, "submit", prompt, str(steps)).strip()


def job(box: Machine, job_id: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(inside(box, "job", job_id))
    return answer


def wait_for_job(box: Machine, job_id: str, status: str) -> None:
    box.wait_until(lambda: job(box, job_id)["status"] == status, ADAPTER, limit_s=40)


def submitted(box: Machine, job_id: str) -> bool:
    return any(entry["EVENT"] == "task.submitted" for entry in box.journal(f"JOB_ID={job_id}"))


def inside(box: Machine, *arguments: str) -> str:
    return box.run("env", "PYTHONPATH=/opt/source:/opt/site-packages", *INSIDE, *arguments)
