"""`python -m services.devstack demo|up|soak`: the whole system on one machine. Composition root."""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import SystemRandom
from typing import NoReturn

import structlog
from rich.console import Console

from lib.daemon.logs import LogFormat, configure_logging
from lib.daemon.supervision import run
from services.devstack.demo.story import Story, upload_samples
from services.devstack.options import StackOptions
from services.devstack.soak.session import print_verdict, soak
from services.devstack.stack import Stack

_RESULTS = Path("demo-results")
_UP_LOGS = Path("demo-up-logs")
_LOCAL_ORIGINS = "http://localhost:*,http://127.0.0.1:*,http://[::1]:*"
_INTERRUPTED = 130

_SOAK_LOGS = Path("soak-logs")

_DESCRIPTION = (
    "The whole system on one machine: emulated AWS, the orchestrator, and a pretend GPU instance with the real adapter "
    "beside a stand-in Unified API."
)

Play = Callable[[], Awaitable[int]]

log = structlog.stdlib.get_logger(__name__)


def main() -> None:
    """Exit codes: 0 all as it should be, 1 not, 130 interrupted before the end; `up` has no other end."""
    parser = argparse.ArgumentParser(prog="devstack", description=_DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("demo", "play the whole story and end"), ("up", "leave the system running until Ctrl-C")):
        command = commands.add_parser(name, help=text)
        command.add_argument("--scale", type=float, default=120.0, help="how many times faster 30 minutes pass")
        command.add_argument("--port", type=int, default=0 if name == "demo" else 8080, help="the orchestrator's port")
    _add_soak(commands.add_parser("soak", help="disturb the running system, then balance the books"))
    arguments = parser.parse_args()
    configure_logging("devstack", form=LogFormat.CONSOLE, level="WARNING")
    sys.exit(_run(_chosen(arguments), interrupted=0 if arguments.command == "up" else _INTERRUPTED))


def _add_soak(soaking: argparse.ArgumentParser) -> None:
    soaking.add_argument("--minutes", type=float, default=10.0, help="of disturbance, over all seeds")
    soaking.add_argument("--seed", type=int, default=None, help="the first one; random if left out")
    soaking.add_argument("--seeds", type=int, default=5, help="how many, one after the other")


def _chosen(arguments: argparse.Namespace) -> Play:
    if arguments.command == "soak":
        first = arguments.seed if arguments.seed is not None else SystemRandom().randrange(100_000)
        return partial(_soak, first, arguments.seeds, arguments.minutes * 60 / arguments.seeds)
    options = StackOptions(scale=arguments.scale, port=arguments.port, boot_s=3.0, pending_s=1.5)
    if arguments.command == "demo":
        return partial(_demo, options)
    return partial(_up, replace(options, log_dir=_UP_LOGS, orchestrator_env=_chosen_for_orchestrator(os.environ)))


def _chosen_for_orchestrator(environment: Mapping[str, str]) -> Mapping[str, str]:
    """What whoever plays with the API may want otherwise."""
    return {
        "API_KEYS": environment.get("API_KEYS", ""),
        "CORS_ORIGINS": environment.get("CORS_ORIGINS") or _LOCAL_ORIGINS,
    }


def _run(play: Play, *, interrupted: int) -> int:
    verdict = interrupted

    async def until_stopped(stop: asyncio.Event) -> None:
        nonlocal verdict
        playing = asyncio.ensure_future(play())
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({playing, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if playing.done():
                verdict = playing.result()
        finally:
            for task in (playing, stopping):
                task.cancel()
            await asyncio.gather(playing, stopping, return_exceptions=True)

    return run(until_stopped) or verdict


async def _demo(options: StackOptions) -> int:
    console = _console()
    await asyncio.to_thread(_clear, _RESULTS)
    console.print("Starting emulated AWS, the orchestrator and a GPU instance that is asleep ...")
    async with Stack(replace(options, log_dir=_RESULTS / "logs")) as stack:
        complaints = await Story(stack, console=console, folder=_RESULTS).play()
    console.print(f"Pictures and the logs of every process: {_RESULTS}/")
    return 1 if complaints else 0


async def _soak(first_seed: int, seeds: int, seconds: float) -> int:
    console = _console()
    unbalanced = 0
    for seed in range(first_seed, first_seed + seeds):
        console.print(f"seed {seed}: {seconds:.0f} s of faults ...")
        verdict = await soak(seconds=seconds, seed=seed, folder=_SOAK_LOGS, console=console)
        print_verdict(console, verdict)
        unbalanced += bool(verdict.imbalances)
    console.print(f"{seeds - unbalanced} of {seeds} books balance; logs: {_SOAK_LOGS}/")
    return 1 if unbalanced else 0


def _clear(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()


def _console() -> Console:
    """Without a terminal lines may be longer than the 80 columns rich would assume."""
    console = Console()
    return console if console.is_terminal else Console(width=140)


def _note_doctor(stack: Stack) -> str:
    """The command line that looks at this deployment; the names of everything are in a file beside the logs."""
    file = (stack.log_dir / "doctor.env").absolute()
    file.write_text("".join(f"{name}={value}\n" for name, value in stack.doctor_environment().items()))
    return f"env $(cat {shlex.quote(str(file))}) {shlex.quote(sys.executable)} -m services.doctor"


async def _up(options: StackOptions) -> NoReturn:
    console = _console()
    await asyncio.to_thread(_clear, _UP_LOGS)
    async with Stack(options) as stack:
        await asyncio.to_thread(upload_samples, stack)
        doctor = await asyncio.to_thread(_note_doctor, stack)
        console.print(f"orchestrator  {stack.base_url}")
        console.print(f"emulated AWS  {stack.endpoint_url}")
        console.print(
            f"samples       s3://{stack.resources.bucket}/samples/house-on-a-hill.jpg, portrait.jpg, bottle.jpg"
        )
        console.print(f"logs          {stack.log_dir}/, kept after the end")
        # Markup and line ends of a terminal would spoil what is to be copied.
        console.print(f"doctor        {doctor}", markup=False, soft_wrap=True)
        console.print("              (misses what is no part of emulated AWS: alarm, function, instance profile)")
        console.print(f"30 idle minutes pass in {1800 / options.scale:g} s. Ctrl-C ends everything.")
        for_ever: asyncio.Future[NoReturn] = asyncio.get_running_loop().create_future()
        await for_ever


if __name__ == "__main__":
    main()
