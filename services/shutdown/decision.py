"""What to do with the instance, given the facts. Pure: no I/O, no clock; every time is in epoch seconds.

Four rules stop it, each in bounded time whatever the facts say:

- A: nothing was created, claimed or launched for ``idle_s`` and nothing waits.
- B: the same, but a task is still being processed: it is stuck, or takes far too long.
- C: tasks wait, but nobody serves them: no worker with a healthy upstream, or one that only looks healthy.
- D: the table has not been readable for ``idle_s`` and ``worker_grace_s``: nothing can be claimed or finished either.

One that does not come to the end of its stop is stopped by force: meanwhile it cannot be started, and tasks wait.

A stop on facts that were overtaken is harmless: a task created between the look and the stop is demand in the table,
and the orchestrator's waker starts the instance again as soon as it is stopped.
"""

from dataclasses import dataclass
from enum import StrEnum

from services.shutdown.facts import NEVER, Facts, Hold, Task

_MOST_DOUBLINGS = 30
"""Keeps 2 ** hold_count a sensible float however often a broken image was tried."""

_WINDOWS_OF_SERVICE = 2
"""For so many idle windows the deleting of obsolete messages counts as service."""


class Rule(StrEnum):
    """Why the instance is stopped."""

    IDLE = "A"
    STUCK = "B"
    BROKEN = "C"
    BLIND = "D"


@dataclass(frozen=True, slots=True)
class Policy:
    """The numbers of the rules, in seconds."""

    idle_s: float
    worker_grace_s: float
    hold_s: float
    hold_max_s: float
    force_stop_after_s: float


