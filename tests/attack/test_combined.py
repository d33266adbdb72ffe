"""Combined counter-measures: each part works on what the one before it left."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from uge.attack import build_countermeasure, knowledge_of, needs_clean, needs_teacher, parse_countermeasures
from uge.attack.combined import Combined
from uge.data.images import ImageSet, to_float
from uge.errors import ConfigError
from uge.training import PlainTraining


class Step(PlainTraining):
    """x -> scale * x + 1 in every hook, so that the order shows."""

    def __init__(self, scale: int) -> None:
        self.scale = scale

    def prepare(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        return self.scale * images.images + 1, images.labels

    def at_test(self, images: ImageSet) -> ImageSet:
        return images.with_images(self.scale * images.images + 1)

    def batch(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return self.scale * x + torch.rand((), generator=generator), y


class WithLoss(PlainTraining):
    def loss(self, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return x.sum()


@pytest.fixture
def few(two_classes: tuple[ImageSet, ImageSet]) -> ImageSet:
    return two_classes[0].subset(torch.arange(8))


class Teacher(nn.Module):
    """Answers with the mean of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((1, 2, 3))[:, None].repeat(1, 2)


def test_parts_work_in_the_order_in_which_they_are_written(few: ImageSet) -> None:
    few = few.with_images(few.images // 16)
    pair = Combined([("a", Step(2)), ("b", Step(3))])
    x, y = pair.prepare(few)
    assert torch.equal(x, 3 * (2 * few.images + 1) + 1) and y is few.labels
    assert torch.equal(pair.at_test(few).images, x)
    batch = torch.rand(2, 1, 4, 4)
    first, second = torch.rand(2, generator=torch.Generator().manual_seed(1))
    seen, _ = pair.batch(batch, y, torch.Generator().manual_seed(1))
    torch.testing.assert_close(seen, 3 * (2 * batch + first) + second)


@pytest.mark.parametrize("order", [("plain", "own"), ("own", "plain")])
def test_the_one_loss_is_used_wherever_it_stands(order: tuple[str, str]) -> None:
    parts = {"plain": PlainTraining(), "own": WithLoss()}
    x = torch.rand(2, 3)
    loss = Combined([(name, parts[name]) for name in order]).loss(nn.Identity(), x, torch.tensor([0, 1]))
    assert torch.equal(loss, x.sum())


def test_two_losses_are_one_clear_line() -> None:
    with pytest.raises(ConfigError, match="'distillation:hard' and 'distillation' each bring a loss of their own") as e:
        build_countermeasure("distillation:hard+blur+distillation", teacher=Teacher())
    assert "\n" not in str(e.value)


def test_the_text_combines_real_parts(few: ImageSet) -> None:
    both = build_countermeasure("jpeg:20+blur:2")
    x, y = both.prepare(few)
    coded, _ = build_countermeasure("jpeg:20").prepare(few)
    expected, _ = build_countermeasure("blur:2").prepare(few.with_images(coded))
    assert torch.equal(x, expected) and y is few.labels
    assert torch.equal(both.at_test(few).images, x)
    other, _ = build_countermeasure("blur:2+jpeg:20").prepare(few)
    assert not torch.equal(other, x)


def test_a_teacher_answers_on_what_stands_before_it(few: ImageSet) -> None:
    dark = few.with_images(few.images // 40)
    plain = build_countermeasure("distillation", teacher=Teacher())
    after = build_countermeasure("depth:1+distillation", teacher=Teacher())
    before = build_countermeasure("distillation+depth:1", teacher=Teacher())
    assert not (after.prepare(dark)[0]).any() and not (before.prepare(dark)[0]).any()  # all rounded to black
    assert not after.prepare(dark)[1].any()
    torch.testing.assert_close(before.prepare(dark)[1], plain.prepare(dark)[1])
    assert plain.prepare(dark)[1].any()


def test_texts_are_read_and_judged_part_by_part() -> None:
    assert parse_countermeasures("jpeg:30+distillation:hard") == [
        ("jpeg", {"quality": "30"}),
        ("distillation", {"labels": "hard"}),
    ]
    assert needs_teacher("blur+distillation") and not needs_teacher("blur+jpeg") and not needs_clean("blur+jpeg")
    assert knowledge_of("blur+distillation") == knowledge_of("distillation+blur") == "model outputs"
    assert knowledge_of("blur+jpeg:30") == "nothing"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("jpeg:30+blurr", "unknown counter-measure 'blurr'; did you mean 'blur'"),
        ("jpeg:30+", "unknown counter-measure ''"),
        ("jpeg:30+blur:0", "expected a number from 0.3"),
        ("jpeg+distillation", "'distillation' queries the authorised network: give --key"),
    ],
)
def test_a_wrong_part_is_one_clear_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build_countermeasure(text)
    assert "\n" not in str(caught.value)


def test_a_combined_student_trains_on_what_its_batch_hook_leaves(few: ImageSet) -> None:
    both = build_countermeasure("blur+distillation:hard", teacher=Teacher())
    x, y = both.prepare(few)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2))
    loss = both.loss(network, to_float(x), y)
    expected = nn.functional.cross_entropy(network(to_float(x)), y.argmax(1))
    torch.testing.assert_close(loss, expected)
