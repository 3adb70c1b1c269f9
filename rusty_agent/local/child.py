"""The child process: the only place that loads llama.cpp.

In: one JSON line on stdin. Out: one marked line on stdout with the server's port, among the output of llama.cpp.
Never touched: the library; this file runs as a script and imports nothing of it.

It must not outlive its parent. Three things see to that, because each has a blind spot:

* The kernel kills it when the parent's thread that started it ends. Linux only, but it works even while llama.cpp loads
  a model, which stops all other Python threads here.
* The pipe on stdin ends. Forks of the parent may hold it open.
* The parent's process id changes. On Windows it never does.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from typing import Any
from urllib.parse import urlsplit

_POLL_SECONDS = 0.5
_PROMPT_CACHE_MIB = 256  # llama.cpp would take up to 8 GiB to remember prompts
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Serve until the parent is gone."""
    parent = os.getppid()
    _die_with_parent()
    config = json.loads(_read_line())
    threading.Thread(target=_exit_at_end_of_stdin, daemon=True).start()
    sys.path[:] = config["path"]  # so that xllamacpp is found where the parent found it
    try:
        server = _serve(config)
        port = _loopback_port(server.listening_address)
    except Exception as error:
        _say(f"{type(error).__name__}: {error}")
        os._exit(1)  # an orderly end would wait for threads that llama.cpp left behind
    _say(f"{config['mark']} {port}")
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    os._exit(0)


def _serve(config: dict[str, Any]) -> Any:
    """Load the model and listen on a free port of the loopback interface."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = config["model"]
    params.n_parallel = config["parallel"]
    params.n_ctx = config["context"] * config["parallel"]  # llama.cpp splits it evenly
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = config["threads"]
    params.api_keys = [config["key"]]
    params.port = 0
    params.verbosity = 1  # errors only
    _set(params, "hostnames", ["127.0.0.1"])
    _set(params, "hostname", "127.0.0.1")
    _set(params, "model_alias", config["name"])
    _set(params, "cache_ram_mib", _PROMPT_CACHE_MIB)
    if not _has_gpu(xllamacpp):
        _set(params, "fit_params", False)  # it would read the file a second time, to fit layers into GPU memory
    for page in ("ui", "webui", "endpoint_slots"):
        _set(params, page, False)
    return xllamacpp.Server(params)


def _has_gpu(xllamacpp: Any) -> bool:
    """Whether there may be a GPU."""
    devices = getattr(xllamacpp, "get_device_info", None)
    return devices is None or any("GPU" in device["type"].name for device in devices())


def _loopback_port(address: str) -> int:
    parts = urlsplit(address)
    if parts.hostname != "127.0.0.1" or not parts.port:
        raise RuntimeError(f"llama.cpp listens on {address} instead of a port on 127.0.0.1")
    return parts.port


def _set(params: Any, name: str, value: Any) -> None:
    """Set a parameter that some versions of xllamacpp lack, or take as a set."""
    if hasattr(params, name):
        setattr(params, name, {value} if isinstance(getattr(params, name), set) else value)


def _read_line() -> bytes:
    """The first line of stdin, read without a buffer: what comes after it is left for `_exit_at_end_of_stdin`."""
    line = b""
    while not line.endswith(b"\n"):
        data = os.read(0, 65536)
        if not data:
            os._exit(0)
        line += data
    return line


def _exit_at_end_of_stdin() -> None:
    while os.read(0, 65536):
        pass
    os._exit(0)


def _die_with_parent() -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def _say(line: str) -> None:
    """Print a line in one write, which a pipe keeps whole; the first line break ends what llama.cpp may have begun."""
    os.write(1, f"\n{line}\n".encode())


if __name__ == "__main__":
    main()
