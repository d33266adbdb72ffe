"""A report on real images with hand-written numbers, and a real browser to read it in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from uge.audit.metrics import summarise
from uge.audit.quality import psnr, ssim
from uge.data.images import ImageSet
from uge.report.page import Examples, ReportInput

Opener = Callable[..., Any]
DATA_HASH = {"clean": "c1ea" * 16, "published": "9b11" * 16}
HACKERS = (  # network, counter-measure, knows, accuracy, peak, clean accuracy
    ("vgg", "none", "nothing", 35.1, 36.4, 59.5),
    ("convnet", "other-init", "architecture", 53.9, 54.0, 57.2),
    ("resnet(depth=18)", "none", "nothing", 28.4, 30.0, 53.3),
    ("vgg", "distillation:soft,temperature=4,queries=published", "model outputs", 36.0, 37.5, 59.5),
)


def make_records(
    hackers: tuple[tuple[Any, ...], ...] = HACKERS, accuracy: float = 54.3, *, sealed: bool = False
) -> list[dict[str, Any]]:
    """A training on the copy and one on the originals of the recipient and of each of these hackers.

    A repeated hacker has another seed. The key is one of initial weights, or a sealed one.
    """
    names = ("network", "countermeasure", "knows", "accuracy", "peak_accuracy", "clean_accuracy")
    users = (("convnet", "none", "key", accuracy, accuracy, 57.0), *hackers)
    records = []
    for number, user in enumerate(users):
        facts = dict(zip(names, user, strict=True)) | {"kind": "hacker" if number else "authorised"}
        facts |= {"locked": sealed and not number, "seed": [other[:3] for other in users[:number]].count(user[:3])}
        for trained_on, final in (("published", facts["accuracy"]), ("clean", facts["clean_accuracy"])):
            records.append(
                facts
                | {"trained_on": trained_on, "accuracy": final, "recipe": {}, "environment": {}}
                | {"test_accuracy": [12.0, 30.0, final], "train_loss": [2.2, 1.9, 1.6], "seconds": 3.2}
                | {"config_hash": "0123456789ab", "data": DATA_HASH[trained_on]}
            )
    return records


def make_summary(
    hackers: tuple[tuple[Any, ...], ...] = HACKERS, accuracy: float = 54.3, *, sealed: bool = False
) -> dict[str, Any]:
    """What the records of `make_records` say together."""
    return summarise(make_records(hackers, accuracy, sealed=sealed), classes=10)


def worth_of(network: str, how: str, accuracy: float, **more: Any) -> dict[str, Any]:
    """A hacker's entry in the summary: 5,000 copies are worth 150 originals to him, 120 to 190."""
    reached = {0: 10.0, 50: 20.0, 100: 30.0, 200: 40.0, 1000: 50.0, 5000: 59.0}
    curve = [{"originals": size, "accuracy": value - 1, "fitted": value} for size, value in reached.items()]
    who = {"network": network, "countermeasure": how, "accuracy": accuracy, "pretrained": False, "copies": 5000}
    return who | {"curve": curve, "originals": 149.6, "interval": [120.4, 190.2]} | more


@pytest.fixture(scope="session")
def report_input(eurosat: ImageSet) -> ReportInput:
    picks = torch.stack([(eurosat.labels == label).nonzero()[0, 0] for label in range(4)])
    shown = eurosat.subset(picks)
    noise = torch.randint(-16, 17, shown.images.shape, generator=torch.Generator().manual_seed(0))
    copies = (shown.images.int() + noise).clamp(0, 255).byte()
    names = ("field & <b>meadow</b>", *eurosat.class_names[1:])  # names come from folders: they may hold anything
    probe = worth_of("efficientnet-lite0", "pretrained-probe", 70.0, pretrained=True)
    worths = [worth_of("convnet", "other-init", 53.9), probe | {"originals": None, "interval": [4600.0, None]}]
    return ReportInput(
        summary=make_summary() | {"worth": worths},
        records=make_records(),
        settings={"protect": {"epsilon_255": 16, "undistillation": None}, "data": "/home/somebody/private/pictures"},
        manifest={
            "method": "uge",
            "epsilon_asked": 16,
            "epsilon_measured": 16,
            "count": 6000,
            "image_size": eurosat.image_size,
            "classes": eurosat.classes,
        },
        examples=Examples(shown.images, replace(shown, images=copies, class_names=names)),
        quality={"psnr_db": psnr(shown.images, copies).mean().item(), "ssim": ssim(shown.images, copies).mean().item()},
        environment={"uge": "0.1.0", "torch": torch.__version__},
    )


@pytest.fixture
def open_page(browser: Any) -> Iterator[Opener]:
    """Open a file with every <details> unfolded; console messages and requests are kept on the page object."""
    pages = []

    def opener(file: Path, width: int = 1280, scheme: str = "light", **options: Any) -> Any:
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
        pages.append(page)
        page.heard, page.requested = [], []
        page.on("console", lambda message: page.heard.append(message.text))
        page.on("pageerror", lambda error: page.heard.append(str(error)))
        page.on("request", lambda request: page.requested.append(request.url))
        page.goto(file.as_uri())
        page.eval_on_selector_all("details", "all => all.forEach(one => one.open = true)")
        return page

    yield opener
    for page in pages:
        page.close()


def assert_quiet(page: Any, file: Path, width: int) -> None:
    """Nothing is said on the console, nothing is loaded, and nothing has to be scrolled sideways."""
    assert page.heard == []
    assert [url for url in page.requested if not url.startswith("data:")] == [file.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
