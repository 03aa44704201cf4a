import arviz as az
import numpy as np
import pytest

from laddercast.sampling.diagnostics import (
    AT_ONCE,
    BULK_ESS,
    CHAINS,
    DIVERGENCES,
    E_BFMI,
    R_HAT,
    TAIL_ESS,
    TREE_DEPTH,
    Complaint,
    complaints,
    pooled_quality,
    quality,
    times_enough,
    trusted,
)


@pytest.fixture(scope="module")
def draws():
    """Autoregressive draws (4 chains, 801, columns), of which some mix slowly."""
    rng = np.random.default_rng(0)
    steps = rng.normal(size=(4, 801, AT_ONCE + 16))
    memory = np.linspace(-0.3, 0.97, steps.shape[2])
    found = np.empty_like(steps)
    found[:, 0] = steps[:, 0]
    for t in range(1, steps.shape[1]):
        found[:, t] = memory * found[:, t - 1] + np.sqrt(1 - memory**2) * steps[:, t]
    found[..., ::10] = np.round(4 * found[..., ::10]) / 4  # many of these are equal
    return found


def test_quality_is_that_of_arviz(draws):
    found = quality(draws)
    data = az.convert_to_dataset({"x": draws})
    assert found.rhat == pytest.approx(az.rhat(data)["x"].to_numpy(), rel=1e-9)
    bulk = az.ess(data, method="bulk")["x"].to_numpy()
    tail = az.ess(data, method="tail", prob=(0.05, 0.95))["x"].to_numpy()
    # The last terms of an autocorrelation are cut off a little differently.
    assert found.bulk == pytest.approx(bulk, rel=0.07)
    assert found.tail == pytest.approx(tail, rel=0.07)
    assert found.bulk.max() / found.bulk.min() > 20


def test_chains_apart_show_in_rhat(draws):
    apart = draws[..., :2].copy()
    apart[0, :, 1] += 3
    found = quality(apart)
    assert found.rhat[0] < 1.02
    assert found.rhat[1] > 1.2


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf])
def test_draws_that_say_nothing_are_not_trusted(draws, value):
    ours = draws[..., :2].copy()
    ours[..., 1] = value
    found = quality(ours)
    assert np.isnan([x[1] for x in found]).all()
    assert trusted(found).tolist() == [True, False]


def test_draws_at_a_bound_leave_the_other_tail(draws):
    bounded = np.minimum(draws, np.quantile(draws, 0.9, axis=(0, 1)))
    assert np.isfinite(quality(bounded).tail).all()
    assert (quality(bounded).tail >= quality(draws).tail).all()


def test_one_chain_or_few_draws_have_no_quality(draws):
    assert np.isnan(quality(draws[:1]).rhat).all()
    assert np.isnan(quality(draws[:, :3]).bulk).all()


def test_effective_sizes_of_a_mixture_add_up(draws):
    one = draws[..., :5]
    single, double = quality(one), pooled_quality([one, one], [0.5, 0.5])
    assert double.bulk == pytest.approx(2 * single.bulk)
    assert double.tail == pytest.approx(2 * single.tail)
    assert double.rhat == pytest.approx(single.rhat)
    # A part that weighs little can be sampled badly.
    bad = one.copy()
    bad[:] = np.repeat(one[:, :9], 89, axis=1)
    mostly_good = pooled_quality([one, bad], [0.99, 0.01])
    assert (mostly_good.bulk > 0.5 * single.bulk).all()
    assert (mostly_good.rhat >= single.rhat).all()


def stats_of(draws):
    """Of draws (chains, draws, ...): statistics that say nothing against them."""
    own, rng = draws.shape[:2], np.random.default_rng(1)
    return {
        "diverging": np.zeros(own, bool),
        "tree_depth": np.full(own, 5),
        "energy": rng.normal(size=own),
    }


def test_draws_that_have_converged_give_no_complaints(draws):
    good = draws[..., 1:9]
    values = {"of_all": good[..., 0], "of_each": good}
    assert complaints(values, stats_of(good), 10) == []


def test_each_fault_is_told_with_its_site_or_of_all_draws(draws):
    good, slow = draws[..., 1:9], draws[..., -3:]
    stats = stats_of(good)
    stats["diverging"][1, :3] = True
    stats["tree_depth"][:, :40] = 10
    stats["energy"] = np.cumsum(stats["energy"], axis=1)
    values = {"fine": good, "slow": slow, "apart": good + np.arange(4.0)[:, None, None]}
    found = {(own.site, own.measure): own for own in complaints(values, stats, 10)}
    assert set(found) >= {
        ("", DIVERGENCES), ("", TREE_DEPTH), ("", E_BFMI), ("slow", BULK_ESS),
        ("apart", R_HAT), ("apart", BULK_ESS), ("apart", TAIL_ESS),
    }  # fmt: skip
    assert not [site for site, _ in found if site == "fine"]
    assert found["", DIVERGENCES].value == 3
    assert found["", TREE_DEPTH].value == 160
    assert found["slow", BULK_ESS].value == pytest.approx(quality(slow).bulk.min())
    alone = complaints({"fine": good[:1]}, stats_of(good[:1]), 10)
    assert ("", CHAINS) in {(own.site, own.measure) for own in alone}
    assert any(own.measure == R_HAT and np.isnan(own.value) for own in alone)


def test_what_all_share_has_the_closer_limit_of_rhat(draws):
    own = draws[..., 1] + 0.2 * np.arange(4.0)[:, None]
    one, each = {"site": own}, {"site": own[..., None]}
    assert 1.01 < quality(own).rhat[0] < 1.03
    assert R_HAT in {x.measure for x in complaints(one, stats_of(own), 10)}
    assert R_HAT not in {x.measure for x in complaints(each, stats_of(own), 10)}


def test_the_draws_that_would_do_are_told_by_what_falls_furthest_short():
    few = Complaint("slow", BULK_ESS, 200.0, 400.0)
    apart = Complaint("apart", R_HAT, 1.03, 1.01)
    assert times_enough([]) == 1
    assert times_enough([few]) == 2
    assert times_enough([few, apart]) == pytest.approx(3)
    for hopeless in (
        Complaint("", DIVERGENCES, 1.0, 0.0), Complaint("", TREE_DEPTH, 90.0, 40.0),
        Complaint("still", R_HAT, np.nan, 1.01),
    ):  # fmt: skip
        assert times_enough([few, hopeless]) == np.inf
