"""Keys: what the authorised user gets and nobody else."""

from uge.keys.key import Key, load_key, new_key, save_key

__all__ = ["Key", "load_key", "new_key", "save_key"]
