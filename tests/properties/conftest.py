"""Emulated AWS with atomic conditional writes: these machines let actors race."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.devstack.emulated import Emulated, emulator_process


@pytest.fixture(scope="session")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulated]:
    with emulator_process(tmp_path_factory.mktemp("emulator") / "emulator.log") as (emulated, _process):
        yield emulated


@pytest.fixture(scope="session")
def aws_endpoint(emulated: Emulated) -> str:
    return emulated.endpoint_url
