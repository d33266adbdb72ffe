import re
from typing import Any

from uge.report.limits import limits
from uge.report.verdict import judge

from .conftest import make_records, make_summary, worth_of

OTHERS = (("vgg", "none", "nothing", 30.0, 31.0, 59.0), ("resnet", "none", "nothing", 28.0, 29.0, 56.0))
TWIN = ("convnet", "other-init", "architecture", 30.0, 31.0, 57.0)
MANIFEST = {"method": "uge", "count": 6000, "image_size": (28, 28), "classes": 10}
NO_STUDENT = "No hacker who queries the recipient's network was tried."
NOT_TRIED = "Not tried in full: adversarial training and beginning with a pretrained network."
NOT_TRIED += " Such hackers are among the strongest."


def cautions(*hackers: tuple[Any, ...], accuracy: float = 54.3) -> str:
    return " ".join(judge(make_summary(hackers, accuracy)).cautions)


def test_a_clear_result_is_told_with_its_numbers_and_one_seed_is_no_evidence() -> None:
    verdict = judge(make_summary((*OTHERS, TWIN)))
    assert verdict.heading == "The recipient learns more than every hacker who does not query his network"
    assert "no evidence of protection" in verdict.cautions[0] and "1 of 3 seeds" in verdict.cautions[0]
    assert judge(make_summary((*OTHERS, TWIN)) | {"why_no_evidence": []}).cautions == (NOT_TRIED, NO_STUDENT)
    strong = (("vgg", "jpeg:30+adversarial", "nothing", 30.0, 31.0, 59.0),)
    assert "Not tried in full: beginning with a pretrained network. " in cautions(*OTHERS, *strong)
    level = ("lite1", "clean-only:500+pretrained-probe", "clean images", 30.0, 31.0, 59.0)  # who never sees the copy
    assert "in full: beginning with a pretrained network. " in cautions(*strong, level)
    assert "Not tried" not in cautions(*strong, ("lite1", "pretrained-probe", "nothing", 30.0, 31.0, 59.0))
    for number in ("54.3 %", "57.0 %", "30.0 %", "24.3 points", "10.0 %"):
        assert number in verdict.text


def test_a_margin_of_35_points_or_weak_hackers_let_it_say_that_the_protection_holds() -> None:
    assert judge(make_summary(OTHERS, accuracy=65.0, sealed=True)).heading == "The protection holds in this run"
    assert judge(make_summary(OTHERS, accuracy=64.9, sealed=True)).heading != "The protection holds in this run"
    weak = (("vgg", "none", "nothing", 20.0, 21.0, 60.0),)  # where there is little to learn at all
    assert judge(make_summary(weak, accuracy=53.0, sealed=True)).heading == "The protection holds in this run"
    barely = judge(make_summary((("mlp", "none", "nothing", 35.0, 36.0, 45.0),), accuracy=75.0, sealed=True))
    assert barely.heading == "The protection holds in this run, but one hacker recovers most of what he could learn"
    assert "no evidence" in barely.cautions[0], "one seed is small, whatever it shows"


def test_what_a_student_reaches_is_told_and_does_not_make_the_margin() -> None:
    student = ("vgg", "distillation:soft", "model outputs", 58.0, 59.0, 60.0)
    verdict = judge(make_summary((*OTHERS, student), accuracy=66.0, sealed=True))
    assert verdict.heading == "The protection holds in this run" and "36.0 points ahead" in verdict.text
    assert "A student of the recipient's network reaches 58.0 %: this protection does not stop him." in verdict.text
    assert "Who lets others query the recipient's network" in verdict.cautions[-1]
    weak = judge(make_summary((*OTHERS, (*student[:3], 15.0, 16.0, 60.0)), accuracy=66.0, sealed=True))
    assert "reaches 15.0 %." in weak.text and "lets others query" not in " ".join(weak.cautions)
    alone = judge(make_summary((student,), sealed=True))
    assert alone.heading == "Only students of the recipient's network were tried" and "58.0 %" in alone.text


