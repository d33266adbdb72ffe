"""The audit trains each cell once, whatever interrupts it, and no cell changes another."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from uge.attack import build_countermeasure, why_unfit
from uge.audit.estimate import Estimate
from uge.audit.plan import AUTHORISED, Cell
from uge.audit.trainer import content_digest
from uge.data.images import normalisation_of, to_float
from uge.errors import ConfigError, DataError, PublishError
from uge.keys.key import RECIPIENT_NETWORK
from uge.keys.sealed import SealedKey
from uge.keys.weights import WeightsKey, new_weights_key
from uge.networks import NetworkSpec, build_network
from uge.records import read_records
from uge.runtime import precision_of, seed_for
from uge.service import Service
from uge.training import accuracy_of, fit, logits_of, recommended_recipe

from ..refusals import refused
from .conftest import RECIPE, Images, MakeAudit, Rows, timeless

Sealed = dict[str, Any]
Done = tuple[Path, Rows]  # a finished audit's folder and what it recorded
STUDENT = "distillation:soft,temperature=2"
CELLS = [
    Cell(AUTHORISED),
    Cell("hacker", "mlp:width=8"),
    Cell("hacker", AUTHORISED),
    Cell("hacker", "mlp:width=8", STUDENT),
    Cell(AUTHORISED, trained_on="clean"),
    Cell("hacker", "mlp:width=8", STUDENT, trained_on="clean"),
]


@pytest.fixture(scope="module")
def undisturbed(audit: MakeAudit, tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, audit(folder).run(CELLS)


def same_training(*rows: dict[str, Any]) -> bool:
    figures = ("accuracy", "peak_accuracy", "test_accuracy", "train_loss", "recipe", "network")
    return all(row[figure] == rows[0][figure] for row in rows for figure in figures)


def test_a_hacker_with_images_of_his_own_is_trained_again_when_they_change(audit: MakeAudit, tmp_path: Path) -> None:
    own, names = tmp_path / "own", []
    own.mkdir()
    for content in (b"one", b"another"):
        (own / "a.png").write_bytes(content)
        content_digest.cache_clear()  # as in another process
        names.append(audit(tmp_path).cell_name(Cell("hacker", "mlp:width=8", f"candidates:data={own}")))
    assert names[0] != names[1]
    assert not content_digest("eurosat") and not content_digest(str(tmp_path / "nowhere"))
    assert content_digest(str(own / "a.png")) not in ("", content_digest(str(own)))  # one file may be all


def test_rows_hold_what_the_contract_says(undisturbed: Done, key: WeightsKey) -> None:
    folder, rows = undisturbed
    assert timeless(read_records(folder / "records.jsonl")) == timeless(rows)
    assert [(row["kind"], row["network"], row["countermeasure"], row["knows"], row["trained_on"]) for row in rows] == [
        ("authorised", "convnet(width=8)", "none", "key", "published"),
        ("hacker", "mlp(width=8)", "none", "nothing", "published"),
        ("hacker", "convnet(width=8)", "other-init", "architecture", "published"),
        ("hacker", "mlp(width=8)", STUDENT, "model outputs", "published"),
        ("authorised", "convnet(width=8)", "none", "key", "clean"),
        ("hacker", "mlp(width=8)", STUDENT, "model outputs", "clean"),
    ]
    for row in rows:
        assert len(row["test_accuracy"]) == len(row["train_loss"]) == RECIPE.epochs
        assert row["accuracy"] == row["test_accuracy"][-1] and row["peak_accuracy"] == max(row["test_accuracy"])
        assert row["recipe"] == RECIPE.to_dict() | {"precision": precision_of("cpu")}
        assert row["images"] == 96 and row["test_images"] == 48
        assert row["seconds"] >= 0 and row["environment"]["torch"] == torch.__version__
    assert len({row["cell"] for row in rows}) == len(rows)
    text = (folder / "records.jsonl").read_text()
    assert key.digest() not in text and str(folder) not in text


def test_a_row_is_what_training_by_hand_gives(undisturbed: Done, images: Images, key: WeightsKey) -> None:
    """The authorised user starts from the key's weights; the student learns from that trained network."""
    folder, rows = undisturbed
    copy, test, _ = images.values()
    network = key.module(copy, RECIPIENT_NETWORK, 0)
    seed = seed_for(0, AUTHORISED, AUTHORISED, "none")
    history = fit(network, copy, RECIPE, seed=seed, test=test)
    assert list(history.test_accuracy) == rows[0]["test_accuracy"]
    assert list(history.train_loss) == rows[0]["train_loss"]
    kept = load_file(folder / "authorised" / f"{rows[0]['cell']}.safetensors")
    assert all(torch.equal(kept[name], tensor) for name, tensor in network.state_dict().items())

    spec = NetworkSpec("mlp", 3, copy.image_size, 2, {"width": 8})
    student = build_network(spec, *normalisation_of(copy.images), seed=seed_for(0, "hacker", "mlp:width=8"))
    seed, measure = seed_for(0, "hacker", "mlp:width=8", STUDENT), build_countermeasure(STUDENT, teacher=network)
    history = fit(student, copy, RECIPE, seed=seed, test=test, countermeasure=measure)
    assert list(history.train_loss) == rows[3]["train_loss"]
    assert accuracy_of(student, test) == rows[3]["accuracy"]


