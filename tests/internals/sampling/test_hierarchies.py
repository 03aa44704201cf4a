"""Hierarchies that have nothing to do with ladders, against long plain NUTS of NumPyro."""

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, NUTS
from numpyro.infer.reparam import LocScaleReparam

from laddercast.inference.fitting import settings_of_fits
from laddercast.sampling import nuts
from laddercast.sampling.nuts import sample
from laddercast.sampling.progress import progress_bar
from laddercast.sampling.work import run

QUANTILES = 0.05, 0.5, 0.95
FURTHEST = 4.0
"""Standard errors, of both samplers together, by which they may differ."""

GROUPS = 50


def schools(sds, y):
    """Effects of coaching in eight schools (Rubin 1981)."""
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5), infer={"held": True})
    with numpyro.plate("group", len(y)):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, sds), obs=y)


SCHOOLS = (
    np.array([15.0, 10, 16, 11, 9, 11, 10, 18]),
    np.array([28.0, 8, -3, 7, -1, 1, 18, 12]),
)


def slopes(group, x, y):
    """A line for each group, with levels and slopes about those of all groups."""
    about = {}
    for name in ("level", "slope"):
        mu = numpyro.sample(f"mu_{name}", dist.Normal(0.0, 2.0))
        tau = numpyro.sample(f"tau_{name}", dist.LogNormal(-1.0, 1.0), infer={"held": True})
        with numpyro.plate("group", GROUPS):
            about[name] = numpyro.sample(name, dist.Normal(mu, tau))
    noise = numpyro.sample("noise", dist.LogNormal(0.0, 1.0), infer={"held": True})
    with numpyro.plate("rows", len(y)):
        line = about["level"][group] + about["slope"][group] * x
        numpyro.sample("y", dist.Normal(line, noise), obs=y)


def some_lines():
    """Of some groups much is known, of others next to nothing."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(GROUPS), rng.choice([1, 3, 10, 40], GROUPS))
    level, slope = rng.normal(1.0, 0.8, GROUPS), rng.normal(-0.5, 0.2, GROUPS)
    x = rng.normal(size=len(group))
    return group, x, level[group] + slope[group] * x + rng.normal(0, 0.7, len(group))


def floors(sd, y):
    """Heights above floors, of which only the sums are measured, some with next to no height."""
    with numpyro.plate("group", len(y)):
        floor = numpyro.sample("floor", dist.Normal(0.0, 0.3))
        off, width = y - floor, 2 * sd
        given = {"offset": jnp.arcsinh(off / width), "unit": 1 / jnp.hypot(off, width)}
        log_height = numpyro.sample("log_height", dist.Normal(-1.0, 1.0), infer=given)
        numpyro.sample("y", dist.Normal(floor + jnp.exp(log_height), sd), obs=y)


FLOORS = np.array([0.1, 0.2, 0.3, 0.05]), np.array([0.2, 0.0, 0.3, 1.0])


def plain(model, args, sites, draws):
    """Draws of NumPyro's own NUTS, with these sites as standard deviates."""
    deviates = numpyro.handlers.reparam(model, config={x: LocScaleReparam(0) for x in sites})
    mcmc = MCMC(
        NUTS(deviates, target_accept_prob=0.9), num_warmup=1000, num_samples=draws, num_chains=4,
        chain_method="vectorized", progress_bar=False,
    )  # fmt: skip
    mcmc.run(jax.random.key(3), *args)
    found = mcmc.get_samples(group_by_chain=True)
    return {name: np.asarray(x) for name, x in found.items() if not name.endswith("_decentered")}


def check(values, expected):
    """Means and quantiles of all sites differ by no more than both samplers' errors allow."""
    assert set(values) == set(expected)
    both = [az.convert_to_dataset(dict(draws)) for draws in (values, expected)]
    assert float(az.ess(both[1]).to_array().min()) > 1000

    def near(name, what, off, variances, method, **given):
        """`off` in the error of a difference of means of numbers with these variances."""
        sizes = [az.ess(x[[name]], method=method, **given)[name].to_numpy() for x in both]
        error = np.sqrt(sum(v / n for v, n in zip(variances, sizes, strict=True)))
        assert (np.abs(off) < FURTHEST * error).all(), (name, what, np.abs(off / error).max())

    for name in values:
        own, other = (draws[name] for draws in (values, expected))
        variances = [x.var(axis=(0, 1)) for x in (own, other)]
        near(name, "mean", own.mean(axis=(0, 1)) - other.mean(axis=(0, 1)), variances, "mean")
        for p in QUANTILES:
            # The share of draws below the other's quantile: its error needs no density.
            share = (own <= np.quantile(other, p, axis=(0, 1))).mean(axis=(0, 1))
            near(name, p, share - p, 2 * [p * (1 - p)], "quantile", prob=p)


@pytest.mark.long
@pytest.mark.parametrize("blocks", ["group", None])
def test_eight_schools_are_those_of_plain_nuts(blocks):
    with settings_of_fits():
        bar = progress_bar(0, False)
        found = run(sample(schools, SCHOOLS, blocks=blocks, seed=1, draws=2000, bar=bar))
        expected = plain(schools, SCHOOLS, ["theta"], 10000)
    assert found.complaints == []
    assert found.values["theta"].shape == (4, 2000, 8)
    assert found.dims == {"mu": (), "tau": (), "theta": ("group",)}
    check(found.values, expected)


@pytest.mark.long
def test_draws_follow_until_they_are_enough():
    with settings_of_fits():
        bar = progress_bar(0, False)
        found = run(sample(schools, SCHOOLS, blocks="group", seed=1, draws=150, bar=bar))
    assert found.complaints == []
    assert found.settings["draws"] in (300, 450, 600)
    assert found.values["mu"].shape == (4, found.settings["draws"])


@pytest.mark.slow
@pytest.mark.parametrize(("most", "times"), [(0, 2), (1000, 1)])
def test_draws_begin_anew_once_where_trajectories_are_long(monkeypatch, most, times):
    begun, on = [], nuts.run_chains

    def spied(*given, **settings):
        found = yield from on(*given, **settings)
        if settings.get("whole") is False:
            begun.append(found[0].position)
        return found

    monkeypatch.setattr(nuts, "run_chains", spied)
    monkeypatch.setattr(nuts, "MANY_STEPS", most)
    with settings_of_fits():
        bar = progress_bar(0, False)
        found = run(sample(schools, SCHOOLS, blocks="group", seed=1, draws=600, bar=bar))
    assert found.complaints == []
    assert found.values["mu"].shape == (4, found.settings["draws"])
    assert [x.shape[:2] for x in begun] == [(4, 300)] * times


@pytest.mark.long
def test_varying_slopes_are_those_of_plain_nuts():
    args = tuple(map(jnp.asarray, some_lines()))
    with settings_of_fits():
        bar = progress_bar(0, False)
        found = run(sample(slopes, some_lines(), blocks="group", seed=1, bar=bar))
        expected = plain(slopes, args, ["level", "slope"], 2500)
    assert found.complaints == []
    assert found.dims["slope"] == ("group",)
    check(found.values, expected)


@pytest.mark.long
def test_heights_in_units_that_floors_decide_are_those_of_plain_nuts():
    args = tuple(map(jnp.asarray, FLOORS))
    with settings_of_fits():
        bar = progress_bar(0, False)
        found = run(sample(floors, FLOORS, blocks="group", seed=1, draws=2000, bar=bar))
        expected = plain(floors, args, [], 10000)
    assert found.complaints == []
    check(found.values, expected)
