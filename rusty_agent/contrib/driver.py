"""The process that a job is for → a call when it has ended.

In: a process on the same machine. Out: one call, the moment it ends. Never touched: what is done then.

Ray takes some two seconds to notice that a program was killed; its actors go on meanwhile, and what they ask for then
is paid for and lost. The system knows at once (Linux, pidfd_open(2)). On other systems, and for processes on other
machines, it stays at Ray's two seconds.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from attrs import define

__all__ = ["Driver"]

_STARTED = 19  # the field of /proc/PID/stat that tells when it started, counted behind the name: proc(5), field 22


@define(frozen=True)
class Driver:
    """A process, told apart from one that got its number later, or has the same number in another container.

    Attributes:
        node: The machine.
        pid: The process's number there.
        started: When it started, as the system counts.
    """

    node: str
    pid: int
    started: str

    @classmethod
    def here(cls, node: str) -> Driver | None:
        """This process; None where the system does not tell when it started."""
        started = _started(os.getpid())
        return None if started is None else cls(node, os.getpid(), started)

    def watch(self, node: str, gone: Callable[[], object]) -> bool:
        """Have `gone` called on the running loop when the process ends; False where that cannot be told from here.

        Args:
            node: The machine that this runs on.
            gone: What to call.
        """
        if node != self.node or not hasattr(os, "pidfd_open"):
            return False
        try:
            number = os.pidfd_open(self.pid)
        except OSError:
            return False
        if _started(self.pid) != self.started:  # looked at while held: it is this one or none
            os.close(number)
            return False
        loop = asyncio.get_running_loop()

        def tell() -> None:
            loop.remove_reader(number)
            os.close(number)
            gone()

        loop.add_reader(number, tell)
        return True


def _started(pid: int) -> str | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[_STARTED]
    except (OSError, IndexError):
        return None
