"""Jobs: the table in memory, the run from image to result, and the two ways of running (blocking or polite)."""

import itertools
import json
import os
import queue
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import structlog

from services.devstack.upstream.comfyui import NO_OUTPUT, ComfyUi, ComfyUiError, InvalidWorkflowError
from services.devstack.upstream.requests import JobRequest
from services.devstack.upstream.storage import Storage
from services.devstack.upstream.vices import Vices, is_marked

log = structlog.stdlib.get_logger(__name__)

_SEED_BITS = 32


class JobStatus(StrEnum):
    """Life of a job. Who talks to the blocking API sees the first at POST and the last two at GET, never the second."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"


@dataclass(slots=True)
class Job:
    """One accepted request; changed only by the one runner."""

    kind: str
    request: JobRequest
    body_sha256: str
    request_id: str | None
    job_id: str = field(default_factory=lambda: str(uuid4()))
    status: JobStatus = JobStatus.PENDING
    result_s3_uri: str | None = None
    error: str | None = None


class RunLog:
    """A file with one JSON line per started or ended run, for whoever has to count GPU runs. None: not kept."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def note(self, job: Job, event: str) -> None:
        """Append that `event` (started, completed or failed) happened to `job` now (epoch seconds)."""
        if self._path is None:
            return
        line = {
            "job_id": job.job_id,
            "event": event,
            "at": time.time(),
            "kind": job.kind,
            "prompt": job.request.prompt,
            "body_sha256": job.body_sha256,
            "request_id": job.request_id,
            "error": job.error,
        }
        # One write of one line, so that readers and a SIGKILL never see or leave half of it.
        with self._path.open("ab", buffering=0) as file:
            file.write(json.dumps(line).encode() + b"\n")


class Runner:
    """Runs a job from start to end in the calling thread; `jobs` is the table, which dies with the process."""

    def __init__(self, *, comfyui: ComfyUi, storage: Storage, vices: Vices, run_log: RunLog) -> None:
        self.jobs: dict[str, Job] = {}
        self._comfyui = comfyui
        self._storage = storage
        self._vices = vices
        self._run_log = run_log
        self._has_lost_cuda = False

    def run(self, job: Job) -> None:
        """Run `job` to `completed` or `failed`; never raises."""
        job.status = JobStatus.PROCESSING
        self._run_log.note(job, "started")
        with structlog.contextvars.bound_contextvars(job_id=job.job_id, request_id=job.request_id):
            log.info("job.started", kind=job.kind)
            try:
                job.result_s3_uri = self._produce(job)
            except Exception as exc:  # whatever ends a run becomes the job's error text, as in the real API
                job.error = str(exc)
                job.status = JobStatus.FAILED
                log.warning("job.failed", error=job.error)
            else:
                job.status = JobStatus.COMPLETED
                log.info("job.completed", result=job.result_s3_uri)
        self._run_log.note(job, job.status.value)
        if is_marked(job.request.prompt, self._vices.forget_on):
            del self.jobs[job.job_id]

    def _produce(self, job: Job) -> str:
        request = job.request
        seed = secrets.randbits(_SEED_BITS) if request.seed is None else request.seed
        images = [self._storage.fetch_image(url) for url in request.image_urls]
        png = self._render(job, dict(zip(_file_names(job), images, strict=False)), seed=seed)
        return self._storage.keep_result(kind=job.kind, job_id=job.job_id, png=png)

    def _render(self, job: Job, files: Mapping[str, bytes], *, seed: int) -> bytes:
        """Return what ComfyUI makes of it. Does not return if the end is missed: ComfyUI ends, and nobody listens."""
        misses_the_end = self._vices.misses_the_end(job.request.prompt)
        try:
            return self._comfyui.render(job.request, files, seed=seed, on_step=lambda step: self._watch(job, step))
        except (OSError, InvalidWorkflowError):
            misses_the_end = False  # refused or gone before there was an end to listen for
            raise
        finally:
            if misses_the_end:
                log.warning("job.end_missed")
                threading.Event().wait()

    def _watch(self, job: Job, step: int) -> None:
        steps, prompt = job.request.steps, job.request.prompt
        log.info("job.progressed", step=step, steps=steps)
        if step != (steps + 1) // 2:
            return
        if is_marked(prompt, self._vices.die_on):
            os._exit(1)
        if is_marked(prompt, self._vices.comfyui_dies_on):
            self._comfyui.die()
        if is_marked(prompt, self._vices.fail_on):
            raise ComfyUiError(NO_OUTPUT)
        self._has_lost_cuda |= is_marked(prompt, self._vices.lose_cuda_on)
        if self._has_lost_cuda:
            raise ComfyUiError("CUDA error: an illegal memory access was encountered")


def _file_names(job: Job) -> Iterator[str]:
    """The names under which the Unified API gives the job's images to ComfyUI."""
    if job.kind == "camera-angle":
        return iter([f"{job.job_id}_input.jpg"])
    return (f"{job.job_id}_image{number}.jpg" for number in itertools.count(1))


class Lane(Protocol):
    """A way for jobs to reach the runner."""

    async def take(self, job: Job) -> None:
        """Run `job`, or see to it that it is run."""

    def close(self) -> None:
        """Return when the running job, if any, has ended."""


class BlockingLane:
    """The real API's way: the job runs on the event loop's own thread, and nothing is answered meanwhile."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def take(self, job: Job) -> None:
        """Run `job` before anything else gets a turn."""
        self._runner.run(job)

    def close(self) -> None:
        """Nothing can be running: the loop would not have come here."""


class PoliteLane:
    """An API that answers while it works: one worker thread, first in, first out."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._waiting: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="upstream-runner")
        self._thread.start()

    async def take(self, job: Job) -> None:
        """Put `job` behind the others."""
        self._waiting.put(job)

    def close(self) -> None:
        """Let the running job end; the waiting ones are lost, as they are in any table in memory."""
        self._is_closing.set()
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (job := self._waiting.get()) is not None and not self._is_closing.is_set():
            self._runner.run(job)
