from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lib.gputask.ids import new_task_id
from lib.gputask.image_buckets import parse_image_buckets
from lib.gputask.image_url import ImageUrlRules
from lib.gputask.kinds import KINDS
from lib.gputask.message import MAX_BODY_BYTES, MAX_MESSAGE_BYTES, REQUEST_ID_ATTRIBUTE, TaskMessage
from lib.gputask.request_rules import RequestRules
from tests.orchestrator.http_world import (
    CAMERA_ANGLE_BODY,
    CAMERA_ANGLE_PATH,
    IMAGE_URL,
    QWEN_BODY,
    QWEN_PATH,
    World,
    api_keys,
    assert_invalid_body,
    assert_problem,
    to_json,
)

NOT_JSON = {
    "nothing but space": b" ",
    "text": b"hello",
    "form": b"image_url=s3://a/b",
    "cut off": b'{"image_url": "s3://pictures/c',
    "two values": b"{} {}",
    "comment": b"{} // fine",
    "single quotes": b"{'image_url': 1}",
    "NaN": b'{"image_url": "s3://pictures/cat.png", "x": NaN}',
    "Infinity": b'{"image_url": "s3://pictures/cat.png", "x": Infinity}',
    "-Infinity": b'{"image_url": "s3://pictures/cat.png", "x": [-Infinity]}',
    "a number beyond floats": b'{"image_url": "s3://pictures/cat.png", "x": {"y": [1e999]}}',
    "a negative number beyond floats": b'{"image_url": "s3://pictures/cat.png", "x": -1e999}',
    "a huge integer": b'{"image_url": "s3://pictures/cat.png", "x": ' + b"9" * 5000 + b"}",
    "lone surrogate": b'{"image_url": "s3://pictures/cat.png", "x": "\\ud800"}',
    "lone surrogate in a name": b'{"image_url": "s3://pictures/cat.png", "\\udfff": 1}',
    "encoded surrogate": b'{"image_url": "s3://pictures/\xed\xa0\x80"}',
    "bad UTF-8": b'{"image_url": "s3://pictures/\xff"}',
    "overlong UTF-8": b'{"image_url": "s3://pictures/\xc0\xaf"}',
    "UTF-16": '{"image_url": "s3://pictures/cat.png"}'.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf{}",
    "raw control character": b'{"image_url": "s3://pictures/\x01"}',
    "deep arrays": b'{"image_url": "s3://pictures/cat.png", "x": ' + b"[" * 100_000,
    "deep balanced arrays": b'{"image_url": "s3://pictures/cat.png", "x": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "deep objects": b'{"a":' * 30_000 + b"1" + b"}" * 30_000,
    "binary": bytes(range(256)),
}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON.keys())
@pytest.mark.parametrize("path", [CAMERA_ANGLE_PATH, QWEN_PATH])
async def test_what_is_not_json_is_refused(path: str, body: bytes) -> None:
    async with World() as world:
        (error,) = assert_invalid_body(await world.post_raw(body, path))
        assert error["type"] == "json_invalid"
        assert error["loc"] == ["body"]
        assert world.tasks.submitted == []


async def test_broken_json_is_shown_where_it_breaks() -> None:
    async with World() as world:
        (error,) = assert_invalid_body(await world.post_raw(b'{"image_url": NaN}'))
        assert error["msg"] == "JSON decode error: expected value at line 1 column 15"


async def test_an_empty_body_is_refused() -> None:
    async with World() as world:
        (error,) = assert_invalid_body(await world.post_raw(b""))
        assert error == {"type": "missing", "loc": ["body"], "msg": "Field required", "input": None}
        assert world.tasks.submitted == []


@pytest.mark.parametrize("value", [None, True, 1, 1.5, "text", [], [CAMERA_ANGLE_BODY], "x" * 10_000])
async def test_json_that_is_no_object_is_refused(value: object) -> None:
    async with World() as world:
        (error,) = assert_invalid_body(await world.post_raw(to_json(value)))
        assert (error["type"], error["loc"]) == ("model_attributes_type", ["body"])
        assert len(json.dumps(error)) < 1000
        assert world.tasks.submitted == []


