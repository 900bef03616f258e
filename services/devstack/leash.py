"""Ties a process to its parent: `leash.py PARENT_PID COMMAND...` becomes COMMAND, killed by the kernel with its parent.

The one mechanism for all processes of the devstack. It works for programs that know nothing of it (they are `exec`ed
and keep the process id), needs no code between fork and exec in a program with threads, and holds even if the parent is
killed with SIGKILL. Linux only; elsewhere COMMAND simply runs, and only a parent killed with SIGKILL leaves it behind.

The kernel watches the *thread* that started the child, so only start children from a thread that lives as long as the
process: the one that runs the event loop.

Run as a file with `python -I -S`, which takes 15 ms; imports nothing of this project.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # man 2 PR_SET_PDEATHSIG


def main() -> None:
    """Ask for the signal, make sure the parent still lives, and become the command."""
    parent_pid, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(parent_pid):  # it died before we asked
            sys.exit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
