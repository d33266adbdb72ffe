"""A file on the disk for images that are being read, so that memory has a bound."""

from __future__ import annotations

import errno
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from uge.errors import DataError


@contextmanager
def scratch_file() -> Iterator[IO[bytes]]:
    """A file that goes with its last user; errors name the disk it lies on, and not the images."""
    try:
        with tempfile.TemporaryFile() as file:
            yield file
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            raise
        raise DataError(
            f"no room for the images in {tempfile.gettempdir()} ({error.strerror}); point TMPDIR at a larger disk"
        ) from error


def widen(file: IO[bytes], shape: tuple[int, int, int, int]) -> None:
    """Write the gray images of a file as RGB in their place, the last one first."""
    count = shape[0]
    gray = math.prod(shape[1:])
    for number in reversed(range(count)):
        file.seek(number * gray)
        pixels = file.read(gray)
        file.seek(number * 3 * gray)
        file.write(3 * pixels)
    file.seek(0, os.SEEK_END)
