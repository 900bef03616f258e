"""Plays the script against a running stack and judges its end."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from urllib.parse import urlparse

import aiohttp
from rich.console import Console

from services.devstack.billing import running_s
from services.devstack.demo.client import JobClient, Ticket
from services.devstack.demo.report import complaint, print_bill, print_report
from services.devstack.demo.script import scenes
from services.devstack.demo.view import Situation, View
from services.devstack.power import State
from services.devstack.resources import aws_session, client_config
from services.devstack.stack import Stack

SAMPLES = Path(__file__).parent.parent / "samples"
_LOOK_S = 0.25
_LIMIT_S = 150.0
_IDLE_WINDOW_S = 1800.0


class Story:
    """One performance."""

    def __init__(self, stack: Stack, *, console: Console, folder: Path) -> None:
        self._stack = stack
        self._console = console
        self._folder = folder
        self._tickets: list[Ticket] = []
        self._s3 = aws_session().client("s3", endpoint_url=stack.endpoint_url, config=client_config())

    async def play(self) -> list[str]:
        """Everything from the first request to the sleeping GPU. Returns what is not as it should be."""
        view = View(self._console)
        async with aiohttp.ClientSession(self._stack.base_url) as http:
            client = JobClient(http)
            with view.shown():
                watching = asyncio.create_task(self._watch(view), name="demo.view")
                try:
                    async with asyncio.timeout(_LIMIT_S):
                        await self._submit_all(client)
                        await self._await_ends(client)
                        await self._stack.wait_for_instance(State.STOPPED, limit_s=_LIMIT_S)
                except TimeoutError:
                    self._console.print(f"[red]not over after {_LIMIT_S:g} s[/]")
                finally:
                    watching.cancel()
                    await asyncio.gather(watching, return_exceptions=True)
        return await self._judge()

    async def _submit_all(self, client: JobClient) -> None:
        await asyncio.to_thread(upload_samples, self._stack)
        bucket = self._stack.resources.bucket
        # A presigned address, as a front end would hand out: plain https with the permission in it.
        picture_url = self._s3.generate_presigned_url(
            "get_object", Params={"Bucket": bucket, "Key": "samples/bottle.jpg"}, ExpiresIn=3600
        )
        for scene in scenes(bucket=bucket, picture_url=picture_url):
            self._tickets.append(await client.submit(scene))

    async def _await_ends(self, client: JobClient) -> None:
        while running := [ticket for ticket in self._tickets if not ticket.is_over]:
            for ticket in running:
                await client.look(ticket)
            await asyncio.sleep(_LOOK_S)

    async def _watch(self, view: View) -> None:
        while True:
            view.update(self._tickets, await self._situation())
            await asyncio.sleep(_LOOK_S)

    async def _situation(self) -> Situation:
        instance = await self._stack.instance()
        depths = await self._stack.queues()
        queue = depths[self._stack.resources.queue_name]
        dead = depths[self._stack.resources.dead_letter_queue_name]
        over = bool(self._tickets) and all(ticket.is_over for ticket in self._tickets)
        return Situation(
            instance=instance.state.value,
            waiting=queue.visible,
            in_flight=queue.in_flight,
            dead=dead.visible + dead.in_flight,
            gpu_s=running_s(instance.intervals, now_s=time.time()),
            note="all jobs done, idle window runs" if over and instance.state is State.RUNNING else "",
        )

    async def _judge(self) -> list[str]:
        pictures = await asyncio.to_thread(self._download_results)
        complaints = [f"{t.scene.title}: {text}" for t in self._tickets if (text := complaint(t, self._tickets))]
        complaints += [f"{t.scene.title}: no picture" for t in self._tickets if self._lacks_picture(t, pictures)]
        state = await self._stack.instance_state()
        if state is not State.STOPPED:
            complaints.append(f"the instance is {state.value} instead of stopped")
        print_report(self._console, self._tickets, pictures, complaints)
        idle_s = _IDLE_WINDOW_S / self._stack.options.scale
        gpu_s = await self._stack.gpu_seconds()
        print_bill(self._console, gpu_s=gpu_s, scale=self._stack.options.scale, idle_s=min(idle_s, gpu_s))
        return complaints

    def _lacks_picture(self, ticket: Ticket, pictures: dict[str, Path]) -> bool:
        return ticket.status == "completed" and ticket.job_id not in pictures

    def _download_results(self) -> dict[str, Path]:
        """Job id -> picture file."""
        pictures = {}
        for ticket in self._tickets:
            uri = ticket.job["result_s3_uri"] if ticket.job else None
            if uri and ticket.scene.same_job_as is None:
                place = urlparse(uri)
                picture = self._folder / f"{ticket.scene.title.replace(' ', '-')}.png"
                self._s3.download_file(place.netloc, place.path.lstrip("/"), str(picture))
                pictures[ticket.job_id] = picture
        return pictures


def upload_samples(stack: Stack) -> None:
    """Put the sample pictures where jobs can fetch them. Blocks."""
    s3 = aws_session().client("s3", endpoint_url=stack.endpoint_url, config=client_config())
    for picture in sorted(SAMPLES.glob("*.jpg")):
        s3.upload_file(str(picture), stack.resources.bucket, f"samples/{picture.name}")
