"""Everything that is measured on a GPU, in one run that ends in time.

::

    python -m benchmarks.device --report FILE [--minutes 8] [--limit uniform.c] [--rehearse]

The parts run in the order of their importance, and each result is in the file at once:

* the machine and the versions;
* the bits of float32, bfloat16 and float64 of the common distributions, 2**28 + 3 elements each:
  the CPU's, or the first element that differs, with its words;
* the rates, as medians by CUDA's events, beside `cudaMemset` of the same bytes, torch.cuda and
  cuRAND; rates where memory is no limit, and by the shape of a launch;
* launches: the host's time for a call, the first call of a process, a graph, a second stream;
* the CPU with 1 to 16 threads, beside `ndarray.fill` and `memset` in as many, and the program
  `uniform.c`;
* the words of the stream beside cuRAND's;
* the bits of windows, rows, and transposed and strided views, then of all distributions and types.

A part ends when its time is used up, and what is left out is named. Processes of their own compile
kernels ahead, but not while anything is timed. An error ends one result. If it leaves the process without its GPU, if a kernel
never ends, or if the process dies, a new one goes on with the next result. Without a GPU, what
needs none is measured. The exit code is 1 if a bit differs or a result failed, 2 without a GPU.

``--rehearse`` runs all of it on the host, small: it needs torch, but no GPU. ``--parts cpu limit``,
say, runs some of the parts.

A machine that reaches no package index needs the versions that the extra `cuda13` asks for, from
wheels. Its own torch, CuPy, cuda-bindings, cuda-core, ml_dtypes, NVRTC, nvJitLink and NVVM (of the
toolkit, by CUDA_HOME) are used. The wheels have 65 MB, and their files, packed by xz, 50 MB. In the
folder of the repository::

    pip download --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \\
        --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 \\
        --platform manylinux_2_24_x86_64 --platform manylinux_2_17_x86_64 \\
        -d .whl numba==0.68.1 llvmlite==0.50.0 numba-cuda==0.30.4
    for wheel in .whl/*.whl; do python -m zipfile -e $wheel .whl/site; done
    tar -C .whl/site -cJf .whl/site.tar.xz .

and there::

    pip uninstall -qy numba llvmlite numba-cuda || true
    tar -xJf .whl/site.tar.xz -C "$(python -c 'import site; print(site.getsitepackages()[0])')"
    export CUDA_HOME=${CUDA_HOME:-/usr/local/cuda}
    python -u -m benchmarks.device --report report.md --minutes 8 --limit uniform.c
"""

import argparse
import contextlib
import ctypes
import faulthandler
import functools
import importlib.metadata
import itertools
import json
import multiprocessing
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite.binding
import numpy as np

import numinit as ni
from numinit.engines.cuda_driver import lacking
from numinit.stream.dtypes import DTYPES

from . import cuda
from .cuda import INITIALIZERS, LAYOUTS, RATES, SMALL, Case, Sizes
from .measure import machine

THREADS = 1, 2, 4, 8, 16
MAIN = ("float32", "bfloat16", "float64")
DIFFERS, FAILED = "DIFFERS", "FAILED"  # how lines of the report begin that say so
NO_GPU, LOST = 2, 3  # exit codes: there is none, and the process has lost it
LONGEST = 75  # seconds that one result may take
CAPABILITY = 9, 0  # that a rehearsal compiles for
PACKAGES = (
    "torch", "numba", "numba-cuda", "llvmlite", "numpy", "cupy-cuda13x", "cuda-bindings",
    "cuda-core", "cuda-pathfinder", "nvidia-nvjitlink", "nvidia-nvvm", "nvidia-cuda-nvrtc",
    "nvidia-curand", "ml_dtypes",
)  # fmt: skip

#: The parts in their order, and the most seconds that each may take of a run of eight minutes.
PARTS = {
    "machine": 30,
    "bits": 80,
    "rates": 50,
    "cache": 20,
    "shapes": 30,
    "launches": 50,
    "cpu": 80,
    "limit": 20,
    "words": 20,
    "layouts": 70,
    "all bits": 480,
}
TIMED = {"rates", "cache", "shapes", "launches", "cpu", "limit"}
NEED_NO_GPU = {"machine", "cpu", "limit"}


