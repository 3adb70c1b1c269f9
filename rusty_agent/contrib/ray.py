"""Ray Data: the rows of a dataset → their answers, on as many machines as Ray has.

In: a `ray.data.Dataset`, and the place of the request in its rows. Out: the same rows with more columns. Never touched:
retries and pace, which the provider handles; scheduling, files and lost machines, which Ray handles.

Ray runs an actor's coroutine on four batches of a block at once, and passes their results on in order: one slow row
makes all others wait. So blocks are small, and an actor works on many of them, which together hold eight times as many
rows as may be in flight. Smaller blocks are merged, or an actor would have too few rows at hand.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from inspect import signature
from math import ceil
from typing import TYPE_CHECKING, Any

from ..batch.rows import BadLine, parse_row
from ..checks import checked_count
from ..errors import RunStoppedError, RustyAgentError
from ..net.caller import Caller
from ..parameters import Parameters, check_names
from ..policy import Limits
from ..requests import Common
from ..stop_rule import StopRule
from .driver import Driver
from .options import check_picklable, make_provider, provider_of
from .table import Columns, Place, RowFunction, RowOutcome

if TYPE_CHECKING:
    import pyarrow
    from ray.data import Dataset

    from ..provider import AsyncProvider

__all__ = ["Generate", "checkpoint", "generate"]

_AT_ONCE = 4  # batches of a block that Ray processes at once, unless an environment variable says otherwise
_AHEAD = 8  # rows at hand per request in flight: with 5 % of rows ten times slower, 98 % of the possible throughput
_LEAST_ROWS = 32  # in a block: a smaller one costs Ray more than it saves after a crash
_MOST_ROWS = 256
_RESUME_CPUS = 2  # one for the filter that knows the rows that are done, one for readers and writers
_RESUME_BYTES = 2**30  # what that filter reserves


def generate(
    ds: Dataset,
    *,
    provider: Mapping[str, Any],
    prompt: str | RowFunction | None = None,
    messages: str | None = None,
    body: str | None = None,
    output: str = "answer",
    actors: int | tuple[int, int] | None = None,
    max_in_flight: int = 128,
    rpm: float | None = None,
    tpm: float | None = None,
    rows_per_block: int | None = None,
    num_cpus: float = 0,
    **options: Any,
) -> Dataset:
    """Answer every row of a dataset. Nothing is sent until the result is read or written; then all is, each time.

    Args:
        ds: The rows. Their order is not kept: include a column that identifies them.
        provider: Keyword arguments of `AsyncProvider`, including `model`, as a dict: each actor makes its own provider.
            Do not pass the key, but name it: `api_key_env="OPENAI_API_KEY"` is the variable that holds it where Ray's
            workers run. Default: the preset's variable.
        prompt: The column that holds the prompt; or a function that turns a row into what a line of a batch may hold (a
            prompt, a list of messages, or a dict of either and parameters).
        messages: The column that holds the messages: structs, or JSON as text.
        body: The column that holds the request's body: structs, or JSON as text. Without any of the three, a row is a
            line of a batch: one of OpenAI's Batch API, or a simple one with `prompt` or `messages`.
        output: The name of the answer's column. Further columns are added: `error`, why there is no answer; `status`,
            the HTTP status, if there was one; `finish_reason`; `prompt_tokens` and `completion_tokens`; `latency_s`,
            in seconds.
        actors: How many processes, or the least and the most. Default: 1 to 8; with `rpm` or `tpm` 1.
        max_in_flight: The most requests under way at once in each actor.
        rpm: Requests per minute of all actors together. Each gets an equal share, as if the most actors were running.
        tpm: Tokens per minute, likewise.
        rows_per_block: Rows in a block, which is also a file of the output, and what a crash may cost besides the
            requests under way. Default: the same as `max_in_flight`, but at least 32 and at most 256.
        num_cpus: The CPUs that Ray reserves for an actor. Default 0, because actors mostly wait.
        **options: As for `Generate`.

    Returns:
        The dataset with the columns added. A row that failed has an `error`; it does not raise it.

    Raises:
        ImportError: Ray Data is not installed.
        RuntimeError: There is a checkpoint to resume from, but Ray has too few CPUs or too little memory for that.
        TypeError: There is no such argument.
        ValueError: An argument is invalid; nothing was sent.
    """
    check_names(options, (*signature(generate).parameters, *_ARGUMENTS), "generate")
    data = _ray_data()
    if not isinstance(ds, data.Dataset):
        raise ValueError(
            f"ds must be a Ray Dataset, not {type(ds).__name__}: make one with ray.data.from_pandas, from_items, "
            "read_parquet or the like"
        )
    Limits(rpm, tpm)  # raises if they cannot be divided
    least, most = _pool(actors, limited=rpm is not None or tpm is not None)
    arguments = {
        "provider": provider,
        "prompt": prompt,
        "messages": messages,
        "body": body,
        "output": output,
        "max_in_flight": max_in_flight,
        "rpm": None if rpm is None else rpm / most,
        "tpm": None if tpm is None else tpm / most,
        **options,
    }
    if (node := _node()) is not None:
        arguments.setdefault("driver", Driver.here(node))
    if (config := ds.context.checkpoint_config) is not None:
        arguments.setdefault("id_column", config.id_column)
    elif data.DataContext.get_current().checkpoint_config is not None:
        raise ValueError("the rows were read before checkpoint() was called, so it does not apply to them")
    Generate(**arguments)  # raises here, not on some other machine
    if rows_per_block is None:
        rows_per_block = min(max(max_in_flight, _LEAST_ROWS), _MOST_ROWS)
    rows = checked_count(rows_per_block, "rows_per_block")
    if config is not None:
        _check_resume(config, num_cpus * least)
    calls = max(2, ceil(_AHEAD * max_in_flight / rows))
    compute = data.ActorPoolStrategy(min_size=least, max_size=most, max_concurrent_calls_per_actor=calls)
    return ds.repartition(target_num_rows_per_block=rows, strict=True).map_batches(
        Generate,
        fn_constructor_kwargs=arguments,
        batch_size=ceil(rows / _AT_ONCE),
        batch_format="pyarrow",
        zero_copy_batch=True,
        compute=compute,
        num_cpus=num_cpus,
    )


class Generate:
    """What `generate` runs in each actor. Pass it to `Dataset.map_batches` yourself with `batch_format="pyarrow"`.

    Args:
        provider: As for `generate`.
        prompt: As for `generate`.
        messages: As for `generate`.
        body: As for `generate`.
        output: As for `generate`.
        max_in_flight: As for `generate`.
        rpm: Requests per minute of this actor.
        tpm: Tokens per minute of this actor.
        max_error_rate: End the job when more than this share of an actor's latest 100 rows (at least 20) have failed,
            because a checkpoint counts rows with errors as done. A refused key and a spent account end it at once, and
            so do the first 100 rows of an actor if all of them fail. Rows without a request do not count.
        include_result: Add the column `result`: the whole `GenerateResult`, with tool calls and reasoning, as JSON.
        stream: Let the endpoint stream each answer underneath.
        driver: The process that the rows are for: when it dies, nothing more is sent. `generate` passes its own.
        id_column: A column in which every row must have a value. `generate` passes the checkpoint's.
        **parameters: See `rusty_agent.Parameters`: for every row that does not override them.

    Raises:
        TypeError: There is no such argument.
        ValueError: An argument is invalid.
    """

    def __init__(
        self,
        *,
        provider: Mapping[str, Any],
        prompt: str | RowFunction | None = None,
        messages: str | None = None,
        body: str | None = None,
        output: str = "answer",
        max_in_flight: int = 128,
        rpm: float | None = None,
        tpm: float | None = None,
        max_error_rate: float | None = None,
        include_result: bool = False,
        stream: bool = False,
        driver: Driver | None = None,
        id_column: str | None = None,
        **parameters: Any,
    ) -> None:
        self._place = Place(prompt, messages, body, id_column)
        self._columns = Columns(output, include_result)
        self._limits = Limits(rpm, tpm, checked_count(max_in_flight, "max_in_flight"))
        self._driver = driver
        self._given = {"stream": stream, **parameters}
        self._provider: AsyncProvider | None = None
        check_names(parameters, _ARGUMENTS, "Generate")
        check_picklable(provider, parameters)
        self._options = dict(provider)
        trial = Common(provider_of(self._options, self._limits, "none")._requests, self._given)  # sends nothing
        self._rule = StopRule(None, max_error_rate, trial.policy.max_retry_after, hopeless=True)
        self._caller = Caller(self._rule.gives_up)

    async def __call__(self, batch: pyarrow.Table) -> pyarrow.Table:
        """Answer the rows of a batch.

        Raises:
            RunStoppedError: The endpoint refuses the key or has been away too long, the account is spent, too many rows
                have failed, or the driver has died.
            MissingAPIKeyError: The variable of the key is not set here.
            ValueError: The batch is not an Arrow table, lacks a column, or already has one that is to be added; or a
                row has no id.
        """
        if not hasattr(batch, "column_names"):
            raise ValueError(f'Generate takes Arrow tables (batch_format="pyarrow"), not {type(batch).__name__}')
        self._place.check(batch)
        self._columns.check(batch.column_names)
        provider, requests = self._open(), self._place.requests(batch)
        with provider._calls.limiter().adapting(self._limits.in_flight):
            outcomes = await asyncio.gather(*(self._answer(provider, given) for given in requests))
        self._caller.check()
        return self._columns.add(batch, outcomes)

    def _open(self) -> AsyncProvider:
        """The provider of this actor, made on first use. It closes its connections when it is dropped."""
        if self._provider is None:
            self._provider = make_provider(self._options, self._limits)
            self._common = Common(self._provider._requests, self._given)
            if self._driver is not None and (node := _node()) is not None:
                self._driver.watch(node, self._abandon)
        return self._provider

    def _abandon(self) -> None:
        """Send nothing more, and give up the calls under way: nobody waits for the answers any more."""
        provider = self._open()
        gone = self._rule.error("interrupt", "the program that it was for is gone.")
        provider._calls.limiter().stop(self._caller, gone)
        self._closing = asyncio.ensure_future(provider.aclose())

    async def _answer(self, provider: AsyncProvider, given: Any) -> RowOutcome:
        row = given if isinstance(given, Exception) else parse_row(given, 1, check=False)
        if isinstance(row, Exception):
            return row
        if isinstance(row, BadLine):
            return ValueError(row.reason)
        number = self._rule.begin()
        try:
            result = await provider._answer(self._caller, self._common.prepare(row.parameters))
        except RunStoppedError as error:
            return error
        except RustyAgentError as error:
            if stopped := self._rule.judge(error, number):
                provider._calls.limiter().stop(self._caller, stopped)
            return error
        except Exception as error:  # the row itself is invalid: nothing was sent
            self._rule.withdraw(number)
            return error
        self._rule.succeeded(number)
        return result


_ARGUMENTS = (*signature(Generate).parameters, *Parameters.__annotations__)


def checkpoint(path: str | os.PathLike[str], id_column: str = "custom_id") -> None:
    """Let a job that was killed continue where it was when you start it again. Call this before the rows are read.

    It holds for every dataset that this program reads from here on, if it goes from files to files with only maps
    between. A row counts as done once it is written, with an answer or with an error.

    Args:
        path: A folder that all machines can write to, or a URL such as `s3://…`. It is kept when the job is done, so
            that nothing is sent a second time.
        id_column: A column of the files, with a unique value in each row. It must not be dropped on the way.

    Raises:
        ImportError: Ray Data is not installed.
        ValueError: The path is empty.
    """
    place = os.fspath(path)
    if not place:
        raise ValueError("path must be a folder used only for the checkpoint, not ''")
    data = _ray_data()
    from ray.data.checkpoint import CheckpointConfig

    if "://" not in place:
        place = os.path.abspath(place)  # workers have other working directories
    config = CheckpointConfig(id_column=id_column, checkpoint_path=place, delete_checkpoint_on_success=False)
    data.DataContext.get_current().checkpoint_config = config


def _check_resume(config: Any, cpus: float) -> None:
    """Check that Ray has what it needs to resume a job, if there is one to resume."""
    import ray
    from pyarrow.fs import FileSelector

    folder = config.checkpoint_path.rpartition("://")[2]  # read through `config.filesystem`, which may be the program's
    if not config.filesystem.get_file_info(FileSelector(folder, allow_not_found=True)):
        return
    there = ray.cluster_resources()
    if there.get("CPU", 0) < _RESUME_CPUS + cpus or there.get("memory", 0) < _RESUME_BYTES:
        raise RuntimeError(
            f"To resume from {config.checkpoint_path}, Ray needs {_RESUME_CPUS + cpus:g} CPUs and 1 GiB of memory; it "
            f"has {there.get('CPU', 0):g} and {there.get('memory', 0) / 2**30:.1f}. Its filter of the rows that are "
            "done reserves one CPU and the memory, readers and writers another CPU; with less they would wait "
            "forever. Add a machine, or start Ray with a larger num_cpus or memory: they may exceed what the machine "
            "has."
        )


def _ray_data() -> Any:
    try:
        import ray.data
    except ImportError as error:
        raise ImportError(f"Ray Data cannot be imported ({error}): pip install 'rusty-agent[ray]'") from error
    return ray.data


def _node() -> str | None:
    """Ray's id of this machine; None if Ray is not running yet."""
    import ray

    return str(ray.get_runtime_context().get_node_id()) if ray.is_initialized() else None


def _pool(actors: int | tuple[int, int] | None, *, limited: bool) -> tuple[int, int]:
    if actors is None:
        actors = 1 if limited else (1, 8)
    pair = (actors, actors) if isinstance(actors, int) else actors
    if not (isinstance(pair, tuple | list) and len(pair) == 2):
        raise ValueError(f"actors must be a whole number or a pair (least, most), not {actors!r}")
    least, most = pair
    if checked_count(least, "actors") > checked_count(most, "actors"):
        raise ValueError(f"actors must be a pair (least, most) in that order, not {actors!r}")
    return least, most
