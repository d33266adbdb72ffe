"""Keys: what the authorised user gets and nobody else."""

from uge.keys.key import Key, is_sealed, load_key, new_key, save_key
from uge.keys.null_space import NullSpace
from uge.keys.reversible import Reversible

__all__ = ["Key", "NullSpace", "Reversible", "is_sealed", "load_key", "new_key", "save_key"]