@pytest.mark.parametrize("finished", [1, 4])
def test_an_interrupted_audit_ends_as_the_undisturbed_one(
    audit: MakeAudit, undisturbed: Done, tmp_path: Path, finished: int
) -> None:
    begun: list[int] = []

    def interrupt(epoch: int, epochs: int, accuracy: float) -> None:
        if len(begun) > finished:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        audit(tmp_path).run(CELLS, lambda number, cell: begun.append(number), interrupt)
    assert len(read_records(tmp_path / "records.jsonl")) == finished
    begun.clear()
    rows = audit(tmp_path).run(CELLS, lambda number, cell: begun.append(number))
    assert begun == list(range(finished, len(CELLS)))
    assert timeless(rows) == timeless(undisturbed[1]) == timeless(read_records(tmp_path / "records.jsonl"))


def test_more_cells_in_another_order_change_no_row(audit: MakeAudit, undisturbed: Done, tmp_path: Path) -> None:
    before = {row["cell"]: row for row in timeless(undisturbed[1])}
    order = [CELLS[2], Cell("hacker", "mlp:width=16"), CELLS[0], Cell("hacker", "mlp:width=8", seed=1), CELLS[1]]
    rows = timeless(audit(tmp_path).run(order))
    for number in (0, 2, 4):
        assert rows[number] == before[rows[number]["cell"]]
    assert rows[1]["cell"] not in before and rows[3]["cell"] not in before
    assert rows[3]["train_loss"] != rows[4]["train_loss"]  # another seed


def test_other_data_recipe_or_key_is_another_cell(
    audit: MakeAudit, images: Images, key: WeightsKey, tmp_path: Path
) -> None:
    plain, mine, other_init, student, *_ = CELLS[1], CELLS[0], CELLS[2], CELLS[3]
    base = audit(tmp_path)
    shorter = audit(tmp_path, recipe=lambda network: replace(RECIPE, epochs=1))
    assert shorter.cell_name(plain) != base.cell_name(plain)
    assert audit(tmp_path, published=images["clean"]).cell_name(plain) != base.cell_name(plain)
    fewer = images["test"].subset(torch.arange(32))
    assert audit(tmp_path, test=fewer).cell_name(plain) != base.cell_name(plain)

    redrawn, wider = (
        new_weights_key(replace(key.network, options={"width": width}), key.class_names, key.mean, key.std, RECIPE)
        for width in (8, 16)
    )
    for cell in (mine, student):
        names = {audit(tmp_path, key=each).cell_name(cell) for each in (key, redrawn, wider)}
        assert len(names) == 3
    assert audit(tmp_path, key=redrawn).cell_name(plain) == base.cell_name(plain)
    # the same architecture with other weights takes the architecture from the key, and nothing else
    assert audit(tmp_path, key=redrawn).cell_name(other_init) == base.cell_name(other_init)
    assert audit(tmp_path, key=wider).cell_name(other_init) != base.cell_name(other_init)


