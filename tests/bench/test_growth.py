"""What is read and written is counted in items and units, which no machine changes. Times are for the benchmark."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from bench.growth import LOOKS, STATES, WRITES, Scene, contents
from bench.looks import Life, Looks, observing, task_store
from lib.asyncaws.queue import Queue
from lib.asyncaws.session import BACKGROUND, AwsSession
from lib.gputask.message import MAX_BODY_BYTES
from tests.bench.conftest import Endpoint
from tests.conftest import REGION

FEW, MANY = 300, 1_000
SMALL_REQUEST_BYTES = 200
ROUND = 100


@pytest.fixture
async def looks(endpoint: Endpoint, session: AwsSession) -> AsyncIterator[Looks]:
    queue = Queue(await session.sqs(BACKGROUND), url=endpoint.queue_url, policy=BACKGROUND)
    with observing(region=REGION, endpoint_url=endpoint.url, queue_url=endpoint.queue_url) as observer:
        yield Looks(await task_store(session), queue, observer, most_a_round=ROUND)


def fill(endpoint: Endpoint, scene: Scene) -> None:
    endpoint.aws.reset()
    endpoint.aws.fill(**contents(scene, endpoint.queue_url))


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("who", LOOKS)
async def test_a_look_reads_as_much_of_many_tasks_as_of_few(
    endpoint: Endpoint, looks: Looks, who: str, state: str
) -> None:
    used = []
    for size in (FEW, MANY):
        fill(endpoint, Scene(state, size))
        await looks.steps[who]()
        used.append(endpoint.used)
    assert used[0] == used[1]
    items, read_units, write_units = used[1]
    assert items < FEW
    assert 0 < read_units < 10
    assert write_units == 0


@pytest.mark.parametrize("who", LOOKS)
async def test_a_look_at_waiting_tasks_does_read_some(endpoint: Endpoint, looks: Looks, who: str) -> None:
    fill(endpoint, Scene("waiting", FEW))
    await looks.steps[who]()
    assert endpoint.used[0] >= ROUND


async def test_every_update_costs_the_same_however_large_the_request_is(
    endpoint: Endpoint, session: AwsSession
) -> None:
    life = Life(await task_store(session))
    units: dict[int, dict[str, int]] = {}
    for size in (SMALL_REQUEST_BYTES, MAX_BODY_BYTES):
        units[size] = {}
        for verb in WRITES:
            *_, before = endpoint.used
            await life.write(verb, size)
            *_, after = endpoint.used
            units[size][verb] = after - before
    small, large = units[SMALL_REQUEST_BYTES], units[MAX_BODY_BYTES]
    # Written once: a unit for each KB of the request and its key, and those of a small one's record.
    assert large.pop("create") == MAX_BODY_BYTES // 1024 + 1 + small.pop("create")
    assert large == small
    assert max(large.values()) <= 3