@dataclass(frozen=True, slots=True)
class Leave:
    """Leave the instance as it is.

    ``stops_at`` is the moment it would be stopped if nothing changed until then (leases being renewed), None while it
    does not run. ``clear_hold``: the hold on its starts has lost its reason.
    """

    reason: str
    stops_at: float | None = None
    clear_hold: bool = False


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop the instance; before that, fail ``give_up`` as ``rule_b`` and see that ``hold``, if any, is in force.

    ``due_at``: since when it is right.
    """

    rule: Rule
    reason: str
    due_at: float
    give_up: tuple[Task, ...] = ()
    hold: Hold | None = None


@dataclass(frozen=True, slots=True)
class ForceStop:
    """Have EC2 end a stop that hangs."""

    reason: str


Decision = Leave | Stop | ForceStop


def decide(facts: Facts, policy: Policy) -> Decision:
    """The whole judgement of the Lambda; why it was invoked plays no part.

    Level-triggered: it may be asked at any time, by two Lambdas at once, about facts that are some seconds old.
    """
    if facts.state == "stopping":
        return _judge_stop(facts, policy)
    if facts.state != "running":
        return Leave(f"the instance is {facts.state}")
    if facts.waiting:
        return _judge_service(facts, policy)
    return _judge_idleness(facts, policy)


def decide_blind(unreadable_since: float, now: float, policy: Policy) -> Decision:
    """The judgement while the table does not answer, about an instance that runs.

    A short outage stops nothing: work goes on meanwhile. A long one must not keep a paid machine on for as long as it
    lasts; no worker can claim or finish anything then, and the tasks are still there after it.
    """
    stops_at = unreadable_since + policy.idle_s + policy.worker_grace_s
    if now < stops_at:
        return Leave("the table cannot be read", stops_at=stops_at)
    return Stop(Rule.BLIND, f"the table could not be read for {_span(policy.idle_s + policy.worker_grace_s)}", stops_at)


def _judge_stop(facts: Facts, policy: Policy) -> Decision:
    """EC2 cuts the power of an instance that does not shut down after a few minutes, and an adapter drains for less.

    What takes longer hangs at EC2 itself. An unknown begin is no reason to force anything.
    """
    if facts.stopping_since is None or facts.now < facts.stopping_since + policy.force_stop_after_s:
        return Leave("the instance is stopping")
    return ForceStop(f"the instance has been stopping for {_span(facts.now - facts.stopping_since)}")


def _judge_service(facts: Facts, policy: Policy) -> Decision:
    absent_at = _worker_absent_at(facts, policy)
    if facts.now >= absent_at:
        return _break_off(facts, policy, _absence(facts), absent_at)
    patience_s = max(policy.idle_s, policy.worker_grace_s)  # a worker that may still be booting has not stalled
    stalled_at = _last_served_at(facts, policy) + patience_s
    if facts.now >= stalled_at:
        # A worker that only looks healthy may not keep a paid machine on. No honest one gets here: its deadline for a
        # job is below idle_s, and after each job it claims the next.
        return _break_off(facts, policy, f"the worker claimed nothing for {_span(patience_s)}", stalled_at)
    return Leave(_work(facts), stops_at=min(absent_at, stalled_at), clear_hold=_has_earned_trust(facts, policy))


def _judge_idleness(facts: Facts, policy: Policy) -> Decision:
    stops_at = facts.last_activity_at + policy.idle_s
    if facts.visible != 0:
        # The table, which is the truth, knows of no demand. A message may be ahead of the table's index, so it
        # postpones the stop by the time any worker needs to take it; not longer: a left-over may never be deleted.
        stops_at += policy.worker_grace_s
    if facts.now < stops_at:
        return Leave(_work(facts), stops_at=stops_at, clear_hold=_has_earned_trust(facts, policy))
    quiet = f"no task was created or claimed for {_span(policy.idle_s)}"
    if not facts.leased:
        return Stop(Rule.IDLE, quiet, stops_at)
    # A claim is activity, so each of these was claimed at least idle_s ago.
    stuck = f"{quiet}, with {_count(facts, facts.leased)} still processing"
    return Stop(Rule.STUCK, stuck, stops_at, give_up=facts.leased)


def _worker_absent_at(facts: Facts, policy: Policy) -> float:
    """When the worker will count as absent, should it say no more than it has said.

    What it said before this launch buys no more time than the launch itself, so old records need no special case.
    """
    vouched_at = facts.worker.vouched_at(facts.now) if facts.worker else None
    return max(facts.last_launch_at, vouched_at or NEVER) + policy.worker_grace_s


def _last_served_at(facts: Facts, policy: Policy) -> float:
    """When something was claimed, or could have been for the first time; or, for a while, when a message was deleted.

    A worker that deletes what a flood has left in the queue is no broken one, and a task behind it waits rightly. But
    a queue that never ends must not keep the machine on.
    """
    since = facts.unserved_since
    return max(since, min(facts.last_service_at, since + _WINDOWS_OF_SERVICE * policy.idle_s))


def _has_earned_trust(facts: Facts, policy: Policy) -> bool:
    """Whether a hold has lost its reason: this launch's worker is healthy and, where work waits, has claimed some.

    Health alone is not enough while tasks wait: a worker that looks healthy and claims nothing would wipe the count
    before each of its stops, and the holds would never grow.
    """
    if facts.hold is None or facts.worker is None:
        return False
    vouched_at = facts.worker.vouched_at(facts.now)
    if vouched_at is None or vouched_at < facts.last_launch_at or facts.now >= vouched_at + policy.worker_grace_s:
        return False
    return not facts.waiting or facts.last_claim_at >= facts.last_launch_at


def _break_off(facts: Facts, policy: Policy, problem: str, due_at: float) -> Stop:
    reason = f"{_count(facts, facts.waiting)} waiting, but {problem}"
    return Stop(Rule.BROKEN, reason, due_at, hold=_next_hold(facts, policy))


def _next_hold(facts: Facts, policy: Policy) -> Hold:
    """A hold twice as long as the one of the launch before, or the one that this launch has brought already.

    One hold per launch: a stop that EC2 refuses is repeated every minute, and must not double the hold each time.
    """
    past = facts.hold
    if past and past.put_at is not None and past.put_at >= facts.last_launch_at:
        return past
    count = max(past.count, 0) if past else 0
    length_s = min(policy.hold_s * 2.0 ** min(count, _MOST_DOUBLINGS), policy.hold_max_s)
    return Hold(until=facts.now + length_s, count=count + 1, put_at=facts.now)


def _absence(facts: Facts) -> str:
    worker = facts.worker
    if worker is None or worker.beat_at is None or worker.beat_at < facts.last_launch_at:
        return "no worker has reported since the launch"
    if worker.is_ahead(facts.now):
        return "the worker's clock is ahead, so that its reports prove nothing"
    if worker.upstream_ok_at is None or worker.upstream_ok_at < facts.last_launch_at:
        return "the worker's upstream has not been healthy since the launch"
    if worker.upstream_ok_at < worker.beat_at:
        return f"the worker's upstream was last healthy {_span(facts.now - worker.upstream_ok_at)} ago"
    return f"the worker last reported {_span(facts.now - worker.beat_at)} ago"


def _work(facts: Facts) -> str:
    if facts.waiting or facts.leased:
        return f"{_count(facts, facts.waiting)} waiting, {_count(facts, facts.leased)} processing"
    quiet = f"the last activity was {_span(facts.now - facts.last_activity_at)} ago"
    if facts.visible is None:
        return f"{quiet}, and the queue does not answer"
    return f"{quiet}, and the queue shows messages" if facts.visible else quiet


def _count(facts: Facts, tasks: tuple[Task, ...]) -> str:
    if facts.is_partial:
        return f"{len(tasks)} tasks or more"
    return "1 task" if len(tasks) == 1 else f"{len(tasks)} tasks"


def _span(seconds: float) -> str:
    whole_s = max(round(seconds), 0)
    return f"{whole_s} s" if whole_s < 120 else f"{whole_s // 60} min"
