"""One thing that may happen."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from tests.model.world import World


class Kind(IntEnum):
    """PROMPT: somebody does it before a tick is over. FREE: it may happen or not. FAULT: one of those in a run."""

    PROMPT = 0
    FREE = 1
    FAULT = 2


PROMPT, FREE, FAULT = Kind


class Step(NamedTuple):
    actor: str
    text: str
    kind: Kind
    world: World


def fault(actor: str, text: str, world: World) -> Step:
    """It costs one of the world's faults; only for worlds that have one left."""
    return Step(actor, text, FAULT, world._replace(faults=world.faults - 1))
