"""Plans of comparisons: what a file may say, and what is said of a file that says something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from uge.bench.plan import BENCHES, Bench, read_bench
from uge.errors import ConfigError
from uge.protect import PROTECTIONS

HACKERS = '[[hackers]]\nnetworks = ["authorised", "mlp"]\ncountermeasures = ["none", "blur:1"]\n'


def read(folder: Path, text: str) -> Bench:
    file = folder / "mine.toml"
    file.write_text(text)
    return read_bench(str(file))


def test_a_file_says_what_a_comparison_is(tmp_path: Path) -> None:
    text = 'data = ["d.zip"]\nseeds = [3, 5]\nimages = 9\nepochs = 2\nauthorised = "mlp:width=8"\n'
    text += '[[protections]]\nmethod = "em"\nname = "short"\nsettings = {rounds = 3}\n'
    bench = read(tmp_path, text + '[[protections]]\nmethod = "uge"\n' + HACKERS)
    assert [each.name for each in bench.protections] == ["short", "uge"]
    assert bench.protections[0].config().to_dict()["rounds"] == 3
    assert (bench.data, bench.images, bench.attacks.epochs) == (("d.zip",), 9, 2)
    assert bench.attacks.authorised == "mlp:width=8"
    assert bench.attacks_on(3).pairs() == bench.attacks.pairs()
    assert (bench.unlocked(5).pairs(), bench.unlocked(5).subsets) == ([("mlp:width=8", "none")], 0)
    assert bench.attacks_on(5).pairs() == [("mlp", "none")]
    assert bench.attacks_on(5).seeds == (5,)


def test_the_leaderboard_compares_every_protection_and_the_quick_one_ours_with_some() -> None:
    found = {name: [each.method for each in bench.protections] for name, bench in BENCHES.items()}
    assert set(found["leaderboard"]) == set(PROTECTIONS) - {"pictures"}  # which are of one class
    assert {"sealed", "uge", "random-noise", "em"} <= set(found["quick"]) and BENCHES["quick"].data == ("eurosat",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seeds = 3\n" + HACKERS, "seeds: Expected array, got int"),
        ("seeds = []\n" + HACKERS, "seeds must be given"),
        ('images = "all"\n' + HACKERS, "images: Expected int, got str"),
        ("sedes = [0]\n" + HACKERS, "seeds"),
        ('[[protections]]\nmethod = "emm"\n' + HACKERS, "unknown method 'emm'"),
        ('[[protections]]\nname = "quick"\n' + HACKERS, r"protections\[0\]: Object missing required field method"),
        ('[[protections]]\nmethod = "em"\nsettings = {raunds = 3}\n' + HACKERS, "rounds"),
        ('[[protections]]\nmethod = "em"\n[[protections]]\nmethod = "em"\n' + HACKERS, "two protections named em"),
        ('[[protections]]\nmethod = "em"\nname = "../em"\n' + HACKERS, "names no protection"),
        ('[[hackers]]\nnetworks = ["authorised"]\n', "no plain hacker"),
        ('[[protections]]\nmethod = "em"\npreset = "quick"\n' + HACKERS, "unknown entry of"),
        ("[[protections]\n", "no TOML"),
        ('authorised = "convnot"\n' + HACKERS, "convnot"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match="(?s).*".join(said.split("|"))) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)
