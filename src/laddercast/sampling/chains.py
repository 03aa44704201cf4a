"""NUTS chains of NumPyro in standard coordinates: compiled once a shape, run in chunks."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import lru_cache, partial
from operator import itemgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer.hmc import hmc
from numpyro.infer.hmc_util import build_adaptation_schedule
from numpyro.infer.util import ParamInfo

from laddercast.sampling.preconditioner import Preconditioner
from laddercast.sampling.programs import QUICKLY, WELL
from laddercast.sampling.threads import stop_in_a_fork
from laddercast.sampling.work import Batched, Calls, Fit

CHUNK = 50
"""Draws per compiled call: progress is shown between calls."""

FIRST_STEP = 0.1

SETTLING = 100
"""Steps of warm-up in coordinates found from draws: only the length of steps is left to adapt."""

Potential = Callable[[jax.Array, Any], jax.Array]
"""Negative log density of a position, given data (a pytree of arrays)."""


class Settings(NamedTuple):
    """What a compiled kernel depends on beside shapes."""

    warmup: int
    max_tree_depth: tuple[int, int]  # in warm-up, after it


class Draws(NamedTuple):
    """Arrays of all chains, (chains, draws, ...); inside a compiled chunk, of one draw."""

    position: Any
    diverging: Any
    num_steps: Any
    accept_prob: Any
    energy: Any
    potential: Any
    step_size: Any


def in_standard(potential: Potential) -> Potential:
    """The potential as a function of standard coordinates; data are `(preconditioner, data)`."""

    def standard(u: jax.Array, data: tuple[Preconditioner, Any]) -> jax.Array:
        preconditioner, inner = data
        return potential(preconditioner.position(u), inner)

    return standard


ROWS = 32
"""Positions that a compiled call of `gradients` takes, at most: few enough to lie in a cache."""


@lru_cache(maxsize=8)
def _gradients(potential: Potential) -> Callable[..., tuple[jax.Array, jax.Array]]:
    both = jax.value_and_grad(potential)

    def first(positions: jax.Array, count: int, data: Any) -> tuple[jax.Array, jax.Array]:
        def one(row: Any, found: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            value, slope = both(positions[row], data)
            return found[0].at[row].set(value), found[1].at[row].set(slope)

        nothing = jnp.zeros(ROWS), jnp.zeros_like(positions)
        return jax.lax.fori_loop(0, count, one, nothing)

    return jax.jit(first, compiler_options=QUICKLY)


def gradients(
    potential: Potential, positions: np.ndarray, data: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Values (rows,) and gradients (rows, dim) at any number of positions (rows, dim)."""
    values, slopes = np.empty(len(positions)), np.empty_like(positions)
    for begin in range(0, len(positions), ROWS):
        some = slice(begin, min(begin + ROWS, len(positions)))
        count = some.stop - begin
        filled = np.zeros((ROWS, positions.shape[1]))
        filled[:count] = positions[some]
        value, slope = _gradients(potential)(filled, count, data)
        values[some], slopes[some] = np.asarray(value)[:count], np.asarray(slope)[:count]
    return values, slopes


@lru_cache(maxsize=8)
def _kernel(potential: Potential, settings: Settings) -> tuple[Any, Any, Callable]:
    standard = in_standard(potential)

    def nuts(
        key: jax.Array, u: jax.Array, value: jax.Array, slope: jax.Array, data: Any, target: Any
    ) -> tuple[Any, Callable[..., Any]]:
        """A first state there, and how states move on."""
        init, sample = hmc(potential_fn_gen=lambda *data: lambda u: standard(u, data), algo="NUTS")
        # NumPyro moves on as it was told here: with a target that is traced, one program has all.
        state = init(
            ParamInfo(u, value, slope),
            settings.warmup,
            step_size=FIRST_STEP,
            target_accept_prob=target,
            max_tree_depth=settings.max_tree_depth,
            model_args=data,
            rng_key=key,
        )
        return state, sample

    def begin(
        key: jax.Array, value: jax.Array, slope: jax.Array, data: Any, target: jax.Array, at: Any
    ) -> Any:
        state, _ = nuts(key, jnp.zeros_like(slope), value, data[0].pulled(slope), data, target)
        step, window = at
        return state._replace(
            i=state.i + step,
            adapt_state=state.adapt_state._replace(
                window_idx=state.adapt_state.window_idx + window
            ),
        )

    def advance(
        state: Any, data: tuple[Preconditioner, Any], target: jax.Array
    ) -> tuple[Any, Draws]:
        here = state.rng_key, state.z, state.potential_energy, state.z_grad
        _, sample = nuts(*here, data, target)

        def step(state: Any, _: None) -> tuple[Any, Draws]:
            state = sample(state, data, {})
            draw = Draws(
                data[0].position(state.z),
                state.diverging,
                state.num_steps,
                state.accept_prob,
                state.energy,
                state.potential_energy,
                state.adapt_state.step_size,
            )
            return state, draw

        return jax.lax.scan(step, state, None, length=CHUNK)

    per_chain = Preconditioner(0, None, None, None, None, None, None)
    batch = jax.vmap(advance, in_axes=(0, (per_chain, None), None))
    return (
        jax.jit(begin, compiler_options=QUICKLY),
        jax.jit(advance, compiler_options=WELL),
        batch,
    )


