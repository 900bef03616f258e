"""The real server and real sockets: what a client can cost."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from lib.gputask.record import TaskRecord
from services.devstack.ports import ReservedPort
from services.orchestrator.admission import Admission, AdmissionLimits
from services.orchestrator.connections import ConnectionLimits
from services.orchestrator.server import HttpServer, listeners
from tests.orchestrator.http_world import CAMERA_ANGLE_PATH, IMAGE_URL, MemoryTasks, World, api_keys, to_json

BODY = to_json({"image_url": IMAGE_URL})
KEYS = api_keys(alice="key-of-alice")
FOREVER_S = 600.0
AT_ONCE_S = 0.01
PATIENCE_S = 30.0
# Nothing ends by time unless a test says so.
PATIENT: dict[str, Any] = {
    "head_s": FOREVER_S,
    "body_s": FOREVER_S,
    "idle_s": FOREVER_S,
    "linger_s": FOREVER_S,
    "check_s": 0.01,
}
UPGRADES = {
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n",
    "websocket": b"Connection: keep-alive, upgrade\r\nUpgrade: websocket\r\n",
}


def test_no_answer_waits_until_its_first_packet_is_acknowledged() -> None:
    (listener,) = listeners("127.0.0.1", 0)
    with listener, socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        members: dict[str, Any] = json.loads(self.body)
        assert members["status"] == self.status
        assert members["request_id"] == self.headers["x-request-id"]
        assert self.headers["content-type"] == "application/problem+json"
        return members


class Line:
    """A client's end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def drain(self) -> None:
        await self._writer.drain()

    async def answer(self) -> Answer:
        async with asyncio.timeout(PATIENCE_S):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status_line, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body = await self._reader.readexactly(int(headers["content-length"]))
        return Answer(int(status_line.split(" ")[1]), headers, body)

    async def ask(self, data: bytes) -> Answer:
        self.send(data)
        return await self.answer()

    async def continues(self) -> bytes:
        """Wait until the server asks for the body."""
        async with asyncio.timeout(PATIENCE_S):
            return await self._reader.readuntil(b"\r\n\r\n")

    async def ends(self) -> bytes:
        """Wait until the server says no more; what it still said."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                return await self._reader.read()
            except ConnectionError:
                return b""

    async def keep_sending(self, piece: bytes) -> None:
        """Until the connection breaks."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                self.send(piece)
                await self.drain()
                await asyncio.sleep(0)

    async def close(self) -> None:
        self._writer.close()
        await asyncio.gather(self._writer.wait_closed(), return_exceptions=True)


class Server:
    """Listening, and its clients."""

    def __init__(self, world: World, port: int, stop: asyncio.Event, resources: AsyncExitStack) -> None:
        self.world = world
        self.stop = stop
        self._port = port
        self._resources = resources

    async def connect(self) -> Line:
        line = Line(*await asyncio.open_connection("127.0.0.1", self._port))
        self._resources.push_async_callback(line.close)
        return line

    async def reads_all(self) -> None:
        """Wait until it has read what was sent before: a later request has its answer."""
        assert (await (await self.connect()).ask(get())).status == 200


@asynccontextmanager
async def serving(*, drain_s: float = 5.0, world: dict[str, Any] | None = None, **limits: Any) -> AsyncIterator[Server]:
    async with AsyncExitStack() as resources:
        port = resources.enter_context(ReservedPort()).number
        behind = await resources.enter_async_context(World(**(world or {})))
        connections = ConnectionLimits(**(PATIENT | limits))
        server = HttpServer(app=behind.app, host="127.0.0.1", port=port, drain_s=drain_s, limits=connections)
        stop, ready = asyncio.Event(), asyncio.Event()
        running = asyncio.create_task(server.run(stop, ready.set))
        await ready.wait()
        async with AsyncExitStack() as lines:
            yield Server(behind, port, stop, lines)
        stop.set()
        await running


def get(path: str = "/health", headers: bytes = b"") -> bytes:
    return b"GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n" % (path.encode(), headers)


