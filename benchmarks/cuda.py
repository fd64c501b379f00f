"""The GPU beside its peers, and the CPU engine's scaling: ``python -m benchmarks.cuda``.

First it compares the GPU's bits with the CPU's: every distribution and dtype on 2**28 elements,
windows and rows. Then it measures the throughput beside cudaMemset of the same bytes, torch.cuda
and cuRAND, in turn in one run; times are medians by CUDA's events. Last, it measures the CPU engine
with 1 to 16 threads, beside `ndarray.fill` in as many.

The exit code is 1 if a bit differs. Without a GPU only ``--cpu`` works.
"""

import argparse
import importlib.util
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numba
import numpy as np

import numinit as ni
from numinit.engines.cuda_driver import checked, lacking
from numinit.initializers import Distribution
from numinit.stream.dtypes import DTYPES
from numinit.weights.keys import Key

from .measure import machine

ELEMENTS = 2**28 + 3
CHUNK = 1 << 24  # elements compared at a time
REPEAT = 15
THREADS = (1, 2, 4, 8, 16)
KEY = Key(2**63 + 5, 2**64 - 3)

INITIALIZERS: dict[str, ni.Initializer] = {
    "constant": ni.Constant(0.1),
    "uniform": ni.Uniform(-1, 1),
    "normal": ni.Normal(),
    "truncated": ni.TruncNormal(),
    "truncated, thin": ni.TruncNormal(0, 1, 1, 1.125),
    "truncated, far": ni.TruncNormal(0, 1, 8, 40),
    "scaled uniform": ni.VarianceScaling(1e6, distribution="uniform"),
    "scaled truncated": ni.VarianceScaling(1e6, distribution="truncated_normal"),
    "sparse": ni.Sparse(0.25),
    "padded": ni.Padded(ni.Normal(), 1),
}


class NoGPU(Exception):
    """There is no GPU to measure on, for the given reason."""


class GPU:
    """The first GPU, by the driver's own functions, and torch's arrays on it."""

    def __init__(self) -> None:
        if what := lacking():
            raise NoGPU(what)
        for package in ("torch", "ml_dtypes"):
            if importlib.util.find_spec(package) is None:
                raise NoGPU(f"{package} is not installed: pip install {package}")
        import torch
        from cuda.bindings import driver

        if not torch.cuda.is_available():
            raise NoGPU(
                "torch sees no GPU of CUDA's: the driver, a GPU or torch's CUDA build is missing"
            )
        self.torch, self.driver = torch, driver
        properties = torch.cuda.get_device_properties(0)
        self.name = f"{properties.name}, {properties.multi_processor_count} multiprocessors"
        self.versions = f"torch {torch.__version__}, CUDA {torch.version.cuda}"
        torch.cuda.init()
        self._events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]

    def empty(self, count: int, dtype: str) -> Any:
        return self.torch.empty(count, dtype=getattr(self.torch, dtype), device="cuda")

    def memset(self, array: Any) -> None:
        stream = self.torch.cuda.current_stream().cuda_stream
        size = array.numel() * array.element_size()
        checked(self.driver.cuMemsetD8Async(array.data_ptr(), 0x3C, size, stream))

    def milliseconds(self, call: Callable[[], Any]) -> float:
        begin, end = self._events
        # The GPU is kept busy until all calls are queued, so that the host's time does not count.
        self.torch.cuda._sleep(4_000_000)
        begin.record()
        call()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end))

    def bits(self, array: Any) -> np.ndarray:
        """An array's bytes on the host."""
        found: np.ndarray = array.reshape(-1).view(self.torch.uint8).cpu().numpy()
        return found


# The bits


def matrix(elements: int) -> tuple[int, int]:
    """A shape of two axes with so many elements, the last ones left out."""
    columns = min(elements, 4999)  # of 2**28 + 3, not a multiple of what a thread makes
    return elements // columns, columns


def accepted(init: ni.Initializer, shape: tuple[int, ...], dtype: str) -> bool:
    """Whether an initializer has values of a type."""
    try:
        init.plan(shape, DTYPES[dtype]).distribution.transform(DTYPES[dtype])
    except (TypeError, ValueError):
        return False
    return True


