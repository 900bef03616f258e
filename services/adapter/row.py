"""The same failure of different jobs in a row: is it theirs, or the upstream's? Pure.

An upstream that has lost its CUDA context says that it is healthy and fails every job within a second. So a row of
such failures shuts the gate, has the upstream restarted, and then one job is tried. If the job fails in the same way,
the restart has changed nothing: the jobs are to blame, and no row is suspected again for a while. So bad input, however
often a client sends it, holds up the others for a bounded share of the time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum

LONG = 3
"""Different jobs that fail in the same way one after the other before the upstream is suspected."""
PAUSE_S = 60.0
"""An upstream that is to be restarted is tried again after that, even if nobody has restarted it."""
QUIET_S = 600.0
"""From one suspicion to the next, at the least."""

_NUMBER = re.compile(r"0x[0-9a-f]+|\d+(\.\d+)?")
_KIND_CHARS = 120
# It did not come as far as the GPU: an image could not be fetched or read, or ComfyUI did not take the workflow.
_OF_THE_INPUT = re.compile(
    r"http error [34]\d\d|nosuchkey|nosuchbucket|accessdenied|unknown url type|urlopen error|invalid url"
    r"|cannot identify image",
    re.IGNORECASE,
)


class Stage(StrEnum):
    """What the row means for the gate."""

    OPEN = "open"
    SHUT = "shut"
    TRIAL = "trial"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What is known of the last failures. Times are monotonic seconds.

    Attributes:
        kind: how they failed.
        inputs: a fingerprint of each job's input. The same input again makes the row no longer.
        shut_until: when a job is tried at the latest.
        was_down: whether the upstream has gone since its restart was asked for.
        quiet_until: until when nothing is suspected again.
    """

    kind: str = ""
    inputs: frozenset[str] = frozenset()
    stage: Stage = Stage.OPEN
    shut_until: float = 0.0
    was_down: bool = False
    quiet_until: float = 0.0


def kind_of(message: str) -> str:
    """What failures that differ only in their numbers have in common."""
    return _NUMBER.sub("#", message.lower())[:_KIND_CHARS]


def tells_of_its_input(message: str) -> bool:
    """Whether the failure is the job's own by its words, so that it says nothing of the upstream."""
    return _OF_THE_INPUT.search(message) is not None


def after_failure(row: Row, *, kind: str, fingerprint: str, now: float) -> Row:
    """A job has failed on an upstream that says that it is healthy."""
    if row.stage is Stage.SHUT:
        return row  # of another slot: it began before
    if row.stage is Stage.TRIAL or now < row.quiet_until:
        return Row(kind=kind, quiet_until=row.quiet_until)
    inputs = row.inputs | {fingerprint} if kind == row.kind else frozenset({fingerprint})
    if len(inputs) < LONG:
        return Row(kind=kind, inputs=inputs, quiet_until=row.quiet_until)
    return Row(kind=kind, inputs=inputs, stage=Stage.SHUT, shut_until=now + PAUSE_S, quiet_until=now + QUIET_S)


def after_success(row: Row) -> Row:
    """A job has ended well, so the upstream is."""
    return Row(quiet_until=row.quiet_until)


def after_look(row: Row, *, is_healthy: bool, now: float) -> Row:
    """The upstream was asked for its health."""
    if row.stage is not Stage.SHUT:
        return row
    if not is_healthy:
        return replace(row, was_down=True)
    return replace(row, stage=Stage.TRIAL) if row.was_down or now >= row.shut_until else row


def is_doubtful(before: Row, after: Row, *, kind: str, fingerprint: str) -> bool:
    """Whether the failure between the two may be the upstream's: the first of a row is believed, the others are not.

    A job that fails a second time is believed, unless the upstream is about to be restarted.
    """
    if kind != after.kind:
        return False
    if after.stage is Stage.SHUT:
        return True
    return len(after.inputs) > 1 and fingerprint not in before.inputs
