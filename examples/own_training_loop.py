"""Your own training loop: your own network learns from a published folder with a plain torch DataLoader.

    uge protect eurosat --no-passphrase --out published
    python examples/own_training_loop.py published published.recipient.uge --test eurosat

Nothing of ungeneralizable's own networks or training is used: the folder and the key give a Dataset.
"""

import argparse

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

import uge


def flip_half(image: torch.Tensor) -> torch.Tensor:
    """Augmentation acts on what the recipient's network sees: float32 [C, H, W]."""
    return image.flip(2) if torch.rand(()) < 0.5 else image


def small_network(channels: int, classes: int, width: int = 32) -> nn.Module:
    """Any torch module will do."""
    layers: list[nn.Module] = []
    for before, after in ((channels, width), (width, 2 * width), (2 * width, 4 * width)):
        layers += [
            nn.Conv2d(before, after, 3, padding=1, bias=False),
            nn.GroupNorm(8, after),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, classes))


@torch.no_grad()
def accuracy(network: nn.Module, loader: DataLoader) -> float:
    network.eval()
    return 100 * sum(int((network(x).argmax(1) == y).sum()) for x, y in loader) / len(loader.dataset)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("published", help="folder that `uge protect` wrote")
    parser.add_argument("key", help="NAME.recipient.uge")
    parser.add_argument("--test", default="eurosat", help="clean images to test on, never trained on")
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    torch.manual_seed(0)

    key = uge.load_key(options.key)
    view = uge.authorised_view(options.published, key, flip_half)
    train = DataLoader(view, batch_size=64, shuffle=True)
    held_out = uge.load(options.test, "test")  # through the key as well, so that both look alike
    test = DataLoader(uge.authorised_view(held_out, key), batch_size=500)
    network = small_network(view.images.channels, view.images.classes)
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3)
    for epoch in range(options.epochs):
        network.train()
        for x, y in train:
            loss = F.cross_entropy(network(x), y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        print(f"epoch {epoch + 1}/{options.epochs}: clean test accuracy {accuracy(network, test):.1f} %", flush=True)


if __name__ == "__main__":
    main()