def test_hackers_draw_weights_of_their_own(audit: MakeAudit, key: WeightsKey, tmp_path: Path) -> None:
    """The key never reaches a hacker of the same architecture; another seed is another draw."""
    make = audit(tmp_path).network_of
    mine, first, second = (dict(make(cell).state_dict()) for cell in (CELLS[0], CELLS[2], replace(CELLS[2], seed=1)))
    drawn = [name for name in mine if name.endswith("weight") and mine[name].ndim > 1]
    assert drawn
    for name in drawn:
        assert torch.equal(mine[name], key.weights[name])
        assert not torch.equal(mine[name], first[name])
        assert not torch.equal(first[name], second[name])


@pytest.mark.parametrize(
    ("cells", "options", "message"),
    [
        ([CELLS[1], CELLS[3]], {}, r"needs the authorised cell of the same seed \(0\) and images \(published\) before"),
        ([CELLS[3], CELLS[0]], {}, "before it in the plan"),
        ([CELLS[0], CELLS[5]], {}, r"images \(clean\) before it in the plan"),
        ([CELLS[0], replace(CELLS[3], seed=1)], {}, r"same seed \(1\)"),
        ([CELLS[1], CELLS[0]], {"key": None}, "trains or queries the authorised network: give --key"),
        ([CELLS[1], CELLS[2]], {"key": None}, "give --key"),
        ([CELLS[1], CELLS[4]], {"clean": None}, "trains on the originals: give --clean"),
        ([CELLS[1], Cell("hacker", "vgg", "clean-only:10")], {"clean": None}, "some of the clean images: give --clean"),
        ([CELLS[1], Cell("hacker", "vgg", "blur+clean-mixed:900")], {}, "900 clean images asked for, but there are"),
        ([CELLS[1], Cell("hacker", "vggg")], {}, "unknown network 'vggg'; did you mean 'vgg'"),
        ([CELLS[1], Cell("hacker", "vgg", "distilation")], {}, "unknown counter-measure 'distilation'; did you mean"),
        ([CELLS[0], Cell("hacker", "vgg", "distillation:sotf")], {}, "labels soft or hard"),
    ],
)
def test_a_plan_that_cannot_end_is_refused_before_the_first_training(
    audit: MakeAudit, tmp_path: Path, cells: list[Cell], options: dict[str, Any], message: str
) -> None:
    with refused(ConfigError, message):
        audit(tmp_path, **options).run(cells, lambda number, cell: pytest.fail(f"cell {number} was trained"))
    assert not (tmp_path / "records.jsonl").exists()


def test_a_student_added_later_finds_its_teacher_or_says_that_it_is_gone(
    audit: MakeAudit, undisturbed: Done, tmp_path: Path
) -> None:
    audit(tmp_path).run(CELLS[:1])
    rows = audit(tmp_path).run([CELLS[3]])
    assert timeless(rows) == timeless(undisturbed[1][3:4])
    for file in (tmp_path / "authorised").iterdir():
        file.unlink()
    assert timeless(audit(tmp_path).run([CELLS[3]])) == timeless(rows)  # done: nothing to ask
    with pytest.raises(ConfigError, match="is missing"):
        audit(tmp_path).run([CELLS[0], replace(CELLS[3], network="mlp:width=16")])


def test_a_hacker_with_clean_images_says_so_and_is_another_cell_on_other_originals(
    audit: MakeAudit, images: Images, tmp_path: Path
) -> None:
    cells = [Cell("hacker", "mlp:width=8", how) for how in ("clean-only:20", "blur+clean-mixed:20", "blur+cutmix")]
    rows = audit(tmp_path).run(cells)
    assert [row["knows"] for row in rows] == ["clean images", "clean images", "nothing"]
    assert [row["countermeasure"] for row in rows] == [cell.countermeasure for cell in cells]
    other = audit(tmp_path, clean=images["clean"].with_images(255 - images["clean"].images))
    assert [other.cell_name(cell) == row["cell"] for cell, row in zip(cells, rows, strict=True)] == [False, False, True]


def test_images_of_two_kinds_are_refused(images: Images, audit: MakeAudit, tmp_path: Path) -> None:
    renamed = replace(images["test"], class_names=("Forest", "Sea"))
    with pytest.raises(DataError, match="the test images differ from the published ones"):
        audit(tmp_path, test=renamed)
    smaller = images["clean"].with_images(images["clean"].images[..., :12, :12].contiguous())
    with pytest.raises(DataError, match="the clean images differ from the published ones"):
        audit(tmp_path, clean=smaller)