def post(body: bytes = BODY, headers: bytes = b"", *, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    head = b"POST %s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n"
    return head % (CAMERA_ANGLE_PATH.encode(), headers, size) + body


CHUNKED = b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" % CAMERA_ANGLE_PATH.encode()


async def test_requests_follow_each_other_on_one_connection() -> None:
    async with serving() as server:
        line = await server.connect()
        for _ in range(3):
            assert (await line.ask(get())).status == 200
            assert (await line.ask(post())).status == 202
        assert (await line.ask(CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY))).status == 202


async def test_pipelined_requests_are_answered_in_their_order() -> None:
    async with serving() as server:
        line = await server.connect()
        line.send(get() + post() + get("/nowhere") + post())
        assert [(await line.answer()).status for _ in range(4)] == [200, 202, 404, 202]


async def test_more_pipelined_requests_than_may_wait_end_the_connection_after_their_answers() -> None:
    async with serving(pipelined=2) as server:
        line = await server.connect()
        line.send(get() * 50)
        answered = (await line.ends()).count(b"HTTP/1.1 200")
        assert answered == 3


async def test_half_a_head_is_answered_408() -> None:
    async with serving(head_s=AT_ONCE_S) as server:
        line = await server.connect()
        answer = await line.ask(b"GET /health HTTP/1.1\r\nHost: x\r\n")
        assert answer.problem["status"] == 408
        assert answer.headers["connection"] == "close"
        assert await line.ends() == b""


async def test_a_connection_that_asks_nothing_is_closed_without_a_word() -> None:
    async with serving(head_s=AT_ONCE_S) as server:
        assert await (await server.connect()).ends() == b""


async def test_a_connection_between_requests_is_closed_without_a_word() -> None:
    async with serving(idle_s=AT_ONCE_S) as server:
        line = await server.connect()
        assert (await line.ask(get())).status == 200
        assert await line.ends() == b""


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health HTTP/1.1\r\nX: " + b"x" * 3000,
        b"GET /" + b"x" * 3000,
        b"GET /health HTTP/1.1\r\n" + b"X: y\r\n" * 600,
        b"\r\n" * 1500,
        get(headers=b"X: " + b"x" * 3000 + b"\r\n"),
        get(headers=b"X: y\r\n" * 600),
        get("/" + "x" * 3000),
        b"".join([CHUNKED, b"0\r\n", b"X: y\r\n" * 600]),
        b"".join([CHUNKED, b"0\r\nX: ", b"x" * 3000]),
        b"".join([CHUNKED, b"1;", b"x" * 3000]),
    ],
    ids=[
        "a value",
        "a target",
        "many",
        "empty lines",
        "a value, complete",
        "many, complete",
        "a target, complete",
        "trailers",
        "a trailer",
        "a chunk's extension",
    ],
)
async def test_headers_and_trailers_without_end_are_answered_431(head: bytes) -> None:
    async with serving(head_bytes=2000) as server:
        line = await server.connect()
        for start in range(0, len(head), 500):
            line.send(head[start : start + 500])
            await line.drain()
            await asyncio.sleep(0)
        assert (await line.answer()).problem["status"] == 431
        assert await line.ends() == b""
        assert server.world.tasks.submitted == []


async def test_a_body_in_many_small_chunks_is_no_large_head() -> None:
    async with serving(head_bytes=200) as server:
        line = await server.connect()
        chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY)
        for part in (CHUNKED, chunks):
            line.send(part)
            await server.reads_all()
        assert (await line.ask(b"0\r\n\r\n")).status == 202


async def test_trailers_are_no_headers() -> None:
    async with serving(world={"keys": KEYS}) as server:
        line = await server.connect()
        trailers = b"X-API-Key: key-of-alice\r\nIdempotency-Key: a\r\n"
        line.send(CHUNKED + b"%x\r\n%s\r\n0\r\n%s\r\n" % (len(BODY), BODY, trailers))
        assert (await line.answer()).status == 401


@pytest.mark.parametrize("sent", [b"", BODY[:5]])
async def test_a_body_that_does_not_come_is_answered_408(sent: bytes) -> None:
    async with serving(body_s=AT_ONCE_S) as server:
        line = await server.connect()
        answer = await line.ask(post(sent, length=len(BODY)))
        assert answer.problem["status"] == 408
        assert answer.headers["connection"] == "close"
        assert await line.ends() == b""
        assert server.world.tasks.submitted == []


