"""The posterior of each route against long chains of NumPyro's own sampler."""

import warnings

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import handlers
from numpyro.infer import MCMC, NUTS, init_to_median
from numpyro.infer.reparam import LocScaleReparam

from laddercast.data.ladder import read_ladder
from laddercast.inference.fitting import fit, numpyro_model
from laddercast.model.routes import ROUTES
from laddercast.sampling.chains import on_device
from laddercast.sampling.density import structure
from laddercast.sampling.mode import started


@pytest.mark.long
@pytest.mark.parametrize("name", ROUTES)
def test_the_posterior_is_that_of_long_plain_nuts(small_table, name):
    ladder = read_ladder(small_table)
    with warnings.catch_warnings():
        # Rare divergences of a ladder with few rungs; what they would bias shows below.
        warnings.filterwarnings("ignore", "the fit has not converged")
        fits = [
            fit(ladder, route=name, draws=3000, seed=seed, progress=False)[name][
                "posterior"
            ].to_dataset()
            for seed in (1, 2)
        ]
    with on_device(jax.devices("cpu")[0]):
        route, args = numpyro_model(ladder, name)
        data = jax.tree.map(jnp.asarray, args)
        # The model's own sites, those whose scale is sampled as standard deviates; nothing else of
        # this package's sampler.
        hierarchy = [
            site
            for site, own in structure(route, started(route, data, {})[0]).items()
            if own.varies
        ]
        model = handlers.reparam(route, config={site: LocScaleReparam(0) for site in hierarchy})
        kernel = NUTS(model, target_accept_prob=0.95, init_strategy=init_to_median)
        chains = MCMC(
            kernel, num_warmup=1000, num_samples=5000, num_chains=2, chain_method="sequential",
            progress_bar=False,
        )  # fmt: skip
        chains.run(jax.random.key(0), *data)
        samples = chains.get_samples(group_by_chain=True)

    def against_plain(own):
        """By how many of their standard errors means lie off, and by what factor SDs differ."""
        off, ratio = [], []
        for site in sorted(set(samples) & set(own)):
            one, other = np.asarray(samples[site]), own[site].to_numpy()
            draws = [
                az.convert_to_dataset({"x": value.reshape(*value.shape[:2], -1)})
                for value in (one, other)
            ]
            errors = [az.mcse(x)["x"].to_numpy() for x in draws]
            means, sds = (
                [getattr(x["x"], moment)(("chain", "draw")).to_numpy() for x in draws]
                for moment in ("mean", "std")
            )
            off.append((means[1] - means[0]) / np.hypot(*errors))
            ratio.append(sds[1] / sds[0])
        return np.concatenate(off), np.concatenate(ratio)

    off, ratio = (np.array(x) for x in zip(*map(against_plain, fits), strict=True))
    # Of some hundred means, one or two lie further off by chance, but not in each fit.
    assert np.mean(np.abs(off) < 3) > 0.98
    assert not np.any(np.all(off > 3, axis=0) | np.all(off < -3, axis=0))
    assert np.abs(off).max() < 5
    assert np.mean(np.abs(ratio - 1) < 0.05) > 0.95
