"""Protections compared: every one of a plan through the same audit, with what it costs."""
