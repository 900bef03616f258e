"""The pretend box beside an emulated instance, with small commands in place of the real services."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.devstack.background import Background
from services.devstack.box import GpuBox, Unit, UnitFile
from services.devstack.emulator.client import EmulatorClient
from services.devstack.power import State
from tests.devstack.emulated import POWER_CUT_S, Emulated

LIMIT_S = 20.0
LISTENING = """
import signal, sys, time
def end(*_):
    print("told", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("up", flush=True)
time.sleep(600)
"""
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
SHORT_LIVED = "print('up', flush=True)"


class Bench:
    """A box, its instance, and what a test looks at."""

    def __init__(self, emulated: Emulated, emulator: EmulatorClient, instance_id: str, box: GpuBox) -> None:
        self.emulated = emulated
        self.emulator = emulator
        self.instance_id = instance_id
        self.box = box

    async def start(self) -> None:
        await asyncio.to_thread(self.emulated.ec2.start_instances, InstanceIds=[self.instance_id])

    async def stop(self) -> None:
        await asyncio.to_thread(self.emulated.ec2.stop_instances, InstanceIds=[self.instance_id])

    async def wait_for(self, state: State) -> float:
        """Wait until the instance is in `state`; how long the state before lasted."""
        async with asyncio.timeout(LIMIT_S):
            view = await self.emulator.instance(self.instance_id)
            while view.state is not state:
                view = await self.emulator.instance(self.instance_id, after=view.version, wait_s=LIMIT_S)
        before = view.intervals[-2]
        return (before.until_s or 0) - before.since_s


@asynccontextmanager
async def rented_box(
    emulated: Emulated, log_dir: Path, *, boot_s: float = 0.1, stop_limit_s: float = LIMIT_S, **programs: str
) -> AsyncIterator[Bench]:
    """A box on a new instance whose units run these programs, in this order."""
    instance_id = await asyncio.to_thread(emulated.new_stopped_instance)
    async with EmulatorClient(emulated.endpoint_url) as emulator, Background() as background:
        box = GpuBox(
            emulator=emulator,
            instance_id=instance_id,
            boot_s=boot_s,
            units=[
                UnitFile(name, [sys.executable, "-c", program], stop_limit_s=stop_limit_s, restart_s=0.05)
                for name, program in programs.items()
            ],
            log_dir=log_dir,
        )
        background.start(box.run(), name="box")
        yield Bench(emulated, emulator, instance_id, box)


async def test_units_start_when_the_running_instance_has_booted(emulated: Emulated, tmp_path: Path) -> None:
    async with rented_box(emulated, tmp_path, boot_s=0.5, unit=LISTENING) as bench:
        unit = bench.box.units["unit"]
        await bench.start()
        await bench.wait_for(State.RUNNING)
        assert unit.starts == 0
        await _until_up(unit, tmp_path)
        assert unit.is_running


async def test_a_unit_that_ends_is_started_again_and_again(emulated: Emulated, tmp_path: Path) -> None:
    async with rented_box(emulated, tmp_path, unit=SHORT_LIVED) as bench:
        await bench.start()
        await _until(lambda: bench.box.units["unit"].restarts >= 3)
        assert bench.box.units["unit"].exit_codes[:3] == [0, 0, 0]


async def test_a_killed_unit_is_started_again(emulated: Emulated, tmp_path: Path) -> None:
    async with rented_box(emulated, tmp_path, unit=LISTENING) as bench:
        unit = bench.box.units["unit"]
        await bench.start()
        await _until_up(unit, tmp_path)
        killed = unit.send(signal.SIGKILL)
        await _until(lambda: unit.starts == 2 and unit.is_running)
        assert unit.exit_codes == [-signal.SIGKILL]
        assert unit.process is not None
        assert unit.process.pid != killed


async def test_a_stop_ends_the_units_in_reverse_order_and_halts_long_before_the_power_cut(
    emulated: Emulated, tmp_path: Path
) -> None:
    both = tmp_path / "both"
    telling = LISTENING.replace('print("told", flush=True)', f"open({str(both)!r}, 'a').write(sys.argv[1] + ' ')")
    async with rented_box(
        emulated,
        tmp_path,
        upstream=telling.replace("sys.argv[1]", "'upstream'"),
        adapter=telling.replace("sys.argv[1]", "'adapter'"),
    ) as bench:
        await bench.start()
        for unit in bench.box.units.values():
            await _until_up(unit, tmp_path)
        await bench.stop()
        assert await bench.wait_for(State.STOPPED) < POWER_CUT_S
        assert both.read_text() == "adapter upstream "
        assert not any(unit.is_running for unit in bench.box.units.values())


async def test_a_deaf_unit_is_killed_after_its_own_limit_and_the_machine_halts(
    emulated: Emulated, tmp_path: Path
) -> None:
    async with rented_box(emulated, tmp_path, stop_limit_s=0.2, unit=DEAF) as bench:
        unit = bench.box.units["unit"]
        await bench.start()
        await _until_up(unit, tmp_path)
        await bench.stop()
        assert await bench.wait_for(State.STOPPED) < POWER_CUT_S
        assert unit.exit_codes == [-signal.SIGKILL]


async def test_a_machine_that_does_not_halt_loses_its_power(emulated: Emulated, tmp_path: Path) -> None:
    async with rented_box(emulated, tmp_path, stop_limit_s=600, unit=DEAF) as bench:
        unit = bench.box.units["unit"]
        await bench.start()
        await _until_up(unit, tmp_path)
        await bench.stop()
        assert await bench.wait_for(State.STOPPED) == pytest.approx(POWER_CUT_S)
        await _until(lambda: not unit.is_running)


async def test_a_stop_during_the_boot_halts_at_once_and_starts_nothing(emulated: Emulated, tmp_path: Path) -> None:
    async with rented_box(emulated, tmp_path, boot_s=600, unit=LISTENING) as bench:
        await bench.start()
        await bench.wait_for(State.RUNNING)
        await bench.stop()
        assert await bench.wait_for(State.STOPPED) < POWER_CUT_S
        assert bench.box.units["unit"].starts == 0


async def test_a_box_boots_again_after_it_was_stopped(emulated: Emulated, tmp_path: Path) -> None:
    async with rented_box(emulated, tmp_path, unit=LISTENING) as bench:
        unit = bench.box.units["unit"]
        for boot in range(2):
            await bench.start()
            await _until_up(unit, tmp_path, times=boot + 1)
            await bench.stop()
            await bench.wait_for(State.STOPPED)
        assert unit.exit_codes == [0, 0]


@pytest.mark.parametrize("program", [LISTENING, DEAF])
async def test_leaving_the_box_leaves_no_process(emulated: Emulated, tmp_path: Path, program: str) -> None:
    async with rented_box(emulated, tmp_path, unit=program) as bench:
        unit = bench.box.units["unit"]
        await bench.start()
        await _until_up(unit, tmp_path)
    assert not unit.is_running


async def test_a_signal_to_a_unit_that_does_not_run_is_an_error(emulated: Emulated, tmp_path: Path) -> None:
    async with rented_box(emulated, tmp_path, unit=LISTENING) as bench:
        with pytest.raises(ProcessLookupError, match="unit does not run"):
            bench.box.units["unit"].send(signal.SIGKILL)


async def _until_up(unit: Unit, log_dir: Path, *, times: int = 1) -> None:
    log_path = log_dir / f"{unit.file.name}.log"
    await _until(lambda: log_path.exists() and log_path.read_text().count("up") >= times)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not condition():  # noqa: ASYNC110 (processes announce nothing)
            await asyncio.sleep(0.02)
