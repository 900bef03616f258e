"""A throw-away machine with systemd as PID 1: namespaces of its own over an overlay of this machine's files.

What a test starts there is as real as on the GPU instance: notify sockets, watchdogs, cgroups, sandboxes, a journal.
Nothing it writes outlives it, and killing PID 1 ends all of it.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import sysconfig
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.devstack import leash

SOURCE = Path(__file__).parent.parent.parent
PYTHON = "/opt/python/bin/python3"
TARGET = "machine.target"

_BOOT = Path(__file__).with_name("boot.sh")
_DISTRIBUTION_UNITS = Path("/lib/systemd/system")
_BORROWED_UNITS = (
    "basic.target",
    "multi-user.target",
    "network-online.target",
    "paths.target",
    "shutdown.target",
    "slices.target",
    "sockets.target",
    "systemd-journald-dev-log.socket",
    "systemd-journald.service",
    "systemd-journald.socket",
    "timers.target",
)
_TOOLS = ("unshare", "nsenter", "mount", "umount", "pivot_root", "journalctl", "systemctl")
_BOOT_LIMIT_S = 30.0
_LOOK_EVERY_S = 0.1


def why_not() -> str | None:
    """Why no machine can be booted here, or None."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "only root can boot a machine in namespaces"
    if not Path("/lib/systemd/systemd").exists():
        return "systemd is not installed"
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    if _cgroup_mount() is None:
        return "no cgroup2 file system is mounted"
    namespaces = ["unshare", "--pid", "--fork", "--mount", "--uts", "--ipc", "--net", "--cgroup"]
    probe = "mkdir -p /run/o && mount -t tmpfs t /run/o && mkdir /run/o/u /run/o/w /run/o/r"
    probe += " && mount -t overlay -o lowerdir=/,upperdir=/run/o/u,workdir=/run/o/w o /run/o/r"
    probe += " && mount -t cgroup2 c /run/o/r/mnt"
    probe = f"mount -t tmpfs t /run && {probe}"  # so that nothing is left in the real /run
    refusal = subprocess.run([*namespaces, "sh", "-c", probe], capture_output=True, text=True, check=False)
    return f"namespaces are refused: {refusal.stderr.strip()}" if refusal.returncode else None


@dataclass(frozen=True, slots=True)
class Machine:
    """A booted machine.

    Attributes:
        pid: of its PID 1, as seen from here.
        cgroup: that holds all its processes, as seen from here.
    """

    pid: int
    cgroup: Path

    def run(self, *command: str, check: bool = True, limit_s: float = 60.0) -> str:
        """What a command run there as root prints."""
        into = ("nsenter", f"--target={self.pid}", "--all", "--root", "--wd")
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        done = subprocess.run(
            [*into, "env", "-i", path, *command], capture_output=True, text=True, check=False, timeout=limit_s
        )
        assert done.returncode == 0 or not check, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def write(self, path: str, text: str) -> None:
        self.run("sh", "-c", 'mkdir -p "${1%/*}" && printf %s "$2" >"$1"', "sh", path, text)

    def show(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).strip()

    def number(self, unit: str, name: str) -> int:
        return int(self.show(unit, name))

    def state(self, unit: str) -> str:
        return f"{self.show(unit, 'ActiveState')}/{self.show(unit, 'SubState')}"

    def wait_for(self, unit: str, state: str, *, limit_s: float = 30.0) -> None:
        """Wait until the unit is in a state such as ``active/running``."""
        self.wait_until(lambda: self.state(unit) == state, unit, limit_s=limit_s)

    def wait_until(self, condition: Callable[[], bool], unit: str, *, limit_s: float = 30.0) -> None:
        """Poll a condition; should it not come true, the unit's journal says why."""
        give_up_at_s = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > give_up_at_s:
                journal = self.run("journalctl", "--no-pager", "--lines=60", f"--unit={unit}")
                raise AssertionError(f"not within {limit_s} s: {unit} is {self.state(unit)}\n{journal}")
            time.sleep(_LOOK_EVERY_S)

    def journal(self, *matches: str) -> list[dict[str, Any]]:
        """The entries that match, oldest first."""
        lines = self.run("journalctl", "--no-pager", "--output=json", *matches).splitlines()
        return [json.loads(line) for line in lines]


