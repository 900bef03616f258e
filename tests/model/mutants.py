"""Our rules, each with one thing wrong. The exploration must notice every one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from lib.asyncaws.conditions import AllOf, AnyOf, AtMost, Change, Equals, LessThan
from lib.gputask import transitions
from lib.gputask.record import TaskRecord
from services.orchestrator import tidying
from services.orchestrator.waking import Action, WakeDecision, WakeFacts
from services.orchestrator.waking import decide as wake
from services.shutdown.decision import Decision, ForceStop, Leave, Policy, Rule, Stop
from services.shutdown.decision import decide as judge
from services.shutdown.facts import Facts
from tests.model.rules import Rules, Verbs


def _claim_whatever_the_lease(**arguments: Any) -> Change:
    real = transitions.claim(**arguments)
    live = AnyOf(Equals("status", "pending"), Equals("status", "processing"))
    return replace(real, condition=AllOf(live, LessThan("attempt", arguments["max_attempts"])))


def _finish_whatever_the_attempt(**arguments: Any) -> Change:
    return replace(transitions.finish(**arguments), condition=Equals("status", "processing"))


def _finish_whatever_the_status(**arguments: Any) -> Change:
    real = transitions.finish(**arguments)
    return replace(real, condition=Equals("attempt", arguments["attempt"]))


def _with_a_lease_only(verb: Callable[..., Change]) -> Callable[..., Change]:
    """A lease that is not there never ends."""

    def change(*arguments: Any, now: float, **named: Any) -> Change:
        real = verb(*arguments, now=now, **named)
        ended = AnyOf(Equals("status", "pending"), AtMost("lease_until", now))
        return replace(real, condition=AllOf(real.condition or ended, ended))

    return change


def _claim_twice_as_dear(**arguments: Any) -> Change:
    return replace(transitions.claim(**arguments), add={"attempt": 2})


def _hold_and_forget_the_run(**arguments: Any) -> Change:
    real = transitions.note_upstream_job(**arguments)
    return replace(real, assign={**real.assign, "comfy_job_id": None})


def _never_resend(task: TaskRecord, *, now: float, limits: tidying.Limits, is_covered: bool) -> tidying.Verdict:
    verdict = tidying.decide(task, now=now, limits=limits, is_covered=is_covered)
    return tidying.Verdict.KEEP if verdict is tidying.Verdict.RESEND else verdict


def _judge_without(rule: Rule) -> Any:
    def decide(facts: Facts, policy: Policy) -> Decision:
        decision = judge(facts, policy)
        return Leave("not my rule") if isinstance(decision, Stop) and decision.rule is rule else decision

    return decide


def _judge_without_force(facts: Facts, policy: Policy) -> Decision:
    decision = judge(facts, policy)
    return Leave("no force") if isinstance(decision, ForceStop) else decision


def _judge_holding_no_longer_each_time(facts: Facts, policy: Policy) -> Decision:
    decision = judge(facts, policy)
    if isinstance(decision, Stop) and decision.hold:
        until = min(decision.hold.until, facts.now + policy.hold_s)
        return replace(decision, hold=replace(decision.hold, until=until))
    return decision


def _judge_seeing_no_claims(facts: Facts, policy: Policy) -> Decision:
    """A stop by the age of the submissions alone, as long as nothing waits."""
    if facts.waiting:
        return judge(facts, policy)
    claimless = tuple(replace(task, claimed_at=None) for task in facts.tasks)
    return judge(replace(facts, tasks=claimless, last_claimed_at=None, launched_at=None), policy)


def _wake_despite_the_hold(facts: WakeFacts) -> WakeDecision:
    return wake(replace(facts, hold_until=0.0))


def _rest_while_stopping(facts: WakeFacts) -> WakeDecision:
    decision = wake(facts)
    return decision if decision.action is Action.START else WakeDecision(Action.REST, "the GPU is up")


CLAIMS_DESPITE_LEASE = Rules(verbs=Verbs(claim=_claim_whatever_the_lease))
PUBLISHES_UNFENCED = Rules(verbs=Verbs(finish=_finish_whatever_the_attempt))
OVERWRITES_THE_END = Rules(verbs=Verbs(finish=_finish_whatever_the_status))
COUNTS_EACH_TRY_TWICE = Rules(verbs=Verbs(claim=_claim_twice_as_dear))
WAITS_FOR_EVERY_LEASE = Rules(
    verbs=Verbs(
        claim=_with_a_lease_only(transitions.claim),
        resend=_with_a_lease_only(transitions.resend),
        give_up=_with_a_lease_only(transitions.give_up),
    )
)
NOTES_NOTHING = Rules(verbs=Verbs(note=_hold_and_forget_the_run))
NEVER_RESENDS = Rules(tidy=_never_resend)
LOOKS_ONCE_PER_POST = Rules(wake=_rest_while_stopping, wakes_on_nudge_only=True)
HAS_NO_RULE_A = Rules(judge=_judge_without(Rule.IDLE))
HAS_NO_RULE_B = Rules(judge=_judge_without(Rule.STUCK))
HAS_NO_RULE_C = Rules(judge=_judge_without(Rule.BROKEN))
USES_NO_FORCE = Rules(judge=_judge_without_force)
HOLDS_NO_LONGER_EACH_TIME = Rules(judge=_judge_holding_no_longer_each_time)
IGNORES_THE_HOLD = Rules(wake=_wake_despite_the_hold)
IGNORES_CLAIMS = Rules(judge=_judge_seeing_no_claims)
ACKNOWLEDGES_FIRST = Rules(acknowledges_first=True)
ACKNOWLEDGES_FIRST_AND_NEVER_RESENDS = Rules(acknowledges_first=True, tidy=_never_resend)
