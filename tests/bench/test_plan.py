"""Plans of comparisons: what a file may say, and what is said of a file that says something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from uge.bench.plan import BENCHES, Bench, read_bench
from uge.errors import ConfigError
from uge.protect import BASELINES

HACKERS = '[[hackers]]\nnetworks = ["authorised", "mlp"]\ncountermeasures = ["none", "blur:1"]\n'


def read(folder: Path, text: str) -> Bench:
    file = folder / "mine.toml"
    file.write_text(text)
    return read_bench(str(file))


def test_a_file_says_what_a_preset_says(tmp_path: Path) -> None:
    text = (
        'data = ["d.zip"]\nseeds = [3, 5]\nimages = 9\nepochs = 2\n[[protections]]\nmethod = "em"\npreset = "quick"\n'
    )
    text += 'settings = {rounds = 3}\n[[protections]]\nmethod = "uge"\n' + HACKERS
    bench = read(tmp_path, text)
    assert [each.name for each in bench.protections] == ["em-quick", "uge"]
    assert bench.protections[0].config().rounds == 3
    assert [each.key for each in bench.protections] == ["none", "weights"]
    assert (bench.data, bench.images, bench.attacks.epochs) == (("d.zip",), 9, 2)
    assert bench.attacks_on(3).pairs() == bench.attacks.pairs()
    assert bench.attacks_on(5).pairs() == [("mlp", "none")]
    assert bench.attacks_on(5).seeds == (5,)


def test_a_key_is_drawn_for_the_method_and_its_bound(tmp_path: Path) -> None:
    text = '[[protections]]\nmethod = "em"\nkey = "reversible"\nsettings = {epsilon_255 = 16}\n'
    text += "".join(f'[[protections]]\nmethod = "{method}"\n' for method in ("uge", "null-space", "reversible", "em"))
    contenders = {each.name: each for each in read(tmp_path, text + HACKERS).protections}
    views = {name: each.view() for name, each in contenders.items()}
    assert views["uge"] is None and views["em"] is None
    assert views["null-space"].kind == "null-space"
    assert views["reversible"].layout == {"epsilon_255": 8, "magnitudes": "half"}
    assert views["em-reversible"].layout == {"epsilon_255": 16, "magnitudes": "half"}
    assert views["em-reversible"].secret != contenders["em-reversible"].view().secret


def test_a_key_has_the_layout_that_the_plan_gives_it(tmp_path: Path) -> None:
    text = '[[protections]]\nmethod = "reversible"\nlayout = {magnitudes = "full"}\nsettings = {epsilon_255 = 16}\n'
    text += '[[protections]]\nmethod = "null-space"\nlayout = {group_size = 4, cell = 4}\n'
    full, small = (each.view() for each in read(tmp_path, text + HACKERS).protections)
    assert full.layout == {"epsilon_255": 16, "magnitudes": "full"}
    plain = read(tmp_path, '[[protections]]\nmethod = "reversible"\n' + HACKERS)
    assert "layout" not in plain.to_dict()["protections"][0], "folders of earlier comparisons go on"
    assert small.layout == {"group_size": 4, "cell": 4, "signs": "balanced", "channels": "mixed"}


def test_presets_compare_every_baseline_and_all_of_ours() -> None:
    for bench in BENCHES.values():
        assert {each.method for each in bench.protections} >= set(BASELINES) | {"uge", "null-space", "reversible"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seeds = 3\n" + HACKERS, "seeds is a list of whole numbers"),
        ("seeds = []\n" + HACKERS, "seeds must be given"),
        ('images = "all"\n' + HACKERS, "images is a whole number"),
        ("sedes = [0]\n" + HACKERS, "seeds"),
        ('[[protections]]\nmethod = "emm"\n' + HACKERS, "unknown method 'emm'"),
        ('[[protections]]\npreset = "quick"\n' + HACKERS, "names one"),
        ('[[protections]]\nmethod = "em"\nsettings = {raunds = 3}\n' + HACKERS, "rounds"),
        ('[[protections]]\nmethod = "em"\n[[protections]]\nmethod = "em"\n' + HACKERS, "two protections named em"),
        ('[[protections]]\nmethod = "em"\nname = "../em"\n' + HACKERS, "names no protection"),
        ('[[hackers]]\nnetworks = ["authorised"]\n', "no plain hacker"),
        ('[[protections]]\nmethod = "reversible"\nlayout = {magnitude = "full"}\n' + HACKERS, "'magnitudes'"),
        ('[[protections]]\nmethod = "reversible"\nlayout = {magnitudes = "big"}\n' + HACKERS, "magnitudes 'big'"),
        ('[[protections]]\nmethod = "null-space"\nlayout = {cell = "4"}\n' + HACKERS, "cell of a key's layout"),
        ('[[protections]]\nmethod = "reversible"\nlayout = {epsilon_255 = 9}\n' + HACKERS, "unknown part of"),
        ('[[protections]]\nmethod = "em"\nlayout = {cell = 4}\n' + HACKERS, "unknown part of"),
        ('[[protections]]\nmethod = "uge"\nkey = "none"\n' + HACKERS, "takes the key weights"),
        ("[[protections]\n", "no TOML"),
        ('authorised = "convnot"\n' + HACKERS, "convnot"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match="(?s).*".join(said.split("|"))) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)