def expected(
    init: ni.Initializer, shape: tuple[int, ...], dtype: str
) -> Iterator[tuple[int, np.ndarray]]:
    """The CPU's bytes, a chunk at a time, and where they begin."""
    size, total = DTYPES[dtype].itemsize, math.prod(shape)
    for begin in range(0, total, CHUNK):
        out = np.empty(min(CHUNK, total - begin) * size, np.uint8)
        init.fill_flat(out, begin, shape, dtype, KEY)
        yield begin * size, out


def differences(gpu: GPU, elements: int) -> list[str]:
    """The names of fills that differ from the CPU's in a bit."""
    wrong: list[str] = []

    def compare(what: str, array: Any, init: ni.Initializer, shape: tuple[int, ...]) -> None:
        dtype = str(array.dtype).removeprefix("torch.")
        flat = array.reshape(-1).view(gpu.torch.uint8)
        same = all(
            np.array_equal(gpu.bits(flat[begin : begin + out.size]), out)
            for begin, out in expected(init, shape, dtype)
        )
        if not same:
            wrong.append(f"{what}, {dtype}")

    for dtype in DTYPES:
        for name, init in INITIALIZERS.items():
            shape = (elements,) if isinstance(init, Distribution) else matrix(elements)
            if accepted(init, shape, dtype):
                array = gpu.empty(math.prod(shape), dtype).reshape(shape)
                init.fill_(array, seed=KEY)
                compare(name, array, init, shape)
                del array
    part = min(elements, 1 << 22)
    table = (2**34, 13)
    for dtype in DTYPES:
        array = gpu.empty(13 * part, dtype).reshape(part, 13)
        for start in (0, 2**33 - part // 2, 2**32 // 13):
            ni.Normal().fill_(array, shape=table, offset=(start, 0), seed=KEY)
            ours = ni.Normal().block(table, slice(start, start + part), dtype, seed=KEY)
            if not np.array_equal(gpu.bits(array), ours.reshape(-1).view(np.uint8)):
                wrong.append(f"window at {start}, {dtype}")
        ids = np.random.default_rng(0).integers(0, table[0], part)
        made = ni.Normal().rows(table, ids, dtype, seed=KEY, device="cuda")
        ours = ni.Normal().rows(table, ids, dtype, seed=KEY)
        if not np.array_equal(gpu.bits(made), ours.reshape(-1).view(np.uint8)):
            wrong.append(f"rows, {dtype}")
        turned = array.reshape(13, part).T
        ni.Normal().fill_(turned, seed=KEY)
        ours = ni.Normal()(tuple(turned.shape), dtype, seed=KEY)
        if not np.array_equal(gpu.bits(turned.contiguous()), ours.reshape(-1).view(np.uint8)):
            wrong.append(f"transposed, {dtype}")
    return wrong


# The throughput


class Line(NamedTuple):
    """One measured fill."""

    what: str
    dtype: str
    who: str
    call: Callable[[Any], Any]


def lines(gpu: GPU) -> list[Line]:
    """The fills that are measured."""
    torch_init = gpu.torch.nn.init
    found = []
    for what, dtype, init, peer in (
        ("uniform", "float32", ni.Uniform(), lambda a: a.uniform_()),
        ("normal", "float32", ni.Normal(), lambda a: a.normal_()),
        ("truncated +-2", "float32", ni.TruncNormal(), lambda a: torch_init.trunc_normal_(a)),
        ("normal", "bfloat16", ni.Normal(), lambda a: a.normal_()),
    ):
        found.append(Line(what, dtype, "cudaMemset", gpu.memset))
        found.append(Line(what, dtype, "numinit", lambda a, i=init: i.fill_(a, seed=0)))
        found.append(Line(what, dtype, "torch.cuda", peer))
        if dtype == "float32" and what in ("uniform", "normal"):
            found.extend(curand(gpu, what))
    return found


def curand(gpu: GPU, what: str) -> list[Line]:
    """CuRAND's Philox and its default generator, through CuPy."""
    if importlib.util.find_spec("cupy") is None:
        return []
    from cupy_backends.cuda.libs import curand as library

    found = []
    kinds = (
        ("Philox", library.CURAND_RNG_PSEUDO_PHILOX4_32_10),
        (
            "default (XORWOW)",
            library.CURAND_RNG_PSEUDO_DEFAULT,
        ),
    )
    for name, kind in kinds:
        generator = library.createGenerator(kind)
        library.setPseudoRandomGeneratorSeed(generator, 0)
        library.setStream(generator, gpu.torch.cuda.current_stream().cuda_stream)

        def call(array: Any, generator: Any = generator) -> None:
            count = array.numel() // 2 * 2  # it makes normals in pairs
            if what == "uniform":
                library.generateUniform(generator, array.data_ptr(), count)
            else:
                library.generateNormal(generator, array.data_ptr(), count, 0.0, 1.0)

        found.append(Line(what, "float32", f"cuRAND {name}", call))
    return found


def throughput(gpu: GPU, nbytes: int, repeat: int) -> str:
    """The table, of all lines in turn."""
    measured = lines(gpu)
    arrays = {
        dtype: gpu.empty(nbytes // DTYPES[dtype].itemsize, dtype)
        for dtype in {line.dtype for line in measured}
    }
    times: list[list[float]] = [[] for _ in measured]
    for turn in range(repeat + 2):
        for line, found in zip(measured, times, strict=True):
            took = gpu.milliseconds(lambda line=line: line.call(arrays[line.dtype]))
            if turn >= 2:  # the first ones compile
                found.append(took)
    out = [
        f"{nbytes >> 20} MiB on {gpu.name}; {gpu.versions}; medians of {repeat}, by events",
        "",
        "| | | GB/s | 10⁹ elements/s | of memset |",
        "| --- | --- | --- | --- | --- |",
    ]
    memset = 0.0
    for line, found in zip(measured, times, strict=True):
        rate = nbytes / statistics.median(found) / 1e6
        memset = rate if line.who == "cudaMemset" else memset
        out.append(
            f"| {line.what}, {line.dtype} | {line.who} | {rate:.0f} "
            f"| {rate / DTYPES[line.dtype].itemsize:.0f} | {rate / memset:.2f} |"
        )
    return "\n".join(out)


# The CPU


def scaling(nbytes: int, repeat: int, counts: Sequence[int] = THREADS) -> str:
    """How the CPU engine's rate grows with threads, beside `ndarray.fill` in as many."""
    out = [
        f"{nbytes >> 20} MiB of float32, GB/s, on {machine()}; medians of {repeat}",
        "",
        "| threads | fill | uniform | normal | truncated +-2 | normal of fill |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    array = np.ones(nbytes // 4, np.float32)
    before = numba.get_num_threads()
    most = min(os.cpu_count() or 1, numba.config.NUMBA_NUM_THREADS)
    try:
        for count in (n for n in counts if n <= most):
            numba.set_num_threads(count)
            with ThreadPoolExecutor(count) as pool:
                parts = np.array_split(array, count)

                def fill(pool: Any = pool, parts: Any = parts) -> None:
                    list(pool.map(lambda part: part.fill(1.0), parts))

                calls = [fill] + [
                    lambda init=init: init.fill_(array, seed=0)
                    for init in (ni.Uniform(), ni.Normal(), ni.TruncNormal())
                ]
                times: list[list[float]] = [[] for _ in calls]
                for turn in range(repeat + 1):
                    for call, found in zip(calls, times, strict=True):
                        begin = time.perf_counter()
                        call()
                        if turn:
                            found.append(time.perf_counter() - begin)
            rates = [nbytes / statistics.median(found) / 1e9 for found in times]
            cells = " | ".join(f"{rate:.1f}" for rate in rates)
            out.append(f"| {count} | {cells} | {rates[2] / rates[0]:.2f} |")
    finally:
        numba.set_num_threads(before)
    return "\n".join(out)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cpu", action="store_true", help="only the CPU's scaling")
    parser.add_argument("--elements", type=int, default=ELEMENTS, help="whose bits are compared")
    parser.add_argument("--mib", type=int, default=1024, help="size of what is timed")
    parser.add_argument("--repeat", type=int, default=REPEAT, help="runs whose median is taken")
    options = parser.parse_args(argv)
    wrong: list[str] = []
    if not options.cpu:
        try:
            gpu = GPU()
        except NoGPU as error:
            print(f"no GPU to measure: {error}. --cpu measures the CPU's scaling alone.")
            return 2
        wrong = differences(gpu, options.elements)
        print(
            "\n".join(f"not the CPU's bits: {what}" for what in wrong) or "all bits are the CPU's"
        )
        print(f"\n{throughput(gpu, options.mib << 20, options.repeat)}\n", flush=True)
    print(scaling(options.mib << 20, options.repeat))
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())
