"""Forecasts that ours must beat: the published method, its bootstrap, and "same as a rung"."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "logistic": ["logistic"],
        "published": ["baseline"],
        "resampling": ["bootstrap"],
        "rungs": ["best_rung", "lowest_loss_rung"],
    },
)
