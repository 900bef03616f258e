import socket
from pathlib import Path

from tests.devstack.emulated import emulator_process


def test_the_emulator_is_quiet_and_exits_cleanly_on_sigterm(tmp_path: Path) -> None:
    log_path = tmp_path / "emulator.log"
    with emulator_process(log_path) as (emulated, process):
        emulated.sqs.list_queues()
        emulated.ask("GET", "/devstack/health")
        port = int(emulated.endpoint_url.rpartition(":")[2])
        process.terminate()
        assert process.wait(10) == 0
    assert log_path.read_text() == ""
    with socket.socket() as free:
        free.bind(("127.0.0.1", port))
