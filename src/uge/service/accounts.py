"""Who asks: an account of which too many images are refused gets no more answers that day.

A detector lets some disguises pass, and whoever tries often enough finds them. So tries are few: an account has some a
day, and a day some new accounts. Answers earn no further tries, for what has passed once passes again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

DAILY_REFUSALS = 10  # of an account
DAILY_ACCOUNTS = 20  # new ones of a service


def today() -> str:
    """As "2026-11-29", in UTC."""
    return datetime.now(UTC).date().isoformat()


@dataclass
class Account:
    """What came of one account's images.

    Attributes:
        answered: how many.
        refused: how many.
        since: the day of the first.
        refused_on: the last day on which one was refused.
        refused_then: how many on that day.
    """

    answered: int = 0
    refused: int = 0
    since: str = field(default_factory=today)
    refused_on: str = ""
    refused_then: int = 0

    def closed(self, day: str) -> bool:
        """Whether it gets no more answers on this day."""
        return self.refused_on == day and self.refused_then >= DAILY_REFUSALS

    def admits(self, refused: bool, day: str) -> bool:
        """Count an image of this day that the guard refuses or not; whether it is answered."""
        if refused or self.closed(day):
            self.refused += 1
            self.refused_then = 1 + (self.refused_then if self.refused_on == day else 0)
            self.refused_on = day
            return False
        self.answered += 1
        return True
