import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.devstack.processes import OwnedProcess, ProcessNotReadyError, owned_process
from tests.devstack.emulated import poll_until

ROOT = Path(__file__).parents[2]
SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
PARENT = """
import asyncio, os, sys
from pathlib import Path
from services.devstack.processes import OwnedProcess

async def main():
    command = [sys.executable, "-c", sys.argv[1]]
    child = await OwnedProcess.start("child", command, env=os.environ, log_path=Path(sys.argv[2]))
    print(child.pid, flush=True)
    await child.wait()

asyncio.run(main())
"""


@pytest.fixture
async def sleeper(tmp_path: Path) -> AsyncIterator[OwnedProcess]:
    process = await _start(SLEEPER, tmp_path)
    yield process
    await process.kill()


async def test_a_process_keeps_the_id_it_was_started_with(sleeper: OwnedProcess) -> None:
    await sleeper.wait_ready(lambda: _says(sleeper, "up"), limit_s=20)
    command = _command(sleeper.pid)
    assert SLEEPER.encode() in command
    assert not any(b"leash" in argument for argument in command)


@pytest.mark.parametrize("program", [SLEEPER, DEAF])
def test_a_child_dies_with_its_parent_even_if_that_is_killed(tmp_path: Path, program: str) -> None:
    log_path = tmp_path / "child.log"
    arguments = [sys.executable, "-c", PARENT, program, str(log_path)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, cwd=ROOT) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        poll_until(lambda: "up" in log_path.read_text(), limit_s=20)
        assert _lives(child)
        parent.kill()
    poll_until(lambda: not _lives(child), limit_s=10)


async def test_a_process_that_listens_to_sigterm_ends_by_it(sleeper: OwnedProcess) -> None:
    assert await sleeper.end(limit_s=20) == -signal.SIGTERM
    assert sleeper.exit_code == -signal.SIGTERM


async def test_a_process_deaf_to_sigterm_is_killed_after_its_time(tmp_path: Path) -> None:
    process = await _start(DEAF, tmp_path)
    await process.wait_ready(lambda: _says(process, "up"), limit_s=20)
    assert await process.end(limit_s=0.2) == -signal.SIGKILL


async def test_a_killed_process_takes_its_own_children_with_it(tmp_path: Path) -> None:
    program = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {SLEEPER!r}]).pid, flush=True); "
    process = await _start(program + "import time; time.sleep(600)", tmp_path)
    await process.wait_ready(lambda: _says(process, "up"), limit_s=20)
    grandchild = int(process.log_path.read_text().split()[0])
    await process.kill()
    await asyncio.to_thread(poll_until, lambda: not _lives(grandchild), limit_s=10)


async def test_a_stopped_process_can_be_ended(sleeper: OwnedProcess) -> None:
    await sleeper.wait_ready(lambda: _says(sleeper, "up"), limit_s=20)
    sleeper.send(signal.SIGSTOP)
    await asyncio.to_thread(poll_until, lambda: _state(sleeper.pid) == "T", limit_s=10)
    assert await sleeper.end(limit_s=0.2) == -signal.SIGKILL


async def test_a_signal_to_a_process_that_has_ended_does_nothing(sleeper: OwnedProcess) -> None:
    await sleeper.kill()
    sleeper.send(signal.SIGTERM)
    assert await sleeper.kill() == -signal.SIGKILL


async def test_a_process_that_ends_before_it_is_ready_says_why(tmp_path: Path) -> None:
    process = await _start("import sys; sys.exit('PORT is not set')", tmp_path)
    with pytest.raises(ProcessNotReadyError, match="child exited with 1\nPORT is not set"):
        await process.wait_ready(_never, limit_s=20)


async def test_a_process_that_is_never_ready_is_given_up(sleeper: OwnedProcess) -> None:
    with pytest.raises(ProcessNotReadyError, match=r"child was not ready after 0\.2 s"):
        await sleeper.wait_ready(_never, limit_s=0.2)


async def test_a_process_gets_the_environment_it_is_given_and_nothing_else(tmp_path: Path) -> None:
    process = await _start("import os; print(sorted(os.environ))", tmp_path, {"ONLY": "this"})
    assert await process.wait() == 0
    assert set(_words(process)) <= {"ONLY", "LC_CTYPE"}


async def test_an_owned_process_ends_with_its_block(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SLEEPER]
    with pytest.raises(ZeroDivisionError):
        async with owned_process("child", command, env={}, log_path=tmp_path / "child.log", end_limit_s=20) as process:
            raise ZeroDivisionError
    assert process.exit_code is not None


async def test_a_command_that_does_not_exist_ends_at_once(tmp_path: Path) -> None:
    process = await OwnedProcess.start("child", ["/no/such/command"], env={}, log_path=tmp_path / "child.log")
    assert await process.wait() == 1
    assert "FileNotFoundError" in process.log_tail()


async def _start(program: str, folder: Path, env: dict[str, str] | None = None) -> OwnedProcess:
    command = [sys.executable, "-c", program]
    return await OwnedProcess.start("child", command, env=env or {}, log_path=folder / "child.log")


async def _says(process: OwnedProcess, word: str) -> bool:
    return word in process.log_path.read_text()


async def _never() -> bool:
    return False


def _words(process: OwnedProcess) -> list[str]:
    return process.log_path.read_text().strip("[]\n").replace("'", "").split(", ")


def _command(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


def _lives(pid: int) -> bool:
    """Whether the process runs; a zombie, whose parent in a container may never ask for it, does not."""
    return _state(pid) not in ("Z", None)


def _state(pid: int) -> str | None:
    """R, S, T, Z ... as in proc(5); None if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return None
