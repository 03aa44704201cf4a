"""Bounds of settings, that a slip of the keyboard shall not exceed."""

MOST_SEED = 2**62
"""Random keys are of 64 bits, and some seeds are counted on from."""

MOST_STEPS = 1_000_000
"""Chains, steps of warm-up, draws: more of one chain than any memory holds."""