@pytest.mark.parametrize(
    ("path", "body", "at_fault"),
    [
        (CAMERA_ANGLE_PATH, {}, ["image_url"]),
        (QWEN_PATH, {}, ["image_url", "prompt"]),
        (QWEN_PATH, QWEN_BODY | {"prompt": None}, ["prompt"]),
        (CAMERA_ANGLE_PATH, {"image_url": ""}, ["image_url"]),
        (CAMERA_ANGLE_PATH, {"image_url": "ftp://example.com/cat.png"}, ["image_url"]),
        (CAMERA_ANGLE_PATH, {"image_url": "http://169.254.169.254/latest/meta-data/"}, ["image_url"]),
        (CAMERA_ANGLE_PATH, {"image_url": "http://2130706433/"}, ["image_url"]),
        (QWEN_PATH, QWEN_BODY | {"image3_url": "http://[::ffff:10.0.0.1]/"}, ["image3_url"]),
        (CAMERA_ANGLE_PATH, CAMERA_ANGLE_BODY | {"steps": True}, ["steps"]),
        (CAMERA_ANGLE_PATH, CAMERA_ANGLE_BODY | {"steps": "8"}, ["steps"]),
        (CAMERA_ANGLE_PATH, CAMERA_ANGLE_BODY | {"seed": 10**4000}, ["seed"]),
        (QWEN_PATH, QWEN_BODY | {"sampler_name": ""}, ["sampler_name"]),
        (
            QWEN_PATH,
            {"image_url": "x", "seed": -1, "steps": 0, "cfg": "1", "denoise": 2},
            ["cfg", "denoise", "image_url", "prompt", "seed", "steps"],
        ),
    ],
)
async def test_all_wrong_members_are_named_in_fastapis_shape(
    path: str, body: dict[str, Any], at_fault: list[str]
) -> None:
    async with World() as world:
        errors = assert_invalid_body(await world.client.post(path, json=body))
        assert sorted(error["loc"][1] for error in errors) == at_fault
        assert world.tasks.submitted == []


async def test_the_last_of_two_equal_members_counts_here_as_it_does_upstream() -> None:
    twice = b'{"image_url": "%s", "image_url": "%s"}'
    good, bad = IMAGE_URL.encode(), b"http://127.0.0.1/"
    async with World() as world:
        assert (await world.post_raw(twice % (good, bad))).status_code == 422
        response = await world.post_raw(twice % (bad, good))
        assert response.status_code == 202
        assert json.loads(world.tasks.submitted[0]["body"])["image_url"] == IMAGE_URL


async def test_private_image_addresses_pass_where_the_setting_allows_them() -> None:
    async with World(rules=RequestRules(images=ImageUrlRules(allow_private=True))) as world:
        response = await world.client.post(CAMERA_ANGLE_PATH, json={"image_url": "http://127.0.0.1:9000/cat.png"})
        assert response.status_code == 202


async def test_an_object_of_s3_that_nobody_may_name_is_refused_by_its_field() -> None:
    rules = RequestRules(images=ImageUrlRules(buckets=parse_image_buckets("pictures,uploads/{client}/")))
    body = QWEN_BODY | {"image_url": "s3://uploads/alice/a.png", "image2_url": "s3://pictures/b.png"}
    async with World(rules=rules, keys=api_keys(alice="a", bob="b")) as world:
        assert (await world.client.post(QWEN_PATH, json=body, headers={"X-API-Key": "a"})).status_code == 202
        response = await world.client.post(QWEN_PATH, json=body, headers={"X-API-Key": "b"})
        (error,) = assert_invalid_body(response)
        assert (error["type"], error["loc"]) == ("image_url", ["body", "image_url"])
        assert len(world.tasks.submitted) == 1


async def test_a_refused_value_comes_back_only_if_it_is_short() -> None:
    async with World() as world:
        body = QWEN_BODY | {"image_url": "x" * 50_000, "prompt": {"a": "b" * 50_000}, "steps": 0, "seed": 10**400}
        response = await world.client.post(QWEN_PATH, json=body)
        errors = {error["loc"][1]: error for error in assert_invalid_body(response)}
        assert errors["steps"]["input"] == 0
        assert all("input" not in errors[name] for name in ("image_url", "prompt", "seed"))
        assert len(response.content) < 2000


async def test_a_client_that_asks_for_problem_json_gets_a_sentence_and_the_list_apart() -> None:
    async with World() as world:
        for accept in ("application/problem+json", "application/json, Application/Problem+JSON;q=0.5"):
            response = await world.post_raw(b"{}", QWEN_PATH, headers={"Accept": accept})
            members = assert_problem(response, 422)
            assert members["detail"] == "body.image_url: Field required; body.prompt: Field required"
            assert [error["loc"] for error in members["errors"]] == [["body", "image_url"], ["body", "prompt"]]
        for accept in ("*/*", "application/json", "application/*", "application/problem+json;q=0", ""):
            response = await world.post_raw(b"{}", headers={"Accept": accept})
            assert_invalid_body(response)
            assert "errors" not in response.json()


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "json"]
)
async def test_a_body_declared_as_something_else_is_refused(content_type: str) -> None:
    async with World() as world:
        response = await world.post_raw(to_json(CAMERA_ANGLE_BODY), headers={"Content-Type": content_type})
        assert "application/json" in assert_problem(response, 415)["detail"]
        assert world.tasks.submitted == []


