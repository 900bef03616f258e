from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.doctor.orchestrator import Orchestrator, orchestrator_on_loopback
from tests.doctor.world import EmulatedAws, World, deploy, emulated_aws


@pytest.fixture(scope="session")
def shared_aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedAws]:
    with emulated_aws(tmp_path_factory.mktemp("emulator") / "emulator.log") as aws:
        yield aws


@pytest.fixture
def aws(shared_aws: EmulatedAws) -> Iterator[EmulatedAws]:
    """Emulated AWS without failures, left without failures."""
    yield shared_aws
    shared_aws.heal()


@pytest.fixture
def orchestrator() -> Iterator[Orchestrator]:
    """Answers /health and /ready with 200 until told otherwise."""
    with orchestrator_on_loopback() as orchestrator:
        yield orchestrator


@pytest.fixture
def world(aws: EmulatedAws, orchestrator: Orchestrator) -> World:
    """A deployment in which everything is as it should be."""
    return deploy(aws, api_url=orchestrator.url)