def compiled_ahead(
    potential: Potential, settings: Settings, preconditioner: Preconditioner, data: Any, device: Any
) -> Future[None]:
    """Begin to compile what chains with arrays of these shapes call, in a thread.

    What finds their start keeps one core busy until then. Nothing is begun where chains do not run
    in threads.
    """
    if not in_threads(device):
        nothing = Future[None]()
        nothing.set_result(None)
        return nothing
    begin, advance, _ = _kernel(potential, settings)
    key, target, given = _numbers(jax.random.key(0)), np.float64(0), (preconditioner, data)
    at = _begin_at(settings.warmup, True)
    state = jax.eval_shape(begin, key, target, preconditioner.center, given, target, at)
    # Traced here, as only the caller's thread may do; the compiler lets others run.
    lowered = advance.lower(state, given, target)

    def compiled() -> None:
        with on_device(device):
            lowered.compile()

    pool = ThreadPoolExecutor(1)
    future = pool.submit(compiled)
    pool.shutdown(wait=False)
    return future


def _chunks(steps: int) -> int:
    return -(-steps // CHUNK)


def settling(warmup: int) -> int:
    """Steps of a warm-up of as many that chains take in coordinates found from draws: its last."""
    return min(warmup, SETTLING)


def steps_taken(steps: int) -> int:
    """Steps that a chain takes for at least `steps`: chunks are not cut."""
    return CHUNK * _chunks(steps)


def _begin_at(warmup: int, whole: bool) -> tuple[int, int]:
    """The step of a warm-up to begin at, and the window of its schedule."""
    if whole:
        return 0, 0
    # In the last window, scales of coordinates stay.
    return warmup - settling(warmup), len(build_adaptation_schedule(warmup)) - 1


def _numbers(keys: jax.Array) -> np.ndarray:
    """Random keys as arrays that can go from one device to another."""
    return np.asarray(jax.random.key_data(keys))


def run_chains(
    potential: Potential,
    settings: Settings,
    target_accept: float,
    centers: np.ndarray,
    preconditioner: Preconditioner,
    data: Any,
    key: jax.Array,
    draws: int,
    bar: Any,
    device: Any,
    going: list[Any] | None = None,
    whole: bool = True,
) -> Fit[tuple[Draws, list[Any]]]:
    """All chains, each from its row of `centers`: warm-up, then at least `draws`.

    The warm-up is `whole`, and returned as well, or `settling` steps, which are not. With the
    states of chains that are `going`, only `draws` more. The second result are the states at the
    end. On a CPU chains run side by side in threads. On another device they run as one batch, which
    other fits under way can join, and all else stays on the CPU.
    """
    chains = len(centers)
    warmup = settings.warmup if whole else settling(settings.warmup)
    chunks = _chunks(draws if going else warmup + draws)
    left_out = 0 if whole or going else warmup
    begin, advance, advance_all = _kernel(potential, settings)

    target = np.float64(target_accept)
    places = [preconditioner._replace(center=jnp.asarray(center)) for center in centers]
    keys, at = _numbers(jax.random.split(key, chains)), _begin_at(settings.warmup, whole)
    states = going or [
        begin(key, *found, (place, data), target, at)
        for key, place, *found in zip(
            keys, places, *gradients(potential, centers, data), strict=True
        )
    ]
    shape = chains, CHUNK * chunks - left_out
    found = Draws(
        np.empty((*shape, centers.shape[1])), np.empty(shape, bool), np.empty(shape, int),
        *(np.empty(shape) for _ in range(4)),
    )  # fmt: skip

    def keep(some: slice, chunk: int, part: Draws) -> None:
        end = CHUNK * (chunk + 1) - left_out
        new = min(end, CHUNK)
        if new > 0:
            for whole, of_chunk in zip(found, part, strict=True):
                whole[some, end - new : end] = of_chunk[:, CHUNK - new :]

    if not in_threads(device):
        batch = jax.tree.map(lambda *x: np.stack(x), *states)
        placed = jax.tree.map(np.asarray, (preconditioner._replace(center=centers), data))
        for chunk in range(chunks):
            batch, part = yield Batched(advance_all, (batch, placed, target), device)
            keep(slice(None), chunk, part)
            bar.update(CHUNK * chains)
        return found, [jax.tree.map(itemgetter(number), batch) for number in range(chains)]

    stopped = threading.Event()

    def one_chain(number: int, state: Any, some: range) -> Any:
        with on_device(device):
            for chunk in some:
                if stopped.is_set():
                    break
                state, part = advance(state, (places[number], data), target)
                keep(slice(number, number + 1), chunk, Draws(*(np.asarray(x)[None] for x in part)))
                bar.update(CHUNK)
        return state

    # The first chunk compiles, and traces the model, which only the caller's thread may do.
    states = [one_chain(0, states[0], range(1)), *states[1:]]
    left = [range(1, chunks)] + [range(chunks)] * (chains - 1)
    calls = [partial(one_chain, *of) for of in zip(range(chains), states, left, strict=True)]
    states = yield Calls(calls, stopped.set)
    return found, states


def in_threads(device: Any) -> bool:
    """Whether chains run as threads here: a GPU is kept busy by one batch of chains instead."""
    return bool(device.platform == "cpu")


def on_device(device: Any) -> ExitStack:
    """Float64 on this device for our own computations, in this thread only."""
    stop_in_a_fork()
    stack = ExitStack()
    stack.enter_context(jax.enable_x64(True))
    stack.enter_context(jax.default_device(device))
    return stack
