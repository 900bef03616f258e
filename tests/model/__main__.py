"""Explore worlds of a chosen size: ``python -m tests.model --posts 0,1 --faults 2``."""

from __future__ import annotations

import argparse
import sys

from tests.model import mutants
from tests.model.examination import examine
from tests.model.original import ORIGINAL
from tests.model.rules import Rules, Scope

_RULES = {"ours": Rules(), "original": ORIGINAL} | {
    name.lower(): rules for name, rules in vars(mutants).items() if isinstance(rules, Rules)
}


def main() -> int:
    """Prints the counts and, of every broken promise, a shortest way to break it. Exit code 1 if there is one."""
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument("--rules", choices=sorted(_RULES), default="ours")
    parser.add_argument("--posts", default="0", help="the task of each request: 0,1 are two, 0,0 one asked for twice")
    parser.add_argument("--faults", type=int, default=1)
    parser.add_argument("--only", default="", help="regular expression of the faults, as the stories name them")
    parser.add_argument("--idle", type=int, default=4, help="ticks (of 5 min) without work after which the GPU stops")
    parser.add_argument("--deadline", type=int, default=3, help="ticks a job may take")
    parser.add_argument("--looks", type=int, default=1, help="Lambdas that may run at once")
    chosen = parser.parse_args()
    scope = Scope(
        posts=tuple(int(task) for task in chosen.posts.split(",")),
        faults=chosen.faults,
        only=chosen.only,
        idle=chosen.idle,
        deadline=chosen.deadline,
        looks=chosen.looks,
    )
    examination = examine(_RULES[chosen.rules], scope)
    print(examination)
    return 1 if examination.findings else 0


if __name__ == "__main__":
    sys.exit(main())
