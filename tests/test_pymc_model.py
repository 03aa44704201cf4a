import sys
from importlib import import_module
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import infer

import laddercast as lc
from laddercast.sampling.chains import on_device

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
pymc_model = pytest.importorskip("pymc_model", reason="the rivals in speed are not installed")
deviates = import_module("deviates")


@pytest.mark.long
def test_the_pymc_model_has_the_density_of_the_numpyro_model():
    table = lc.demo_ladder()[0].table.copy()
    # Some cells were not measured.
    table.loc[table.index % 7 == 0, "loss"] = np.nan
    ladder = lc.Ladder(table, lc.demo_ladder()[0].tasks.iloc[:3])
    two_stage, args = lc.numpyro_model(ladder, "two_stage")
    with on_device(jax.devices("cpu")[0]):
        data = jax.tree.map(jnp.asarray, args)
        begun = infer.util.initialize_model(
            jax.random.key(0), deviates.as_deviates(two_stage, data), model_args=data,
            validate_grad=False,
        )  # fmt: skip
        ours = jax.jit(begun.potential_fn)
        model = pymc_model.two_stage(*data)
        theirs = model.compile_logp()
        sites = {model.rvs_to_values[site].name: site.name for site in model.free_RVs}
        assert set(sites.values()) == set(begun.param_info.z)
        # Walks and what runs share have scales that are sampled, as pooled sites do.
        assert {"walk_loss_decentered", "run_accuracy_shared_decentered"} <= set(sites.values())
        rng = np.random.default_rng(0)
        gaps = []
        for _ in range(3):
            # NumPyro begins anywhere within two of zero, where losses can be infinite.
            place = {
                name: np.asarray(value) / 2 + 0.1 * rng.normal(size=np.shape(value))
                for name, value in begun.param_info.z.items()
            }
            found = theirs({value: place[name] for value, name in sites.items()})
            gaps.append(float(found + ours(place)))
    # JAX's logs of gamma functions are a little off, in each place by as much.
    assert np.isfinite(gaps).all()
    np.testing.assert_allclose(gaps, gaps[0], atol=1e-9)
    assert abs(gaps[0]) < 1e-6


def test_a_run_of_several_points_is_refused():
    ladder = lc.Ladder(lc.demo_ladder()[0].table, lc.demo_ladder()[0].tasks, rungs="every")
    _, args = lc.numpyro_model(ladder, "two_stage")
    with pytest.raises(ValueError, match="several points"):
        pymc_model.two_stage(*args)
