"""Counter-measures by their texts, alone and combined; distillation against direct computation and on real images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from uge.attack import build_countermeasure, encoder_of, knowledge_of, needs_clean, needs_teacher, parse_countermeasures
from uge.attack.band_stop import without_band
from uge.attack.scattered import scattered
from uge.data.images import ImageSet, to_float
from uge.errors import ConfigError
from uge.filters import FILTERS, cosines
from uge.networks import fresh_network
from uge.training import PlainTraining, Recipe, accuracy_of, fit, logits_of

from ..images import in_turn, noise

NETWORK = "convnet:width=8"


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def teacher(two_classes: tuple[ImageSet, ImageSet]) -> nn.Module:
    train, _ = two_classes
    network = fresh_network(NETWORK, train, 0)
    fit(network, train, Recipe(epochs=3), seed=0)
    network.zero_grad()
    return network


@pytest.fixture(scope="module")
def few(two_classes: tuple[ImageSet, ImageSet]) -> ImageSet:
    return two_classes[0].subset(torch.arange(6))


# --- texts


def test_texts_are_read_and_judged_part_by_part() -> None:
    assert type(build_countermeasure("none")) is PlainTraining
    assert parse_countermeasures("jpeg:30+distillation:hard,temperature=2,queries=any") == [
        ("jpeg", {"quality": "30"}),
        ("distillation", {"labels": "hard", "temperature": "2", "queries": "any"}),
    ]
    assert needs_teacher("blur+distillation") and not needs_teacher("blur+jpeg") and not needs_clean("blur+jpeg")
    assert encoder_of("jpeg:30+pretrained-finetune:efficientnet-lite1") == "efficientnet-lite1"
    assert encoder_of("pretrained-probe") == "efficientnet-lite0" and encoder_of("jpeg+cutmix") == ""


@pytest.mark.parametrize(
    ("knows", "texts"),
    [
        ("nothing", ["blur+jpeg:30"]),
        ("method", ["own-pairs+candidates"]),
        ("architecture", ["wrong-key"]),
        ("clean images", ["clean-only", "jpeg:30+clean-mixed:30"]),
        ("pairs", ["own-pairs+pairs:5"]),
        ("model outputs", ["blur+distillation", "distillation+blur", "clean-only+distillation"]),
        ("key", ["noisy-key:0.1", "stolen-key"]),
    ],
)
def test_the_strongest_part_says_what_a_hacker_knows(knows: str, texts: list[str]) -> None:
    assert {knowledge_of(text) for text in texts} == {knows}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("destillation:soft", "unknown counter-measure 'destillation'; did you mean 'distillation'"),
        ("xyz", "unknown counter-measure 'xyz'; choose from: adversarial, averages, band-stop"),
        ("jpeg:30+blurr", "unknown counter-measure 'blurr'; did you mean 'blur'"),
        ("jpeg:30+", "unknown counter-measure ''"),
        ("adversarial:8,3", "says epsilon_255 twice; name the others, as in step_255=..."),
        ("none:soft", "counter-measure 'none' has no options, got 'none:soft'"),
        ("grayscale:3", "has no options"),
        ("blur:strength=2", "unknown option"),
        ("jpeg:30+blur:0", "expected a number from 0.3"),
        ("jpeg:0", "expected a number from 1 to 100"),
        ("low-pass:1", "expected a number from 0.01 to 0.95"),
        ("wavelet:0", "expected a number from 1"),
        ("depth:8", "expected a number from 1 to 7"),
        ("median:even", "expected a number"),
        ("distillation", "'distillation' queries the authorised network: give --key"),
        ("jpeg+noisy-key:0.1", "'noisy-key' begins with the authorised network: give --key"),
        ("clean-only", "has some of the clean images: give --clean"),
        ("jpeg+clean-mixed:5", "has some of the clean images: give --clean"),
        ("distillation:sotf", "labels soft or hard .* got 'sotf' and 'published'"),
        ("distillation:soft,queries=all", "queries published or any, got 'soft' and 'all'"),
        ("distillation:temprature=2", "unknown option of counter-measure 'distillation' 'temprature'; did you mean"),
        ("distillation:teacher=2", "unknown option of counter-measure 'distillation' 'teacher'"),
        ("distillation:soft,temperature=hot", "temperature: expected a number from 0.001 to 1e.06, got 'hot'"),
        ("distillation:soft,temperature=0", "temperature: expected a number from 0.001"),
        ("distillation:hard+blur+distillation", "'distillation:hard' and 'distillation' each bring a loss"),
        ("adversarial+ueraser", "'adversarial' and 'ueraser' each bring a loss of their own"),
        ("pretrained-probe+self-supervised", "'pretrained-probe' and 'self-supervised' each bring a network"),
        ("clean-only:7", "7 clean images asked for, but there are 6 originals"),
        ("refit:7", "refit: 7 clean images asked for"),
        ("pairs:7", "7 pairs asked for, but there are 6 originals"),
        ("clean-mixed:few", "clean-mixed: images: expected a whole number from 1"),
        ("cutout:0", "cutout: share: expected a number from 0.01 to 1, got '0'"),
        ("mixup:alpha=x", "mixup: alpha: expected a number"),
        ("randaugment:0", "randaugment: operations: expected a whole number"),
        ("ueraser:-1", "ueraser: draws: expected a whole number"),
        ("adversarial:nan", "adversarial: epsilon_255: expected a number"),
        ("erase:0", "erase: epsilon_255: expected a number from 1 to 128"),
        ("transplant:middle", "transplant: keep is low or high, got 'middle'"),
        ("transplant:low,smoother=none", "without a smoother there is no residual"),
        ("transplant:low,smoother=grayscale:2", "has no options"),
        ("residual-means:blr", "unknown filter 'blr'; did you mean 'blur'"),
        ("residual-means:none", "without a denoiser there is no residual"),
        ("own-pairs:images=1", "own-pairs: images: expected a whole number from 2"),
        ("candidates:width=0", "candidates: width: expected a whole number from 1"),
        ("purify:depth=2", "purify: depth: expected a whole number from 3"),
        ("projection:epochs=0", "projection: epochs: expected a whole number"),
        ("pretrained-probe:resnet", "unknown pretrained encoder 'resnet'"),
        ("pretrained-probe:own", "unknown pretrained encoder 'own'"),
        ("self-supervised:0", "self-supervised: passes: expected a whole number from 1"),
    ],
)
def test_a_wrong_text_is_one_clear_line(few: ImageSet, text: str, message: str) -> None:
    given = {} if "give --" in message else {"clean": few, "teacher": nn.Linear(1, 1)}
    with pytest.raises(ConfigError, match=message) as caught:
        build_countermeasure(text, **given)
    assert "\n" not in str(caught.value)


# --- parts one after another


@pytest.mark.parametrize("text", [name for name in FILTERS if name != "none"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_filter_changes_training_and_test_images_alike(few: ImageSet, text: str, channels: int) -> None:
    images = few.with_images(few.images[:, :channels])
    measure = build_countermeasure(text)
    x, y = measure.prepare(images)
    assert torch.equal(measure.at_test(images).images, x) and y is images.labels
    assert torch.equal(x, images.images) == (text in ("grayscale", "lab") and channels == 1)


def test_parts_work_in_the_order_in_which_they_are_written(few: ImageSet) -> None:
    both, first, second = (build_countermeasure(text) for text in ("jpeg:20+blur:2", "jpeg:20", "blur:2"))
    x, y = both.prepare(few)
    assert torch.equal(x, second.prepare(few.with_images(first.prepare(few)[0]))[0]) and y is few.labels
    assert torch.equal(both.at_test(few).images, x)
    assert not torch.equal(build_countermeasure("blur:2+jpeg:20").prepare(few)[0], x)
    both, first, second = (build_countermeasure(text) for text in ("cutout+transplant", "cutout", "transplant"))
    for each in (both, first):
        each.prepare(few)
    alone, rng = to_float(few.images), draws()
    alone, _ = second.batch(*first.batch(alone, few.labels, rng), rng)
    assert torch.equal(both.batch(to_float(few.images), few.labels, draws())[0], alone)


def test_a_teacher_answers_on_what_stands_before_it(teacher: nn.Module, few: ImageSet) -> None:
    dark = few.with_images(few.images // 40)
    plain, after, before = (
        build_countermeasure(text, teacher=teacher).prepare(dark)
        for text in ("distillation", "depth:1+distillation", "distillation+depth:1")
    )
    assert not after[0].any() and not before[0].any()  # all rounded to black
    torch.testing.assert_close(before[1], plain[1])
    torch.testing.assert_close(after[1], after[1][:1].expand_as(after[1]))
    assert not torch.allclose(plain[1], after[1])


# --- distillation


@pytest.mark.parametrize("options", [":soft,temperature=1", "", ":soft,temperature=20.5"])
def test_soft_labels_are_all_the_teachers_outputs_and_the_batch_stays(
    teacher: nn.Module, few: ImageSet, options: str
) -> None:
    measure, temperature = build_countermeasure(f"distillation{options}", teacher=teacher), 4.0  # by default
    temperature = float(options.partition("=")[2] or temperature)
    x, answers = measure.prepare(few)
    batch, student = to_float(few.images), fresh_network(NETWORK, few, 1).eval()
    seen, y = measure.batch(batch, answers, draws())
    assert torch.equal(x, few.images) and seen is batch and y is answers  # published images are asked for once
    with torch.no_grad():
        torch.testing.assert_close(answers, teacher(batch))
        p, q = (torch.softmax(logits / temperature, 1) for logits in (answers, student(batch)))
        expected = temperature**2 * (p * (p.log() - q.log())).sum(1).mean()
        torch.testing.assert_close(measure.loss(student, batch, answers), expected)


@pytest.mark.parametrize("text", ["distillation:hard", "blur+distillation:hard", "distillation:hard+blur"])
def test_hard_labels_are_the_class_the_teacher_names_right_or_wrong(few: ImageSet, text: str) -> None:
    class Stubborn(nn.Linear):  # a teacher that calls everything Industrial
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([0.3, 0.4]).expand(len(x), 2)

    measure = build_countermeasure(text, teacher=Stubborn(1, 1))
    x, answers = measure.prepare(few)
    student, batch = fresh_network(NETWORK, few, 1).eval(), to_float(x)
    torch.testing.assert_close(measure.loss(student, batch, answers), -student(batch).log_softmax(1)[:, 1].mean())
    assert 0 in few.labels  # so the true labels would have given another loss


def test_any_image_may_be_asked_mixed_in_pairs(teacher: nn.Module, few: ImageSet) -> None:
    measure = build_countermeasure("distillation:soft,queries=any", teacher=teacher)
    x = to_float(few.images)
    mixed, answers = measure.batch(x, torch.zeros(6, 2), draws())
    shares = torch.rand(6, generator=draws())
    for i in range(6):
        share = 1.0 if i % 2 == 0 else float(shares[i])
        torch.testing.assert_close(mixed[i], share * x[i] + (1 - share) * x[i - 1])
    assert not torch.equal(mixed, x) and not answers.requires_grad
    torch.testing.assert_close(answers, teacher(mixed).detach())


@pytest.mark.parametrize("text", ["distillation:soft", "distillation:hard", "distillation:soft,queries=any"])
def test_a_student_learns_from_answers_alone_and_leaves_the_teacher_as_it_was(
    teacher: nn.Module, two_classes: tuple[ImageSet, ImageSet], text: str
) -> None:
    train, test = two_classes
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    wrong = ImageSet(train.images, 1 - train.labels, train.class_names, train.names)  # labels it must not look at
    student, measure = fresh_network("convnet:width=16", train, 7), build_countermeasure(text, teacher=teacher.train())
    history = fit(student, wrong, Recipe(epochs=3), seed=0, test=test, countermeasure=measure)
    assert history.accuracy >= 95 and accuracy_of(teacher, test) >= 95
    agree = (logits_of(student, test.images).argmax(1) == logits_of(teacher, test.images).argmax(1)).float().mean()
    assert agree >= 0.95 and not teacher.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters())


def test_a_stopped_band_is_gone_and_the_rest_stays() -> None:
    x = torch.rand(3, 3, 16, 20, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.25
    none = without_band(x, torch.full((3,), 0.5), torch.full((3,), 0.5))
    assert torch.allclose(none, x, atol=1e-5)
    low, high = torch.tensor([0.0, 0.2, 0.6]), torch.tensor([0.3, 0.5, 1.1])
    kept = without_band(x, low, high)
    assert torch.allclose(kept.mean((2, 3)), x.mean((2, 3)), atol=1e-3)
    rows, columns = cosines(16), cosines(20)
    before, after = ((rows @ each @ columns.T) for each in (x, kept))
    radius = ((torch.linspace(0, 1, 16)[:, None] ** 2 + torch.linspace(0, 1, 20) ** 2) / 2).sqrt()
    for image in range(3):
        inside = (radius >= low[image]) & (radius < high[image])
        inside[0, 0] = False
        assert after[image][:, inside].abs().max() < 0.02 < before[image][:, inside].abs().max()
        assert (after - before)[image][:, ~inside].abs().max() < 0.02


def test_a_scattered_pixel_comes_from_nearby() -> None:
    ramp = torch.arange(32.0).expand(2, 1, 32, 32) / 32
    seen = scattered(ramp, 2.0, torch.Generator().manual_seed(0))
    moved = (seen - ramp)[:, :, :, 3:-3].abs() * 32
    assert 1.5 < moved.max() <= 2.01 and 0.8 < moved.mean() < 1.2
    assert not torch.equal(seen[0], seen[1])


def test_coarser_labels_are_groups_of_classes_of_one_size() -> None:
    images = in_turn(noise(60, 1, 8, 8), *"abcdef")
    measure = build_countermeasure("coarse:6,groups=3", clean=images, seed=1)
    _, coarse = measure.prepare(images)
    pairs = set(zip(images.labels.tolist(), coarse.tolist(), strict=True))
    assert len(pairs) == 6 and sorted(group for _, group in pairs) == [0, 0, 1, 1, 2, 2]
    with pytest.raises(ConfigError, match="coarse: groups"):
        build_countermeasure("coarse:6,groups=7", clean=images)
