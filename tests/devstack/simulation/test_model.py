"""The parts round the decisions: clock, queue, machine, adapter, CloudWatch, and the numbers shared with the code."""

import pytest

from lib.gputask.record import Status
from services.adapter.settings import AdapterSettings
from services.devstack.alarm import visible_only
from services.devstack.power import State
from services.devstack.simulation import numbers
from services.devstack.simulation.clock import Clock
from services.devstack.simulation.cloudwatch import CloudWatch
from services.devstack.simulation.day import simulate
from services.devstack.simulation.machine import Machine, StartRefusedError
from services.devstack.simulation.message_queue import MessageQueue
from services.devstack.simulation.traces import NEVER, Job, Span, Trace
from services.devstack.simulation.world import World, build_world
from services.orchestrator.settings import OrchestratorSettings
from services.shutdown.settings import Settings as ShutdownSettings


class Occupant:
    """Notes what the machine does to what runs on it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.notes: list[tuple[str, float]] = []

    def boot(self) -> None:
        self.notes.append(("boot", self._clock.now_s))

    def terminate(self) -> None:
        self.notes.append(("terminate", self._clock.now_s))

    def halt(self) -> None:
        self.notes.append(("halt", self._clock.now_s))


def test_numbers_are_the_defaults_of_the_services() -> None:
    adapter = {name: field.default for name, field in AdapterSettings.model_fields.items()}
    assert (
        adapter["visibility_timeout_s"],
        adapter["heartbeat_s"],
        adapter["job_deadline_s"],
        adapter["max_attempts"],
    ) == (numbers.LEASE_S, numbers.HEARTBEAT_S, numbers.DEADLINE_S, numbers.MAX_ATTEMPTS)
    assert (adapter["worker_beat_s"], adapter["drain_s"]) == (numbers.BEAT_S, numbers.DRAIN_S)
    orchestrator = {name: field.default for name, field in OrchestratorSettings.model_fields.items()}
    assert (
        orchestrator["waker_interval_s"],
        orchestrator["janitor_interval_s"],
        orchestrator["resend_after_s"],
        orchestrator["task_max_age_s"],
        orchestrator["max_unfinished_per_client"],
    ) == (
        numbers.WAKER_INTERVAL_S,
        numbers.JANITOR_INTERVAL_S,
        numbers.RESEND_AFTER_S,
        numbers.TASK_MAX_AGE_S,
        numbers.MAX_UNFINISHED_PER_CLIENT,
    )
    named = dict.fromkeys(("AWS_REGION", "GPU_INSTANCE_ID", "DYNAMODB_TABLE", "SQS_QUEUE_URL"), "x")
    assert ShutdownSettings.from_env(named).policy == numbers.POLICY


def test_the_clock_keeps_order_and_forgets_what_is_cancelled() -> None:
    clock, seen = Clock(), list[str]()
    clock.at(20, lambda: seen.append("late"))
    clock.at(10, lambda: seen.append("first asked"))
    clock.at(10, lambda: seen.append("then asked"))
    clock.at(15, lambda: seen.append("cancelled")).cancel()
    clock.run(19)
    assert seen == ["first asked", "then asked"]
    clock.run(20)
    assert (seen[-1], clock.now_s) == ("late", 20)


def test_the_machine_boots_stops_and_refuses() -> None:
    clock = Clock()
    box = Occupant(clock)
    machine = Machine(clock, box, no_capacity=Span(0, 100))
    with pytest.raises(StartRefusedError, match="InsufficientInstanceCapacity"):
        machine.start()
    clock.at(100, machine.start)
    clock.at(1000, machine.stop)
    clock.run(1010)
    with pytest.raises(StartRefusedError, match="IncorrectInstanceState"):
        machine.start()
    clock.run(2000)
    assert box.notes == [("boot", 250), ("terminate", 1000), ("halt", 1060)]
    assert [(part.state, part.since_s) for part in machine.history] == [
        (State.STOPPED, 0),
        (State.PENDING, 100),
        (State.RUNNING, 130),
        (State.STOPPING, 1000),
        (State.STOPPED, 1060),
    ]


def test_a_stop_during_the_boot_cancels_it() -> None:
    clock = Clock()
    box = Occupant(clock)
    machine = Machine(clock, box, no_capacity=NEVER)
    machine.start()
    clock.at(60, machine.stop)
    clock.run(1000)
    assert box.notes == [("terminate", 60), ("halt", 120)]


def test_a_message_comes_back_after_its_visibility_and_dies_after_too_many_receives() -> None:
    clock = Clock()
    queue = MessageQueue(clock)
    queue.send("task")
    receives = 0
    while queue.visible:
        receives += queue.receive() is not None
        assert queue.receive() is None
        clock.run(clock.now_s + numbers.LEASE_S)
    assert (receives, len(queue.dead_letters)) == (numbers.MAX_RECEIVES, 1)


class TestCloudWatch:
    def test_fires_once_half_an_hour_after_the_last_visible_message_and_not_again(self) -> None:
        assert self._fires(lost=NEVER) == [37 * numbers.MINUTE_S]

    def test_a_lost_call_is_not_repeated(self) -> None:
        assert self._fires(lost=Span(0, numbers.HOUR_S)) == []

    def test_a_queue_that_slept_shows_nothing_for_a_quarter_of_an_hour(self) -> None:
        asleep_s = 7 * numbers.HOUR_S
        assert self._fires(lost=NEVER, after_s=asleep_s) == [asleep_s + 47 * numbers.MINUTE_S]

    def _fires(self, *, lost: Span, after_s: float = 0.0) -> list[float]:
        """When the alarm acts; a message is visible from the 2nd to the 5th minute, and the queue is in use then."""
        clock, fired = Clock(), list[float]()
        queue = MessageQueue(clock)
        machine = Machine(clock, Occupant(clock), no_capacity=NEVER)
        CloudWatch(clock, queue, machine, expression=visible_only, act=lambda: fired.append(clock.now_s), lost=lost)
        clock.at(after_s + 90, lambda: queue.send("task"))
        clock.at(after_s + 290, lambda: _take(queue))
        for minute in range(1, 180):
            clock.at(after_s + 100 + minute * numbers.MINUTE_S, queue.touch)
        clock.run(after_s + 3 * numbers.HOUR_S)
        return fired


def _take(queue: MessageQueue) -> None:
    message = queue.receive()
    assert message is not None
    queue.delete(message)


def _world_with_job(run_s: float) -> World:
    """One task from the first second on, on a machine that is started for it."""
    world = build_world(Trace(name="", jobs=(Job(0, run_s),)))
    world.create_task("task-0000")
    world.queue.send("task-0000")
    world.machine.start()
    return world


def test_a_job_stopped_in_mid_work_is_given_back_and_runs_at_the_next_boot() -> None:
    """By its second attempt, which finds the run forgotten over the restart and submits it again."""
    world = _world_with_job(600)
    world.clock.at(300, world.machine.stop)
    world.clock.at(400, world.machine.start)
    world.clock.run(3600)
    task = world.table.read("task-0000")
    assert (task.status, task.attempt, task.finished_at) == (Status.COMPLETED, 2, 400 + 150 + 600)
    assert world.chronicle.killed_at_s == [300]


def test_a_job_that_ends_within_the_drain_is_published() -> None:
    world = _world_with_job(600)
    world.clock.at(700, world.machine.stop)
    world.clock.run(3600)
    assert world.table.read("task-0000").status is Status.COMPLETED
    assert world.chronicle.killed_at_s == []


def test_work_is_shared_by_all_policies_only_power_differs() -> None:
    trace = Trace(name="", jobs=(Job(10, 60),))
    ours, always_on = simulate(trace, "ours"), simulate(trace, "always on")
    assert (ours.waits_s, always_on.waits_s) == ((150.0,), (0.0,))
