"""Random initializers, types and layouts, each compared byte for byte with the whole tensor.

    python -m benchmarks.fuzz_layouts --seconds 180 --seed 1

A case makes a tensor at once, and then again in another way that must give the same bytes: as a
strided, transposed or reversed view, as a shard in place, as a block, as rows, or as runs of a
file. Guard bytes lie around and between the elements. A case follows from the seed and its number
alone, so that ``--seed S --first N --cases 1`` repeats a failure.
"""

import argparse
import math
import random
import time
from collections import Counter
from typing import NamedTuple

import numpy as np

import numinit as ni
from numinit.arrays.numpy import numpy_dtype
from numinit.stream.dtypes import DTYPES

GUARD = 0xA5
KINDS = ("view", "shard", "block", "rows", "runs")
ORTHOGONAL = (ni.Orthogonal, ni.DeltaOrthogonal)


class Case(NamedTuple):
    init: ni.Initializer
    dtype: str
    shape: tuple[int, ...]
    key: ni.Key


def available() -> list[str]:
    """The element types that NumPy has here."""
    names = []
    for name, dtype in DTYPES.items():
        try:
            numpy_dtype(dtype)
        except ImportError:
            continue
        names.append(name)
    return names


def draw_case(rng: random.Random, dtypes: list[str]) -> Case:
    rank = rng.choice((1, 2, 2, 2, 3, 4))
    most = {1: 3000, 2: 70, 3: 17, 4: 9}[rank]
    shape = tuple(rng.choice((1, 2, rng.randint(1, most))) for _ in range(rank))
    if rng.random() < 0.03:  # several chunks, segments and tiles
        shape = (rng.randint(300, 600), rng.randint(300, 700))
    low, std = rng.uniform(-2, 1), rng.choice((0.0, 1e-9, 0.02, 1.0, 3.0))
    init = rng.choice(
        [
            ni.Normal(rng.choice((0.0, 0.5)), std),
            ni.Uniform(low, low + rng.choice((0.0, 1e-7, 1.0, 3.0))),
            ni.Constant(rng.choice((0.0, -0.0, 0.1, -1.0, math.inf, math.nan))),
            ni.TruncNormal(0, 1, low, low + rng.choice((0.0, 0.2, 3.0))),
            ni.TruncNormal(0, 1, *rng.choice(((8, 9), (-40, -39), (-math.inf, -7)))),
            ni.EmbeddingUniform(),
            ni.Assign(np.random.default_rng(rng.getrandbits(32)).normal(size=shape)),
        ]
    )
    if len(shape) >= 2 and rng.random() < 0.5:
        init = rng.choice(
            [
                ni.XavierUniform(),
                ni.KaimingNormal(mode="fan_out"),
                ni.VarianceScaling(rng.choice((0.0, 2.0)), "fan_avg", "truncated_normal"),
                ni.DepthScaled(ni.VarianceScaling(distribution="uniform"), 12),
                ni.Padded(ni.Normal(), rng.randrange(shape[0])),
                ni.Orthogonal(rng.choice((-1.0, 0.0, 1.0, 2.0)), rng.choice((0, -1))),
            ]
        )
        if len(shape) == 2:
            init = rng.choice([init, ni.Sparse(rng.random()), ni.Eye(rng.choice((-1.0, 0.3)))])
        elif shape[0] >= shape[1] and rng.random() < 0.3:
            init = ni.DeltaOrthogonal(-1.0)
        elif rng.random() < 0.4:
            init = ni.Dirac()
    return Case(init, rng.choice(dtypes), shape, ni.Key(rng.getrandbits(64), rng.getrandbits(64)))


def guarded(
    rng: random.Random, shape: tuple[int, ...], kind: np.dtype
) -> tuple[np.ndarray, np.ndarray]:
    """A strided view of memory that is full of guard bytes, and that memory."""
    order = rng.sample(range(len(shape)), len(shape))
    if rng.random() < 0.4:
        order = list(range(len(shape)))
    steps = [rng.choice((1, 1, 1, -1, 2, -3)) for _ in shape]
    margins = [rng.choice((0, 0, 1, 3)) for _ in shape]
    sizes = [shape[axis] * abs(steps[axis]) + margins[axis] for axis in order]
    head = rng.randint(1, 70) * (1 if rng.random() < 0.2 else kind.itemsize)
    memory = np.full(head + math.prod(sizes) * kind.itemsize + 64, GUARD, np.uint8)
    inner = memory[head : len(memory) - 64].view(kind).reshape(sizes)
    view = inner.transpose(np.argsort(order))
    window = tuple(
        slice(margin, None) if step > 0 else slice(None, None if not margin else margin - 1, -1)
        for step, margin in zip(steps, margins, strict=True)
    )
    view = view[window][tuple(slice(None, None, abs(step)) for step in steps)]
    return view[tuple(slice(size) for size in shape)], memory


