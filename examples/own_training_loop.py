"""Your own training loop: the authorised network learns from a published folder with a plain torch DataLoader.

    uge key new --no-passphrase --network convnet --data fashion-mini --out mine
    uge protect fashion-mini --key mine.protector.uge --out published
    python examples/own_training_loop.py published mine.recipient.uge --test fashion-mini

Nothing of ungeneralizable's own training is used: the folder and the key give a Dataset and a torch module.
"""

import argparse

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

import uge


def flip_half(image: torch.Tensor) -> torch.Tensor:
    """Augmentation acts on what the authorised network sees: float32 [C, H, W]."""
    return image.flip(2) if torch.rand(()) < 0.5 else image


@torch.no_grad()
def accuracy(network: torch.nn.Module, loader: DataLoader) -> float:
    network.eval()
    return 100 * sum(int((network(x).argmax(1) == y).sum()) for x, y in loader) / len(loader.dataset)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("published", help="folder that `uge protect` wrote")
    parser.add_argument("key", help="NAME.recipient.uge")
    parser.add_argument("--test", default="fashion-mini", help="clean images to test on, never trained on")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="2 epochs: does it run?")
    options = parser.parse_args()
    epochs = 2 if options.quick else options.epochs

    key = uge.load_key(options.key)
    view = uge.authorised_view(options.published, key, flip_half)
    train = DataLoader(view, batch_size=128, shuffle=True)
    held_out = uge.load(options.test, "test")  # through the key as well, so that both look alike
    test = DataLoader(uge.authorised_view(held_out, key, headroom_255=view.headroom_255), batch_size=500)
    network = key.network_module()  # the secret initial weights; they are what makes it the authorised network
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.05, epochs=epochs, steps_per_epoch=len(train))
    for epoch in range(epochs):
        network.train()
        for x, y in train:
            loss = F.cross_entropy(network(x), y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        print(f"epoch {epoch + 1}/{epochs}: clean test accuracy {accuracy(network, test):.1f} %", flush=True)


if __name__ == "__main__":
    main()
