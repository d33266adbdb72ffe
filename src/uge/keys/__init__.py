"""Keys: what the recipient gets and nobody else."""

from uge.keys.files import is_sealed, load_key, pair_of, save_key
from uge.keys.key import RECIPIENT_NETWORK, Key
from uge.keys.sealed import SealedKey
from uge.keys.weights import WeightsKey, new_weights_key

__all__ = [
    "RECIPIENT_NETWORK",
    "Key",
    "SealedKey",
    "WeightsKey",
    "is_sealed",
    "load_key",
    "new_weights_key",
    "pair_of",
    "save_key",
]
