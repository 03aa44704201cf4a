"""A model as samplers without transforms of their own do best: its hierarchies as deviates."""

from collections.abc import Callable
from typing import Any

from numpyro import handlers
from numpyro.infer.reparam import LocScaleReparam

from laddercast.sampling.density import structure
from laddercast.sampling.mode import started


def with_scales_sampled(model: Callable[..., Any], args: tuple[Any, ...]) -> list[str]:
    """The normal sites whose priors depend on other sites."""
    found = structure(model, started(model, args, {})[0])
    return [name for name, site in found.items() if site.varies]


def as_deviates(model: Callable[..., Any], args: tuple[Any, ...]) -> Callable[..., Any]:
    """The model with these sites as standard deviates, which are called `..._decentered`."""
    names = with_scales_sampled(model, args)
    found: Callable[..., Any] = handlers.reparam(
        model, config={name: LocScaleReparam(0) for name in names}
    )
    return found
