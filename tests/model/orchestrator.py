"""The orchestrator's background programs, one step per call: waker.py and janitor.py there."""

from __future__ import annotations

from collections.abc import Iterator

from lib.gputask.record import ErrorCode
from services.orchestrator.tidying import Verdict
from services.orchestrator.waking import Action
from tests.model.rules import Rules, Scope
from tests.model.step import PROMPT, Step, fault
from tests.model.table import Table
from tests.model.world import HANGING, PENDING, STOPPED, STOPPING, Chore, Message, Post, World, queued


class Waker:
    """Starts the instance."""

    def __init__(self, rules: Rules, scope: Scope, table: Table) -> None:
        self._rules = rules
        self._table = table

    def steps(self, world: World) -> Iterator[Step]:
        if world.waker == "starting":
            text, after = _start(world._replace(waker="rest"))
            yield Step("waker", text, PROMPT, after)
        elif not self._rules.wakes_on_nudge_only or world.waker == "nudged":
            if self._table.waking(world) is Action.START:
                yield Step("waker", "decides to start the GPU", PROMPT, world._replace(waker="starting"))
            elif world.waker == "nudged":
                text = f"sees the GPU {world.power} and is content"
                yield Step("waker", text, PROMPT, world._replace(waker="rest"))

    def faults(self, world: World) -> Iterator[Step]:
        if world.waker == "starting" and world.power == STOPPED:
            yield fault("EC2", "refuses the start: no capacity", world._replace(waker="rest", refused=True))


class Janitor:
    """Sends again, expires, buries dead letters."""

    def __init__(self, rules: Rules, scope: Scope, table: Table) -> None:
        self._rules = rules
        self._table = table

    def steps(self, world: World) -> Iterator[Step]:
        if not self._rules.has_janitor:
            return
        if world.janitor is not None:
            text, after = self._go_on(world, world.janitor)
            yield Step("janitor", text, PROMPT, after)
            return
        for number in world.letters:
            yield from self._bury(world, number)
        for number, task in enumerate(world.tasks):
            if not task.is_live:
                continue
            verdict = self._table.verdict(world, number)
            if verdict is Verdict.RESEND:
                chore = Chore("announce", number, task.queued, task.sends)
                yield Step("janitor", f"sees that task {number} waits", PROMPT, world._replace(janitor=chore))
            elif verdict is Verdict.EXPIRE:
                chore = Chore("expire", number)
                yield Step("janitor", f"sees that task {number} is too old", PROMPT, world._replace(janitor=chore))

    def faults(self, world: World) -> Iterator[Step]:
        """The whole process goes down and comes up again; what it had begun is forgotten."""
        posts = tuple(post if post.stage == "unborn" else Post(post.task, "over") for post in world.posts)
        after = world._replace(posts=posts, waker="rest", refused=False, janitor=None)
        if after != world:
            yield fault("orchestrator", "crashes", after)

    def _bury(self, world: World, number: int) -> Iterator[Step]:
        task = world.tasks[number]
        chore = Chore("delete", number)
        failed = self._table.change(task, self._rules.verbs.give_up, code=ErrorCode.DEAD_LETTER, message="")
        if failed is not None:
            after = world.with_task(number, failed, janitor=chore)
            yield Step("janitor", f"fails task {number}: dead_letter", PROMPT, after)
        elif not task.is_live:
            yield Step("janitor", f"finds task {number} ended", PROMPT, world._replace(janitor=chore))

    def _go_on(self, world: World, chore: Chore) -> tuple[str, World]:
        number = chore.task
        task = world.tasks[number]
        match chore.verb:
            case "announce":
                announced = self._table.resend(task, chore.queued, chore.sends)
                if announced is None:
                    return "is overtaken", world._replace(janitor=None)
                after = world.with_task(number, announced, janitor=Chore("send", number))
                return f"announces another message of task {number}", after
            case "send":
                queue = queued(world.queue, Message(number))
                return f"sends another message of task {number}", world._replace(queue=queue, janitor=None)
            case "expire":
                failed = self._table.change(task, self._rules.verbs.give_up, code=ErrorCode.EXPIRED, message="")
                if failed is None:
                    return "is overtaken", world._replace(janitor=None)
                return f"fails task {number}: expired", world.with_task(number, failed, janitor=None)
            case _:
                letters = tuple(letter for letter in world.letters if letter != number)
                return "deletes the dead letter", world._replace(letters=letters, janitor=None)


def _start(world: World) -> tuple[str, World]:
    if world.power == STOPPED:
        return "starts the GPU", launched(world)
    if world.power in (STOPPING, HANGING):
        return "is refused: the GPU is stopping", world._replace(refused=True)
    return "finds the GPU started", world


def launched(world: World) -> World:
    """The instance boots. A hold that is there was put before."""
    hold = world.hold and world.hold._replace(fresh=False)
    return world._replace(power=PENDING, launched=0, hold=hold, refused=False)