def test_sentences_are_short() -> None:
    student = ("vgg", "distillation:soft", "model outputs", 58.0, 59.0, 60.0)
    hard = ("mlp", "none", "nothing", 40.0, 52.0, 42.0)
    told = []
    for accuracy in (11.0, 25.0, 34.0, 45.0, 54.3, 80.0):
        for hackers in (OTHERS, (*OTHERS, TWIN, student), (hard, TWIN), (student,), ()):
            for summary in (make_summary(hackers, accuracy), make_summary(hackers, accuracy, sealed=True)):
                for verdict in (judge(summary), judge(summary | {"authorised": None, "margin": None})):
                    told += [verdict.heading, verdict.text, *verdict.cautions]
                told += limits(summary, [], MANIFEST)
    for sentence in re.split(r"(?<=[.])\s", " ".join(re.sub(r" \(.*?\)", "", text) + ". " for text in told)):
        words = [word for word in sentence.split() if word != "%"]
        assert len(words) <= 20, sentence


def test_what_a_copy_is_worth_is_told_in_originals_or_what_is_missing() -> None:
    plain, probe = worth_of("vgg", "none", 35.0), worth_of("lite0", "pretrained-probe", 70.0, pretrained=True)
    summary = make_summary(OTHERS)

    def told(*worths: dict[str, Any]) -> str:
        return judge(summary | {"worth": list(worths)}).details

    assert "5,000 copies are worth 150 originals to the strongest hacker." in told(plain)
    assert told(plain, probe | {"originals": None}).endswith(
        " To one with a pretrained encoder they are worth more than 5,000."
    )
    assert "5,000 copies are worth 0 originals to one with a pretrained" in told(probe | {"originals": 0.0})
    assert "was not measured" not in told(plain)
    assert "was not measured: that takes training on parts of the originals" in told()
    nothing_clean = [hacker | {"clean_accuracy": None} for hacker in summary["hackers"]]
    assert "that takes originals (--clean) and time (--budget)." in judge(summary | {"hackers": nothing_clean}).details


def test_the_best_epoch_of_a_single_run_is_not_averaged_away() -> None:
    figures = ((40.0, 49.5), (30.0, 31.0), (30.0, 31.0))
    runs = tuple(("vgg", "none", "nothing", final, peak, 59.0) for final, peak in figures)
    text = cautions(*runs, TWIN, accuracy=50.0)
    assert "the best epoch of every hacker, picked on test data, the margin is +0.5 points" in text


def test_a_hacker_without_a_ceiling_is_not_passed_over() -> None:
    jpeg = ("vgg", "jpeg:30", "nothing", 58.0, 58.0, 60.0)
    summary = make_summary((("vgg", "none", "nothing", 12.0, 13.0, 60.0), jpeg))
    groups = [g | {"recovered": None} if g["countermeasure"] == "jpeg:30" else g for g in summary["groups"]]
    verdict = judge(summary | {"groups": groups, "authorised": None, "margin": None})
    assert "gets far" not in verdict.heading and "reaches 58.0 %, and nobody knows" in verdict.text


def test_a_negative_margin_is_a_failure() -> None:
    verdict = judge(make_summary(OTHERS, accuracy=25.0))
    assert verdict.heading == "The protection fails in this run"
    assert "5.0 points ahead of him" in verdict.text
    assert "learns more" in verdict.cautions[0] and "below his accuracy on the originals" in verdict.cautions[1]


def test_a_small_margin_is_hardly_any_protection() -> None:
    assert judge(make_summary(OTHERS, accuracy=34.9)).heading == "Hardly any protection in this run"
    assert judge(make_summary(OTHERS, accuracy=52.1)).heading != "Hardly any protection in this run"


