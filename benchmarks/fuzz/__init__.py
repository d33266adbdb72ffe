"""Changed files of every kind, and what comes of them."""
