"""A throw-away machine leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

from tests.absence import absent
from tests.systemd.machine import booted_machine, why_not


def test_what_a_machine_started_mounted_and_wrote_is_gone_with_it(tmp_path: Path) -> None:
    if reason := why_not():
        absent(reason)
    mounts = places(Path("/proc/self/mounts"))
    with booted_machine(tmp_path, {"machine.target": "[Unit]\nRequires=basic.target\nAfter=basic.target\n"}, {}) as box:
        box.write("/etc/left-behind", "text")
        box.run("sh", "-c", "sleep 600 >/dev/null 2>&1 &")
        assert box.run("cat", "/etc/left-behind") == "text"
        assert "sleep" in box.run("ps", "-A", "-o", "comm=")
        cgroup = box.cgroup
        assert cgroup.exists()
        namespace = Path(f"/proc/{box.pid}/ns/pid").readlink()
    assert not cgroup.exists()
    assert namespace not in {namespace_of(process) for process in Path("/proc").glob("[0-9]*")}
    assert not Path("/etc/left-behind").exists()
    assert not {place for place in places(Path("/proc/self/mounts")) - mounts if str(tmp_path) in place}
    assert not list((tmp_path / "overlay").iterdir())


def places(mounts: Path) -> set[str]:
    return {line.split()[1] for line in mounts.read_text().splitlines()}


def namespace_of(process: Path) -> Path | None:
    """The PID namespace; None for one that has ended, though nobody may have collected its exit code yet."""
    try:
        (process / "exe").readlink()
        return (process / "ns/pid").readlink()
    except OSError:
        return None
