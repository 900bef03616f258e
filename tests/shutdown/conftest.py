"""A gateway, a world and a deployed Lambda per test."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from services.shutdown.handler import compose
from tests.shutdown.world import World, clients_of, gateway_to, new_world


@pytest.fixture(scope="session")
def clients(aws_endpoint: str) -> Iterator[dict[str, Any]]:
    with clients_of(aws_endpoint) as clients:
        yield clients


@pytest.fixture
def world(
    aws_endpoint: str, clients: dict[str, Any], aws_environment: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    """A world, the Lambda deployed in it and not yet started."""
    with gateway_to(aws_endpoint) as gateway:
        world = new_world(gateway, clients)
        for name, text in world.environ().items():
            monkeypatch.setenv(name, text)
        compose.cache_clear()
        yield world
        compose.cache_clear()


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[dict[str, Any]]]:
    """What the Lambda has written to standard output since the last call, a JSON object a line."""
    return lambda: [json.loads(line) for line in capsys.readouterr().out.splitlines()]