async def test_trailers_that_do_not_end_are_answered_408() -> None:
    async with serving(body_s=AT_ONCE_S) as server:
        line = await server.connect()
        assert (await line.ask(CHUNKED + b"%x\r\n%s\r\n0\r\nX: " % (len(BODY), BODY))).problem["status"] == 408


async def test_what_a_body_has_brought_gives_it_more_time() -> None:
    async with serving(body_s=AT_ONCE_S, body_rate=len(BODY) / FOREVER_S) as server:
        line = await server.connect()
        line.send(post(BODY[:-1], length=len(BODY)))
        other = await server.connect()
        # Longer than what a body without a byte has.
        assert (await other.ask(post(b"", length=1))).status == 408
        assert (await line.ask(BODY[-1:])).status == 202


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (post(b"", length=100), 401),
        (post(b"", b"X-API-Key: wrong\r\n", length=100), 401),
        (post(b"", b"X-API-Key: key-of-alice\r\n", length=10**9), 413),
        (post(b"", b"X-API-Key: key-of-alice\r\nContent-Type: text/plain\r\n", length=100), 415),
        (b"PUT /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n", 404),
    ],
)
async def test_an_answer_to_an_unread_request_ends_its_connection(request_: bytes, status: int) -> None:
    async with serving(world={"keys": KEYS}) as server:
        line = await server.connect()
        answer = await line.ask(request_)
        assert answer.problem["status"] == status
        assert answer.headers["connection"] == "close"
        assert await line.ends() == b""


async def test_a_refused_upload_may_end_and_is_not_reset() -> None:
    async with serving(world={"keys": KEYS}) as server:
        line = await server.connect()
        assert (await line.ask(post(b"", length=1_000_000))).status == 401
        for _ in range(4):
            line.send(b"x" * 250_000)
            await line.drain()


async def test_a_refused_upload_that_goes_on_is_ended() -> None:
    async with serving(linger_bytes=1000) as server:
        line = await server.connect()
        line.send(post(b"", length=10**9))
        assert (await line.answer()).status == 413
        with pytest.raises(ConnectionError):
            await line.keep_sending(b"x" * 65_536)


async def test_a_client_that_does_not_hang_up_after_its_refusal_is_ended() -> None:
    async with serving(linger_s=AT_ONCE_S) as server:
        line = await server.connect()
        assert (await line.ask(post(b"", length=10**9))).status == 413
        with pytest.raises(ConnectionError):
            await line.keep_sending(b"x")


async def test_a_read_body_leaves_the_connection_open_after_a_refusal() -> None:
    async with serving(world={"keys": KEYS}) as server:
        line = await server.connect()
        for _ in range(2):
            answer = await line.ask(post())
            assert (answer.status, "connection" in answer.headers) == (401, False)


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\x00\xa5", b"GET / HTTP/9.9\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n"])
async def test_what_is_no_http_is_answered_400(garbage: bytes) -> None:
    async with serving() as server:
        line = await server.connect()
        assert (await line.ask(garbage)).problem["status"] == 400
        assert await line.ends() == b""


async def test_a_broken_body_is_answered_400() -> None:
    async with serving() as server:
        line = await server.connect()
        assert (await line.ask(CHUNKED + b"no length\r\n")).problem["status"] == 400
        assert await line.ends() == b""


async def test_garbage_behind_a_request_does_not_cost_its_answer() -> None:
    async with serving() as server:
        line = await server.connect()
        answer = await line.ask(post() + b"\x00garbage\r\n\r\n")
        assert (answer.status, answer.headers["connection"]) == (202, "close")
        assert await line.ends() == b""


@pytest.mark.parametrize("headers", UPGRADES.values(), ids=UPGRADES.keys())
@pytest.mark.parametrize("cut", [0, 1, len(BODY) - 1])
async def test_a_request_that_would_rather_speak_another_protocol_keeps_its_body(headers: bytes, cut: int) -> None:
    async with serving() as server:
        line = await server.connect()
        whole = post(headers=headers)
        border = len(whole) - len(BODY) + cut
        line.send(whole[:border])
        await server.reads_all()
        assert (await line.ask(whole[border:])).status == 202
        assert (await line.ask(get(headers=headers))).status == 200
        assert [submitted["body"] for submitted in server.world.tasks.submitted] == [BODY]