def test_the_price_of_the_authorised_user_is_named() -> None:
    verdict = judge(make_summary(OTHERS, accuracy=45.0))
    assert verdict.heading == "Hackers learn less, and so does the recipient"
    assert "12.0 points below his accuracy" in verdict.cautions[1]


def test_a_copy_useless_to_everyone_is_called_so() -> None:
    assert "no use to anyone" in cautions(("vgg", "none", "nothing", 9.0, 10.0, 59.0), accuracy=12.0)


def test_the_same_architecture_is_named_where_it_learns_and_missed_where_absent() -> None:
    learns = ("convnet", "other-init", "architecture", 54.0, 54.0, 57.0)
    text = cautions(*OTHERS, learns)
    assert "54.0 % (convnet, same network, no key)" in text and "weak key" in text
    assert "other architectures stay 24.3 points" in text
    assert "weak key" not in cautions(*OTHERS, TWIN)
    assert "hardest case for this key is missing" in cautions(*OTHERS)


def test_a_hacker_who_loses_nothing_is_hardly_hindered() -> None:
    verdict = judge(make_summary((("mlp", "none", "nothing", 40.0, 41.0, 42.0), TWIN)))
    assert verdict.heading == "The strongest hacker is hardly hindered"
    assert "loses only 2.0 points" in verdict.cautions[1]
    runs = tuple(("mlp", "none", "nothing", *each) for each in ((40.0, 41.0, None), (39.0, 40.0, 42.0)))
    assert judge(make_summary((*runs, TWIN))).heading == verdict.heading  # of a seed that was not tried on originals
    assert "15.0 points of the margin exist on the originals already" in verdict.cautions[2]


def test_who_recovers_most_of_what_a_weaker_network_could_learn_is_in_the_heading() -> None:
    twin = ("convnet", "other-init", "architecture", 20.0, 21.0, 57.0)
    hackers = (("vgg", "none", "nothing", 40.0, 41.0, 80.0), ("mlp", "jpeg:9+lab", "nothing", 34.0, 34.0, 35.0), twin)
    verdict = judge(make_summary(hackers))
    assert verdict.heading == "The recipient is ahead, but one hacker recovers most of what he could learn"
    assert "mlp, jpeg + lab recovers 96 % of what it could learn (34.0 % on the copy, 35.0 %" in verdict.cautions[1]


def test_what_originals_alone_teach_is_no_break_of_the_copy() -> None:
    plain, alone = (
        ("vgg", "none", "nothing", 12.0, 13.0, 85.0),
        ("vgg", "clean-only:500", "clean images", 65.0, 65.0, 85.0),
    )
    mixed, pairs = (("vgg", how, "clean images", 64.0, 64.0, 85.0) for how in ("clean-mixed:500", "pairs:500"))
    keyless = {"authorised": None, "margin": None}
    assert "What vgg, pairs learns (64.0 %) owes nothing to the copy" in cautions(plain, alone, pairs)
    verdict = judge(make_summary((plain, alone, mixed)) | keyless)
    assert verdict.heading == "No hacker tried here gets far" and "owes nothing to the copy" in verdict.cautions[0]
    more = ("vgg", "clean-mixed:500", "clean images", 70.0, 70.0, 85.0)
    assert judge(make_summary((plain, alone, more)) | keyless).heading.startswith("Broken by clean-mixed")
    assert "owes nothing to the copy" in cautions(plain, alone, mixed, accuracy=80.0)


