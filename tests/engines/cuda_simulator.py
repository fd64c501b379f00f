"""Kernels under Numba's CUDA simulator beside the CPU's: run by test_cuda.py in a process of its own.

The simulator runs the kernel's own text, thread by thread, as Python; what it calls inline is
compiled for the CPU, stores and all. Prints a line a case, and OK at the end.
"""

import itertools
import math
from threading import Thread

import numpy as np
from cuda_parts import Capsuled, Exported
from helpers import spec_of, view_of

import numinit as ni
from numinit.compiler.cuda import SIMULATED
from numinit.engines import cpu, cuda
from numinit.engines.layout import c_steps
from numinit.stream.dtypes import DTYPES, as_dtype

if SIMULATED:  # it watches its threads without a pause, for as long as they compile
    from numba.cuda.simulator.kernel import BlockThread

    def is_alive(thread):
        thread.join(0.001)
        return Thread.is_alive(thread)

    BlockThread.is_alive = is_alive

INF = math.inf
KEY = ni.Key(2**63 + 5, 2**64 - 3)
WRAP = 4 * 2**32  # where the first counter word wraps
REAL = {
    "constant": ni.Constant(1.5),
    "uniform": ni.Uniform(-1, 1),
    "normal": ni.Normal(),
    "truncated": ni.TruncNormal(),
    "truncated wide": ni.TruncNormal(0, 1, 1, 1.125),
    "truncated far": ni.TruncNormal(0, 1, 8, INF),
}
COMPLEX = {
    "constant": ni.Constant(1.5 - 2j),
    "uniform": ni.Uniform(-1, 1),
    "normal": ni.Normal(),
    "disk": ni.VarianceScaling(distribution="uniform"),
    "truncated disk": ni.VarianceScaling(distribution="truncated_normal"),
}


def laws_and_types():
    """All pairs but those of a law that takes long to compile and a type that float32 is rounded to."""
    for dtype, kind in DTYPES.items():
        for law, init in (COMPLEX if kind.complex else REAL).items():
            slow = law in ("truncated wide", "truncated far")
            if not slow or dtype == "float32" or (law, dtype) == ("truncated far", "float64"):
                yield law, dtype, init


def fill(engine, init, view, dtype, shape=None, first=0, steps=None, rows=None, key=KEY):
    shape = view.shape if shape is None else shape
    steps = c_steps(shape) if steps is None else steps
    memory = view_of(view, steps, rows is not None)
    run = engine.Fill(memory, as_dtype(dtype), spec_of(init, shape, dtype))
    ids = 0 if rows is None else rows.ctypes.data
    where = () if engine is cpu else (0, 0)
    run(view.ctypes.data, first, ids, key.seed, key.stream, *where)


def bits(dtype):
    size = as_dtype(dtype).itemsize
    return np.dtype(f"u{size}") if size < 16 else np.dtype("V16")


def check(name, init, view, dtype, **options):
    """`view` makes the array, within a larger one that must stay as it is elsewhere."""
    both = []
    for engine in (cpu, cuda):
        base, array = view(bits(dtype))
        base.view("u1").reshape(-1)[:] = 0x5A
        fill(engine, init, array, dtype, **options)
        both.append(base)
    assert both[0].tobytes() == both[1].tobytes(), name
    print(name, flush=True)


