"""Labelled images: what they are in memory, and where they come from."""

from uge.data.images import ImageSet
from uge.data.sources import EMBEDDED, DataWarning, load

__all__ = ["EMBEDDED", "DataWarning", "ImageSet", "load"]
