from typing import Any

from uge.report.verdict import judge, limits

from .conftest import make_records, make_summary

OTHERS = (("vgg", "none", "nothing", 30.0, 31.0, 59.0), ("resnet", "none", "nothing", 28.0, 29.0, 56.0))
TWIN = ("convnet", "other-init", "architecture", 30.0, 31.0, 57.0)
MANIFEST = {"count": 6000, "image_size": (28, 28), "classes": 10}


def cautions(*hackers: tuple[Any, ...], accuracy: float = 54.3) -> str:
    return " ".join(judge(make_summary(hackers, accuracy)).cautions)


def test_a_clear_result_is_told_with_its_numbers_and_no_caution() -> None:
    verdict = judge(make_summary((*OTHERS, TWIN)))
    assert verdict.heading == "The authorised network learns more than every hacker tried"
    assert verdict.cautions == ()
    for number in ("54.3 %", "57.0 %", "30.0 %", "+24.3 points", "10.0 %"):
        assert number in verdict.sentence


def test_a_negative_margin_is_a_failure() -> None:
    verdict = judge(make_summary(OTHERS, accuracy=25.0))
    assert verdict.heading == "The protection fails in this run"
    assert "\u22125.0 points" in verdict.sentence
    assert "learns more" in verdict.cautions[0] and "below its clean accuracy" in verdict.cautions[1]


def test_a_small_margin_is_hardly_any_protection() -> None:
    assert judge(make_summary(OTHERS, accuracy=34.9)).heading == "Hardly any protection in this run"
    assert judge(make_summary(OTHERS, accuracy=52.1)).heading != "Hardly any protection in this run"


def test_the_price_of_the_authorised_user_is_named() -> None:
    verdict = judge(make_summary(OTHERS, accuracy=45.0))
    assert verdict.heading == "Hackers learn less, and so does the authorised network"
    assert "12.0 points below its clean accuracy" in verdict.cautions[0]


def test_a_copy_useless_to_everyone_is_called_so() -> None:
    assert "no use to anyone" in cautions(("vgg", "none", "nothing", 9.0, 10.0, 59.0), accuracy=12.0)


def test_the_same_architecture_is_named_where_it_learns_and_missed_where_absent() -> None:
    learns = ("convnet", "other-init", "architecture", 54.0, 54.0, 57.0)
    text = cautions(*OTHERS, learns)
    assert "54.0 % (convnet, other initial weights)" in text and "weak key" in text
    assert "other architectures stay 24.3 points" in text
    assert "weak key" not in cautions(*OTHERS, TWIN)
    assert "hardest case for this key is missing" in cautions(*OTHERS)


def test_a_hacker_who_loses_nothing_is_hardly_hindered() -> None:
    verdict = judge(make_summary((("mlp", "none", "nothing", 40.0, 41.0, 42.0), TWIN)))
    assert verdict.heading == "The strongest hacker is hardly hindered"
    assert "loses only 2.0 points" in verdict.cautions[0]
    assert "15.0 points of the margin exist on clean images already" in verdict.cautions[1]


def test_a_margin_that_a_better_epoch_would_close_is_told() -> None:
    assert "the margin is +2.3 points" in cautions(("vgg", "none", "nothing", 40.0, 52.0, 59.0), TWIN)


def test_no_hackers_and_no_authorised_network_prove_nothing() -> None:
    assert judge(make_summary(())).heading == "No hacker was trained"
    nobody = make_summary(OTHERS) | {"authorised": None, "margin": None}
    assert judge(nobody).heading == "No authorised network was trained"


def test_limits_name_what_was_not_tried() -> None:
    summary = make_summary((*OTHERS, ("vgg", "jpeg:quality=50", "nothing", 33.0, 34.0, 55.0)))
    text = " ".join(limits(summary, make_records(summary), MANIFEST))
    assert "Not tried in this run: training on grayscale copies, blurring" in text
    assert "JPEG" not in text
    assert "3 kinds of hacker with 2 architectures" in text
    assert "One small run is no evidence" in text
    assert "No hacker with the authorised architecture" in text


def test_limits_with_enough_seeds_and_a_twin() -> None:
    summary = make_summary((TWIN, TWIN, TWIN))
    summary["authorised"]["seeds"] = [0, 1, 2]
    text = " ".join(limits(summary, [], MANIFEST))
    assert "One small run" not in text and "at least 3 seeds" in text
    assert "here he reaches 30.0 %" in text


def test_sentences_speak_of_the_means_that_the_table_shows() -> None:
    summary = make_summary((*OTHERS, TWIN))
    summary["hackers"] += [summary["hackers"][2] | {"seed": seed, "accuracy": 51.0} for seed in (1, 2)]
    assert "reaches 44.0 %" not in " ".join(judge(summary).cautions)  # 10.3 below the authorised network: no caution
    assert "here he reaches 44.0 %" in " ".join(limits(summary, [], MANIFEST))
