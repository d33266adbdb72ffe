"""What single networks promise beyond the contract of all."""

from __future__ import annotations

import pickle
import sys
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from uge.errors import ConfigError
from uge.networks import NetworkSpec, build_network, parse_network, trainable
from uge.networks.convnet import ConvNet
from uge.networks.resnet import BasicBlock
from uge.networks.unet import UNet
from uge.networks.vit import ViT

from ..refusals import refused


def build(text: str, image_size: tuple[int, int] = (32, 32), channels: int = 3) -> nn.Module:
    name, options = parse_network(text)
    spec = NetworkSpec(name, channels, image_size, 10, options)
    return build_network(spec, (0.5,) * channels, (0.25,) * channels, 0)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("resnet:depth=18,width=64", 11_173_962),  # the ResNet-18 of the literature on CIFAR
        # He et al. 2016, table 6: 0.27M with parameter-free shortcuts; ours project with 1x1 convolutions and norms
        ("resnet:depth=20,width=16", 269_722 + (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64)),
    ],
)
def test_resnets_have_as_many_weights_as_in_their_papers(text: str, count: int) -> None:
    network = build(text)
    assert sum(p.numel() for p in network.parameters()) == count
    assert network[1].stem(torch.rand(1, 3, 32, 32)).shape[2:] == (32, 32), "the stem keeps the resolution"


def test_labels_name_options_in_order() -> None:
    assert NetworkSpec("resnet", 3, (32, 32), 10, {"width": 8, "depth": 10}).label == "resnet(depth=10,width=8)"
    assert NetworkSpec("mlp", 3, (32, 32), 10).label == "mlp"


@pytest.mark.parametrize(
    ("text", "image_size", "message"),
    [
        ("mobilenet2:width_percent=50", (32, 32), "unknown network 'mobilenet2'; did you mean 'mobilenetv2'"),
        ("resnet:depth=19", (32, 32), "resnet has no depth 19; choose from"),
        ("vgg:depth=12", (32, 32), "vgg has no depth 12; choose from"),
        ("vit:patch=5", (32, 32), "image size 32x32 is no multiple of patch 5"),
        ("vit:width=30,heads=4", (32, 32), "width 30 is no multiple of heads 4"),
        ("convnet:frozen_stem=true", (32, 32), "frozen_stem needs a stem"),
        ("convnet:frozen_stem=1,stem=2", (32, 32), "convnet:frozen_stem must be true or false, got '1'"),
        ("convnet:stem=16", (28, 28), "stem of 16 needs images of at least 32 pixels"),
        ("timm:resnet10x", (32, 32), "timm has no model 'resnet10x'"),
        ("timm:test_vit", (33, 33), r"does not take 33x33 pixels: .*; resize"),
    ],
)
@pytest.mark.usefixtures("timm_where_named")
def test_what_does_not_fit_is_one_line(text: str, image_size: tuple[int, int], message: str) -> None:
    with refused(ConfigError, message):
        build(text, image_size)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (NetworkSpec("rnn", 1, (28, 28), 10), r"unknown network 'rnn'; choose from: convnet, mlp, .*timm:NAME"),
        (NetworkSpec("mlp", 1, (28, 28), 10, {"classes": 3}), "unknown option of network 'mlp' 'classes'"),
    ],
)
def test_a_specification_from_a_file_is_checked_like_a_text(spec: NetworkSpec, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_network(spec, (0.5,), (0.5,), 0)


def test_without_timm_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)  # what Python itself does for a module that must not import
    with refused(ConfigError, "pip install timm with a torchvision"):
        build("timm:resnet10t")


@pytest.mark.parametrize(
    ("image_size", "patch"), [((28, 28), 4), ((32, 32), 4), ((64, 64), 8), ((64, 48), 4), ((32, 28), 4), ((31, 31), 1)]
)
def test_vit_picks_a_patch_that_divides_both_sides(image_size: tuple[int, int], patch: int) -> None:
    assert ViT(1, image_size, 10, width=8, depth=1, heads=2).patches.kernel_size == (patch, patch)


def test_a_frozen_stem_is_the_only_part_that_does_not_train() -> None:
    network = build("convnet:width=8,stem=2,frozen_stem=true")
    frozen = dict(network.named_parameters()).keys() - trainable(network).keys()
    assert {key.rpartition(".")[2] for key in frozen} == {"weight", "bias"} and len(frozen) == 2


def test_convnet_has_no_statistic_across_the_batch_and_is_twice_differentiable() -> None:
    network = ConvNet(1, (16, 16), 3, width=8)
    x = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network(x)[:1], network(x[:1]))
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(network(x).logsumexp(1).sum(), network.classify.weight, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), x)
    assert second.isfinite().all() and second.abs().sum() > 0


@pytest.mark.parametrize("side", [8, 9])
def test_a_resnet_shortcut_is_a_strided_1x1_convolution(side: int) -> None:
    block = BasicBlock(4, 6, stride=2)
    x = torch.rand(2, 4, side, side, generator=torch.Generator().manual_seed(0))
    weight = next(p for p in block.shortcut.parameters() if p.ndim == 4)
    torch.testing.assert_close(block.shortcut(x), block.shortcut[-1](F.conv2d(x, weight, stride=2)))


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (1, 1, 17, 23), (3, 3, 9, 40)])
def test_a_unet_begins_as_the_identity_and_what_it_is_told_changes_every_image(shape: tuple[int, ...]) -> None:
    network = UNet(shape[1], 5, width=4).eval()
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0), requires_grad=True)
    one, other = torch.eye(5)[:2, None].expand(2, shape[0], 5)
    assert torch.equal(network(x, one), x)
    nn.init.normal_(network.last.weight, generator=torch.Generator().manual_seed(1))
    first, second = network(x, one), network(x, other)
    assert first.shape == x.shape and all(not torch.equal(a, b) for a, b in zip(first, second, strict=True))
    sent = ForkingPickler.dumps(network)  # whole, not through shared memory
    assert len(sent) > 4 * sum(each.numel() for each in network.parameters())
    assert torch.equal(pickle.loads(sent)(x, other), second)
    (first - x).square().sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()
    torch.testing.assert_close(network(x[:1], one[:1]), first[:1], rtol=1e-4, atol=1e-5)
