"""What all tests share. Nothing here reaches the network."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before any import of the datasets or transformers libraries

import pytest
import torch

from uge.data.images import ImageSet
from uge.runners import threads

if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores
    torch.set_num_threads(1)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Batches are tiny here, and threads would cost more than they save."""
    with threads(1):
        yield


@pytest.fixture(scope="session")
def eurosat() -> ImageSet:
    """The embedded training images: 3,000, colour, 32x32, ten classes one after the other."""
    from uge.data.sources import load

    return load("eurosat", "train")


@pytest.fixture(scope="session")
def two_classes(eurosat: ImageSet) -> tuple[ImageSet, ImageSet]:
    """Two classes of real images that any network tells apart: 400 to train on, 200 to test on."""
    forest, industrial = (eurosat.class_names.index(name) for name in ("Forest", "Industrial"))
    members = ((eurosat.labels == forest) | (eurosat.labels == industrial)).nonzero().flatten()
    pick = members[torch.randperm(len(members), generator=torch.Generator().manual_seed(0))]
    two = eurosat.subset(pick)
    two = ImageSet(two.images, (two.labels == industrial).long(), ("Forest", "Industrial"), two.names)
    return two.subset(torch.arange(400)), two.subset(torch.arange(400, 600))


@pytest.fixture(scope="session")
def torchvision_operators() -> Iterator[torch.library.Library]:
    """Define the operators that torchvision lacks beside a CPU-only torch, so that timm and CLIP import."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    yield library  # freeing it would take the operators away


@pytest.fixture
def timm_where_named(request: pytest.FixtureRequest) -> None:
    """For tests with a parameter such as "timm:resnet10t"."""
    parameters = getattr(request.node, "callspec", None)
    if parameters and any(str(value).startswith("timm:") for value in parameters.params.values()):
        request.getfixturevalue("torchvision_operators")
        pytest.importorskip("timm", reason="timm is not installed")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine: install the system's chromium package to test the page")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()
