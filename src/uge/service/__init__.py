"""What the recipient offers to others: his trained network, and a guard that refuses published images."""

from uge.service.accounts import Account
from uge.service.guarded import Guard, Service, guard

__all__ = ["Account", "Guard", "Service", "guard"]
