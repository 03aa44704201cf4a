"""The version of the installed package, in a module of its own so that it is read on first use."""

from importlib.metadata import version

__version__ = version("laddercast")
