"""numinit.jax beside NumPy and JAX: ``python -m benchmarks.jax_arrays``.

256 MiB of float32 normals are made, fresh each time and in turn: by numinit in NumPy's memory, by
`numinit.jax.initializers` outside of transformations and under ``jit``, as a sharded array on all
devices, and by ``jax.nn.initializers`` under ``jit``. The other columns are the seconds of all cores,
which depend less on other processes, and the peak of the process's memory beyond the array itself,
in arrays. The exit code is 1 if a promise does not hold.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .measure import Quiet, can_measure_memory, extra_memory, machine, spread

ELEMENTS = 1 << 26


class Promise(NamedTuple):
    """`what` is at least `ratio` times as fast as `against`, and needs at most `extra` arrays."""

    what: str
    against: str
    ratio: float
    extra: float | None = None


NUMPY, EAGER, JIT, SHARDED, PEER = (
    "numinit, NumPy", "numinit.jax", "numinit.jax, jit", "make_array", "JAX, jit",
)  # fmt: skip
#: Extra memory in arrays. 0.1 is for buffers of threads and pages that other code touches.
PROMISES = [
    Promise(EAGER, NUMPY, 0.7, 0.1),
    Promise(JIT, NUMPY, 0.5, 1.1),
    Promise(SHARDED, NUMPY, 0.7, 0.1),
    Promise(EAGER, PEER, 15),
]


def makers(elements: int) -> dict[str, Callable[[], Any]]:
    """Return functions that make and finish an array, by name."""
    import jax

    import numinit as ni
    import numinit.jax

    shape = (elements,)
    key, ours, theirs = (
        jax.random.key(0),
        numinit.jax.initializers.normal(1.0),
        jax.nn.initializers.normal(1.0),
    )
    compiled, peer = (jax.jit(lambda key, f=f: f(key, shape)) for f in (ours, theirs))
    mesh = jax.make_mesh((jax.device_count(),), ("d",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("d"))
    ready = jax.block_until_ready
    return {
        NUMPY: lambda: ni.Normal()(shape, seed=0),
        EAGER: lambda: ready(ours(key, shape)),
        JIT: lambda: ready(compiled(key)),
        SHARDED: lambda: ready(numinit.jax.make_array(ours, shape, sharding, seed=0)),
        PEER: lambda: ready(peer(key)),
    }


def measure(
    make: dict[str, Callable[[], Any]], repeat: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return the seconds of each, of the clock and of all cores; the first run does not count."""
    times: dict[str, list[float]] = {name: [] for name in make}
    cores: dict[str, list[float]] = {name: [] for name in make}
    names = list(make)
    for run in range(repeat + 1):
        first = run % len(names)  # because the memory that one frees serves the next
        for name in names[first:] + names[:first]:
            call = make[name]
            begin, used = time.perf_counter(), time.process_time()
            made = call()
            took, used = time.perf_counter() - begin, time.process_time() - used
            del made
            if run:
                times[name].append(took)
                cores[name].append(used)
    return times, cores


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--elements", type=int, default=ELEMENTS)
    parser.add_argument("--repeat", type=int, default=7)
    options = parser.parse_args(arguments)
    import jax

    quiet = Quiet()
    make = makers(options.elements)
    nbytes = options.elements * 4
    times, cores = measure(make, options.repeat)
    found = {name: spread(seconds) for name, seconds in times.items()}
    extra = {}
    if can_measure_memory():
        extra = {n: max(0.0, extra_memory(call) / nbytes - 1) for n, call in make.items()}
    print(
        f"{machine()}; JAX {jax.__version__} on {jax.device_count()} {jax.default_backend()} devices"
    )
    print(
        f"{nbytes / 2**20:.0f} MiB of float32 normals: GB/s [quartiles], core-seconds, extra arrays"
    )
    for name, times_ in found.items():
        median, low, high = (nbytes / 1e9 / t for t in times_)
        peak = f"{extra[name]:.2f}" if name in extra else "not measured"
        print(f"{name:16} {median:6.2f} [{high:.2f}, {low:.2f}]  {min(cores[name]):.3f}  {peak}")
    broken = 0
    for what, against, ratio, most in PROMISES:
        got = found[against].median / found[what].median
        held = got >= ratio and (most is None or extra.get(what, 0.0) <= most)
        broken += not held
        print(f"{what} / {against}: {got:.2f}, promised {ratio}{'' if held else '  BROKEN'}")
    print(quiet)
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
