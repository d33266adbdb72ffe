"""What single networks promise beyond the contract of all."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from uge.errors import ConfigError
from uge.networks import NetworkSpec, build_network, parse_network, trainable
from uge.networks.convnet import ConvNet
from uge.networks.resnet import BasicBlock, ResNet
from uge.networks.vit import ViT


def build(text: str, image_size: tuple[int, int] = (32, 32), channels: int = 3) -> nn.Module:
    name, options = parse_network(text)
    spec = NetworkSpec(name, channels, image_size, 10, options)
    return build_network(spec, (0.5,) * channels, (0.25,) * channels, 0)


def parameters_of(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_resnet_18_is_the_cifar_resnet_18_of_the_literature() -> None:
    assert parameters_of(build("resnet:depth=18,width=64")) == 11_173_962


def test_resnet_20_has_the_272_thousand_weights_of_its_paper() -> None:
    # He et al. 2016, table 6: 0.27M with parameter-free shortcuts; ours project with 1x1 convolutions and norms
    projections = (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64)
    assert parameters_of(build("resnet:depth=20,width=16")) == 269_722 + projections


def test_a_typo_in_a_name_is_suggested() -> None:
    with pytest.raises(ConfigError, match="unknown network 'mobilenet2'; did you mean 'mobilenetv2'"):
        parse_network("mobilenet2:width_percent=50")
    with pytest.raises(ConfigError, match=r"unknown network 'rnn'; choose from: convnet, mlp, .*timm:NAME"):
        build_network(NetworkSpec("rnn", 1, (28, 28), 10), (0.5,), (0.5,), 0)


def test_labels_name_options_in_order() -> None:
    assert NetworkSpec("resnet", 3, (32, 32), 10, {"width": 8, "depth": 10}).label == "resnet(depth=10,width=8)"
    assert NetworkSpec("mlp", 3, (32, 32), 10).label == "mlp"


@pytest.mark.parametrize(
    ("text", "image_size", "message"),
    [
        ("resnet:depth=19", (32, 32), "resnet has no depth 19; choose from"),
        ("vgg:depth=12", (32, 32), "vgg has no depth 12; choose from"),
        ("vit:patch=5", (32, 32), "image size 32x32 is no multiple of patch 5"),
        ("vit:width=30,heads=4", (32, 32), "width 30 is no multiple of heads 4"),
        ("convnet:frozen_stem=true", (32, 32), "frozen_stem needs a stem"),
        ("convnet:frozen_stem=1,stem=2", (32, 32), "convnet:frozen_stem must be true or false, got '1'"),
        ("convnet:stem=16", (28, 28), "stem of 16 needs images of at least 32 pixels"),
    ],
)
def test_options_that_do_not_fit_say_why(text: str, image_size: tuple[int, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build(text, image_size)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("image_size", "patch"), [((28, 28), 4), ((32, 32), 4), ((64, 64), 8), ((64, 48), 4), ((32, 28), 4), ((31, 31), 1)]
)
def test_vit_picks_a_patch_that_divides_both_sides(image_size: tuple[int, int], patch: int) -> None:
    assert ViT(1, image_size, 10, width=8, depth=1, heads=2).patches.kernel_size == (patch, patch)


def test_a_frozen_stem_is_the_only_part_that_does_not_train() -> None:
    network = build("convnet:width=8,stem=2,frozen_stem=true")
    frozen = dict(network.named_parameters()).keys() - trainable(network).keys()
    assert {key.rsplit(".", 1)[1] for key in frozen} == {"weight", "bias"}
    assert len(frozen) == 2


def test_convnet_has_no_statistic_across_the_batch_and_is_twice_differentiable() -> None:
    network = ConvNet(1, (16, 16), 3, width=8)
    x = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network(x)[:1], network(x[:1]))
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(network(x).logsumexp(1).sum(), network.classify.weight, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), x)
    assert second.isfinite().all()
    assert second.abs().sum() > 0


@pytest.mark.parametrize("side", [8, 9])
def test_a_resnet_shortcut_is_a_strided_1x1_convolution(side: int) -> None:
    block = BasicBlock(4, 6, stride=2)
    x = torch.rand(2, 4, side, side, generator=torch.Generator().manual_seed(0))
    weight = next(p for p in block.shortcut.parameters() if p.ndim == 4)
    expected = block.shortcut[-1](F.conv2d(x, weight, stride=2))
    torch.testing.assert_close(block.shortcut(x), expected)


def test_resnet_keeps_the_resolution_in_its_stem() -> None:
    assert ResNet(3, (32, 32), 10, depth=8, width=8).stem(torch.rand(1, 3, 32, 32)).shape == (1, 8, 32, 32)
