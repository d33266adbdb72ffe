"""Labelled images: what they are in memory, and where they come from."""

from uge.data.arrays import EMBEDDED
from uge.data.entries import DataWarning, Limits
from uge.data.images import ImageSet
from uge.data.sources import load

__all__ = ["EMBEDDED", "DataWarning", "ImageSet", "Limits", "load"]
