"""numinit beside other libraries: ``python -m benchmarks.peers``.

Each library runs in its own process and makes the same number of bytes of uniform, normal and
truncated normal values (2 standard deviations). The processes take turns, one at a time, so that
other load on the machine affects all alike. Three things are measured:

warm   an existing buffer is filled again; libraries that only return new arrays, marked *, make one
       after the former one was freed
fresh  a new array is made while the former one is kept, so that its memory pages are new
extra  the peak of the process's memory during that, beyond the array itself

The table and a chart of it are written beside this file, and the README shows them. A library that
is not installed, or has no such values, is left out, with the reason.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .measure import Quiet, Spread, can_measure_memory, extra_memory, machine, spread

LAWS = ("uniform", "normal", "truncated normal")
DTYPES = ("float32", "float64", "bfloat16")
MEASURES = ("warm", "fresh")
ITEMSIZE = {"float32": 4, "float64": 8, "bfloat16": 2}
HERE = Path(__file__).parent


class Case(NamedTuple):
    """A distribution, a dtype, and a number of elements."""

    law: str
    dtype: str
    elements: int


class Ways(NamedTuple):
    """How a library makes the values of a case."""

    new: Callable[[], Any]
    fill: Callable[[Any], Any] | None = None
    """Fills the result of `new` in place."""
    buffer: Callable[[], Any] | None = None
    """Makes the buffer for `fill`, its memory already in use; left out, `new` does."""


def numinit(case: Case) -> Ways:
    import numinit as ni

    init = {"uniform": ni.Uniform(), "normal": ni.Normal(), "truncated normal": ni.TruncNormal()}
    seeds = ni.Generator(0)
    made = init[case.law]
    return Ways(
        lambda: made((case.elements,), case.dtype, seed=seeds),
        lambda a: made.fill_(a, seed=seeds),
    )


def torch(case: Case) -> Ways:
    import torch

    init = torch.nn.init
    fill = {
        "uniform": init.uniform_,
        "normal": init.normal_,
        "truncated normal": init.trunc_normal_,
    }[case.law]
    dtype = getattr(torch, case.dtype)
    return Ways(lambda: fill(torch.empty(case.elements, dtype=dtype)), fill)


def _numpy(case: Case, generator: Any) -> Ways:
    import numpy as np

    if case.law == "truncated normal" or case.dtype == "bfloat16":
        what = case.dtype if case.dtype == "bfloat16" else case.law
        raise NotImplementedError(f"no {what}")
    draw = generator.random if case.law == "uniform" else generator.standard_normal
    dtype = np.dtype(case.dtype)
    return Ways(lambda: draw(case.elements, dtype=dtype), lambda a: draw(dtype=dtype, out=a))


def numpy(case: Case) -> Ways:
    """With the bit generator that was the fastest of its own."""
    import numpy as np

    return _numpy(case, np.random.Generator(np.random.SFC64(0)))


def randomgen(case: Case) -> Ways:
    """The same, of its own."""
    import numpy as np
    from randomgen import SFC64

    return _numpy(case, np.random.Generator(SFC64(0)))


def mkl_random(case: Case) -> Ways:
    """With the basic generator and the method that were the fastest."""
    import mkl_random

    if case.law == "truncated normal" or case.dtype != "float64":
        what = case.dtype if case.dtype != "float64" else case.law
        raise NotImplementedError(f"no {what}")
    state = mkl_random.MKLRandomState(0, brng="ARS5")
    if case.law == "uniform":
        return Ways(lambda: state.random_sample(case.elements))
    return Ways(lambda: state.normal(0.0, 1.0, case.elements, method="ICDF"))


def jax(case: Case) -> Ways:
    """Jitted, with its default generator (threefry)."""
    import jax

    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_platforms", "cpu")
    shape, dtype = (case.elements,), getattr(jax.numpy, case.dtype)
    draw = {
        "uniform": lambda key: jax.random.uniform(key, shape, dtype),
        "normal": lambda key: jax.random.normal(key, shape, dtype),
        "truncated normal": lambda key: jax.random.truncated_normal(key, -2, 2, shape, dtype),
    }[case.law]
    compiled, keys = jax.jit(draw), iter(jax.random.split(jax.random.key(0), 4096))
    return Ways(lambda: compiled(next(keys)).block_until_ready())


def tensorflow(case: Case) -> Ways:
    import tensorflow as tf

    generator = tf.random.Generator.from_seed(0, alg="philox")
    draw = {
        "uniform": generator.uniform,
        "normal": generator.normal,
        "truncated normal": generator.truncated_normal,
    }[case.law]
    return Ways(lambda: draw((case.elements,), dtype=case.dtype))


#: numinit first: the others are compared with it.
PEERS: dict[str, Callable[[Case], Ways]] = {
    "numinit": numinit,
    "torch": torch,
    "NumPy": numpy,
    "randomgen": randomgen,
    "mkl_random": mkl_random,
    "JAX": jax,
    "TensorFlow": tensorflow,
}
FUNCTIONAL = {"mkl_random", "JAX", "TensorFlow"}
DISTRIBUTIONS = {"NumPy": "numpy", "JAX": "jax", "TensorFlow": "tensorflow"}


# A library's process reads a case a line and writes what it measured.


def version(peer: str) -> str:
    from importlib import metadata

    name = DISTRIBUTIONS.get(peer, peer)
    if peer == "numinit":  # perhaps of a checkout
        import numinit

        return numinit.__version__
    for distribution in (name, f"{name}_cpu"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(distribution)
    return ""


class Worker:
    """The cases of a library in this process; what a case needs is kept until the next."""

    def __init__(self, peer: str) -> None:
        self.peer, self.case = peer, None

    def answer(self, case: Case, measure: str) -> float:
        """Seconds, or bytes for "extra"."""
        if case != self.case:
            self.case = self.warm = self.previous = None
            self.ways = PEERS[self.peer](case)
            self.warm = self.ways.new()  # compiled, and touched
            if self.ways.fill is None:
                self.warm = None
            self.case = case
        clock, ways = time.perf_counter, self.ways
        if measure == "warm":
            begin = clock()
            if ways.fill is None:
                ways.new()
            else:
                ways.fill(self.warm)
            return clock() - begin
        if measure == "fresh":
            begin = clock()
            made = ways.new()
            took = clock() - begin
            self.previous = made
            return took
        self.previous = None
        nbytes = case.elements * ITEMSIZE[case.dtype]
        return max(0.0, extra_memory(ways.new) - nbytes)


def serve(peer: str) -> None:
    """Answer on what was standard output; libraries that print go to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = Worker(peer)
    print(json.dumps({"version": version(peer)}), file=answers, flush=True)
    for line in sys.stdin:
        *case, measure = json.loads(line)
        try:
            answer = {"value": worker.answer(Case(*case), measure)}
        except ImportError:
            answer = {"why": "not installed"}
        except (NotImplementedError, TypeError, ValueError) as error:
            answer = {"why": str(error).partition("\n")[0]}
        except Exception:
            answer = {"why": traceback.format_exc(limit=0).strip().rpartition("\n")[2]}
        print(json.dumps(answer), file=answers, flush=True)


