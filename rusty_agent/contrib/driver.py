"""The driver process of a job → a call when it has ended.

In: a process on the same machine. Out: one call, the moment it ends. Never touched: what is done then.

Ray takes some two seconds to notice that a program was killed. Its actors go on meanwhile, and the answers that they
request are paid for and lost. Linux tells at once (pidfd_open(2)). On other systems, and for processes on other
machines, it remains at Ray's two seconds.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from attrs import define

__all__ = ["Driver"]

_STARTED = 19  # index of the start time in /proc/PID/stat, among the fields after the name: proc(5), field 22


@define(frozen=True)
class Driver:
    """A process, distinct from one that got its id later, or has the same id in another container.

    Attributes:
        node: Ray's id of the machine.
        pid: The process id.
        started: When the process started, as the system counts.
    """

    node: str
    pid: int
    started: str

    @classmethod
    def here(cls, node: str) -> Driver | None:
        """This process, or None if the system does not tell when it started."""
        started = _started(os.getpid())
        return None if started is None else cls(node, os.getpid(), started)

    def watch(self, node: str, gone: Callable[[], object]) -> bool:
        """Call `gone` on the running loop when the process ends; return False if its end cannot be seen from here.

        Args:
            node: Ray's id of the machine that this runs on.
            gone: The function to call.
        """
        if node != self.node or not hasattr(os, "pidfd_open"):
            return False
        try:
            number = os.pidfd_open(self.pid)
        except OSError:
            return False
        if _started(self.pid) != self.started:  # checked after opening: the descriptor stays with this process
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
