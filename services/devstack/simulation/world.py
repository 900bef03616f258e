"""Everything that is the same under every policy: clock, queue, table, machine and adapter, on one trace."""

from __future__ import annotations

from dataclasses import dataclass

from lib.gputask.record import Status, TaskRecord
from services.devstack.simulation.adapter import Adapter
from services.devstack.simulation.chronicle import Chronicle
from services.devstack.simulation.clock import Clock
from services.devstack.simulation.machine import Machine
from services.devstack.simulation.message_queue import MessageQueue
from services.devstack.simulation.task_table import TaskTable
from services.devstack.simulation.traces import Job, Trace


@dataclass(frozen=True, slots=True)
class World:
    """What a policy finds and acts upon."""

    clock: Clock
    queue: MessageQueue
    table: TaskTable
    machine: Machine
    chronicle: Chronicle
    jobs: dict[str, Job]

    def create_task(self, task_id: str) -> None:
        """The record; its message is sent by the policy, in its own order of steps."""
        now_s = self.clock.now_s
        self.table.create(
            TaskRecord(
                task_id=task_id,
                status=Status.PENDING,
                job_type="/api/v1/camera-angle/jobs",
                created_at=now_s,
                updated_at=now_s,
                queued_at=now_s,
                sends=1,
                client_id=self.jobs[task_id].client,
            )
        )


def build_world(trace: Trace) -> World:
    """At the midnight before the trace."""
    clock, table = Clock(), TaskTable()
    queue, chronicle = MessageQueue(clock), Chronicle(clock)
    jobs = {f"task-{number:04}": job for number, job in enumerate(sorted(trace.jobs, key=lambda job: job.at_s))}
    adapter = Adapter(clock, queue=queue, table=table, chronicle=chronicle, jobs=jobs, broken=trace.adapter_broken)
    machine = Machine(clock, adapter, no_capacity=trace.no_capacity)
    return World(clock, queue, table, machine, chronicle, jobs)