class Process:
    """A library's process, seen from here."""

    def __init__(self, peer: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.peers", "--serve", peer],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=Path(__file__).parents[1],
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        self.version = self._read()["version"]

    def _read(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"why": "its process ended", "version": ""}

    def ask(self, case: Case, measure: str) -> dict[str, Any]:
        try:
            print(json.dumps([*case, measure]), file=self.process.stdin, flush=True)
        except BrokenPipeError:
            return {"why": "its process ended"}
        return self._read()

    def close(self) -> None:
        self.process.communicate(timeout=60)


class Line(NamedTuple):
    """A library on a case: spreads of GB/s, bytes, or why there are none."""

    peer: str
    law: str
    dtype: str
    warm: Spread | None = None
    fresh: Spread | None = None
    extra: float | None = None
    why: str = ""


def measure(
    peers: dict[str, Process], nbytes: int, rounds: int, laws: Sequence[str], dtypes: Sequence[str]
) -> Iterator[Line]:
    """All libraries on all cases, in turn."""
    for law in laws:
        for dtype in dtypes:
            case = Case(law, dtype, nbytes // ITEMSIZE[dtype])
            times: dict[tuple[str, str], list[float]] = {}
            why: dict[str, str] = {}
            for turn in range(rounds + 1):
                for kind in MEASURES:
                    for peer, process in peers.items():
                        if peer in why:
                            continue
                        found = process.ask(case, kind)
                        if "why" in found:
                            why[peer] = found["why"]
                        elif turn:  # the first does not count
                            times.setdefault((peer, kind), []).append(found["value"])
            for peer, process in peers.items():
                if peer in why:
                    yield Line(peer, law, dtype, why=why[peer])
                    continue
                extra = process.ask(case, "extra").get("value") if can_measure_memory() else None
                warm, fresh = (
                    spread([nbytes / 1e9 / t for t in times[peer, kind]]) for kind in MEASURES
                )
                yield Line(peer, law, dtype, warm, fresh, extra)


def table(lines: Sequence[Line], nbytes: int) -> str:
    """The table in Markdown."""
    ours = {(x.law, x.dtype): x for x in lines if x.peer == "numinit"}
    rows = [
        "| values | dtype | library | warm, GB/s (quartiles) | numinit is | fresh, GB/s (quartiles) "
        "| numinit is | extra memory |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for x in lines:
        head = f"| {x.law} | {x.dtype} | {x.peer}{'*' if x.peer in FUNCTIONAL else ''} |"
        if x.warm is None or x.fresh is None:
            rows.append(f"{head} {x.why} | | | | |")
            continue
        us, cells = ours.get((x.law, x.dtype)), []
        for mine, theirs in ((us and us.warm, x.warm), (us and us.fresh, x.fresh)):
            cells.append(f"{theirs.median:.2f} ({theirs.low:.2f} to {theirs.high:.2f})")
            ratio = mine.median / theirs.median if mine and x.peer != "numinit" else None
            cells.append(f"{ratio:.3g} x" if ratio else "")
        if x.extra is None:
            cells.append("not measured")
        else:
            share = x.extra / nbytes
            cells.append(
                f"{share:.1f} x the array" if share > 0.05 else f"{x.extra / 2**20:.1f} MiB"
            )
        rows.append(f"{head} {' | '.join(cells)} |")
    return "\n".join(rows)


def draw(lines: Sequence[Line], title: str, path: Path) -> None:
    """Draw bars of both times, with a panel for each distribution and dtype."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    laws = [law for law in LAWS if any(x.law == law and x.warm for x in lines)]
    dtypes = [dtype for dtype in DTYPES if any(x.dtype == dtype and x.warm for x in lines)]
    figure, axes = plt.subplots(
        len(laws), len(dtypes), figsize=(4.2 * len(dtypes), 2.5 * len(laws)), squeeze=False
    )
    for law, row in zip(laws, axes, strict=True):
        for dtype, axis in zip(dtypes, row, strict=True):
            here = [x for x in lines if (x.law, x.dtype) == (law, dtype) and x.warm and x.fresh]
            for n, x in enumerate(here):
                colour = "#c44e52" if x.peer == "numinit" else "#4c72b0"
                for shift, kind, alpha in ((-0.2, x.warm, 1.0), (0.2, x.fresh, 0.45)):
                    axis.barh(n + shift, kind.median, 0.38, color=colour, alpha=alpha)
                    axis.text(kind.high, n + shift, f" {kind.median:.2g}", va="center", size=6.5)
                    axis.plot([kind.low, kind.high], [n + shift] * 2, color="black", lw=0.8)
            axis.set_yticks(
                range(len(here)), [x.peer + "*" * (x.peer in FUNCTIONAL) for x in here], size=8
            )
            axis.invert_yaxis()
            axis.margins(x=0.15)
            axis.set_title(f"{law}, {dtype}", size=9)
            axis.spines[["top", "right"]].set_visible(False)
            axis.tick_params(axis="x", labelsize=7)
    for axis in axes[-1]:
        axis.set_xlabel("GB/s: full, a buffer filled again; pale, a new array", size=7)
    figure.suptitle(title, size=9)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--serve", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--mib", type=float, default=256, help="size of the arrays")
    parser.add_argument("--rounds", type=int, default=5, help="runs whose median is taken")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--laws", nargs="+", choices=LAWS, default=LAWS)
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=DTYPES)
    parser.add_argument("--out", type=Path, default=HERE, help="folder of peers.md and peers.png")
    arguments = parser.parse_args(argv)
    if arguments.serve:
        serve(arguments.serve)
        return 0
    nbytes = int(arguments.mib * 2**20)
    quiet = Quiet()
    peers = {name: Process(name) for name in arguments.peers}
    try:
        lines = list(measure(peers, nbytes, arguments.rounds, arguments.laws, arguments.dtypes))
    finally:
        for process in peers.values():
            process.close()
    seen = {x.peer for x in lines if x.warm}
    title = (
        f"{arguments.mib:g} MiB, {machine()}, medians of {arguments.rounds} runs in turn; "
        + ", ".join(f"{n} {p.version}" for n, p in peers.items() if n in seen)
    )
    report = (
        f"{title}; {quiet}. Libraries with a * return new arrays only.\n\n{table(lines, nbytes)}\n"
    )
    print(report, end="")
    (arguments.out / "peers.md").write_text(f"# The peers, side by side\n\n{report}", "utf-8")
    try:
        draw(lines, title.replace("; ", "\n"), arguments.out / "peers.png")
    except ImportError:
        print("\nno chart: matplotlib is not installed (pip install 'numinit[bench]')")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