def test_without_a_key_the_share_that_a_hacker_recovers_decides() -> None:
    def heading(*hackers: tuple[Any, ...]) -> str:
        verdict = judge(make_summary(hackers) | {"authorised": None, "margin": None})
        assert f"{max(hacker[3] for hacker in hackers):.1f} %" in verdict.text
        return verdict.heading

    assert heading(*OTHERS) == "Partly broken by plain training"  # 30 of 59 where chance is 10
    assert heading(*OTHERS, ("vgg", "grayscale", "nothing", 50.0, 50.0, 57.0)) == "Broken by grayscale"
    assert heading(("vgg", "none", "nothing", 15.0, 16.0, 59.0)) == "No hacker tried here gets far"
    unknown = ("vgg", "none", "nothing", 15.0, 16.0, None)
    assert heading(unknown) == "How far hackers get, without the originals to compare"
    nothing = ("vgg", "none", "nothing", 15.0, 16.0, 10.5)
    assert heading(nothing) == "How far hackers get, where the originals teach them nothing"


def test_without_a_key_the_best_epoch_of_a_single_run_is_told() -> None:
    figures = ((15.0, 60.0), (15.0, 16.0), (15.0, 16.0))
    runs = tuple(("vgg", "none", "nothing", final, peak, 59.0) for final, peak in figures)
    verdict = judge(make_summary(runs) | {"authorised": None, "margin": None})
    assert verdict.heading == "No hacker tried here gets far in the end, but one does on the way"
    assert "picked on test data, a hacker recovers 102 %" in verdict.cautions[0]


def test_limits_name_what_was_not_tried() -> None:
    hackers = (*OTHERS, ("vgg", "jpeg:quality=50+cutmix", "nothing", 33.0, 34.0, 55.0))
    summary, records = make_summary(hackers), make_records(hackers)
    user = summary["authorised"] | {"locked": True, "locked_clean_accuracy": None}
    assert limits(summary | {"authorised": user}, records, MANIFEST)[3].endswith("That teaches him 54.3 %.")
    offered = ("grayscale", "jpeg", "cutmix", "blur")
    text = " ".join(limits(summary, records, MANIFEST, offered))
    assert "Not tried in this run, though uge attack offers them: grayscale, blur." in text
    gray = " ".join(limits(summary, records, MANIFEST | {"channels": 1}, offered))
    assert "offers them: blur." in gray  # gray images need no turning gray
    screened = {"kind": "hacker", "network": "vgg", "countermeasure": "blur:1", "budget": 0.25, "accuracy": 20.0}
    given_up = " ".join(limits(summary, [*records, screened], MANIFEST, offered))
    assert "offers them: grayscale. Screened with a part of the epochs and given up" in given_up
    assert "given up, for time ran out or others taught more: blur." in given_up
    assert "3 kinds of hacker with 2 architectures" in text
    assert "These numbers are no evidence of protection" in text and "from three seeds on" in text
    assert "No hacker with the recipient's architecture" in text


def test_limits_with_enough_seeds_and_a_twin() -> None:
    summary = make_summary((TWIN, TWIN, TWIN)) | {"why_no_evidence": []}
    text = " ".join(limits(summary, [], MANIFEST))
    assert "no evidence" not in text and "three seeds or more" in text
    assert "Here he reaches 30.0 %" in text


def test_sentences_speak_of_the_means_that_the_table_shows() -> None:
    summary = make_summary((*OTHERS, TWIN, *[(*TWIN[:3], 51.0, *TWIN[4:])] * 2))
    assert "reaches 44.0 %" not in " ".join(judge(summary).cautions)  # 10.3 below the authorised network: no caution
    assert "Here he reaches 44.0 %" in " ".join(limits(summary, [], MANIFEST))


def test_students_are_not_taken_for_the_same_architecture_without_help() -> None:
    student = ("convnet", "distillation:soft", "model outputs", 53.0, 54.0, 57.0)
    summary = make_summary((*OTHERS, ("convnet", "other-init", "architecture", 12.0, 13.0, 57.0), student))
    told = " ".join([*judge(summary).cautions, *limits(summary, [], MANIFEST)])
    assert "Here he reaches 12.0 %" in told and "53.0 % (convnet" not in told
    alone = make_summary((*OTHERS, student))
    assert "hardest case for this key is missing" in " ".join(judge(alone).cautions)
