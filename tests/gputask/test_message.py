from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.gputask.message import PoisonMessage, TaskMessage, task_id_in

PATH = "/api/v1/camera-angle/jobs"
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
JSON_OBJECTS = st.dictionaries(st.text(), JSON_VALUES, max_size=4)


def message_of(request_body: str) -> TaskMessage:
    return TaskMessage("0198c0de-0000-7000-8000-000000000000", PATH, request_body)


@given(
    body=JSON_OBJECTS,
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 0, 2]),
    separators=st.sampled_from([(",", ":"), (" , ", "\t: ")]),
)
def test_a_message_means_what_the_request_meant(
    body: dict[str, Any], ascii_only: bool, indent: int | None, separators: tuple[str, str]
) -> None:
    text = json.dumps(body, ensure_ascii=ascii_only, indent=indent, separators=separators)
    sent = message_of(text).to_json()
    assert sent.isascii()
    assert json.loads(sent)["request_body"] == body
    received = TaskMessage.from_json(sent)
    assert (received.task_id, received.api_path) == (message_of("").task_id, PATH)
    assert json.loads(received.request_body) == body
    if text.isascii():
        assert received.request_body == text


@pytest.mark.parametrize(
    "body",
    [
        "{}",
        "{ }",
        '{"zoom": 1.0}',
        '{"zoom": 1.0, "steps": 40.0, "seed": 1E5, "cfg": 0.10, "denoise": -0}',
        '{"seed": 123456789012345678901234567890123456789012345678901234567890}',
        '{"cfg": 3.141592653589793238462643383279}',
        '{"b": 1, "a": 2}',
        '{"a": 1, "a": 2}',
        '{\r\n\t"a" :\n[ ]\n}',
        r'{"prompt": "\u7ebf\u7a3f \"quoted\" \\ \/ \b\f\n\r\t"}',
        r'{"prompt": "\ud83d\ude00 \ufffe \uffff \u0000"}',
        r'{"prompt": "\ud800"}',
        r'{"request_body": {"request_body": {}}, "task_id": 1, "api_path": []}',
        '{"prompt": "}, \\"request_body\\": {"}',
        '{"prompt": "\x7f"}',
    ],
)
def test_ascii_text_goes_through_unchanged(body: str) -> None:
    sent = message_of(body).to_json()
    assert sent.endswith(f'"request_body": {body}}}')
    assert TaskMessage.from_json(sent) == message_of(body)


@pytest.mark.parametrize(
    ("body", "escaped"),
    [
        ('{"prompt": "线稿"}', r'{"prompt": "\u7ebf\u7a3f"}'),
        ('{"prompt": "😀"}', r'{"prompt": "\ud83d\ude00"}'),
        ('{"prompt": "\ufffe\uffff"}', r'{"prompt": "\ufffe\uffff"}'),
        ('{"prompt": "\x80 é", "ключ": 1.0}', r'{"prompt": "\u0080 \u00e9", "\u043a\u043b\u044e\u0447": 1.0}'),
    ],
)
def test_what_sqs_might_refuse_becomes_its_escape(body: str, escaped: str) -> None:
    assert TaskMessage.from_json(message_of(body).to_json()).request_body == escaped


def test_a_message_has_exactly_the_three_members() -> None:
    assert json.loads(TaskMessage("t", PATH, '{"a": 1}').to_json()) == {
        "task_id": "t",
        "api_path": PATH,
        "request_body": {"a": 1},
    }


def test_members_are_found_in_any_order_with_any_white_space() -> None:
    text = f' {{\n"x":[1,{{}}] , "request_body" :\t{{"zoom":1.0}}, "api_path":"{PATH}","task_id":"t" }} '
    assert TaskMessage.from_json(text) == TaskMessage("t", PATH, '{"zoom":1.0}')


def test_the_last_of_two_equal_members_counts() -> None:
    text = f'{{"task_id": "t", "api_path": "{PATH}", "request_body": {{"a": 1}}, "request_body": {{"a": 2}}}}'
    assert TaskMessage.from_json(text).request_body == '{"a": 2}'


def poison(**members: object) -> str:
    return json.dumps({"task_id": "t", "api_path": PATH, "request_body": {}} | members)


def without(name: str) -> str:
    return json.dumps({key: value for key, value in json.loads(poison()).items() if key != name})


NESTED = "[" * 100_000


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not JSON"),
        ("hello", "not JSON"),
        ('{"task_id": "t"', "not JSON"),
        (f'{{"task_id": "t", "request_body": {NESTED}', "not JSON"),
        (f'{{"task_id": "t", "request_body": {"1" * 5_000}}}', "not JSON"),
        ("null", "not a JSON object"),
        ('"text"', "not a JSON object"),
        ("[]", "not a JSON object"),
        ("{}", "task_id"),
        (without("task_id"), "task_id"),
        (poison(task_id=""), "task_id"),
        (poison(task_id=None), "task_id"),
        (poison(task_id=7), "task_id"),
        (without("api_path"), "api_path"),
        (poison(api_path="jobs"), "api_path"),
        (poison(api_path=["/"]), "api_path"),
        (without("request_body"), "request_body"),
        (poison(request_body=None), "request_body"),
        (poison(request_body=[]), "request_body"),
        (poison(request_body="{}"), "request_body"),
        (poison(request_body={"zoom": float("nan")}), "NaN"),
        (poison(request_body={"zoom": float("-inf")}), "-Infinity"),
    ],
)
def test_what_no_task_can_be_read_from_is_poison(text: str, why: str) -> None:
    with pytest.raises(PoisonMessage, match=why):
        TaskMessage.from_json(text)


@given(st.text() | JSON_VALUES.map(json.dumps) | JSON_OBJECTS.map(lambda members: poison(**members)))
def test_any_text_is_a_message_or_poison(text: str) -> None:
    try:
        TaskMessage.from_json(text)
    except PoisonMessage:
        task_id_in(text)


@pytest.mark.parametrize(
    ("text", "task_id"),
    [
        (poison(), "t"),
        (without("request_body"), "t"),
        (poison(request_body={"zoom": float("nan")}), "t"),
        (poison(task_id=""), None),
        (poison(task_id=7), None),
        (without("task_id"), None),
        ("[]", None),
        ("hello", None),
        (f'{{"task_id": "t", "request_body": {NESTED}', None),
    ],
)
def test_a_broken_message_may_still_say_whose_it_is(text: str, task_id: str | None) -> None:
    assert task_id_in(text) == task_id
