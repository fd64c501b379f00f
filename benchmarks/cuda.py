"""The measurements of `benchmarks.device`: bits beside the CPU's, rates, launches, cuRAND's words.

A `Rehearsal` has the same methods as a `GPU`, and the host's memory.
"""

import contextlib
import functools
import importlib.util
import math
import statistics
import time
from array import array as words_array
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

import numinit as ni
from numinit.engines import cuda as engine
from numinit.engines.cuda_driver import checked, lacking, launch, load, properties
from numinit.engines.layout import c_steps
from numinit.initializers import Distribution
from numinit.stream.dtypes import DTYPES
from numinit.weights.keys import Key

KEY = Key(2**63 + 5, 2**64 - 3)
POISON = 0x3C  # in every byte before a fill
TABLE = (2**34, 13)

INITIALIZERS: dict[str, ni.Initializer] = {
    "normal": ni.Normal(),
    "uniform": ni.Uniform(-1, 1),
    "truncated": ni.TruncNormal(),
    "sparse": ni.Sparse(0.25),
    "padded": ni.Padded(ni.Normal(), 1),
    "scaled uniform": ni.VarianceScaling(1e6, distribution="uniform"),
    "scaled truncated": ni.VarianceScaling(1e6, distribution="truncated_normal"),
    "truncated, thin": ni.TruncNormal(0, 1, 1, 1.125),
    "truncated, far": ni.TruncNormal(0, 1, 8, 40),
    "constant": ni.Constant(0.1),
}


class NoGPU(Exception):
    """There is no GPU to measure on, for the given reason."""


