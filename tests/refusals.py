"""What a user is told in place of a traceback."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def refused(kind: type[Exception] | tuple[type[Exception], ...], pattern: str = "", *words: object) -> Iterator[None]:
    """What is done inside ends with an error of one line, which has a regular expression and all of these words."""
    with pytest.raises(kind) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message and re.search(pattern, message), message
    for word in words:
        assert str(word) in message, message
