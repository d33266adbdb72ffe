"""Who asks: an account of whose images too many are refused gets no more answers.

A detector lets some disguises pass, and whoever tries often enough finds them. But for each that passes he sends many
that do not, and whoever sends images of his own sends hardly any.
"""

from __future__ import annotations

from dataclasses import dataclass

LEAST_REFUSED, MOST_SHARE = 8, 0.1  # of the images that an account has sent


@dataclass
class Account:
    """What came of one account's images.

    Attributes:
        answered: how many.
        refused: how many.
    """

    answered: int = 0
    refused: int = 0

    @property
    def closed(self) -> bool:
        """Whether it gets no more answers: at least 8 images were refused, and more than one in ten."""
        return self.refused >= LEAST_REFUSED and self.refused > MOST_SHARE * (self.answered + self.refused)

    def admits(self, refused: bool) -> bool:
        """Count an image that the guard refuses or not; whether it is answered."""
        answered = not (refused or self.closed)
        self.answered += answered
        self.refused += not answered
        return answered