def padded_to(size_bytes: int) -> bytes:
    start = to_json(CAMERA_ANGLE_BODY)[:-1] + b', "padding": "'
    return start + b"x" * (size_bytes - len(start) - 2) + b'"}'


async def test_the_largest_body_is_255_kib() -> None:
    async with World() as world:
        assert (await world.post_raw(padded_to(MAX_BODY_BYTES))).status_code == 202
        response = await world.post_raw(padded_to(MAX_BODY_BYTES + 1))
        assert str(MAX_BODY_BYTES) in assert_problem(response, 413)["detail"]
        assert MAX_BODY_BYTES == 255 * 1024
        assert len(world.tasks.submitted) == 1


async def test_a_body_that_the_queue_could_not_take_once_it_is_ascii_is_too_large() -> None:
    """Accepted, it would be refused by SQS at each try, and its client told to try again for ever."""
    start = to_json(CAMERA_ANGLE_BODY)[:-1] + b', "padding": "'
    async with World() as world:
        response = await world.post_raw(start + "é".encode() * 60_000 + b'"}')
        assert "as its JSON escape" in assert_problem(response, 413)["detail"]
        assert (await world.post_raw(start + "é".encode() * 40_000 + b'"}')).status_code == 202
        assert len(world.tasks.submitted) == 1


def test_the_largest_body_makes_a_message_that_the_queue_takes() -> None:
    kind = max(KINDS, key=lambda kind: len(kind.api_path))
    message = TaskMessage(new_task_id(), kind.api_path, padded_to(MAX_BODY_BYTES).decode()).to_json()
    attributes = len(REQUEST_ID_ATTRIBUTE) + len("String") + 200  # no request id is longer
    assert len(message) + attributes <= MAX_MESSAGE_BYTES


class Upload:
    """A body in chunks that counts how many were asked for."""

    def __init__(self, chunks: int) -> None:
        self.chunks = chunks
        self.taken = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(self.chunks):
            self.taken += 1
            yield b" " * 65536


async def test_a_body_declared_too_large_is_refused_unread() -> None:
    async with World() as world:
        upload = Upload(5)
        headers = {"Content-Length": str(5 * 65536), "Content-Type": "application/json"}
        assert_problem(await world.client.post(CAMERA_ANGLE_PATH, content=upload, headers=headers), 413)
        assert upload.taken == 0


@pytest.mark.parametrize(
    "declared", [{}, {"Content-Length": "10"}, {"Content-Length": "-1"}, {"Content-Length": "\u00b2"}]
)
async def test_a_body_that_turns_out_too_large_is_refused_there(declared: dict[str, str]) -> None:
    async with World() as world:
        upload = Upload(1000)
        headers = {name.encode(): value.encode("latin-1") for name, value in declared.items()}
        assert_problem(await world.client.post(CAMERA_ANGLE_PATH, content=upload, headers=headers), 413)
        assert upload.taken == 4
        assert world.tasks.submitted == []


async def test_a_client_that_leaves_in_the_middle_of_its_body_leaves_nothing_behind() -> None:
    async with World() as world:
        sent: list[dict[str, Any]] = []
        messages: list[dict[str, Any]] = [
            {"type": "http.request", "body": b"{", "more_body": True},
            {"type": "http.disconnect"},
        ]

        async def receive() -> dict[str, Any]:
            return messages.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": CAMERA_ANGLE_PATH,
            "root_path": "",
            "query_string": b"",
            "headers": [],
        }
        await world.app(scope, receive, send)
        assert sent[0]["status"] == 400
        assert world.tasks.submitted == []


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip"])
async def test_a_compressed_body_is_415_and_says_what_to_change(encoding: str) -> None:
    async with World() as world:
        response = await world.post_raw(b"\x1f\x8b", headers={"Content-Encoding": encoding})
        assert "must not be compressed" in assert_problem(response, 415)["detail"]
        identity = await world.post_raw(to_json(CAMERA_ANGLE_BODY), headers={"Content-Encoding": "identity"})
        assert identity.status_code == 202


async def test_a_content_length_of_very_many_digits_is_read_as_a_number() -> None:
    body = to_json(CAMERA_ANGLE_BODY)
    async with World() as world:
        padded = await world.post_raw(body, headers={"Content-Length": f"{len(body):05000d}"})
        assert padded.status_code == 202
        assert_problem(await world.post_raw(body, headers={"Content-Length": "9" * 5000}), 413)
