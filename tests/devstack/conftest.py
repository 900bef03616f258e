from collections.abc import Iterator

import pytest

from tests.devstack.emulated import Emulated, emulator_process


@pytest.fixture(scope="session")
def shared_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulated]:
    with emulator_process(tmp_path_factory.mktemp("emulator") / "emulator.log") as (emulated, _process):
        yield emulated


@pytest.fixture
def emulated(shared_emulator: Emulated) -> Iterator[Emulated]:
    """Emulated AWS without failures, left without failures."""
    yield shared_emulator
    shared_emulator.ask("DELETE", "/devstack/faults")
