"""The books after a soak: what was promised against what became of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lib.gputask.record import LIVE
from services.devstack.emulator.queue_depth import QueueDepth
from services.devstack.power import State
from services.devstack.soak.clients import SoakJob

# Whoever is killed, frozen or cut off in mid-job may cost a second run, never more runs than attempts.
WORKER_DEATHS = ("adapter", "upstream", "instance", "DynamoDB", "SQS", "orchestrator")


def runs_per_request(run_log: Path) -> Counter[str]:
    """Upstream runs by request id."""
    lines = run_log.read_text().splitlines() if run_log.exists() else []
    entries = (json.loads(line) for line in lines if line.strip())
    return Counter(str(entry["request_id"]) for entry in entries if entry["event"] == "started")


def imbalances(
    *,
    jobs: Sequence[SoakJob],
    records: Mapping[str, Mapping[str, Any]],
    runs: Counter[str],
    queues: Mapping[str, QueueDepth],
    instance: State,
    mischief: Iterable[str],
) -> list[str]:
    """Every way in which a promise was broken; empty if the books balance."""
    died = any(victim in kind for kind in mischief for victim in WORKER_DEATHS)
    found = [text for job in jobs for text in _of_job(job, records, runs, died=died)]
    for name, depth in queues.items():
        if depth.visible or depth.in_flight or depth.delayed:
            found.append(f"queue {name} is not empty: {depth}")
    found += [f"task {task_id} has no end: {record}" for task_id, record in live(records).items()]
    if instance is not State.STOPPED:
        found.append(f"the instance is {instance.value} instead of stopped")
    return found


def live(records: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Tasks without an end, whoever made them."""
    return {task_id: record for task_id, record in records.items() if record.get("status") in list(LIVE)}


def _of_job(job: SoakJob, records: Mapping[str, Mapping[str, Any]], runs: Counter[str], *, died: bool) -> Iterable[str]:
    if job.job_id is None:
        return
    if len(job.ends) != 1:
        yield f"{job.name} ({job.job_id}) has {len(job.ends)} ends instead of one: {job.ends}"
        return
    end, record = job.ends[0], records.get(job.job_id)
    if record is None:
        yield f"{job.name} ({job.job_id}) has no record"
        return
    if (end["result_s3_uri"] is None) == (end["error"] is None):
        yield f"{job.name} ({job.job_id}) has neither or both of result and error: {end}"
    if end["status"] == "failed" and "error_code" not in record:
        yield f"{job.name} ({job.job_id}) failed without a named cause"
    count, attempts = runs[job.name], int(record.get("attempt", 0))
    if count > attempts:
        yield f"{job.name} ({job.job_id}) ran {count} times upstream in {attempts} attempts"
    if end["status"] == "completed" and count == 0:
        yield f"{job.name} ({job.job_id}) completed without a run"
    # What failed may have been tried again: a hung upstream has not uploaded the picture of a job that is to blame.
    if count > 1 and not died and record.get("error_code") != "upstream_failed":
        yield f"{job.name} ({job.job_id}) ran {count} times although nothing died"
