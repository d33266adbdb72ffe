"""Labelled images: what they are in memory, and where they come from."""

from uge.data.arrays import EMBEDDED
from uge.data.entries import DataWarning, Limits
from uge.data.images import ImageSet
from uge.data.sources import Photographs, load, photographs

__all__ = ["EMBEDDED", "DataWarning", "ImageSet", "Limits", "Photographs", "load", "photographs"]