class Report:
    """A file that is complete after each line, and the standard output."""

    def __init__(self, path: Path, again: bool) -> None:
        self._path, self._progress = path, path.with_name(path.name + ".item")
        if not again:
            path.unlink(missing_ok=True)
            self._progress.unlink(missing_ok=True)

    def at(self, number: int) -> None:
        """Note which item is about to run."""
        self._progress.write_text(str(number))

    def reached(self) -> int:
        """The last item that was noted; -1 if none was."""
        return int(self._progress.read_text()) if self._progress.exists() else -1

    def ended(self) -> None:
        """Leave no other file than the report."""
        self._progress.unlink(missing_ok=True)

    def __call__(self, text: str) -> None:
        print(text, flush=True)
        with self._path.open("a", encoding="utf-8") as file:  # two processes write to it in turn
            file.write(text + "\n")


class Bench:
    """What the items share: the GPU, the sizes, and the processes that compile ahead."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.sizes = SMALL if options.rehearse else Sizes()
        self.ready: dict[Case, Future[float]] = {}
        self._pool: ProcessPoolExecutor | None = None

    @functools.cached_property
    def gpu(self) -> Any:
        return cuda.Rehearsal() if self.options.rehearse else cuda.GPU()

    def compile_ahead(self, cases: Sequence[Case]) -> None:
        """Start compiling the kernels of cases, in their order."""
        if not cases:
            return
        workers = 1 if self.options.rehearse else max(1, min(16, os.cpu_count() or 1) // 2)
        spawn = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(workers, mp_context=spawn)
        capability = None if lacking() else self.gpu.capability
        for case in cases:
            self.ready[case] = self._pool.submit(cuda.prepare, case, capability)

    def compiled(self, case: Case, seconds: float = 45) -> str:
        """Wait until a case's kernels are in the cache; the error if they are not."""
        try:
            if case in self.ready:
                self.ready[case].result(seconds)
        except Exception as error:  # the fill itself will fail, or take longer
            return f" (compiling ahead: {type(error).__name__}: {error})"
        return ""

    def close(self) -> None:
        if self._pool is not None:
            processes = list((self._pool._processes or {}).values())
            self._pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()
            self._pool = None
            self.ready.clear()


class Item(NamedTuple):
    """One result."""

    part: str
    name: str
    run: Callable[[Bench], str]
    case: Case | None = None


def cases(dtypes: Sequence[str], names: Sequence[str], layouts: Sequence[str]) -> Iterator[Case]:
    for layout, name, dtype in itertools.product(layouts, names, dtypes):
        case = Case(name, dtype, layout)
        if case.accepted:
            yield case


