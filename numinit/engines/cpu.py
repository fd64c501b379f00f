"""The CPU engine: plans a strided view and spreads its chunks over threads.

Threads are Python's own, running kernels without the GIL, and take chunks from one atomic
counter. Numba's threading layers are not used: one of them ends a forked child, another aborts
when two Python threads meet, and neither can be interrupted. The number of threads is Numba's.
"""

import contextlib
import functools
import queue
import threading
import time
from _thread import start_new_thread
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from numinit._process import forks
from numinit.engines.plan import plan
from numinit.engines.preparing import prepared
from numinit.engines.threads import num_threads

SERIAL = 1 << 17  # elements that one thread fills sooner than a second one wakes up
SERIAL_BYTES = 4 << 20  # the same of a constant that is contiguous
SLICE = 0.02  # seconds, about, that the calling thread fills between two looks at signals
NO_MORE = 1 << 62  # a counter beyond every number of chunks


class _Helpers:
    """The helper threads of a process, which live as long as it does and wait for jobs.

    Nothing is locked, for a signal's handler may fill while this thread is anywhere here. Nor is
    anybody waited for who a forked child would not have: threading.Thread does when it starts.
    """

    def __init__(self) -> None:
        # (concurrent.futures has locks that an interrupt can leave locked; this has none.)
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._started: list[int] = []

    def submit(self, job: Callable[[], None], count: int) -> None:
        """Let `count` threads run a job; fewer where no more can be started.

        Python threads that come here at once may start one more each.
        """
        with contextlib.suppress(RuntimeError):  # out of threads, or shutting down
            while len(self._started) < count:
                # In one step, so that no interrupt leaves one out.
                name = f"numinit-{len(self._started)}"
                self._started.extend(map(start_new_thread, (self._serve,), ((name,),)))
        for _ in range(min(count, len(self._started))):
            self._jobs.put(job)

    def _serve(self, name: str) -> None:
        threading.current_thread().name = name
        while True:
            self._jobs.get()()


_helpers: dict[int, _Helpers] = {}


def _submit(job: Callable[[], None], count: int) -> None:
    """Let `count` helper threads of this process run a job."""
    (_helpers.get(process := forks()) or _helpers.setdefault(process, _Helpers())).submit(
        job, count
    )


class Formula(NamedTuple):
    """What a law is to a kernel."""

    law: str
    """A key of `numinit.engines.kernels.TRANSFORMS`."""
    parameters: tuple[float, ...]
    """As the law's transforms take them."""
    mask: str = ""
    """A key of `numinit.engines.masks.MASKS`, or nothing."""
    masked: tuple[int, ...] = ()
    """The mask's parameters."""


