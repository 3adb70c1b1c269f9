"""What the system says about a file → the same, and what to do about it.

In: an error of the operating system. Out: two sentences for a message that has named the file. Never touched: files.
"""

from __future__ import annotations

import errno
from typing import Final

__all__ = ["with_remedy"]

_FREE = "Free some space there"
_LIMIT_OF_FILES = "Close some files, or raise the limit on open files (ulimit -n)."
_OTHER_FILESYSTEM = "Choose a folder on another filesystem, or mount this one anew."
_PERMISSIONS = "Check the permissions of the file and of its folder."

_REMEDIES: Final = {
    errno.EACCES: _PERMISSIONS,
    errno.EDQUOT: f"{_FREE}, or have your quota raised.",
    errno.EFBIG: "Raise the limit on the size of files (ulimit -f), or choose another filesystem.",
    errno.EIO: "The disk may be failing: check it.",
    errno.EISDIR: "Name a file in it instead.",
    errno.ELOOP: "Its symbolic links lead in a circle: correct them.",
    errno.EMFILE: _LIMIT_OF_FILES,
    errno.ENAMETOOLONG: "Shorten the name.",
    errno.ENFILE: _LIMIT_OF_FILES,
    errno.ENOENT: "Check the path, and that its folder exists.",
    errno.ENOLCK: _OTHER_FILESYSTEM,
    errno.ENOSPC: f"{_FREE}.",
    errno.ENOTDIR: "Check the path: a part of it is a file.",
    errno.EOPNOTSUPP: _OTHER_FILESYSTEM,
    errno.EPERM: _PERMISSIONS,
    errno.EROFS: "Choose a folder that is not read-only.",
    errno.ESTALE: _OTHER_FILESYSTEM,
}


def with_remedy(error: BaseException) -> str:
    """What went wrong with a file, and what to do about it; only the former if nothing fitting is known."""
    said = f"{getattr(error, 'strerror', None) or error}."
    remedy = _REMEDIES.get(getattr(error, "errno", None) or 0)
    return said if remedy is None else f"{said} {remedy}"
