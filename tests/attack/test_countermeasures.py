"""Counter-measures: their names, and distillation against direct computation and on real images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uge.attack import build_countermeasure, parse_countermeasure
from uge.attack.distillation import Distillation
from uge.data.images import ImageSet, normalisation_of, to_float
from uge.errors import ConfigError
from uge.networks import NetworkSpec, build_network
from uge.training import PlainTraining, Recipe, accuracy_of, fit, logits_of


def network_for(images: ImageSet, seed: int, **options: int) -> nn.Module:
    spec = NetworkSpec("convnet", images.channels, images.image_size, images.classes, {"width": 8} | options)
    return build_network(spec, *normalisation_of(images.images), seed=seed)


@pytest.fixture(scope="module")
def teacher(two_classes: tuple[ImageSet, ImageSet]) -> nn.Module:
    train, _ = two_classes
    network = network_for(train, 0)
    fit(network, train, Recipe(epochs=3), seed=0)
    network.zero_grad()
    return network


@pytest.fixture
def few(two_classes: tuple[ImageSet, ImageSet]) -> ImageSet:
    return two_classes[0].subset(torch.arange(6))


def direct_soft_loss(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    p, q = (torch.softmax(logits / temperature, 1) for logits in (teacher, student))
    return temperature**2 * (p * (p.log() - q.log())).sum(1).mean()


@pytest.mark.parametrize("temperature", ["1", "4", "20.5"])
def test_soft_labels_are_all_the_teachers_outputs(teacher: nn.Module, few: ImageSet, temperature: str) -> None:
    measure = build_countermeasure(f"distillation:soft,temperature={temperature}", teacher=teacher)
    x, answers = measure.prepare(few)
    assert torch.equal(x, few.images)
    with torch.no_grad():
        torch.testing.assert_close(answers, teacher(to_float(few.images)))
        student = network_for(few, 1).eval()
        batch = to_float(few.images)
        expected = direct_soft_loss(answers, student(batch), float(temperature))
        torch.testing.assert_close(measure.loss(student, batch, answers), expected)


def test_hard_labels_are_the_class_the_teacher_names_right_or_wrong(few: ImageSet) -> None:
    class Stubborn(nn.Linear):  # a teacher that calls everything Industrial
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([0.3, 0.4]).expand(len(x), 2)

    measure = build_countermeasure("distillation:hard", teacher=Stubborn(1, 1))
    x, answers = measure.prepare(few)
    student = network_for(few, 1).eval()
    batch = to_float(x)
    expected = -student(batch).log_softmax(1)[:, 1].mean()
    torch.testing.assert_close(measure.loss(student, batch, answers), expected)
    assert 0 in few.labels  # so the true labels would have given another loss


def test_published_queries_answer_once_and_leave_the_batch(teacher: nn.Module, few: ImageSet) -> None:
    measure = build_countermeasure("distillation", teacher=teacher)
    x, y = to_float(few.images), torch.randn(6, 2)
    same_x, same_y = measure.batch(x, y, torch.Generator().manual_seed(0))
    assert same_x is x and same_y is y


def test_any_image_may_be_asked_mixed_in_pairs(teacher: nn.Module, few: ImageSet) -> None:
    measure = build_countermeasure("distillation:soft,queries=any", teacher=teacher)
    x = to_float(few.images)
    mixed, answers = measure.batch(x, torch.zeros(6, 2), torch.Generator().manual_seed(0))
    shares = torch.rand(6, generator=torch.Generator().manual_seed(0))
    for i in range(6):
        share = 1.0 if i % 2 == 0 else float(shares[i])
        torch.testing.assert_close(mixed[i], share * x[i] + (1 - share) * x[i - 1])
    assert not torch.equal(mixed, x)
    torch.testing.assert_close(answers, teacher(mixed).detach())
    assert not answers.requires_grad


def test_asking_leaves_the_teacher_as_it_was(teacher: nn.Module, few: ImageSet) -> None:
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    measure = build_countermeasure("distillation:soft,queries=any", teacher=teacher.train())
    assert not teacher.training
    fit(network_for(few, 1), few, Recipe(epochs=1, batch_size=4), seed=0, countermeasure=measure)
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize("text", ["distillation:soft", "distillation:hard", "distillation:soft,queries=any"])
def test_a_student_learns_from_answers_alone(
    teacher: nn.Module, two_classes: tuple[ImageSet, ImageSet], text: str
) -> None:
    train, test = two_classes
    assert accuracy_of(teacher, test) >= 95
    wrong = ImageSet(train.images, 1 - train.labels, train.class_names, train.names)  # labels it must not look at
    student = network_for(train, 7, width=16)
    measure = build_countermeasure(text, teacher=teacher)
    history = fit(student, wrong, Recipe(epochs=3), seed=0, test=test, countermeasure=measure)
    assert history.accuracy >= 95
    agree = (logits_of(student, test.images).argmax(1) == logits_of(teacher, test.images).argmax(1)).float().mean()
    assert agree >= 0.95


def test_no_counter_measure_is_plain_training(few: ImageSet) -> None:
    measure = build_countermeasure("none")
    assert type(measure) is PlainTraining
    x, y = measure.prepare(few)
    network = network_for(few, 0).eval()
    torch.testing.assert_close(measure.loss(network, to_float(x), y), F.cross_entropy(network(to_float(x)), few.labels))


def test_texts_are_read_into_names_and_options() -> None:
    assert parse_countermeasure("none") == ("none", {})
    assert parse_countermeasure("distillation:hard,temperature=2,queries=any") == (
        "distillation",
        {"labels": "hard", "temperature": "2", "queries": "any"},
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("destillation:soft", "unknown counter-measure 'destillation'; did you mean 'distillation'"),
        ("xyz", "unknown counter-measure 'xyz'; choose from: adversarial, blur, candidates"),
        ("none:soft", "counter-measure 'none' has no options, got 'none:soft'"),
        ("distillation:sotf", "labels soft or hard .* got 'sotf' and 'published'"),
        ("distillation:soft,queries=all", "queries published or any, got 'soft' and 'all'"),
        ("distillation:temprature=2", "unknown option of counter-measure 'distillation' 'temprature'; did you mean"),
        ("distillation:teacher=2", "unknown option of counter-measure 'distillation' 'teacher'"),
        ("distillation:soft,temperature=hot", "temperature 'hot' is no number"),
        ("distillation:soft,temperature=0", "temperature 0 must be positive"),
        ("distillation:soft,temperature=nan", "temperature nan must be positive"),
    ],
)
def test_a_wrong_text_is_one_clear_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build_countermeasure(text, teacher=nn.Linear(1, 1))
    assert "\n" not in str(caught.value)


def test_a_teacher_that_is_not_there_is_asked_for() -> None:
    with pytest.raises(ConfigError, match="'distillation' queries the authorised network: give --key"):
        build_countermeasure("distillation")


def test_defaults_are_those_of_the_text() -> None:
    measure = build_countermeasure("distillation", teacher=nn.Linear(1, 1))
    assert isinstance(measure, Distillation)
    assert (measure.labels, measure.temperature, measure.queries) == ("soft", 4.0, "published")
