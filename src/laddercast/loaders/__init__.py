"""Readers of what trackers and evaluation tools write, one module a format, into one `Ladder`."""
