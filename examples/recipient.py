# %% [markdown]
# # A recipient's training loop
#
# Your own network learns from a copy as if it were the originals. The key opens each image on its way to the network.
#
# Somebody has published `copy` and given you its key. To play both parts:
#
# ```
# uge protect eurosat --no-passphrase --out copy
# ```
#
# Nothing of this package's own networks or training is used.

# %%
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

import uge

COPY, KEY = "copy", "copy.recipient.uge"
TEST = "eurosat"  # clean images to test on; nobody trains on its test split
EPOCHS = 10

# %% [markdown]
# ## What you see
#
# A torch Dataset: float images in 0..1 and integer labels. Augmentation acts on what the key has opened.


# %%
def flip_half(image: torch.Tensor) -> torch.Tensor:
    return image.flip(2) if torch.rand(()) < 0.5 else image


key = uge.load_key(KEY)
view = uge.authorised_view(COPY, key, flip_half)
train = DataLoader(view, batch_size=64, shuffle=True)
print(f"{len(view)} images of {view.images.classes} classes")

# %% [markdown]
# Test images were never published, so they carry no letter.
# The key shows them without their lowest bit, as in training.

# %%
test = DataLoader(uge.authorised_view(uge.load(TEST, "test"), key), batch_size=500)

# %% [markdown]
# ## Any network will do


# %%
def small_network(channels: int, classes: int, width: int = 32) -> nn.Module:
    layers: list[nn.Module] = []
    for before, after in ((channels, width), (width, 2 * width), (2 * width, 4 * width)):
        convolution = nn.Conv2d(before, after, 3, padding=1, bias=False)
        layers += [convolution, nn.GroupNorm(8, after), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, classes))


@torch.no_grad()
def accuracy(network: nn.Module, loader: DataLoader) -> float:
    network.eval()
    return 100 * sum(int((network(x).argmax(1) == y).sum()) for x, y in loader) / len(loader.dataset)


# %% [markdown]
# ## Your loop

# %%
torch.manual_seed(0)
network = small_network(view.images.channels, view.images.classes)
optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3)
for epoch in range(EPOCHS):
    network.train()
    for x, y in train:
        loss = F.cross_entropy(network(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    print(f"epoch {epoch + 1}/{EPOCHS}: clean test accuracy {accuracy(network, test):.1f} %", flush=True)
