"""POST requests in the orchestrator, one step per call: submission.py there. Nothing is promised before the answer."""

from __future__ import annotations

from collections.abc import Iterator

from lib.gputask import transitions
from tests.model.rules import Rules, Scope
from tests.model.step import FREE, PROMPT, Kind, Step, fault
from tests.model.table import Table, item_of, record_of
from tests.model.world import NOBODY, NOW_S, RUNNING, WITHDRAWN, Message, Post, Task, World, put, queued


class Submission:
    """Proposes the next steps of every request."""

    def __init__(self, rules: Rules, scope: Scope, table: Table) -> None:
        self._rules = rules
        self._table = table

    def steps(self, world: World) -> Iterator[Step]:
        for number, post in enumerate(world.posts):
            if post.stage == "unborn":
                yield Step(_name(number), *self._arrive(world, number, post))
                return  # the requests differ in nothing, so they come in their order
            if post.stage != "over":
                text, after = self._next(world, number, post)
                yield Step(_name(number), text, PROMPT, after)

    def faults(self, world: World) -> Iterator[Step]:
        for number, post in enumerate(world.posts):
            if post.stage == "announce":
                yield fault(_name(number), "cannot announce, is answered 503", _turned(world, number, "over"))
            if post.stage == "send":
                back = _turned(world, number, "withdraw")
                yield fault(_name(number), "cannot send", back)
                sent = back._replace(queue=queued(back.queue, Message(post.task)))
                yield fault(_name(number), "sends the message, the answer is lost", sent)

    def _arrive(self, world: World, number: int, post: Post) -> tuple[str, Kind, World]:
        task = world.tasks[post.task]
        if task.status in NOBODY:
            created = _turned(world, number, "send").with_task(post.task, Task("pending", sends=1))
            return f"creates task {post.task}", FREE, created
        untouched = task.status == "pending" and (task.attempt, task.sends) == (0, 1)
        stage = "announce" if untouched else "answer"
        return f"finds task {post.task}", FREE, _turned(world, number, stage, queued_=task.queued)

    def _next(self, world: World, number: int, post: Post) -> tuple[str, World]:
        match post.stage:
            case "announce":
                return self._announce(world, number, post)
            case "send":
                return f"sends the message of task {post.task}", self._sent(_turned(world, number, "answer"), post)
            case "answer":
                task = world.tasks[post.task]._replace(promised=True)
                return "is answered 202", _turned(world, number, "over").with_task(post.task, task)
            case _:
                return self._withdraw(_turned(world, number, "over"), post)

    def _announce(self, world: World, number: int, post: Post) -> tuple[str, World]:
        task = world.tasks[post.task]
        announced = self._table.resend(task, post.queued, 1)
        if announced is not None:
            return "announces another message", _turned(world, number, "send").with_task(post.task, announced)
        if task.status in NOBODY:
            return "finds the task taken back, is answered 503", _turned(world, number, "over")
        return "is overtaken", _turned(world, number, "answer")

    def _sent(self, world: World, post: Post) -> World:
        # While the instance boots, the original alarm's gauge does see the message.
        seen = self._rules.stops_on_alarm_only and world.power != RUNNING
        alarm = world.alarm._replace(seen=True) if seen else world.alarm
        waker = "nudged" if self._rules.wakes_on_nudge_only else world.waker
        return world._replace(queue=queued(world.queue, Message(post.task)), alarm=alarm, waker=waker)

    def _withdraw(self, world: World, post: Post) -> tuple[str, World]:
        task = world.tasks[post.task]
        record = record_of(task)
        if record is not None and transitions.withdraw(record, now=NOW_S).applied_to(item_of(task)) is not None:
            gone = Task(WITHDRAWN, promised=task.promised)
            return f"takes task {post.task} back, is answered 503", world.with_task(post.task, gone)
        return "is answered 503", world


def _name(number: int) -> str:
    return f"POST {number}"


def _turned(world: World, number: int, stage: str, *, queued_: int = 0) -> World:
    post = Post(world.posts[number].task, stage, queued_)
    return world._replace(posts=put(world.posts, number, post))
