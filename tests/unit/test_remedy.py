"""What to do about a file that cannot be used: advice that fits the system's reason."""

from __future__ import annotations

import errno
import os

import pytest

from rusty_agent.remedy import with_remedy


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EMFILE, "raise the limit on open files"),
        (errno.ENOSPC, "Free some space"),
        (errno.EDQUOT, "have your quota raised"),
        (errno.EROFS, "not read-only"),
        (errno.EACCES, "Check the permissions"),
        (errno.ENOENT, "Check the path"),
        (errno.EISDIR, "Name a file in it"),
        (errno.ESTALE, "another filesystem"),
        (errno.EIO, "disk may be failing"),
        (errno.EFBIG, "limit on the size of files"),
    ],
)
def test_the_advice_fits_the_reason(number: int, advice: str) -> None:
    said = with_remedy(OSError(number, os.strerror(number), "a-file"))
    assert said.startswith(f"{os.strerror(number)}. ")
    assert advice in said
    assert said.endswith(".")
    assert "a-file" not in said


def test_a_reason_without_advice() -> None:
    assert with_remedy(OSError(errno.EBUSY, "Device or resource busy")) == "Device or resource busy."
    assert with_remedy(OSError("odd")) == with_remedy(ValueError("odd")) == "odd."
