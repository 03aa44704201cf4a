"""The laws, their priors, and the routes from params and tokens to accuracy."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(__name__, submodules=["routes"])
