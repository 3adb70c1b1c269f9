"""One child process, from its start to its end.

In: a model file, a key, options. Out: the port that llama.cpp listens on, or why there is none. Never touched: HTTP.

Each child has a thread of its own, which starts it, reads its output, and reaps it. The thread lives as long as the
child: Linux kills a child when the thread that started it ends (see `child.py`).
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import subprocess
import sys
import threading
import weakref
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

from attrs import define

from ..errors import LocalModelError
from .ending import ending_error

__all__ = ["Child", "ServerOptions"]

_SCRIPT = Path(__file__).with_name("child.py")
_TAIL_BYTES = 4096  # how much of the end of the child's output is kept
_STOP_SECONDS = 2.0  # how long the child may take to end when asked
_FORK_SECONDS = 2.0  # how long a fork may wait for a child that is just being started

logger = logging.getLogger("rusty_agent")


@define(frozen=True)
class ServerOptions:
    """How to run the model; see `AsyncProvider.local` for the meaning of each option."""

    threads: int
    context: int
    parallel: int
    start_timeout: float


class Child:
    """One child process, from its start to its end.

    Attributes:
        port: The port that it listens on; None until it does.
        settled: Done, without a value, when the child listens, or when it is clear that it never will.
    """

    def __init__(self, model: Path, key: str, options: ServerOptions) -> None:
        self.port: int | None = None
        self.settled: Future[None] = Future()
        self.settled.set_running_or_notify_cancel()  # from here on one waiter cannot cancel it for the others
        self._model = model
        self._options = options
        self._mark = f"rusty-agent-{secrets.token_hex(8)}"
        self._config = self._line(key)
        self._said = b""
        self._process: subprocess.Popen[bytes] | None = None
        self._cause: int | str | None = None  # of its end: its exit code, or what went wrong in this process
        self._stopping = False
        self._ended = threading.Event()
        self._owned = True
        _children.add(self)  # before there are pipes that a fork must close
        self._thread = threading.Thread(target=self._live, name="rusty-agent-local", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int | None:
        """Its process id; None until there is one."""
        return None if self._process is None else self._process.pid

    @property
    def gone(self) -> bool:
        """Whether the child is known to have ended."""
        return self._ended.is_set()

    def gone_within(self, seconds: float) -> bool:
        """Wait up to this long for the child to end; return whether it has. Its connections break a moment earlier."""
        if self._owned:
            return self._ended.wait(seconds)
        if not self._listens(seconds):
            self._ended.set()
        return self.gone

    def error(self) -> LocalModelError:
        """The error that explains why there is no child any more."""
        assert self._cause is not None
        return ending_error(self._model, self._said, ready=self.port is not None, cause=self._cause)

    def ask_to_end(self) -> None:
        """Ask the child to end, and return at once. A forked process leaves that to the process that started it."""
        if not self._owned:
            return
        self._stopping = True  # set before `_process` is read; `_spawn` does the opposite: one of the two sees it
        if self.port is None and self._cause is None:
            self._cause = "its provider was closed while it was starting"
        if self._process is not None:
            self._process.terminate()

    def wait_or_kill(self) -> None:
        """Wait for the child, which was asked to end; kill it after `_STOP_SECONDS`."""
        if not self._owned or self._thread is threading.current_thread():  # on which the garbage collector may run this
            return
        self._thread.join(_STOP_SECONDS)
        if self._process is not None and not self._ended.is_set():
            self._process.kill()
            self._thread.join(_STOP_SECONDS)

    def _disown(self) -> None:
        """Let go of the child, in a fork of the process that owns it."""
        self._owned = False
        if self._cause is None:
            self._cause = "it was started by the process that this one was forked from, and has ended"
        gone, self._ended = self.gone, threading.Event()  # the old one's lock may have been held
        if gone or self.port is None:  # one that is starting cannot be followed from here
            self._ended.set()
        if self._process is not None:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.close()
            self._process.stdout.close()
            self._process.returncode = 0  # else `Popen` warns about a child that is still running

    def _listens(self, seconds: float) -> bool:
        """Whether something listens on the child's port. In a fork this is the only sign of whether the child lives."""
        try:
            socket.create_connection(("127.0.0.1", self.port or 0), seconds).close()
        except ConnectionRefusedError:
            return False
        except OSError:
            pass
        return True

    def _live(self) -> None:
        timer = threading.Timer(self._options.start_timeout, self._give_up)  # a daemon, like this thread
        try:
            timer.start()
            self._attend(self._spawn(), timer)
        except Exception as error:  # as no process or thread can be started; whatever it is, others wait for `settled`
            self._cause = f"it could not be started with {sys.executable!r} ({error})"
        timer.cancel()
        self._ended.set()
        logger.debug("the local model %s has ended", self._model.name)
        if not self.settled.done():
            self.settled.set_result(None)

    def _attend(self, process: subprocess.Popen[bytes], timer: threading.Timer) -> None:
        """Send the child its configuration, and read its output until it ends."""
        assert process.stdin is not None
        assert process.stdout is not None
        with process.stdin as stdin, process.stdout as stdout:
            rest = self._config
            with suppress(OSError):  # it has ended already: its output says why
                while rest:
                    rest = rest[stdin.write(rest) :]
            while data := stdout.read(65536):
                self._hear(data)
                if self.port is not None:
                    timer.cancel()
            code = process.wait()
            self._cause = code if self._cause is None else self._cause

    def _hear(self, data: bytes) -> None:
        said = self._said + data
        if self.port is None:
            _, found, rest = said.partition(self._mark.encode())
            line, ended, more = rest.partition(b"\n")
            if found and ended:
                self.port = int(line)
                said = more
                logger.debug("the local model %s listens on port %d", self._model.name, self.port)
                self.settled.set_result(None)
        self._said = said[-_TAIL_BYTES:]

    def _spawn(self) -> subprocess.Popen[bytes]:
        with _spawning:
            self._process = process = subprocess.Popen(
                [sys.executable, "-P", str(_SCRIPT)],  # -P keeps this folder off the child's path
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,  # no locks that a fork could inherit
                env={**os.environ, "GGML_NO_BACKTRACE": "1"},  # else llama.cpp would start a debugger on itself
                start_new_session=True,  # Ctrl-C in the terminal is for the parent
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # the same on Windows
            )
        if self._stopping:
            process.kill()
        return process

    def _give_up(self) -> None:
        if self.port is None:
            self._cause = f"it was not ready within {self._options.start_timeout:g} s (start_timeout)"
            self._stopping = True  # as in `ask_to_end`: `Popen` may not have returned yet
            if self._process is not None:
                self._process.kill()

    def _line(self, key: str) -> bytes:
        """The child's configuration. It goes through a pipe, because everybody can see command lines."""
        config = {
            "model": str(self._model),
            "name": self._model.stem,
            "key": key,
            "threads": self._options.threads,
            "context": self._options.context,
            "parallel": self._options.parallel,
            "path": [entry for entry in sys.path if isinstance(entry, str)],
            "mark": self._mark,
        }
        return json.dumps(config).encode() + b"\n"


_children: weakref.WeakSet[Child] = weakref.WeakSet()
_spawning = threading.RLock()  # held while there are pipes that no `Child` knows yet; only the owner can release it


def _before_fork() -> None:
    """Let no fork inherit pipes that it would not close: they would hide the end of the child, or of its parent."""
    _spawning.acquire(timeout=_FORK_SECONDS)


def _in_parent() -> None:
    with suppress(RuntimeError):  # not acquired in time: another thread was still starting a child
        _spawning.release()


def _in_child() -> None:
    global _spawning
    _spawning = threading.RLock()
    for child in list(_children):
        child._disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)
