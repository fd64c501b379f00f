"""Measures times and memory, and describes the machine."""

import functools
import os
import platform
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def machine() -> str:
    """The processor's name and the number of logical cores. The host's name is left out."""
    name = platform.processor() or platform.machine()
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
        name = found[1].strip() if found else name
    except OSError:
        pass
    played = os.environ.get("NUMBA_CPU_NAME")
    return f"{name}, {os.cpu_count()} logical cores" + (f", code for {played}" if played else "")


#: The classes of machines that promises are made for, and the feature that LLVM finds in each.
CLASSES = {"AVX-512": "avx512f", "AVX2": "avx2", "NEON": "neon"}

PLAYED = {"znver3": "AVX2"}


def machine_class() -> str:
    """The class of machines whose vectors kernels use here; "" for another one.

    ``NUMBA_CPU_NAME=znver3 NUMBA_CPU_FEATURES=`` lets a machine with AVX-512 play one with AVX2.
    """
    import llvmlite.binding

    llvmlite.binding.initialize_native_target()
    features = llvmlite.binding.get_host_cpu_features()
    if os.environ.get("NUMBA_CPU_NAME") in PLAYED:
        return PLAYED[os.environ["NUMBA_CPU_NAME"]]
    return next((kind for kind, feature in CLASSES.items() if features.get(feature)), "")


class Spread(NamedTuple):
    """The median and the two quartiles of some runs."""

    median: float
    low: float
    high: float


def spread(values: list[float]) -> Spread:
    """Median and quartiles."""
    if len(values) == 1:
        return Spread(*values * 3)
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


def seconds(call: Callable[[], Any], budget: float = 0.1, least: int = 3) -> float:
    """The median time of a call, from as many runs as fit the budget, and at least `least`.

    A run repeats a short call until it takes about a millisecond.
    """
    clock = time.perf_counter
    begin = clock()
    call()
    loops = max(1, int(1e-3 / max(clock() - begin, 1e-7)))
    times: list[float] = []
    stop = clock() + budget
    while len(times) < least or clock() < stop:
        begin = clock()
        for _ in range(loops):
            call()
        times.append((clock() - begin) / loops)
    return statistics.median(times)


def _kib(field: str) -> int:
    return int(re.search(rf"^{field}:\s*(\d+) kB$", STATUS.read_text(), re.M)[1])


@functools.cache
def can_measure_memory() -> bool:
    """Whether the kernel lets a process reset its own peak of resident memory (Linux)."""
    try:
        RESET.write_text("5")
        return _kib("VmHWM") > 0
    except (OSError, TypeError):
        return False


def extra_memory(call: Callable[[], Any]) -> int:
    """The bytes by which the peak of the process's resident memory rises during a call.

    The result of `call` is kept until the peak is read, so that a new tensor counts.

    Raises
    ------
    NotImplementedError
        If the peak cannot be reset.
    """
    if not can_measure_memory():
        raise NotImplementedError("this system does not let a process reset its peak of memory")
    RESET.write_text("5")
    before = _kib("VmRSS")
    made = call()
    peak = _kib("VmHWM")
    del made
    return max(0, peak - before) * 1024


class Quiet:
    """Says how many cores other processes used during a measurement: ``print(quiet)`` at its end.

    If another process uses one of two cores, a fill by all threads takes twice as long, and a peer
    with one thread does not. So times and ratios are meaningful only if that number is near 0.
    """

    def __init__(self) -> None:
        self.begin = self._read()

    @staticmethod
    def _read() -> tuple[float, float] | None:
        """The clock, and the CPU seconds of all processes but this one and its ended children."""
        try:
            cpu = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
            everybody = sum(int(cpu[i]) for i in (0, 1, 2, 5, 6)) / os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError, IndexError):
            return None
        return time.perf_counter(), everybody - sum(os.times()[:4])

    def cores(self) -> float | None:
        end = self._read()
        if self.begin is None or end is None:
            return None
        return max(0.0, end[1] - self.begin[1]) / (end[0] - self.begin[0])

    def __str__(self) -> str:
        used = self.cores()
        if used is None:
            return "how much other processes ran meanwhile is not known"
        remark = ": measure again on a quiet machine" if used > 0.1 else ""
        return f"other processes used {used:.2f} of {os.cpu_count()} cores meanwhile{remark}"
