# %% [markdown]
# # Breaking a copy
#
# A hacker has the copy and its labels, and no key. He trains on it as it is, then behind a filter.
# What the originals would have taught him stands beside it.
#
# Make a copy first, and forget its keys:
#
# ```
# uge protect eurosat --no-passphrase --out copy
# ```

# %%
import torch

import uge
from uge.attack import build_countermeasure
from uge.data.images import ImageSet, normalisation_of
from uge.networks import NetworkSpec, build_network
from uge.training import Recipe, fit

COPY = "copy"
ORIGINALS = "eurosat"
IMAGES, EPOCHS = 1000, 15  # few, so that it takes minutes

# %% [markdown]
# ## What he has
#
# Pictures and labels. The same images of the originals are here for comparison alone.

# %%
copies = uge.Copy.read(COPY).images
clean, test = uge.load(ORIGINALS, "train"), uge.load(ORIGINALS, "test")
chosen = torch.randperm(len(copies), generator=torch.Generator().manual_seed(0))[:IMAGES]
copies, clean = copies.subset(chosen), clean.like(copies).subset(chosen)
print(f"{len(copies)} copies of {copies.classes} classes; the largest change of a value is"
      f" {int((copies.images.int() - clean.images.int()).abs().max())} of 255")  # fmt: skip

# %% [markdown]
# ## One network, one recipe
#
# The loop is the one that the recipient uses, too. A counter-measure steps into it.


# %%
def learnt_from(images: ImageSet, countermeasure: str = "none") -> float:
    """The accuracy on clean test images, in percent."""
    shape = images.channels, images.image_size, images.classes
    spec = NetworkSpec("vgg", *shape, {"depth": 8, "width": 8})
    network = build_network(spec, *normalisation_of(images.images), seed=0)
    how = build_countermeasure(countermeasure)
    return fit(network, images, Recipe(EPOCHS), seed=0, test=test, countermeasure=how, only_at_end=True).accuracy


# %% [markdown]
# ## Three trainings

# %%
for what, images, countermeasure in (
    ("the copy", copies, "none"),
    ("the copy behind grayscale", copies, "grayscale"),
    ("the originals", clean, "none"),
):
    print(f"{what}: {learnt_from(images, countermeasure):.1f} %", flush=True)

# %% [markdown]
# One network and one filter prove nothing: `uge audit` lets many hackers loose, and searches for the strongest.
