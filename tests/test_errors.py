from __future__ import annotations

import pytest

from uge import errors


def test_a_near_miss_is_suggested() -> None:
    error = errors.unknown_name("network", "resnt", ["vgg", "resnet", "convnet"])
    assert isinstance(error, errors.ConfigError)
    assert str(error) == "unknown network 'resnt'; did you mean 'resnet'?"


def test_a_far_miss_lists_all_names_sorted() -> None:
    assert str(errors.unknown_name("setting", "width", ())) == "unknown setting 'width'; there is none"
    error = errors.unknown_name("network", "zzz", {"vgg": 1, "mlp": 2})
    assert str(error) == "unknown network 'zzz'; choose from: mlp, vgg"


@pytest.mark.parametrize("kind", ["DataError", "KeyFileError", "PublishError", "ConfigError"])
def test_every_user_error_is_a_uge_error(kind: str) -> None:
    assert issubclass(getattr(errors, kind), errors.UgeError)
