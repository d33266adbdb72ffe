"""Plans of audits that tests share."""


def one_training_each(*networks: str) -> str:
    """TOML: every network once, one epoch, and nothing that follows from it."""
    listed = ", ".join(f'"{network}"' for network in networks)
    return f"""
epochs = 1
ceilings = false
budget_check = false
strongest = 0
more_seeds = []
[[hackers]]
networks = [{listed}]
"""
