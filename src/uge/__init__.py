"""Publish images that only an authorised network can learn from."""

__version__ = "0.1.0"
