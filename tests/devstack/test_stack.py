"""The composition itself: real processes. What the system does in it is proven in tests/system."""

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from botocore.exceptions import ClientError

from services.devstack.options import StackOptions
from services.devstack.power import State
from services.devstack.processes import ProcessNotReadyError
from services.devstack.resources import aws_session, client_config
from services.devstack.stack import Stack
from tests.devstack.emulated import poll_until

LIMIT_S = 60.0
ROOT = Path(__file__).parents[2]
SLEEPER = (sys.executable, "-c", "import time; time.sleep(600)")
OPTIONS = StackOptions(boot_s=0.1, pending_s=0.2, adapter_command=SLEEPER, upstream_command=SLEEPER)
OWNER = """
import asyncio
from tests.devstack.test_stack import OPTIONS, start_instance
from services.devstack.power import State
from services.devstack.stack import Stack

async def main():
    async with Stack(OPTIONS) as stack:
        await start_instance(stack)
        await stack.wait_for_instance(State.RUNNING, limit_s=30)
        while not stack.adapter.is_running:
            await asyncio.sleep(0.02)
        print(stack.base_url.rpartition(":")[2], stack.endpoint_url.rpartition(":")[2], flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""

in_module_loop = pytest.mark.asyncio(loop_scope="module")


async def start_instance(stack: Stack) -> None:
    await asyncio.to_thread(_ec2(stack).start_instances, InstanceIds=[stack.resources.instance_id])


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stack() -> AsyncIterator[Stack]:
    async with Stack(OPTIONS) as running:
        yield running


@in_module_loop
async def test_the_orchestrator_serves_and_the_instance_sleeps(stack: Stack) -> None:
    assert await _health(stack) == 200
    assert await stack.instance_state() is State.STOPPED
    assert await stack.gpu_seconds() == 0
    assert set(await stack.queues()) == {"gpu_tasks_queue", "gpu_tasks_dlq"}


@in_module_loop
async def test_a_killed_orchestrator_is_restarted_on_its_port(stack: Stack) -> None:
    before = stack.orchestrator.pid
    assert await stack.kill_orchestrator(signal.SIGKILL) == -signal.SIGKILL
    with pytest.raises(aiohttp.ClientConnectorError):
        await _health(stack)
    await stack.restart_orchestrator()
    assert await _health(stack) == 200
    assert stack.orchestrator.pid != before


@in_module_loop
async def test_aws_refuses_and_fails_as_ordered_and_heals(stack: Stack) -> None:
    await stack.refuse("StartInstances", "InsufficientInstanceCapacity", times=1)
    with pytest.raises(ClientError, match="InsufficientInstanceCapacity"):
        await start_instance(stack)
    dynamodb = aws_session().client("dynamodb", endpoint_url=stack.endpoint_url, config=client_config())
    await stack.fail("dynamodb", "throttle", action="ListTables")
    with pytest.raises(ClientError, match="ThrottlingException"):
        await asyncio.to_thread(dynamodb.list_tables)
    await stack.heal()
    await asyncio.to_thread(dynamodb.list_tables)
    assert (await stack.calls()).count("dynamodb", "ListTables") >= 2


@in_module_loop
async def test_the_lambda_is_called_by_the_clock_and_by_hand(stack: Stack) -> None:
    assert "stopped" in str(await stack.invoke_shutdown())
    seen = len(stack.evaluator.invocations)
    async with asyncio.timeout(LIMIT_S):
        while len(stack.evaluator.invocations) < seen + 2:  # noqa: ASYNC110 (it announces nothing)
            await asyncio.sleep(0.05)
    assert [invocation.error for invocation in stack.evaluator.invocations] == [None] * len(stack.evaluator.invocations)


@in_module_loop
async def test_a_killed_adapter_is_started_again(stack: Stack) -> None:
    with pytest.raises(ProcessLookupError):
        stack.kill_adapter()
    await start_instance(stack)
    await _until(lambda: stack.adapter.is_running and stack.upstream.is_running)
    stack.kill_adapter(signal.SIGKILL)
    await _until(lambda: stack.adapter.starts == 2 and stack.adapter.is_running)
    assert stack.upstream.starts == 1
    assert await stack.gpu_seconds() > 0


async def test_two_stacks_run_side_by_side_and_leave_no_process_and_no_port() -> None:
    before = _children(_own_pid())
    async with Stack(OPTIONS) as one, Stack(OPTIONS) as two:
        assert {one.base_url, one.endpoint_url}.isdisjoint({two.base_url, two.endpoint_url})
        await asyncio.gather(start_instance(one), start_instance(two))
        await _until(lambda: one.adapter.is_running and two.adapter.is_running)
        owned = _children(_own_pid()) - before
        assert len(owned) == 2 * len(["emulator", "orchestrator", "lambda", "upstream", "adapter"])
        ports = [_port(url) for stack in (one, two) for url in (stack.base_url, stack.endpoint_url)]
        log_dirs = [one.log_dir, two.log_dir]
    assert not owned & _children(_own_pid())
    assert not any(_listens(port) for port in ports)
    assert not any(log_dir.exists() for log_dir in log_dirs)


def test_a_stack_whose_owner_is_killed_leaves_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, cwd=ROOT) as owner:
        assert owner.stdout is not None
        ports = [int(port) for port in _last_line(owner).split()]
        owned = _children(owner.pid)
        assert len(owned) == len(["emulator", "orchestrator", "lambda", "upstream", "adapter"])
        owner.kill()
    poll_until(lambda: not any(_runs(pid) for pid in owned), limit_s=20)
    # A process with threads is a zombie by name some moments before its last thread lets go of the sockets.
    poll_until(lambda: not any(_listens(port) for port in ports), limit_s=20)


async def test_an_orchestrator_that_does_not_start_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    before = _children(_own_pid())
    command = (sys.executable, "-c", "import sys; print('PORT: not a number', file=sys.stderr); sys.exit(78)")
    with pytest.raises(ProcessNotReadyError, match="orchestrator exited with 78\nPORT: not a number"):
        async with Stack(StackOptions(orchestrator_command=command, log_dir=tmp_path)):
            pass
    assert _children(_own_pid()) <= before
    assert (tmp_path / "orchestrator.log").exists()


async def _health(stack: Stack) -> int:
    async with aiohttp.ClientSession() as http, http.get(f"{stack.base_url}/health") as answer:
        return answer.status


def _ec2(stack: Stack) -> Any:
    return aws_session().client("ec2", endpoint_url=stack.endpoint_url, config=client_config())


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not condition():  # noqa: ASYNC110 (processes announce nothing)
            await asyncio.sleep(0.02)


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


def _last_line(owner: "subprocess.Popen[bytes]") -> str:
    """The ports, past the log lines printed before them."""
    assert owner.stdout is not None
    for line in owner.stdout:
        if line.split()[0].isdigit():
            return line.decode()
    raise AssertionError("the owner ended")


def _own_pid() -> int:
    return int(Path("/proc/self").readlink().name)


def _children(parent: int) -> set[int]:
    """Running children of a process, by proc(5)."""
    children = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _parent(int(entry.name)) == parent and _runs(int(entry.name)):
            children.add(int(entry.name))
    return children


def _parent(pid: int) -> int | None:
    fields = _fields(pid)
    return int(fields[1]) if fields else None


def _runs(pid: int) -> bool:
    fields = _fields(pid)
    return bool(fields) and fields[0] != "Z"


def _fields(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