def plain(*shape, shift=0):
    """A contiguous array that begins `shift` elements after a multiple of 16 bytes."""

    def view(dtype):
        base = np.empty(math.prod(shape) + shift + 32 // dtype.itemsize + 2, dtype)
        skip = -(base.ctypes.data) % 16 // dtype.itemsize + shift
        return base, base[skip : skip + math.prod(shape)].reshape(shape)

    return view


def sliced(base_shape, index, order=None):
    def view(dtype):
        base = np.empty(base_shape, dtype)
        return base, (base if order is None else base.transpose(order))[index]

    return view


def main():
    assert SIMULATED, "set NUMBA_ENABLE_CUDASIM=1"
    # The other laws and types are run as PTX; here each costs seconds, compiled for the CPU.
    # Starts in a block, alignments, runs over the wrap of the counter's first word.
    for dtype, first, shift in itertools.product(
        ["float32", "float64", "float16", "float8_e5m2", "complex64"],
        [0, 1, 2, 3, 4, 6, WRAP - 9, WRAP - 8],
        [0, 1, 2],
    ):
        for size in (1, 3, 21, 40):
            check(
                f"run {dtype} {first} {shift} {size}",
                ni.Normal(),
                plain(size, shift=shift),
                dtype,
                first=first,
                steps=(1,),
            )
    table = (2**34, 13)
    for dtype in ["float32", "float8_e5m2"]:  # the smallest unit and the largest
        for name, view in {
            "transposed": sliced((7, 9), ..., (1, 0)),
            "transposed aligned": sliced((8, 16), ..., (1, 0)),
            "strided": sliced((10, 21), (slice(None, None, 2), slice(None, None, -3))),
            "three axes": sliced((3, 5, 6), ..., (1, 2, 0)),
            "four axes": sliced((2, 3, 5, 6), (slice(None), slice(1, 3)), (3, 1, 0, 2)),
            "column": sliced((9, 4), (slice(None), slice(1, 2))),
            "scalar": sliced((4,), (2, ...)),
            "inner slice": sliced((5, 16), (slice(None), slice(0, 8))),
        }.items():
            check(f"{name} {dtype}", ni.Normal(), view, dtype)
        for shape, start in [((5, 6), (2**32 - 3, 2)), ((4, 8), (0, 4)), ((3, 13), (7, 0))]:
            check(
                f"window {shape} {start} {dtype}",
                ni.Normal(),
                plain(*shape),
                dtype,
                shape=table,
                first=start[0] * 13 + start[1],
                steps=(13, 1),
            )
        for width in (13, 16, 1):
            rows = np.array([5, 0, 2**33, 5, 2**32 // width], np.int64)
            check(
                f"rows of {width} {dtype}",
                ni.Normal(),
                plain(5, width),
                dtype,
                shape=(2**34, width),
                steps=(0, 1),
                rows=rows,
            )
    check("range", ni.Padded(ni.Normal(), 2), plain(5, 7), "complex64")
    # Beyond the last row, where a permutation's walk might never come back.
    for seed in (0, 4, 13):
        check(f"sparse {seed}", ni.Sparse(0.4), plain(11, 7), "float32", key=ni.Key(seed))
    check("sparse transposed", ni.Sparse(0.4), sliced((7, 11), ..., (1, 0)), "float32")
    arrays()
    print("OK")


def arrays():
    """Through the front door."""
    for dtype in ["float32", "complex64"]:
        for kind in (Exported, Capsuled):
            a, b = np.zeros((2, 6, 5), dtype)
            for ours, theirs in ((a, b), (a.T, b.T), (a[::2, 1:], b[::2, 1:])):
                array = kind(theirs)
                assert ni.normal_(array, generator=3) is array
                ni.normal_(ours, generator=3)
                assert a.tobytes() == b.tobytes()
                ni.kaiming_normal_(kind(theirs), generator=4)
                ni.kaiming_normal_(ours, generator=4)
                assert a.tobytes() == b.tobytes()
            ni.Normal().fill_(kind(b), shape=(60, 5), offset=(7, 0), seed=1)
            assert (ni.Normal().block((60, 5), slice(7, 13), dtype, seed=1) == b).all()
    parts = ni.Parts([(1, ni.Normal()), (None, ni.Eye()), (1, ni.Normal())], -1)
    for init in (ni.Eye(), ni.Orthogonal(), ni.Normal(), parts):  # gaps are left as they are
        for view in (np.s_[:, ::2], np.s_[::-1, 1:4], np.s_[1:3, ::-2], np.s_[:]):
            for order in "CF":
                a, b = (np.full((6, 5), 7, np.float32, order=order) for _ in range(2))
                init.fill_(a[view], seed=1)
                init.fill_(Exported(b[view]), seed=1)
                assert a.tobytes() == b.tobytes()
    run, whole = np.zeros(13, np.float32), parts((4, 5), seed=1).reshape(-1)
    parts.fill_flat(Exported(run), 3, (4, 5), seed=1)
    assert (run == whole[3:16]).all()
    for init, shape in (ni.Eye(), (0, 3)), (ni.Eye(), (3, 7)), (ni.Dirac(2), (4, 3, 3, 5)):
        for dtype in ("float16", "complex64"):
            for order in "CF":
                a, b = (np.full(shape, 7, dtype, order) for _ in range(2))
                init.fill_(a)
                init.fill_(Exported(b))
                assert a.tobytes() == b.tobytes()
    read_only = np.zeros(3, np.float32)
    read_only.flags.writeable = False
    for bad in (Capsuled(read_only), Exported(np.zeros(3), data=(1 << 40, True))):
        try:
            ni.normal_(bad)
        except ValueError as error:
            assert "read-only" in str(error)
        else:
            raise AssertionError
    print("arrays")


if __name__ == "__main__":
    main()
