"""Readers of what trackers and evaluation tools write, one module a format, into one `Ladder`."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "lm_eval": ["read_lm_eval"],
        "olmes": ["read_olmes"],
        "presets": ["Keys", "Preset", "Size"],
        "wandb": ["read_wandb"],
    },
)