def items(options: argparse.Namespace) -> list[Item]:
    """All results, in the order of their importance; the same list in each process of a run."""
    sizes = SMALL if options.rehearse else Sizes()
    found = [
        Item("machine", "the machine", about),
        Item("machine", "what compiles", toolkit),
    ]

    def compared(part: str, chosen: Iterator[Case]) -> None:
        for case in chosen:
            found.append(Item(part, str(case), functools.partial(bits, case=case), case))

    common = "normal", "uniform", "truncated"
    compared("bits", cases(MAIN, common, ["whole"]))
    for part, measure in {
        "rates": cuda.rates, "cache": cuda.cached_rate, "shapes": cuda.launch_shapes,
    }.items():  # fmt: skip
        for what, dtype in itertools.product(RATES, MAIN):
            run = functools.partial(_on_gpu, measure, what, dtype)
            found.append(Item(part, f"{what}, {dtype}", run))
    for name, run in {
        "host": lambda bench: cuda.host_times(bench.gpu, bench.sizes),
        "graph": lambda bench: cuda.graph(bench.gpu, bench.sizes),
        "streams": lambda bench: cuda.streams(bench.gpu, bench.sizes),
        "first call": first_call,
    }.items():
        found.append(Item("launches", name, run))
    for count in THREADS:
        found.append(Item("cpu", f"{count} threads", functools.partial(scaling, count=count)))
    found.append(Item("limit", "the program's rates", limit))
    for first in (0, 2**32 - sizes.blocks // 2):
        run = functools.partial(words, first=first)
        found.append(Item("words", f"blocks from {first} on", run))
    compared("layouts", cases(["float32"], ["normal"], ["rows", *LAYOUTS]))
    others = [name for name in DTYPES if name != "float32"]
    compared("layouts", cases(others, ["normal"], ["rows", *LAYOUTS]))
    compared("layouts", cases(["float32"], ["truncated", "sparse", "padded"], ["rows", *LAYOUTS]))
    done = {item.case for item in found}
    rest = [c for c in cases(list(DTYPES), list(INITIALIZERS), ["whole"]) if c not in done]
    if options.rehearse:  # some of each type and initializer, because a kernel takes seconds
        rest = rest[::5]
    compared("all bits", iter(rest))
    return [item for item in found if item.part in options.parts]


def _on_gpu(function: Callable[..., str], what: str, dtype: str, bench: Bench) -> str:
    late = bench.compiled(Case(what, dtype))
    return function(bench.gpu, what, dtype, bench.sizes) + late


HEADS = {
    "rates": "{0.sizes.nbytes} bytes on {0.gpu.name}; medians of {0.sizes.repeat} by events\n\n"
    + cuda.HEAD,
    "cpu": "{0.sizes.nbytes} bytes of float32, GB/s; medians\n\n"
    "| threads | fill | memset | constant | uniform | normal | truncated | of memset |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- |",
}


# Results


def about(bench: Bench) -> str:
    """The machine in words."""
    versions = []
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{package} {importlib.metadata.version(package)}")
    name = llvmlite.binding.get_host_cpu_name()
    said = [f"CPU: {machine()}, {name} to LLVM, {os.cpu_count()} logical cores"]
    said.append(
        f"Python {platform.python_version()}; {', '.join(versions)}; numinit {ni.__version__}"
    )
    if shutil.which("nvidia-smi"):
        query = "name,driver_version,memory.total,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem"
        command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        said.append((done.stdout or done.stderr).strip())
    return "\n".join(said)


def toolkit(bench: Bench) -> str:
    """The parts of CUDA's toolkit, where they are found, and whether they compile for this GPU."""
    if what := lacking():
        return f"cannot compile: {what}"
    from cuda import pathfinder

    from numinit.compiler.cuda import assembled, ptx

    said = []
    for name in ("nvvm", "nvJitLink", "nvrtc"):
        try:
            said.append(str(pathfinder.load_nvidia_dynamic_lib(name).abs_path))
        except Exception as error:
            said.append(f"no {name}: {type(error).__name__}")
    for name in ("curand", "cudart", "cccl"):
        said.append(f"headers of {name}: {pathfinder.find_nvidia_header_directory(name)}")
    try:
        code, _ = assembled(ptx(lambda: None, (), CAPABILITY))
        said.append(f"an empty kernel has {len(code)} bytes")
    except Exception as error:
        said.append(f"cannot compile: {type(error).__name__}: {error}")
    return "\n".join(said)


def bits(bench: Bench, case: Case) -> str:
    late = bench.compiled(case)
    found = cuda.difference(bench.gpu, case, bench.sizes)
    return (f"{DIFFERS}: {case}: {found}" if found else f"{case}: the CPU's bits") + late


def words(bench: Bench, first: int) -> str:
    try:
        found = cuda.curand_difference(bench.gpu, first, bench.sizes)
    except NotImplementedError as error:
        return f"skipped: {error}"
    what = f"{4 * bench.sizes.blocks} words from block {first} on"
    return f"{DIFFERS}: {what}: {found}" if found else f"{what}: cuRAND's"


FIRST_CALL = """
import json, time
import torch
small = torch.empty((64, 8), device={device!r})
wait = torch.cuda.synchronize if {device!r} == "cuda" else lambda: None
wait()
times = [time.perf_counter()]
import numinit as ni
times.append(time.perf_counter())
for _ in range(3):
    ni.normal_(small, generator=0)
    wait()
    times.append(time.perf_counter())
print(json.dumps([1e3 * (b - a) for a, b in zip(times, times[1:])]))
"""


def first_call(bench: Bench) -> str:
    """A process's first call, the kernel in the cache."""
    ni.normal_(bench.gpu.empty((64, 8), "float32"), generator=0)
    command = [sys.executable, "-c", FIRST_CALL.format(device=bench.gpu.device)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode:
        return f"the process failed: {done.stderr.strip()[-500:]}"
    imported, first, *later = json.loads(done.stdout.splitlines()[-1])
    return (
        f"in a new process with torch, a kernel in the cache: import numinit {imported:.0f} ms, "
        f"the first call {first:.0f} ms, the next ones {', '.join(f'{x:.3f}' for x in later)} ms"
    )


def scaling(bench: Bench, count: int) -> str:
    """The CPU engine's rates with some threads, beside `ndarray.fill` and `memset` in as many."""
    if count > (os.cpu_count() or 1):
        return f"| {count} | more than this machine has | | | | | | |"
    before = ni.get_num_threads()
    array = np.ones(bench.sizes.nbytes // 4, np.float32)
    parts = np.array_split(array, count)
    repeat = max(2, bench.sizes.repeat // 3)
    ni.set_num_threads(count)
    try:
        with ThreadPoolExecutor(count) as pool:

            def each(function: Callable[[np.ndarray], Any]) -> None:
                list(pool.map(function, parts))

            calls: list[Callable[[], Any]] = [
                lambda: each(lambda part: part.fill(1.0)),
                lambda: each(lambda part: ctypes.memset(part.ctypes.data, 1, part.nbytes)),
            ]
            for init in (ni.Constant(0.1), *RATES.values()):
                calls.append(functools.partial(init.fill_, array, seed=0))
            times: list[list[float]] = [[] for _ in calls]
            for turn in range(repeat + 1):
                for call, found in zip(calls, times, strict=True):
                    begin = time.perf_counter()
                    call()
                    if turn:
                        found.append(time.perf_counter() - begin)
    finally:
        ni.set_num_threads(before)
    rates = [array.nbytes / statistics.median(found) / 1e9 for found in times]
    ratios = ", ".join(f"{rate / rates[1]:.2f}" for rate in rates[3:])
    return f"| {count} | {' | '.join(f'{rate:.1f}' for rate in rates)} | {ratios} |"


def limit(bench: Bench) -> str:
    """What a program in C reaches, by 1 and by 16 threads."""
    source, compiler = bench.options.limit, shutil.which("cc")
    if source is None or compiler is None:
        return f"skipped: {'no C compiler' if source else 'no --limit uniform.c'}"
    most = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "limit"
        options = ["-O3", "-march=native", "-pthread"]
        subprocess.run([compiler, *options, source, "-o", program], check=True, timeout=60)
        said = []
        for count in sorted({1, min(16, most)}):
            done = subprocess.run(
                [program, str(count)], capture_output=True, text=True, check=True, timeout=60
            )
            said.append(f"{source.name}, {count} threads:\n{done.stdout.rstrip()}")
    return "\n".join(said)


# The run


def work(bench: Bench, report: Report) -> int:
    """Run the items from `--start` on, until the time is over; the exit code."""
    options, begin, code = bench.options, time.time(), 0
    listed = items(options)[options.start :]
    faulthandler.dump_traceback_later(LONGEST, exit=True)
    try:
        needing = [item for item in listed if item.part not in NEED_NO_GPU]
        try:
            if needing:
                bench.gpu  # noqa: B018
        except Exception as error:
            report(f"no GPU to measure: {type(error).__name__}: {error}")
            listed, code = [item for item in listed if item.part in NEED_NO_GPU], NO_GPU
        part, stop, left_out, quiet = "", options.end, list[str](), True
        for number, item in enumerate(listed, options.start):
            report.at(number)
            if item.part != part:
                part = item.part
                if quiet != (part in TIMED) or number == options.start:
                    quiet = part in TIMED
                    bench.close()
                    following = itertools.takewhile(
                        lambda i: i.part not in TIMED, listed[number - options.start :]
                    )
                    ahead = [i.case for i in following if i.case is not None]
                    bench.compile_ahead(ahead[:2] if options.rehearse else ahead)
                stop = min(options.end, time.time() + PARTS[part] * options.minutes / 8)
                report(f"\n## {part}\n")
                if part in HEADS:
                    report(HEADS[part].format(bench))
            if time.time() > stop:
                left_out.append(f"{part}: {item.name}")
                continue
            faulthandler.dump_traceback_later(LONGEST, exit=True)  # anew for each item
            if not told(bench, item, report):
                return LOST
        if left_out:
            report(f"\nNot run for lack of time: {'; '.join(left_out)}")
    finally:
        faulthandler.cancel_dump_traceback_later()
        bench.close()
    report(f"\nThe last process took {time.time() - begin:.0f} s.")
    return code


def told(bench: Bench, item: Item, report: Report) -> bool:
    """Report an item's result or error; whether the GPU, if the item needs one, is still there."""
    begin = time.time()
    try:
        said = item.run(bench)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        report(
            f"{FAILED}: {item.part}, {item.name}: {type(error).__name__}: "
            f"{str(error).strip()[:500]} ({Path(where.filename).name}, line {where.lineno})"
        )
        return item.part in NEED_NO_GPU or not bench.gpu.broken()
    report(said if said.startswith("|") else f"{said} [{time.time() - begin:.1f} s]")
    return True


def supervise(options: argparse.Namespace, argv: Sequence[str]) -> int:
    """Run `work` in a process, and go on in a new one after an item that ended it."""
    report, root = Report(options.report, again=False), Path(__file__).parents[1]
    start, count = 0, len(items(options))
    while start < count:
        command = [sys.executable, "-m", "benchmarks.device", *argv]
        command += [
            "--report",
            str(options.report),
            "--start",
            str(start),
            "--end",
            str(options.end),
        ]
        if options.limit:
            command += ["--limit", str(options.limit)]
        child = subprocess.Popen(command, cwd=root, process_group=0)
        try:
            code = child.wait(max(10, options.end - time.time()) + LONGEST)
        except subprocess.TimeoutExpired:
            code = LOST
        finally:
            with contextlib.suppress(OSError, AttributeError):
                os.killpg(child.pid, signal.SIGKILL)  # those that compile, too
        if code in (0, NO_GPU):
            break
        at = report.reached()
        if at < start:
            report(f"{FAILED}: the process ended with {code} before its first result")
            report.ended()
            return 1
        if code != LOST:
            name = items(options)[at].name
            report(f"{FAILED}: {name}: the process ended with {code}, or waited {LONGEST} s")
        report("a new process goes on")
        start = at + 1
    report.ended()
    text = options.report.read_text(encoding="utf-8")
    differing, failed = (
        sum(line.startswith(how) for line in text.splitlines()) for how in (DIFFERS, FAILED)
    )
    report(f"\n{differing} results differ, {failed} failed")
    return NO_GPU if code == NO_GPU else int(bool(differing or failed))


def options_of(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--report", type=Path, required=True, help="file to write")
    parser.add_argument("--minutes", type=float, default=8.0, help="after which it has ended")
    parser.add_argument("--limit", type=Path, help="source of the C program uniform.c")
    parser.add_argument("--rehearse", action="store_true", help="on the host, small")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--start", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--end", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    options.report = options.report.resolve()
    options.limit = options.limit and options.limit.resolve()
    return options


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    options = options_of(argv)
    if options.end is not None:
        return work(Bench(options), Report(options.report, again=True))
    options.end = time.time() + 60 * options.minutes
    return supervise(options, argv)


if __name__ == "__main__":
    raise SystemExit(main())