class Fill:
    """A fill that is ready to run: a layout and a law, for any memory, key and start.

    Element (i0, i1, ...) lies ``sum(i * strides)`` bytes after the first and its global index is
    ``sum(i * steps)`` after the first one's.

    Parameters
    ----------
    shape : tuple of int
        Without a zero.
    strides, steps : tuple of int
        Distances of neighbours in bytes and in the global order; the last step is 1 or its
        axis has size 1 or was indexed away.
    dtype : str
        A key of `numinit.engines.kernels.STORES`.
    formula : Formula
        The law.
    by_rows : bool, optional
        The global row of each index of axis 0 is given at the call; the layout is contiguous.
    """

    __slots__ = ("_chunks", "_fixed", "_kept", "_kernel", "_serial")

    def __init__(
        self,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        steps: tuple[int, ...],
        dtype: str,
        formula: Formula,
        by_rows: bool = False,
    ) -> None:
        name = formula.law, dtype, formula.mask
        if name not in _kernels:
            _kernels[name] = prepared(functools.partial(_kernel, *name))
        self._kernel = _kernels[name]
        from numinit.engines.kernels import PARAMETERS, STORES  # which `_kernel` has imported
        from numinit.engines.masks import PARAMETERS as MASK_PARAMETERS

        p = plan(shape, strides, steps, by_rows, _cost(formula))
        serial, size = SERIAL, STORES[dtype].parts * STORES[dtype].element.bitwidth // 8
        if formula.law == "constant" and p.inner_stride == size and p.tile == 1:
            serial = max(serial, SERIAL_BYTES // size)
        self._chunks, self._serial = p.chunks, p.elements <= serial
        parameters = np.zeros(PARAMETERS)
        parameters[: len(formula.parameters)] = formula.parameters
        masked = np.zeros(MASK_PARAMETERS, np.int64)
        masked[: len(formula.masked)] = formula.masked
        self._kept = p.outer, parameters, masked  # for the kernel has their addresses
        self._fixed = (
            p.grain, p.units, p.inner, p.inner_stride, p.segment, p.tile,
            len(p.outer), *(array.ctypes.data for array in self._kept),
        )  # fmt: skip

    def __call__(self, address: int, first: int, rows: int, seed: int, stream: int) -> None:
        """Fill the memory at `address`.

        Parameters
        ----------
        address : int
            Of the first element; nobody frees the memory during the call.
        first : int
            The first element's global index.
        rows : int
            Address of the global rows, int64, or 0.
        seed, stream : int
            The key, each below 2**64.
        """
        kernel, chunks = self._kernel, self._chunks
        # 64-bit words in two's complement, so that the kernel sees one integer type.
        seed = seed - (1 << 64) if seed >> 63 else seed
        stream = stream - (1 << 64) if stream >> 63 else stream
        if self._serial:
            kernel(0, chunks, chunks, address, first, rows, seed, stream, *self._fixed)
            return
        work = (chunks, address, first, rows, seed, stream, *self._fixed)
        begun = -1
        while begun != (begun := forks()):
            # Once, and again in a child that was born in between, by a signal's handler: it does
            # not know what its parent's helpers had done.
            crew = _Crew(self, kernel, chunks, work)
            try:
                crew.call(min(num_threads(), chunks) - 1)
                limit, begin = 1, time.monotonic()
                while kernel(crew.place, limit, *work):
                    # Between two slices Python handles signals: Ctrl-C is raised here.
                    end = time.monotonic()
                    limit = 2 * limit if end - begin < SLICE else max(limit // 2, 1)
                    begin = end
            finally:
                crew.counter[0] = NO_MORE  # first of all: nobody starts another chunk
                # The handlers of two signals may raise, each on the way into a call.
                try:
                    crew.dismiss()
                finally:
                    try:
                        crew.dismiss()
                    finally:
                        crew.dismiss()


_kernels: dict[tuple[str, str, str], Any] = {}


def _kernel(law: str, dtype: str, mask: str) -> Any:
    from numinit.engines.kernels import fill_kernel  # late: it imports all of Numba

    return fill_kernel(law, dtype, mask)


def _cost(formula: Formula) -> int:
    """How many times as long as a normal value one of a formula takes, where it is much longer."""
    rounds = formula.masked[5] if formula.mask == "sparse" else 0
    return 1 + rounds // 4


class _Crew:
    """The helper threads of one fill.

    An interrupt can come at any moment, and a job can wait until all helpers are free. So a helper
    that starts when the fill is over finds a counter, kept alive by this object, with no chunk
    left, and touches nothing else.
    """

    __slots__ = ("_alive", "_arguments", "_born", "_busy", "_done", "_kernel", "counter", "place")

    def __init__(self, fill: Fill, kernel: Any, chunks: int, work: tuple[Any, ...]) -> None:
        self._alive = fill  # its memory is read before the counter
        self.counter = np.zeros(1, np.int64)
        self.place = self.counter.ctypes.data
        self._kernel, self._arguments = kernel, (self.place, chunks, *work)
        self._born = forks()
        self._busy: list[None] = []  # as long as there are helpers at work
        self._done: queue.SimpleQueue[None] = queue.SimpleQueue()  # wakes `dismiss`

    def call(self, count: int) -> None:
        """Let up to `count` more threads run the kernel."""
        if count > 0:
            _submit(self._help, count)

    def _help(self) -> None:
        self._busy.append(None)  # before the counter is read
        try:
            self._kernel(*self._arguments)
        finally:
            self._busy.pop()
            self._done.put(None)

    def dismiss(self) -> None:
        """Wait for those at work, whatever interrupts: they write the user's memory."""
        interrupt: BaseException | None = None
        while True:
            try:
                while self._busy and self._born == forks():  # a child has none of them
                    with contextlib.suppress(queue.Empty):
                        self._done.get(timeout=0.1)
                break
            except BaseException as error:  # whatever a signal's handler raises
                interrupt = error
        if interrupt is not None:
            raise interrupt