def test_a_folder_that_cannot_be_written_is_one_line(audit: MakeAudit, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where the folder should be")
    for cells in (CELLS[:1], CELLS[1:2]):
        with refused(PublishError, "cannot write"):
            audit(tmp_path / "taken").run(cells)


@pytest.mark.parametrize("network", [RECIPIENT_NETWORK, "resnet:depth=8,width=4", "vit:width=16,depth=1,heads=2"])
def test_the_recipient_of_a_sealed_copy_trains_as_on_the_originals_bit_for_bit(
    audit: MakeAudit, sealed: Sealed, tmp_path: Path, network: str
) -> None:
    """Whatever network he names; and whoever steals his key is he. Nobody else sees what he sees."""
    make = partial(audit, tmp_path, **sealed, recipe=partial(recommended_recipe, epochs=2))
    mine, stolen, ceiling, stolen_ceiling, plain = make(recipient=network).run(
        [
            Cell(AUTHORISED),
            Cell("hacker", AUTHORISED, "stolen-key"),
            Cell(AUTHORISED, trained_on="clean"),
            Cell("hacker", AUTHORISED, "stolen-key", trained_on="clean"),
            Cell("hacker", AUTHORISED),
        ]
    )
    assert same_training(mine, stolen, ceiling, stolen_ceiling)
    assert plain["train_loss"] != mine["train_loss"] and plain["network"] == mine["network"]
    assert mine["locked"] and stolen["knows"] == "key" and len({mine["cell"], stolen["cell"], ceiling["cell"]}) == 3
    first, second = (load_file(tmp_path / "authorised" / f"{row['cell']}.safetensors") for row in (mine, ceiling))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert sealed["key"].digest() not in (tmp_path / "records.jsonl").read_text()
    assert make(recipient="mlp:width=8").cell_name(Cell(AUTHORISED)) != mine["cell"]


def test_a_stolen_key_of_initial_weights_trains_as_the_recipient(audit: MakeAudit, tmp_path: Path) -> None:
    for source in ("published", "clean"):
        mine, stolen = audit(tmp_path).run(
            [Cell(AUTHORISED, trained_on=source), Cell("hacker", AUTHORISED, "stolen-key", trained_on=source)]
        )
        assert same_training(mine, stolen)


def test_a_copy_that_is_not_for_the_key_is_refused_at_once(audit: MakeAudit, sealed: Sealed, tmp_path: Path) -> None:
    for wrong in ({"key": sealed["key"]}, sealed | {"key": SealedKey.draw()}):
        with pytest.raises(PublishError, match="do not open with this key"):
            audit(tmp_path, **wrong)


def test_students_ask_the_recipients_service_which_opens_nothing(
    audit: MakeAudit, sealed: Sealed, tmp_path: Path
) -> None:
    key, copy = sealed.values()
    made = audit(tmp_path, **sealed, recipient="convnet:width=8")
    made.run([Cell(AUTHORISED)])
    service = made.service(Cell("hacker", "mlp", "distillation:soft"))
    assert isinstance(service, Service)
    x = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    asked = (255 * x).round().to(torch.uint8) & 0xFE
    torch.testing.assert_close(service(x), logits_of(service.network, asked))
    assert not torch.allclose(logits_of(service, copy.images), logits_of(service.network, key.opened(copy.images)))


def test_students_of_a_guard_share_what_it_has_learnt_of_the_copy(
    audit: MakeAudit, sealed: Sealed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uge.service.detector.STEPS", 2)
    made = audit(tmp_path, **sealed, recipient="mlp:width=8")
    student = Cell("hacker", "mlp:width=8", "guarded:tries=1")
    *_, row = made.run([Cell(AUTHORISED), student])
    assert row["knows"] == "model outputs" and row["findings"]["answered"] >= 0
    monkeypatch.setattr("uge.audit.trainer.train_detector", None)  # it is there
    assert made.service(student)(to_float(sealed["published"].images[:4])).isnan().all()
    with pytest.raises(ConfigError, match="'guarded' asks a guard, which needs a sealed key"):
        audit(tmp_path / "other").run([Cell("hacker", "mlp:width=8", "guarded")])


def test_hackers_who_read_our_pages_go_by_the_manifest(audit: MakeAudit, tmp_path: Path) -> None:
    one, other = (audit(tmp_path, told={"epsilon_255": epsilon}) for epsilon in (16, 8))
    cell = Cell("hacker", "mlp:width=8", "own-pairs")
    assert one.countermeasure_of(cell, None).config.epsilon_255 == 16
    assert one.cell_name(cell) != other.cell_name(cell)
    plain = replace(cell, countermeasure="none")
    assert one.cell_name(plain) == other.cell_name(plain)


def test_a_sealed_key_cannot_be_known_roughly(sealed: Sealed, key: WeightsKey) -> None:
    copy = sealed["published"]
    for text in ("noisy-key:0.1", "wrong-key"):
        assert why_unfit(text, copy, key=sealed["key"]) == "a sealed key that is wrong opens nothing"
        assert why_unfit(text, copy, key=key) == ""
    assert why_unfit("stolen-key", copy, key=sealed["key"]) == ""


def test_a_part_of_the_key_needs_its_architecture(audit: MakeAudit, key: WeightsKey, tmp_path: Path) -> None:
    for text in ("stolen-key", "noisy-key:0.1", "wrong-key"):
        with pytest.raises(ConfigError, match=f"'{text}' trains the authorised network: give the network 'authorised'"):
            audit(tmp_path).run([Cell("hacker", "mlp:width=8", text)])
        with pytest.raises(ConfigError, match="give --key"):
            audit(tmp_path, key=None).run([Cell("hacker", AUTHORISED, text)])
    redrawn = new_weights_key(key.network, key.class_names, key.mean, key.std, RECIPE)
    cell = Cell("hacker", AUTHORISED, "noisy-key:0.1")
    assert audit(tmp_path).cell_name(cell) != audit(tmp_path, key=redrawn).cell_name(cell)


def test_a_row_says_what_was_trained_and_how(audit: MakeAudit, tmp_path: Path) -> None:
    [row] = audit(tmp_path).run([Cell("hacker", "mlp:width=8", "pretrained-probe:side=32")])
    assert row["network"] == "efficientnet-lite0" and row["recipe"]["epochs"] == 0 and row["train_loss"] == []
    assert row["test_accuracy"] == [row["accuracy"]] and row["knows"] == "nothing"


def test_a_students_cell_names_his_teachers_training(audit: MakeAudit, tmp_path: Path) -> None:
    student = Cell("hacker", "mlp:width=8", STUDENT)
    short, long = audit(tmp_path, key_epochs=1), audit(tmp_path)
    assert short.cell_name(student) != long.cell_name(student)
    plain = Cell("hacker", "mlp:width=8")
    assert short.cell_name(plain) == long.cell_name(plain)


def test_a_network_that_nobody_timed_is_timed_when_it_is_asked_for(audit: MakeAudit, tmp_path: Path) -> None:
    estimate, plain = Estimate(audit(tmp_path)), Cell("hacker", "mlp:width=8")
    longer = replace(plain, countermeasure="self-supervised+jpeg:10")
    assert all(estimate.seconds(cell) > 0 for cell in (plain, longer))
    assert list(estimate.timed) == [("mlp:width=8", ""), ("mlp:width=8", "self-supervised")]
    estimate.timed = dict.fromkeys(estimate.timed, (1.0, 1.0))  # whatever else the machine did meanwhile
    assert estimate.seconds(plain) < estimate.seconds(longer)


def test_a_combination_is_timed_without_training_what_comes_first(
    audit: MakeAudit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def learn(*_: object) -> None:
        raise AssertionError("a denoiser was trained for an estimate")

    monkeypatch.setattr("uge.attack.purification.Denoised.prepare", learn)
    assert Estimate(audit(tmp_path)).seconds(Cell("hacker", "mlp:width=8", "pairs:3+self-supervised")) > 0


def test_the_recipients_network_is_known_by_any_name(audit: MakeAudit, sealed: Sealed, tmp_path: Path) -> None:
    names = ("convnet:width=8", "convnet:width=16", "mlp:width=8", AUTHORISED)
    assert [audit(tmp_path).is_authorised_architecture(name) for name in names] == [True, False, False, True]
    assert not audit(tmp_path, key=None).is_authorised_architecture("convnet:width=8")
    named = audit(tmp_path, **sealed, recipient="mlp:width=8")
    assert [named.is_authorised_architecture(name) for name in names] == [False, False, True, True]
