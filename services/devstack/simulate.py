"""`python -m services.devstack.simulate`: days under each policy, in seconds, by a virtual clock. Composition root."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from services.devstack.simulation.day import simulate
from services.devstack.simulation.plot import svg
from services.devstack.simulation.policies import POLICIES
from services.devstack.simulation.report import markdown, terminal_table
from services.devstack.simulation.traces import all_traces

_SEED = 1
_TABLE_WIDTH = 150
_DESCRIPTION = "Whole days under three policies, on a virtual clock: what became of the jobs, and what it cost."
_CAPTION = "What the GPU does in 24 hours, and what it costs"


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table; write the page and the picture where asked to."""
    parser = argparse.ArgumentParser(prog="simulate", description=_DESCRIPTION)
    parser.add_argument("--seed", type=int, default=_SEED, help="of the random arrivals (default: %(default)s)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there; needs --plot")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write the picture there, as SVG")
    options = parser.parse_args(argv)
    if options.markdown and not options.plot:
        parser.error("--markdown shows the picture: say --plot FILE as well")
    days = [simulate(trace, policy) for trace in all_traces(options.seed) for policy in POLICIES]
    console = Console()
    console.width = max(console.width, _TABLE_WIDTH)
    console.print(terminal_table(days))
    if options.plot:
        options.plot.write_text(svg(days, caption=_CAPTION), encoding="utf-8")
    if options.markdown:
        command = f".venv/bin/python -m services.devstack.simulate --seed {options.seed}"
        plot = Path(os.path.relpath(options.plot, options.markdown.parent)).as_posix()
        options.markdown.write_text(markdown(days, command=command, plot=plot), encoding="utf-8")


if __name__ == "__main__":
    main()
