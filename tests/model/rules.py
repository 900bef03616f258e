"""The rules that are explored: the real decisions and transitions, unless a test puts another in their place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from lib.asyncaws.conditions import Change
from lib.gputask import transitions
from services.adapter import refusal
from services.orchestrator import tidying, waking
from services.shutdown import decision
from services.shutdown.facts import Facts
from tests.model.world import TICK_S


@dataclass(frozen=True, slots=True)
class Verbs:
    """The edges of a task's life."""

    claim: Callable[..., Change] = transitions.claim
    hold: Callable[..., Change] = transitions.hold
    note: Callable[..., Change] = transitions.note_upstream_job
    finish: Callable[..., Change] = transitions.finish
    fail: Callable[..., Change] = transitions.fail
    release: Callable[..., Change] = transitions.release
    resend: Callable[..., Change] = transitions.resend
    give_up: Callable[..., Change] = transitions.give_up


@dataclass(frozen=True, slots=True)
class Rules:
    """Attributes:
    judge: the Lambda's decision. wake: the waker's. tidy: the janitor's. refuse: the adapter's.
    wakes_on_nudge_only: the waker looks once per POST and never else.
    stops_on_alarm_only: the Lambda looks only when the original alarm (visible messages, transitions) calls it.
    has_janitor: what the queue lost is sent again.
    acknowledges_first: the message is deleted as soon as its task is claimed.
    """

    judge: Callable[[Facts, decision.Policy], decision.Decision] = decision.decide
    wake: Callable[[waking.WakeFacts], waking.WakeDecision] = waking.decide
    tidy: Callable[..., tidying.Verdict] = tidying.decide
    refuse: Callable[..., refusal.Refusal] = refusal.decide
    verbs: Verbs = field(default_factory=Verbs)
    wakes_on_nudge_only: bool = False
    stops_on_alarm_only: bool = False
    has_janitor: bool = True
    acknowledges_first: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """How large the world is. Times in ticks, in the order of the real ones.

    Attributes:
        posts: the task of each request; a task named twice was asked for twice with one Idempotency-Key.
        faults: how many things go wrong in one run, of any kind, at any moment.
        only: a regular expression that those things match.
        max_age: None: no task ever expires, so that each must come to its end without that last resort.
        works: False: the worker's image is broken, no adapter ever starts.
        looks: how many Lambdas may run at once.
        most_launches: how often a broken image may be launched for one task; None: not counted.
    """

    posts: tuple[int, ...] = (0,)
    faults: int = 1
    only: str = ""
    lease: int = 1
    resend: int = 2
    grace: int = 2
    deadline: int = 3
    idle: int = 4
    hold: int = 2
    hold_max: int = 4
    force_stop_after: int = 1
    max_age: int | None = None
    max_attempts: int = 3
    max_receives: int = 4
    works: bool = True
    looks: int = 1
    most_launches: int | None = None

    @property
    def tasks(self) -> int:
        return max(self.posts) + 1

    @property
    def is_lone_task_with_one_fault(self) -> bool:
        return self.tasks == 1 and self.faults <= 1 and self.works and self.max_age is None

    @property
    def policy(self) -> decision.Policy:
        return decision.Policy(
            idle_s=self.idle * TICK_S,
            worker_grace_s=self.grace * TICK_S,
            hold_s=self.hold * TICK_S,
            hold_max_s=self.hold_max * TICK_S,
            force_stop_after_s=self.force_stop_after * TICK_S,
        )

    @property
    def limits(self) -> tidying.Limits:
        max_age_s = float("inf") if self.max_age is None else self.max_age * TICK_S
        return tidying.Limits(resend_after_s=self.resend * TICK_S, max_age_s=max_age_s)

    @property
    def past(self) -> int:
        """An age beyond which a launch or an activity keeps nothing on; a claim may be one older than the launch."""
        return self.idle + self.grace

    @property
    def oldest(self) -> int:
        """An age beyond which nothing depends on it."""
        return max(self.past, self.resend << MOST_SENDS - 1, self.max_age or 0)


MOST_SENDS = 2
"""Sends beyond count as so many, so that the patience of the janitor stops doubling and the world stays finite."""
