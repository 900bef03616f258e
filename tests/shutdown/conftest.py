"""One moto server per test process; a gateway, a world and a deployed Lambda per test."""

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from moto.server import ThreadedMotoServer

from services.shutdown.handler import compose
from tests.shutdown.world import World, clients_of, gateway_to, new_world


@pytest.fixture(scope="session")
def moto() -> Iterator[tuple[str, int]]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()
    server.stop()


@pytest.fixture(scope="session")
def clients(moto: tuple[str, int]) -> Iterator[dict[str, Any]]:
    with clients_of(moto) as clients:
        yield clients


@pytest.fixture
def world(moto: tuple[str, int], clients: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A world, the Lambda deployed in it and not yet started."""
    with gateway_to(moto) as gateway:
        world = new_world(gateway, clients)
        for name in [name for name in os.environ if name.startswith("AWS_") and name != "AWS_CA_BUNDLE"]:
            monkeypatch.delenv(name)
        for name, text in (world.environ() | {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}).items():
            monkeypatch.setenv(name, text)
        compose.cache_clear()
        yield world
        compose.cache_clear()


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[dict[str, Any]]]:
    """What the Lambda has written to standard output since the last call, a JSON object a line."""
    return lambda: [json.loads(line) for line in capsys.readouterr().out.splitlines()]
