import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest

from services.devstack.lambda_function import LambdaError, LambdaFunction, lambda_function
from services.devstack.surroundings import surroundings

ROOT = Path(__file__).parents[2]

Deploy = Callable[[str], Awaitable[LambdaFunction]]


@pytest.fixture
async def deploy(tmp_path: Path) -> AsyncIterator[Deploy]:
    """Starts functions by the name of their handler; they are closed in the end."""
    async with AsyncExitStack() as functions:

        async def start(handler: str) -> LambdaFunction:
            return await functions.enter_async_context(lambda_function(_function(handler, tmp_path)))

        yield start


async def test_a_warm_environment_handles_event_after_event(deploy: Deploy) -> None:
    function = await deploy("tests.devstack.handlers.remember_process")
    assert await function.invoke({}) == await function.invoke({})


async def test_the_event_reaches_the_handler_and_its_result_comes_back(deploy: Deploy) -> None:
    event = {"text": "线稿\n", "list": [1, None, {"a": True}]}
    assert await (await deploy("tests.devstack.handlers.echo")).invoke(event) == event


async def test_events_sent_at_once_are_answered_each_with_its_own_result(deploy: Deploy) -> None:
    function = await deploy("tests.devstack.handlers.echo")
    assert await asyncio.gather(*(function.invoke(number) for number in range(20))) == list(range(20))


async def test_the_context_says_who_is_called_and_how_much_time_is_left(deploy: Deploy) -> None:
    context = await (await deploy("tests.devstack.handlers.describe_context")).invoke({})
    assert context["function_name"] == "describe_context"
    assert len(context["request_id"]) == 36
    assert 0 < context["remaining_ms"] <= 20_000


async def test_what_a_handler_prints_is_log_and_not_an_answer(deploy: Deploy, tmp_path: Path) -> None:
    assert await (await deploy("tests.devstack.handlers.print_much")).invoke("event") == "event"
    assert "not an answer" in (tmp_path / "lambda.log").read_text()


async def test_what_a_handler_raises_is_told_by_type_and_message(deploy: Deploy, tmp_path: Path) -> None:
    function = await deploy("tests.devstack.handlers.refuse")
    with pytest.raises(LambdaError, match="PermissionError: not today") as failure:
        await function.invoke(_attempts(tmp_path))
    assert failure.value.kind == "PermissionError"
    assert "Traceback" in (tmp_path / "lambda.log").read_text()


async def test_a_result_that_is_not_json_is_an_error(deploy: Deploy) -> None:
    with pytest.raises(LambdaError, match="TypeError"):
        await (await deploy("tests.devstack.handlers.return_a_set")).invoke({})


async def test_an_asynchronous_invocation_is_repeated_until_the_handler_does_not_raise(
    deploy: Deploy, tmp_path: Path
) -> None:
    event = _attempts(tmp_path)
    assert await (await deploy("tests.devstack.handlers.recover")).invoke_asynchronously(event) == "recovered"
    assert _count(event) == 3


async def test_an_asynchronous_invocation_is_given_up_after_two_retries(deploy: Deploy, tmp_path: Path) -> None:
    event = _attempts(tmp_path)
    with pytest.raises(LambdaError, match="not today"):
        await (await deploy("tests.devstack.handlers.refuse")).invoke_asynchronously(event)
    assert _count(event) == 3


async def test_a_synchronous_invocation_is_not_repeated(deploy: Deploy, tmp_path: Path) -> None:
    event = _attempts(tmp_path)
    with pytest.raises(LambdaError):
        await (await deploy("tests.devstack.handlers.refuse")).invoke(event)
    assert _count(event) == 1


@pytest.mark.parametrize(
    ("handler", "error"),
    [
        ("tests.devstack.no_such_module.handler", "ModuleNotFoundError"),
        ("tests.devstack.handlers.no_such_function", "AttributeError"),
        ("nonsense", "ValueError"),
    ],
)
async def test_a_handler_that_cannot_be_loaded_fails_the_start(deploy: Deploy, handler: str, error: str) -> None:
    with pytest.raises(LambdaError, match=error):
        await deploy(handler)


async def test_a_handler_that_ends_its_process_fails_one_event_and_the_next_gets_a_new_environment(
    deploy: Deploy,
) -> None:
    function = await deploy("tests.devstack.handlers.die")
    for _ in range(2):
        with pytest.raises(LambdaError, match="exit code 3"):
            await function.invoke({})


async def test_an_environment_killed_between_two_events_is_replaced(deploy: Deploy) -> None:
    function = await deploy("tests.devstack.handlers.remember_process")
    first = await function.invoke({})
    os.kill(first, signal.SIGKILL)
    with suppress(LambdaError):  # noticed only after the event was sent
        await function.invoke({})
    assert await function.invoke({}) != first


async def test_a_handler_that_takes_too_long_is_cut_off_and_the_next_event_is_handled(tmp_path: Path) -> None:
    function = _function("tests.devstack.handlers.sleep", tmp_path, timeout_s=1.0)
    async with lambda_function(function):
        with pytest.raises(LambdaError, match="Task timed out after 1"):
            await function.invoke({"seconds": 60})
        assert await function.invoke({"seconds": 0}) == "slept"


def _function(handler: str, log_dir: Path, *, timeout_s: float = 20.0) -> LambdaFunction:
    return LambdaFunction(
        handler,
        env=surroundings("http://unused", {"PYTHONPATH": str(ROOT)}),
        log_path=log_dir / "lambda.log",
        timeout_s=timeout_s,
        retry_delays_s=(0.0, 0.0),
    )


def _attempts(folder: Path) -> dict[str, str]:
    return {"attempts": str(folder / "attempts")}


def _count(event: dict[str, str]) -> int:
    return len(Path(event["attempts"]).read_text())
