"""One moment of a small world: everything that decides what may happen next, as one hashable value.

Times are whole ticks relative to now, so that the same situation an hour later is the same state. A tick is longer
than everything that is merely quick (a call, a boot, a back-off) and as long as a lease; other limits are multiples.
"""

from __future__ import annotations

from typing import Any, NamedTuple

TICK_S = 300
NOW_S = 1_000_000 * TICK_S

NO_RECORD = ""
WITHDRAWN = "withdrawn"  # a record that is as good as none, but for its message
NOBODY = (NO_RECORD, WITHDRAWN)
LIVE = ("pending", "processing")
TERMINAL = ("completed", "failed")

STOPPED, PENDING, RUNNING, STOPPING = "stopped", "pending", "running", "stopping"
HANGING = "hanging"  # EC2 says stopping, and would for ever


class Task(NamedTuple):
    """A record in the table, as ages (`left`: of the lease), and what only an onlooker knows.

    Attributes:
        sends: 0 in a record that another program wrote, which has neither that attribute nor most others.
        job: the upstream's id of its run, 0 for none: the number of that run.
        promised: some client was answered 202.
        runs: how often the upstream began it.
        bereaved: since its last run its upstream died, or its worker before it noted the run; or there was no run yet.
    """

    status: str = NO_RECORD
    created: int = 0
    queued: int = 0
    sends: int = 0
    attempt: int = 0
    claimed: int | None = None
    left: int | None = None
    job: int = 0
    promised: bool = False
    runs: int = 0
    bereaved: bool = True

    @property
    def is_live(self) -> bool:
        return self.status in LIVE


class Message(NamedTuple):
    """Attributes: hidden: ticks until it is visible. held: the adapter's receipt of it is the latest."""

    task: int
    received: int = 0
    hidden: int = 0
    held: bool = False


class Adapter(NamedTuple):
    """Attributes:
    frozen: it does nothing, for now.
    stuck: it does nothing any more, but its heart beats on.
    token: the attempt it was given.
    since: age of its claim.
    end: the outcome to publish or answer.
    """

    stage: str = "off"
    frozen: bool = False
    stuck: bool = False
    task: int = 0
    token: int = 0
    job: int = 0
    since: int = 0
    end: str = ""


OFF = Adapter()
FREE = Adapter("free")
AT_WORK = ("claimed", "posted", "awaiting")


class Upstream(NamedTuple):
    """Jobs are (task, run); the first one runs, and until none is left nothing else is answered."""

    hung: bool = False
    jobs: tuple[tuple[int, int], ...] = ()
    done: tuple[tuple[int, int], ...] = ()

    @property
    def is_healthy(self) -> bool:
        return not (self.hung or self.jobs)


class Report(NamedTuple):
    """The worker record. Its last claim is left out: here the table shows every claim."""

    beat: int = 0
    ok: int | None = None


class Hold(NamedTuple):
    """The instance record. Attributes: fresh: it was put since the last launch."""

    left: int
    times: int
    fresh: bool


class Look(NamedTuple):
    """A Lambda between its facts and the end of what it does about them."""

    give_up: tuple[tuple[int, int], ...] = ()
    hold: Hold | None = None
    stops: bool = False
    forces: bool = False
    clears: int = 0


class Post(NamedTuple):
    """A request in the orchestrator. Attributes: queued: of the record that a twin found."""

    task: int
    stage: str = "unborn"
    queued: int = 0


class Chore(NamedTuple):
    """What the janitor is about to do, on what it read."""

    verb: str
    task: int
    queued: int = 0
    sends: int = 0


class Late(NamedTuple):
    """The last write of an adapter that died: under way for as long as it likes."""

    task: int
    token: int


class Alarm(NamedTuple):
    """Only of the original rule. Attributes: empty: ticks without a visible message. event: an invocation is due."""

    empty: int = 0
    seen: bool = False
    in_alarm: bool = False
    event: bool = False


class World(NamedTuple):
    """Attributes:
    faults: how many more things may go wrong.
    launched: age of the launch, or of a stop that hangs.
    launches: if they count.
    """

    faults: int
    posts: tuple[Post, ...]
    tasks: tuple[Task, ...]
    queue: tuple[Message, ...] = ()
    letters: tuple[int, ...] = ()
    power: str = STOPPED
    launched: int = 0
    launches: int = 0
    hold: Hold | None = None
    report: Report | None = None
    adapter: Adapter = OFF
    upstream: Upstream = Upstream()
    late: Late | None = None
    waker: str = "rest"
    refused: bool = False
    janitor: Chore | None = None
    looks: tuple[Look, ...] = ()
    alarm: Alarm = Alarm()

    def with_task(self, number: int, task: Task, **changes: Any) -> World:
        """The world in which one task is another one."""
        return self._replace(tasks=put(self.tasks, number, task), **changes)

    @property
    def is_at_rest(self) -> bool:
        """The GPU costs nothing, and nobody has reason to start it."""
        return self.power == STOPPED and not any(task.is_live for task in self.tasks)


def put(items: tuple[Any, ...], number: int, item: Any) -> tuple[Any, ...]:
    """The tuple with another item at `number`."""
    return (*items[:number], item, *items[number + 1 :])


def queued(queue: tuple[Message, ...], message: Message) -> tuple[Message, ...]:
    """The queue with one more message. Of equal ones two show all that more would, so no more are kept."""
    if queue.count(message) >= 2:
        return queue
    return tuple(sorted((*queue, message)))


def without_held(queue: tuple[Message, ...]) -> tuple[Message, ...]:
    return tuple(message for message in queue if not message.held)


def let_go(queue: tuple[Message, ...], *, hidden: int | None = None) -> tuple[Message, ...]:
    """Nobody holds a receipt any more; the message that was held is visible after `hidden`, None: when it would be."""
    return tuple(
        sorted(
            message._replace(held=False, hidden=message.hidden if hidden is None else hidden)
            if message.held
            else message
            for message in queue
        )
    )