@contextmanager
def booted_machine(scratch: Path, units: dict[str, str], files: dict[str, str]) -> Iterator[Machine]:
    """A machine that lives as long as the block.

    Args:
        units: texts of units by file name; `machine.target` among them is what it boots into.
        files: texts of other files by absolute path; those in a ``bin`` are executable.
    """
    tree = scratch / "files"
    everything = {**_base_files(), **{f"/etc/systemd/system/{name}": text for name, text in units.items()}, **files}
    for path, text in everything.items():
        file = tree / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o755 if file.parent.name == "bin" else 0o644)
    (tree / "opt/venv/bin").mkdir()
    (tree / "opt/venv/bin/python").symlink_to(PYTHON)
    overlay = scratch / "overlay"
    overlay.mkdir()
    with _own_cgroup() as cgroup, (scratch / "boot.log").open("wb") as log:
        places = (overlay, tree, SOURCE, sysconfig.get_path("purelib"), sys.base_prefix)
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), "/bin/sh", _BOOT, cgroup, *places, TARGET],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        with process:
            try:
                machine = _await_boot(process, cgroup, scratch / "boot.log")
                pid_1 = os.pidfd_open(machine.pid)
                try:
                    yield machine
                finally:
                    process.kill()  # and with it, by --kill-child, PID 1 and all there is in its namespace
                    ended, _, _ = select.select([pid_1], [], [], _BOOT_LIMIT_S)
                    os.close(pid_1)
                    assert ended, "PID 1 does not die"
            finally:
                process.kill()


def _base_files() -> dict[str, str]:
    units = {
        f"/etc/systemd/system/{name}": (_DISTRIBUTION_UNITS / name).read_text()
        for name in _BORROWED_UNITS
        if (_DISTRIBUTION_UNITS / name).exists()
    }
    accounts = ("root:x:0:0::/:/bin/sh", "nobody:x:65534:65534::/:/bin/false", "ubuntu:x:1000:1000::/:/bin/sh")
    groups = ("root:x:0:", "nogroup:x:65534:", "ubuntu:x:1000:", "systemd-journal:x:101:")
    return {
        **units,
        # The distribution's own would mount, seed and tidy up half a machine.
        "/etc/systemd/system/sysinit.target": (
            "[Unit]\nWants=systemd-journald.service\nAfter=systemd-journald.service\n"
        ),
        "/etc/systemd/journald.conf": "[Journal]\nStorage=volatile\n",
        "/etc/machine-id": f"{uuid.uuid4().hex}\n",
        "/etc/passwd": "\n".join(accounts) + "\n",
        "/etc/group": "\n".join(groups) + "\n",
        "/etc/hosts": "127.0.0.1 localhost\n",
        # An environment as `venv` makes one, of this interpreter, these sources and these packages under other names:
        # the sandbox closes /root and /home, where the real ones may lie.
        "/opt/venv/pyvenv.cfg": "home = /opt/python/bin\ninclude-system-site-packages = false\n",
        f"/opt/venv/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages/places.pth": (
            "/opt/source\n/opt/site-packages\n"
        ),
    }


def _cgroup_mount() -> Path | None:
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(place)
    return None


@contextmanager
def _own_cgroup() -> Iterator[Path]:
    mount = _cgroup_mount()
    assert mount is not None
    cgroup = mount / f"machine-{uuid.uuid4()}"
    cgroup.mkdir()
    try:
        yield cgroup
    finally:
        for directory, _, _ in os.walk(cgroup, topdown=False):
            _remove_cgroup(Path(directory))


def _remove_cgroup(cgroup: Path) -> None:
    """The kernel refuses until the last process that was killed has gone."""
    give_up_at_s = time.monotonic() + _BOOT_LIMIT_S
    while True:
        try:
            cgroup.rmdir()
        except OSError:
            if time.monotonic() > give_up_at_s:
                raise
            time.sleep(_LOOK_EVERY_S)
        else:
            return


def _await_boot(process: subprocess.Popen[bytes], cgroup: Path, log: Path) -> Machine:
    """The machine, once its PID 1 is systemd and answers."""
    give_up_at_s = time.monotonic() + _BOOT_LIMIT_S
    while time.monotonic() < give_up_at_s:
        assert process.poll() is None, f"PID 1 has ended\n{log.read_text()}"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if children and Path(f"/proc/{children[0]}/comm").read_text().strip() == "systemd":
            machine = Machine(int(children[0]), cgroup)
            if machine.run("systemctl", "is-system-running", check=False).strip() in (
                "running",
                "starting",
                "degraded",
            ):
                return machine
        time.sleep(_LOOK_EVERY_S)
    raise AssertionError(f"did not boot\n{log.read_text()}")
