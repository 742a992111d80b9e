"""The chance in a test: drawn from a seed that a failure shows, so that the run can be repeated."""

import logging
import os
import random

SEED_VARIABLE = "TRADING_SEED"
SEEDS = 10**6


def seeded() -> random.Random:
    """Dice of the seed in TRADING_SEED, else of a new one; the seed is logged, so that pytest shows it on failure."""
    seed = int(os.environ.get(SEED_VARIABLE) or random.SystemRandom().randrange(SEEDS))
    logging.getLogger(__name__).warning("%s=%s", SEED_VARIABLE, seed)
    return random.Random(seed)