class GPU:
    """The first GPU, by the driver's own functions, and torch's arrays on it."""

    device = "cuda"

    def __init__(self) -> None:
        if what := lacking():
            raise NoGPU(what)
        for package in ("torch", "ml_dtypes"):
            if importlib.util.find_spec(package) is None:
                raise NoGPU(f"{package} is not installed: pip install {package}")
        self.torch = self._torch()
        if not self.torch.cuda.is_available():
            raise NoGPU(
                "torch sees no GPU of CUDA's: the driver, a GPU or torch's CUDA build is missing"
            )
        self.torch.cuda.init()
        found = self.torch.cuda.get_device_properties(0)
        self.name = f"{found.name}, {found.multi_processor_count} multiprocessors"
        self.multiprocessors = found.multi_processor_count
        self.capability = found.major, found.minor
        self._events = [self.torch.cuda.Event(enable_timing=True) for _ in range(2)]

    def _torch(self) -> Any:
        import torch

        return torch

    # Arrays

    def empty(self, shape: Any, dtype: str) -> Any:
        """A new tensor, every byte of which is `POISON`."""
        made = self.torch.empty(shape, dtype=getattr(self.torch, dtype), device=self.device)
        self.flat(made).fill_(POISON)
        return made

    def given(self, view: Any) -> Any:
        """A view, as it is handed to numinit."""
        return view

    def flat(self, array: Any) -> Any:
        """The bytes of an array, which is contiguous."""
        if isinstance(array, np.ndarray):
            return self.torch.from_numpy(array.reshape(-1).view(np.uint8))
        return array.reshape(-1).view(self.torch.uint8)

    @functools.cached_property
    def _pinned(self) -> dict[int, Any]:
        return {}

    def staging(self, nbytes: int) -> np.ndarray:
        """Page-locked memory of the host; the same whenever it is asked for."""
        if max(self._pinned, default=0) < nbytes:
            self._pinned.clear()
            self._pinned[nbytes] = self.torch.empty(
                nbytes, dtype=self.torch.uint8, pin_memory=self.device == "cuda"
            )
        (pinned,) = self._pinned.values()
        found: np.ndarray = pinned.numpy()[:nbytes]
        return found

    def equal(self, there: Any, here: np.ndarray) -> bool:
        """Whether bytes on the GPU are those of the host."""
        copy = self.torch.empty(here.size, dtype=self.torch.uint8, device=self.device)
        copy.copy_(self.torch.from_numpy(here))
        return bool(self.torch.equal(copy, there))

    def host(self, there: Any) -> np.ndarray:
        """Bytes of the GPU on the host."""
        found: np.ndarray = there.cpu().numpy()
        return found

    def memset(self, array: Any) -> None:
        """Set every byte by the driver's function, on the current stream."""
        from cuda.bindings import driver

        size = array.numel() * array.element_size()
        checked(driver.cuMemsetD8Async(array.data_ptr(), POISON, size, self.queue))

    # Work

    @property
    def queue(self) -> int:
        """The handle of torch's current stream."""
        return int(self.torch.cuda.current_stream().cuda_stream)

    def wait(self) -> None:
        self.torch.cuda.synchronize()

    def broken(self) -> bool:
        """Whether an error of a kernel has left the process without its GPU."""
        try:
            self.wait()
            return not bool(self.torch.ones(1, device=self.device).item())
        except Exception:
            return True

    def milliseconds(self, call: Callable[[], Any]) -> float:
        """The time of a call on the GPU, by events."""
        begin, end = self._events
        # The GPU is kept busy until all is in its queue: the host's time is not what is measured.
        self.torch.cuda._sleep(4_000_000)
        begin.record()
        call()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end))

    def on_another_stream(self, call: Callable[[], Any]) -> None:
        """Make a call on a new stream, and wait for that stream alone."""
        stream = self.torch.cuda.Stream()
        stream.wait_stream(self.torch.cuda.current_stream())
        with self.torch.cuda.stream(stream):
            call()
        stream.synchronize()

    def graph(self, call: Callable[[], Any]) -> Callable[[], Any]:
        """The replay of what a call launches, captured as a graph."""
        graph = self.torch.cuda.CUDAGraph()
        with self.torch.cuda.graph(graph):
            call()
        replay: Callable[[], Any] = graph.replay
        return replay

    def curand_words(self, seed: int, stream: int, first: int, blocks: int) -> np.ndarray:
        """The words of `curand_init(seed, stream, 4 * block)` and `curand4`, a row a block."""
        assert properties(0).capability == self.capability
        code = curand_kernel(self.capability)
        out = self.torch.empty(blocks * 16, dtype=self.torch.uint8, device=self.device)
        signed = (x - (1 << 64) if x >> 63 else x for x in (seed, stream))
        arguments = words_array("q", (out.data_ptr(), *signed, first, blocks))
        launch(load(b"words", code), -(-blocks // 256), 256, self.queue, arguments)
        return self.host(out).view(np.uint32).reshape(-1, 4)


class Stub:
    """A stand-in for `torch.cuda` on the host; asks the real one for every name that it uses."""

    def __init__(self, torch: Any) -> None:
        self._real, self._clock = torch.cuda, time.perf_counter

    def __getattr__(self, name: str) -> Any:
        getattr(self._real, name)  # a name that torch has not is a mistake here too
        return {
            "init": lambda: None,
            "is_available": lambda: True,
            "synchronize": lambda: None,
            "_sleep": lambda cycles: None,
            "Event": lambda enable_timing: _Event(),
            "Stream": _Stream,
            "current_stream": _Stream,
            "stream": contextlib.nullcontext,
            "CUDAGraph": _Graph,
            "graph": _capture,
            "get_device_properties": lambda device: _Properties(),
        }[name]


class _Properties:
    name, multi_processor_count, major, minor = "the host", 1, 9, 0


class _Event:
    def record(self) -> None:
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, end: "_Event") -> float:
        return 1e3 * max(end.at - self.at, 1e-9)


class _Stream:
    cuda_stream = 0

    def wait_stream(self, other: "_Stream") -> None:
        pass

    def synchronize(self) -> None:
        pass


class _Graph:
    """Captures nothing: what is captured has run."""

    def replay(self) -> None:
        pass


@contextlib.contextmanager
def _capture(graph: _Graph) -> Iterator[None]:
    yield


class Rehearsal(GPU):
    """The host in the place of a GPU: all that is asked of one is asked of the host's memory."""

    device = "cpu"

    def _torch(self) -> Any:
        import torch

        class Module:
            cuda = Stub(torch)

            def __getattr__(self, name: str) -> Any:
                return getattr(torch, name)

        return Module()

    def memset(self, array: Any) -> None:
        self.flat(array).fill_(POISON)

    def graph(self, call: Callable[[], Any]) -> Callable[[], Any]:
        super().graph(call)
        return call

    def curand_words(self, seed: int, stream: int, first: int, blocks: int) -> np.ndarray:
        with contextlib.suppress(NotImplementedError):  # where it can be compiled, it compiles
            assert curand_kernel(self.capability)[:4] == b"\x7fELF"
        return stream_words(Key(seed, stream), first, blocks)


class Compiling:
    """A GPU without a driver: a fill compiles its kernel into the cache, and launches nothing.

    It changes numinit for the whole process, which therefore is one of its own.
    """

    device = "cuda"

    def __init__(self, capability: tuple[int, int]) -> None:
        from numinit.arrays import gpu, new
        from numinit.arrays.frameworks import framework_of

        def empty(shape: tuple[int, ...], dtype: Any) -> Any:
            made = self.given(self.empty(shape, dtype.name))
            return made, framework_of(made).memory(made)

        @functools.cache
        def loaded(variant: Any, device: int) -> tuple[Any, int, int]:
            engine._image(variant, capability)
            return 1, 1, 1

        maker = new.Maker(empty, lambda array: (array, array.ctypes.data))
        replaced: list[tuple[Any, str, Any]] = [
            (engine, "current", lambda device: contextlib.nullcontext()),
            (engine, "_loaded", loaded),
            (engine, "launch", lambda *what: None),
            (gpu, "device_of", lambda address, queue: 0),
            (new, "_torch_maker", lambda index: maker),
            (new, "_cupy_maker", lambda index: maker),
        ]
        for module, name, function in replaced:
            getattr(module, name)
            setattr(module, name, function)

    def empty(self, shape: Any, dtype: str) -> Any:
        """An array of that shape and layout, all of whose elements are one."""
        from numinit.arrays.numpy import numpy_dtype

        kind = DTYPES[dtype]
        one = np.zeros(1, f"V{kind.itemsize}")  # NumPy has no interface for 8-bit types
        strides = [step * kind.itemsize for step in c_steps(tuple(shape))]
        return np.lib.stride_tricks.as_strided(one, shape, strides).view(numpy_dtype(kind))

    def given(self, view: Any) -> Any:
        return _Exported(view)


class _Exported:
    """An array in a GPU's memory, as far as its interface tells."""

    def __init__(self, array: np.ndarray) -> None:
        self.dtype, self.shape = array.dtype, array.shape
        self.__cuda_array_interface__ = {
            "version": 3, "shape": array.shape, "typestr": array.dtype.str, "stream": None,
            "strides": array.strides, "data": (array.ctypes.data, False),
        }  # fmt: skip

    def reshape(self, shape: tuple[int, ...]) -> "_Exported":
        return self


# Cases: fills whose bits are compared


class Sizes(NamedTuple):
    """How much is filled and timed."""

    elements: int = 2**28 + 3
    """Of a whole array."""
    rows: int = 1 << 20
    """Of other layouts, which have 13 columns."""
    chunk: int = 1 << 24
    """Elements that are compared at a time."""
    nbytes: int = 1 << 30
    """Of what is timed."""
    cached: int = 1 << 24
    """Bytes that stay in the GPU's cache."""
    repeat: int = 15
    """Runs whose median is taken."""
    calls: int = 200
    """Calls in a row whose host time is measured."""
    blocks: int = 1 << 18
    """Of four words, which are compared with cuRAND's."""


SMALL = Sizes(11_003, 1 << 7, 1 << 12, 1 << 16, 1 << 12, 2, 3, 1 << 6)


class Layout(NamedTuple):
    """A view of a larger array."""

    shape: Callable[[int], tuple[int, int]]
    """The larger array's shape, of a number of rows."""
    view: Callable[[Any], Any]
    start: int | None = None
    """The row of `TABLE` where the view begins, if it is a window of that."""


def _itself(array: Any) -> Any:
    return array


LAYOUTS = {
    "window at row 0": Layout(lambda n: (n, 13), _itself, 0),
    "window over the wrap of a word": Layout(lambda n: (n, 13), _itself, 4 * 2**32 // 13 - 9),
    "window at row 2**33": Layout(lambda n: (n, 13), _itself, 2**33),
    "transposed": Layout(lambda n: (13, n), lambda a: a.T),
    "every other row, without a column": Layout(lambda n: (2 * n, 14), lambda a: a[::2, 1:]),
    "every other column": Layout(lambda n: (n, 26), lambda a: a[:, ::2]),
}


class Case(NamedTuple):
    """A fill whose bits are compared."""

    name: str
    dtype: str
    layout: str = "whole"

    def __str__(self) -> str:
        return f"{self.name}, {self.dtype}, {self.layout}"

    @property
    def init(self) -> ni.Initializer:
        return INITIALIZERS[self.name]

    def shape(self, sizes: Sizes) -> tuple[int, ...]:
        """The shape of the whole weight."""
        layout = LAYOUTS.get(self.layout)
        if self.layout == "rows" or (layout and layout.start is not None):
            return TABLE
        if layout:
            return sizes.rows, 13
        if isinstance(self.init, Distribution):
            return (sizes.elements,)
        columns = min(sizes.elements, 4999)  # not a multiple of what a thread makes
        return sizes.elements // columns, columns

    @property
    def accepted(self) -> bool:
        """Whether the initializer has values of the type."""
        kind = DTYPES[self.dtype]
        try:
            self.init.plan(self.shape(Sizes()), kind).distribution.transform(kind)
        except (TypeError, ValueError):
            return False
        return True


def _ids(sizes: Sizes) -> np.ndarray:
    return np.random.default_rng(0).integers(0, TABLE[0], sizes.rows)


def fill(gpu: Any, case: Case, sizes: Sizes) -> Any:
    """What the GPU makes of a case: an array, and for views the larger one."""
    shape = case.shape(sizes)
    if case.layout == "rows":
        ids = _ids(sizes)
        return case.init.rows(shape, ids, case.dtype, seed=KEY, device=gpu.device)
    layout = LAYOUTS.get(case.layout)
    if layout is None:
        array = gpu.empty(shape, case.dtype)
        case.init.fill_(gpu.given(array), seed=KEY)
        return array
    array = gpu.empty(layout.shape(sizes.rows), case.dtype)
    window = {} if layout.start is None else {"shape": shape, "offset": (layout.start, 0)}
    case.init.fill_(gpu.given(layout.view(array)), seed=KEY, **window)
    return array


def expected(gpu: Any, case: Case, sizes: Sizes) -> Iterator[tuple[int, np.ndarray]]:
    """The bytes that the CPU makes of a case, a chunk at a time, and where they begin."""
    size, shape = DTYPES[case.dtype].itemsize, case.shape(sizes)
    layout = LAYOUTS.get(case.layout)
    if case.layout == "rows":
        made = case.init.rows(shape, _ids(sizes), case.dtype, seed=KEY)
        yield 0, made.reshape(-1).view(np.uint8)
    elif layout is None:
        total = math.prod(shape)
        for begin in range(0, total, sizes.chunk):
            out = gpu.staging(min(sizes.chunk, total - begin) * size)
            case.init.fill_flat(out, begin, shape, case.dtype, KEY)
            yield begin * size, out
    else:
        if layout.start is None:
            made = case.init(shape, case.dtype, seed=KEY)
        else:
            part = slice(layout.start, layout.start + sizes.rows)
            made = case.init.block(shape, part, case.dtype, seed=KEY)
        whole = np.full(math.prod(layout.shape(sizes.rows)) * size, POISON, np.uint8)
        layout.view(whole.view(made.dtype).reshape(layout.shape(sizes.rows)))[...] = made
        yield 0, whole


def difference(gpu: Any, case: Case, sizes: Sizes) -> str:
    """The first element that is not the CPU's, with its words; "" if all bits are the CPU's."""
    array = fill(gpu, case, sizes)
    there = gpu.flat(array)
    size = DTYPES[case.dtype].itemsize
    for begin, here in expected(gpu, case, sizes):
        part = there[begin : begin + here.size]
        if gpu.equal(part, here):
            continue
        found = gpu.host(part).reshape(-1, size)
        wrong = np.flatnonzero((found != here.reshape(-1, size)).any(axis=1))
        one = int(wrong[0])
        index = begin // size + one
        values = (bytes(a.reshape(-1, size)[one])[::-1].hex() for a in (found, here))
        words = " ".join(f"{w:08x}" for w in stream_words(KEY, index // 4, 1)[0])
        where = "in the array" if case.layout in LAYOUTS else f"word {index % 4} of {words}"
        return (
            "element {} is 0x{} and 0x{} on the CPU ({}); {} of {} elements from {} on differ"
        ).format(index, *values, where, wrong.size, len(found), begin // size)
    return ""


def stream_words(key: Key, first: int, blocks: int) -> np.ndarray:
    """The words of plane 0: float64 uniforms begin with them."""
    values = np.empty(4 * blocks)
    ni.Uniform().fill_flat(values.view(np.uint8), 4 * first, (2**40, 2**22), "float64", key)
    words = (values * 2.0**53).astype(np.uint64) >> np.uint64(21)
    return words.astype(np.uint32).reshape(-1, 4)


def prepare(case: Case, capability: tuple[int, int] | None) -> float:
    """Compile a case's kernels for the CPU and, of a capability, for a GPU; the seconds it took."""
    begin = time.perf_counter()
    case.init.fill_flat(np.empty(64, np.uint8), 0, case.shape(SMALL), case.dtype, KEY)
    if capability is not None:
        fill(_compiling(capability), case, SMALL)
    return time.perf_counter() - begin


_compiling = functools.cache(Compiling)


# Rates


class Line(NamedTuple):
    """One measured fill."""

    who: str
    call: Callable[[Any], Any]


RATES: dict[str, ni.Initializer] = {
    "uniform": ni.Uniform(),
    "normal": ni.Normal(),
    "truncated": ni.TruncNormal(),
}
WANTED = {"uniform": 0.9, "normal": 0.8, "truncated": 0.6}  # of memset, in float32


def lines(gpu: Any, what: str, dtype: str) -> list[Line]:
    """What is measured of a distribution."""
    init = RATES[what]
    torch_fills = {
        "uniform": lambda a: a.uniform_(),
        "normal": lambda a: a.normal_(),
        "truncated": lambda a: gpu.torch.nn.init.trunc_normal_(a),
    }
    return [
        Line("cudaMemset", gpu.memset),
        Line("numinit", lambda a: init.fill_(a, seed=0)),
        Line("torch.cuda", torch_fills[what]),
        *curand_lines(gpu, what, dtype),
    ]


def curand_lines(gpu: Any, what: str, dtype: str) -> list[Line]:
    """CuRAND's Philox and its default generator, through CuPy."""
    if importlib.util.find_spec("cupy") is None or gpu.device != "cuda":
        return []
    from cupy_backends.cuda.libs import curand as library

    generate = {
        ("uniform", "float32"): lambda g, at, n: library.generateUniform(g, at, n),
        ("uniform", "float64"): lambda g, at, n: library.generateUniformDouble(g, at, n),
        ("normal", "float32"): lambda g, at, n: library.generateNormal(g, at, n, 0.0, 1.0),
        ("normal", "float64"): lambda g, at, n: library.generateNormalDouble(g, at, n, 0.0, 1.0),
    }.get((what, dtype))
    if generate is None:
        return []
    found = []
    for name, kind in (
        ("cuRAND, Philox", library.CURAND_RNG_PSEUDO_PHILOX4_32_10),
        ("cuRAND, default (XORWOW)", library.CURAND_RNG_PSEUDO_DEFAULT),
    ):
        generator = library.createGenerator(kind)
        library.setPseudoRandomGeneratorSeed(generator, 0)
        library.setStream(generator, gpu.queue)

        def call(array: Any, generator: Any = generator) -> None:
            generate(generator, array.data_ptr(), array.numel() // 2 * 2)  # normals go in pairs

        found.append(Line(name, call))
    return found


HEAD = """| | | GB/s | 10⁹ elements/s | of memset |
| --- | --- | --- | --- | --- |"""


def rates(gpu: Any, what: str, dtype: str, sizes: Sizes) -> str:
    """Rows of the table, of fills that are measured in turn: medians by events."""
    measured = lines(gpu, what, dtype)
    array = gpu.empty(sizes.nbytes // DTYPES[dtype].itemsize, dtype)
    times: dict[str, list[float]] = {}
    failed: dict[str, str] = {}
    for turn in range(sizes.repeat + 2):
        for who, call in measured:
            if who in failed:
                continue
            try:
                took = gpu.milliseconds(functools.partial(call, array))
            except Exception as error:
                if gpu.broken():
                    raise
                failed[who] = f"{type(error).__name__}: {error}".splitlines()[0]
                continue
            if turn >= 2:  # the first ones compile
                times.setdefault(who, []).append(took)
    memset = statistics.median(times["cudaMemset"])
    rows = []
    for who, _ in measured:
        if who in failed:
            rows.append(f"| {what}, {dtype} | {who} | {failed[who]} | | |")
            continue
        took = statistics.median(times[who])
        rate = sizes.nbytes / took / 1e6
        of_memset = f"{memset / took:.2f}"
        if who == "numinit" and dtype == "float32":
            of_memset += f" (wanted: {WANTED[what]})"
        elements = rate / DTYPES[dtype].itemsize
        rows.append(f"| {what}, {dtype} | {who} | {rate:.0f} | {elements:.1f} | {of_memset} |")
    return "\n".join(rows)


def cached_rate(gpu: Any, what: str, dtype: str, sizes: Sizes) -> str:
    """The rate into the GPU's own cache, where memory is no limit: fills of a graph."""
    array = gpu.empty(sizes.cached // DTYPES[dtype].itemsize, dtype)
    found = []
    for call in (RATES[what].fill_, lambda a, seed: gpu.memset(a)):
        call(array, seed=0)
        gpu.wait()
        replay = gpu.graph(lambda call=call: [call(array, seed=0) for _ in range(50)])
        times = [gpu.milliseconds(replay) / 50 for _ in range(sizes.repeat)]
        found.append(sizes.cached / statistics.median(times) / 1e6)
    return (
        f"{what}, {dtype}, {sizes.cached >> 20} MiB again and again: {found[0]:.0f} GB/s, "
        f"{found[0] / DTYPES[dtype].itemsize:.1f} 10⁹ elements/s; memset {found[1]:.0f} GB/s"
    )


def launch_shapes(gpu: Any, what: str, dtype: str, sizes: Sizes) -> str:
    """The rate by threads in a block and by blocks for each multiprocessor."""
    array = gpu.empty(sizes.nbytes // DTYPES[dtype].itemsize, dtype)
    loaded, found = engine._loaded, {}
    try:
        for threads in (64, 128, 256, 512):
            for blocks in (2, 4, 8, 16, 64, 1 << 20):
                most = blocks * gpu.multiprocessors * 256 // threads
                engine._loaded = lambda v, d, t=threads, m=most: (loaded(v, d)[0], t, m)
                call = functools.partial(RATES[what].fill_, array, seed=0)
                times = [gpu.milliseconds(call) for _ in range(5)]
                found[threads, blocks] = sizes.nbytes / statistics.median(times) / 1e6
    finally:
        engine._loaded = loaded
    best = sorted(found, key=found.__getitem__, reverse=True)
    cells = ", ".join(f"{t} x {b}: {found[t, b]:.0f}" for t, b in best)
    return f"{what}, {dtype}, GB/s by threads x blocks (of 256 threads) a multiprocessor: {cells}"


# Launches


def host_time(gpu: Any, call: Callable[[], Any], sizes: Sizes) -> float:
    """Microseconds of the host for a call, the GPU's queue never full."""
    times = []
    for _ in range(sizes.repeat + 1):
        gpu.wait()
        begin = time.perf_counter()
        for _ in range(sizes.calls):
            call()
        times.append((time.perf_counter() - begin) / sizes.calls * 1e6)
    return statistics.median(times[1:])


def host_times(gpu: Any, sizes: Sizes) -> str:
    small = gpu.empty((64, 8), "float32")
    calls = {
        "ni.normal_": lambda: ni.normal_(small, generator=1),
        "ni.kaiming_uniform_": lambda: ni.kaiming_uniform_(small, generator=1),
        "Normal().fill_, seed=Key": lambda: INITIALIZERS["normal"].fill_(small, seed=KEY),
        "torch's normal_": lambda: small.normal_(),
        "torch's zero_": lambda: small.zero_(),
    }
    found = (f"{name} {host_time(gpu, call, sizes):.1f}" for name, call in calls.items())
    return "host time of a call, us, 64 x 8: " + ", ".join(found)


def graph(gpu: Any, sizes: Sizes) -> str:
    """A fill is captured, also a kernel's first one, and its replay gives the same bits."""
    init = INITIALIZERS["normal"]
    array = gpu.empty(sizes.elements // 16, "float32")
    init.fill_(array, seed=KEY)
    once = array.clone()
    gpu.wait()
    replay = gpu.graph(lambda: init.fill_(array, seed=KEY))
    array.zero_()
    replay()
    gpu.wait()
    if not gpu.torch.equal(array, once):
        return "DIFFERS: the replay of a graph"
    other = gpu.empty(sizes.elements // 16, "complex64")
    replay = gpu.graph(lambda: ni.constant_(other, 0.5))  # whose kernel is loaded meanwhile
    other.zero_()
    replay()
    gpu.wait()
    if not bool((other == 0.5).all()):
        return "DIFFERS: the replay of a kernel's first fill"
    small = gpu.empty((64, 8), "float32")
    init.fill_(small, seed=KEY)
    gpu.wait()
    replay = gpu.graph(lambda: [init.fill_(small, seed=KEY) for _ in range(100)])
    took = statistics.median(gpu.milliseconds(replay) for _ in range(sizes.repeat))
    return f"a graph replays the same bits; {took * 10:.2f} us a launch, of 100 in a graph"


def streams(gpu: Any, sizes: Sizes) -> str:
    """Fills are put on torch's current stream, whichever it is."""
    init = INITIALIZERS["normal"]
    first, second = (gpu.empty(sizes.elements // 16, "float32") for _ in range(2))
    init.fill_(first, seed=KEY)
    once = first.clone()
    first.zero_()
    gpu.wait()
    gpu.on_another_stream(lambda: init.fill_(first, seed=KEY))
    if not gpu.torch.equal(first, once):
        return "DIFFERS: a fill on a second stream"
    # On the current stream, after what is there and before what follows, without waiting.
    gpu.torch.cuda._sleep(40_000_000)
    for tensor in (first, second):
        tensor.fill_(5.0)
        init.fill_(tensor, seed=KEY)
        tensor.add_(1.0)
    if not (gpu.torch.equal(first, once + 1) and gpu.torch.equal(second, once + 1)):
        return "DIFFERS: two tensors on the current stream, between torch's own work"
    return "a second stream, and two tensors on the current one between torch's own work: right"


# cuRAND's words

CURAND = r"""
#include <curand_kernel.h>
typedef unsigned long long u64;
extern "C" __global__ void words(uint4 *out, u64 seed, u64 stream, u64 first, u64 blocks)
{
    u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    if (i >= blocks) return;
    curandStatePhilox4_32_10_t state;
    curand_init(seed, stream, 4 * (first + i), &state);
    out[i] = curand4(&state);
}
"""


@functools.cache
def curand_kernel(capability: tuple[int, int]) -> bytes:
    """The machine code of a kernel that asks cuRAND for words, by NVRTC.

    Raises
    ------
    NotImplementedError
        If NVRTC or a header is missing, or does not compile it.
    """
    try:
        from cuda import pathfinder
        from cuda.bindings import nvrtc

        parts = map(pathfinder.find_nvidia_header_directory, ("curand", "cudart", "cccl"))
        options = [f"-I{folder}".encode() for folder in parts if folder]
        options.append(f"-arch=sm_{capability[0]}{capability[1]}".encode())
        program = checked(nvrtc.nvrtcCreateProgram(CURAND.encode(), b"words.cu", 0, [], []))
        (error,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
        if int(error):
            said = bytearray(checked(nvrtc.nvrtcGetProgramLogSize(program)))
            checked(nvrtc.nvrtcGetProgramLog(program, said))
            raise RuntimeError(said.decode(errors="replace")[:300])
        code = bytearray(checked(nvrtc.nvrtcGetCUBINSize(program)))
        checked(nvrtc.nvrtcGetCUBIN(program, code))
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        raise NotImplementedError(f"no kernel of cuRAND's functions: {what}") from error
    return bytes(code)


def curand_difference(gpu: Any, first: int, sizes: Sizes) -> str:
    """The first word that is not cuRAND's; "" if all are."""
    ours = stream_words(KEY, first, sizes.blocks)
    theirs = gpu.curand_words(KEY.seed, KEY.stream, first, sizes.blocks)
    if np.array_equal(ours, theirs):
        return ""
    row, column = np.argwhere(ours != theirs)[0]
    return (
        f"word {column} of block {first + row} is {ours[row, column]:08x}, "
        f"cuRAND's {theirs[row, column]:08x}"
    )
