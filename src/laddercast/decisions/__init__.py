"""Decisions from forecasts: which recipe, which rung next, how large and how long."""