def check(name: str, got: np.ndarray, expected: np.ndarray) -> None:
    if got.shape != expected.shape or got.dtype != expected.dtype:
        raise AssertionError(
            f"{name}: {got.dtype} {got.shape}, not {expected.dtype} {expected.shape}"
        )
    if got.tobytes() != expected.tobytes():
        raise AssertionError(f"{name}: other values")


def check_guards(name: str, view: np.ndarray, memory: np.ndarray) -> None:
    view[...] = np.full(view.dtype.itemsize, GUARD, np.uint8).view(view.dtype)[0]
    if (memory != GUARD).any():
        raise AssertionError(f"{name}: wrote beside the elements")


def run_case(rng: random.Random, case: Case) -> str:
    """Make a case in one other way; returns the name of the way."""
    init, dtype, shape, key = case
    kind = numpy_dtype(DTYPES[dtype])
    way = rng.choice(KINDS)
    if isinstance(init, ORTHOGONAL):
        way = "view"
    try:
        whole = init(shape, dtype, seed=key)
    except (TypeError, ValueError):  # the type or the shape has no such values
        view, memory = guarded(rng, shape, kind)
        try:
            init.fill_(view, seed=key)
        except (TypeError, ValueError):
            if (memory != GUARD).any():
                raise AssertionError("refused: wrote all the same") from None
            return "refused"
        raise AssertionError("refused as a whole, not as a view") from None
    low = tuple(rng.randrange(size) for size in shape)
    high = tuple(rng.randint(b + 1, size) for b, size in zip(low, shape, strict=True))
    window = tuple(map(slice, low, high))
    if way == "view":
        view, memory = guarded(rng, shape, kind)
        init.fill_(view, seed=key)
        if isinstance(init, ORTHOGONAL):  # BLAS may add in another order for another layout
            np.testing.assert_allclose(
                *(np.asarray(x, np.complex128) for x in (view, whole)),
                rtol=2.0 ** (1 - DTYPES[dtype].precision),  # neighbours of the type
                atol=(2e-14 if DTYPES[dtype].wide else 2e-6) * abs(init.gain),
            )
        else:
            check(way, view, whole)
        check_guards(way, view, memory)
    elif way == "shard":
        view, memory = guarded(rng, whole[window].shape, kind)
        init.fill_(view, shape=shape, offset=low, seed=key)
        check(way, view, whole[window])
        check_guards(way, view, memory)
    elif way == "block":
        index = tuple(at.start if rng.random() < 0.2 else at for at in window)
        index = index[: rng.randint(0, len(index))]
        check(way, init.block(shape, index, dtype, seed=key), whole[index])
    elif way == "rows":
        ids = np.array([rng.randrange(-shape[0], shape[0]) for _ in range(rng.randint(0, 40))], int)
        check(way, init.rows(shape, ids, dtype, seed=key), whole[ids])
    else:
        first = rng.randrange(whole.size)
        last = rng.randint(first + 1, whole.size)
        memory = np.full((last - first + 2) * kind.itemsize + 64, GUARD, np.uint8)
        out = memory[kind.itemsize : (last - first + 1) * kind.itemsize]
        init.fill_flat(out, first, shape, dtype, key)
        check(way, out.view(kind), whole.reshape(-1)[first:last])
        check_guards(way, out, memory)
    return way


def fuzz(
    seed: int,
    *,
    seconds: float = math.inf,
    cases: int = 1 << 62,
    first: int = 0,
    dtypes: list[str] | None = None,
) -> Counter:
    """Run numbered cases; returns how many of each way.

    Raises
    ------
    AssertionError
        At the first that differs, with what repeats it.
    """
    dtypes, done = dtypes or available(), Counter()
    end = time.monotonic() + seconds
    for number in range(first, first + cases):
        if time.monotonic() > end:
            break
        rng = random.Random(f"{seed} {number}")
        case = draw_case(rng, dtypes)
        try:
            done[run_case(rng, case)] += 1
        except Exception as error:
            raise AssertionError(f"--seed {seed} --first {number}: {case}: {error}") from error
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--cases", type=int, default=1 << 62)
    args = parser.parse_args()
    done = fuzz(args.seed, seconds=args.seconds, cases=args.cases, first=args.first)
    ways = ", ".join(f"{count:,} {way}" for way, count in sorted(done.items()))
    print(f"seed {args.seed}: {done.total():,} cases without a difference: {ways}")


if __name__ == "__main__":
    main()
