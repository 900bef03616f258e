"""`python -m bench post|get|faults|overload|worker|growth|all [--seconds S] [--rounds N] [--json FILE]`."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import faults, get, growth, overload, post, worker
from bench.budget import DEFAULT_SECONDS, Budget
from bench.cores import share_out
from bench.report import Report

SCRIPTS: Mapping[str, Callable[[Budget], Awaitable[Report]]] = {
    "post": post.measure,
    "get": get.measure,
    "faults": faults.measure,
    "overload": overload.measure,
    "worker": worker.measure,
    "growth": growth.measure,
}


def main() -> None:
    """Run the scripts asked for; findings do not change the exit code, since no machine is like another."""
    arguments = _parse()
    names = list(SCRIPTS) if arguments.script == "all" else [arguments.script]
    console = Console(width=None if os.isatty(1) else 132)
    cores = share_out()
    if not cores.are_apart:
        console.print("[yellow]one core only: load and server share it, so even the ratios mean little[/]")
    reports = []
    for name in names:
        report = asyncio.run(_run(name, Budget(arguments.seconds, arguments.rounds)))
        report.print_to(console)
        reports.append(report)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(_document(reports), indent=2) + "\n")


async def _run(name: str, budget: Budget) -> Report:
    return await SCRIPTS[name](budget)


def _document(reports: list[Report]) -> Mapping[str, Any]:
    machine = {"python": platform.python_version(), "cores": os.cpu_count(), "load_average": os.getloadavg()}
    return {"machine": machine, "reports": [report.to_json() for report in reports]}


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure the services as processes.")
    parser.add_argument("script", choices=[*SCRIPTS, "all"])
    parser.add_argument("--seconds", type=float, default=DEFAULT_SECONDS, help="measuring time of each script, about")
    parser.add_argument("--rounds", type=int, default=3, help="medians are reported (3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything there")
    return parser.parse_args()


if __name__ == "__main__":
    main()
