from __future__ import annotations

from uge.errors import unknown_name


def test_a_near_miss_is_suggested_and_a_far_one_lists_all_names_sorted() -> None:
    assert str(unknown_name("network", "resnt", ["vgg", "resnet"])) == "unknown network 'resnt'; did you mean 'resnet'?"
    assert str(unknown_name("network", "zzz", {"vgg": 1, "mlp": 2})) == "unknown network 'zzz'; choose from: mlp, vgg"
    assert str(unknown_name("setting", "width", ())) == "unknown setting 'width'; there is none"
