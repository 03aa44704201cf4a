"""Fits of ladders, alone and many at once, and what a fit tells."""