async def test_a_body_behind_an_upgrade_is_not_the_next_request() -> None:
    smuggled = get("/ready")
    async with serving() as server:
        line = await server.connect()
        line.send(post(b"", UPGRADES["h2c"], length=len(smuggled)))
        await server.reads_all()
        assert (await line.ask(smuggled)).status == 422
        assert server.world.looks == 0


async def test_upgrades_in_a_row_and_in_one_segment_are_read_one_after_the_other() -> None:
    async with serving() as server:
        line = await server.connect()
        chunked = CHUNKED.replace(b"Host: x\r\n", b"Host: x\r\n" + UPGRADES["h2c"])
        line.send(post(headers=UPGRADES["h2c"]) + chunked + b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY) + get())
        assert [(await line.answer()).status for _ in range(3)] == [202, 202, 200]


async def test_no_tunnel_is_opened() -> None:
    async with serving() as server:
        line = await server.connect()
        assert (await line.ask(b"CONNECT 10.0.0.1:22 HTTP/1.1\r\nHost: x\r\n\r\n")).problem["status"] == 405
        assert await line.ends() == b""


async def test_beyond_the_bound_of_connections_only_health_is_answered() -> None:
    async with serving(connections=2, spare=1) as server:
        uploads = [await server.connect() for _ in range(2)]
        for line in uploads:
            line.send(post(b"", b"Expect: 100-continue\r\n", length=len(BODY)))
            assert (await line.continues()).startswith(b"HTTP/1.1 100")
        for path in ("/health", "/api/v1/health/"):
            assert (await (await server.connect()).ask(get(path))).status == 200
        spare = await server.connect()
        answer = await spare.ask(get("/"))
        assert answer.problem["status"] == 503
        assert int(answer.headers["retry-after"]) > 0
        for line in uploads:
            assert (await line.ask(BODY)).status == 202


async def test_half_heads_keep_nobody_out() -> None:
    async with serving(connections=2, spare=0) as server:
        halves = [await server.connect() for _ in range(10)]
        for line in halves:
            line.send(b"GET / HTTP/1.1\r\n")
        assert (await (await server.connect()).ask(post())).status == 202
        assert await halves[0].ends() == b""


async def test_an_address_has_its_share_of_connections() -> None:
    async with serving(per_address=1) as server:
        first = await server.connect()
        assert (await first.ask(get())).status == 200
        assert await (await server.connect()).ends() == b""
        assert (await first.ask(get())).status == 200


async def test_a_request_cut_off_at_a_stop_is_told_to_come_back() -> None:
    stuck = Stuck()
    async with serving(drain_s=0, world={"submission": stuck}) as server:
        line = await server.connect()
        line.send(post())
        await stuck.is_inside.wait()
        server.stop.set()
        answer = await line.answer()
        assert answer.problem["status"] == 503
        assert int(answer.headers["retry-after"]) > 0


async def test_an_upload_cut_off_at_a_stop_is_told_to_come_back() -> None:
    async with serving(drain_s=0) as server:
        line = await server.connect()
        line.send(post(b"", b"Expect: 100-continue\r\n", length=len(BODY)))
        await line.continues()
        server.stop.set()
        assert (await line.answer()).problem["status"] == 503


async def test_who_is_turned_away_need_not_send_a_body() -> None:
    stuck = Stuck()
    admission = Admission(AdmissionLimits(places=1, patience_s=0, hold_s=0))
    async with serving(drain_s=0, world={"submission": stuck, "admission": admission}) as server:
        (await server.connect()).send(post())
        await stuck.is_inside.wait()
        answer = await (await server.connect()).ask(post(b"", length=len(BODY)))
        assert answer.problem["status"] == 503
        assert int(answer.headers["retry-after"]) > 0


class Stuck(MemoryTasks):
    """A submission that never ends by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.is_inside = asyncio.Event()

    async def submit(self, **request: Any) -> TaskRecord:
        self.is_inside.set()
        await asyncio.Event().wait()
        raise AssertionError
