"""The ladder's table: its words, its checks, the logs it is read from, and published ladders."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(__name__, submodules=["datasets", "loaders"])
