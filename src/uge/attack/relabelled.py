"""Other labels: a hacker trains under the names that the perturbation lends to the pictures."""

from __future__ import annotations

from torch import Tensor

from uge.attack.options import whole_number
from uge.data.images import ImageSet
from uge.training import PlainTraining


class Relabel(PlainTraining):
    """Train under the label some classes further.

        y <- (y + k) mod K

    Against perturbations that make pictures of a class look like those of another (TAP, misdirection): what looks
    like a class is then learnt under its own name. Ilyas et al., Adversarial Examples Are Not Bugs, They Are Features,
    NeurIPS 2019, learn so from adversarial examples, under the labels that these are taken for. On originals it
    learns nothing that is right.

    Args:
        shift: k; the field's perturbations aim at the next class, sealed copies at one that their key draws.
    """

    knows = "method"

    def __init__(self, shift: str | int = 1) -> None:
        self.shift = whole_number("relabel: shift", shift, 1)

    def prepare(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        return images.images, (images.labels + self.shift) % images.classes
