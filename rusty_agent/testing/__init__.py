"""A scriptable OpenAI-compatible server on loopback, for tests of programs that use a provider.

with FaultServer(stream("Hello", " world")) as server:
    provider = Provider("any-model", api_key="any-key", base_url=server.url)
"""

from .answers import Answer, Hang, Pause, Reset, answer, completion, error, events, stream
from .server import FaultServer, Received

__all__ = [
    "Answer",
    "FaultServer",
    "Hang",
    "Pause",
    "Received",
    "Reset",
    "answer",
    "completion",
    "error",
    "events",
    "stream",
]
