"""The promised ratios, and which of them do not hold here: ``python -m benchmarks.ratios``.

Every promise of speed in the README is a row of `PROMISES`; a test compares them. The two sides are
timed in turn, so that other load on the machine affects both alike, and their medians are compared.
The exit code is 1 if a promise does not hold on this machine.

A fill by all threads competes with other processes more than a peer's single thread does. On a
machine that was busy with an installation, fewer than half of these promises held. So the command
says how many cores other processes used. Do not trust a ratio if that was more than 0.1.

The promise for fresh memory is near its limit. The system clears new pages at 33 GB/s, the speed of
the memory bus, before normals are made in them at 20 GB/s. Together that is 12.5 GB/s, 0.72 of a
fill with a constant, which reaches 17 GB/s. It is less where the host of a virtual machine must
find the pages first. On the machine of the README's table every other run broke this promise (0.48
to 0.86).
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

import numinit as ni

from .fills import FILLS, SIZE, buffer
from .measure import Quiet, machine

REPEAT = 9

Side = Callable[[], Any]


class Promise(NamedTuple):
    """`ours` is at least `ratio` times as fast as `peer`, per unit of work."""

    what: str
    """The first column of the README's table."""
    against: str
    """The beginning of the peer's column."""
    ratio: float
    sides: Callable[[], tuple[Side, Side]]
    """Makes the buffers; returns the two functions that are timed, ours and the peer's."""
    unit: str = "GB/s"
    work: tuple[float, float] = (SIZE / 1e9, SIZE / 1e9)
    """The work of ours and of the peer's, in the numerator of the unit; 0 to report times."""
    loops: int = 1


def pair(law: str, dtype: str, peer: str, peer_law: str = "", peer_dtype: str = "") -> Any:
    """Sides that fill buffers of `SIZE` bytes."""

    def sides() -> tuple[Side, Side]:
        a, b = buffer("numinit", dtype), buffer(peer, peer_dtype or dtype)
        return lambda: FILLS["numinit", law](a), lambda: FILLS[peer, peer_law or law](b)

    return sides


def small_weight() -> tuple[Side, Side]:
    import torch

    weight = torch.ones(64, 8)
    return (
        lambda: ni.kaiming_uniform_(weight),
        lambda: torch.nn.init.kaiming_uniform_(weight),
    )


def fresh_memory() -> tuple[Side, Side]:
    init, shape = ni.KaimingNormal(), (8192, SIZE // 4 // 8192)
    return lambda: init(shape, seed=0), lambda: np.empty(shape, np.float32).fill(1.0)


def matrices(name: str, rows: int, columns: int, *arguments: float) -> Any:
    """Sides that call a function of both libraries on a torch tensor."""

    def sides() -> tuple[Side, Side]:
        import torch

        if not hasattr(ni, name):
            raise NotImplementedError(f"this numinit has no {name}")
        weight = torch.ones(rows, columns)
        ours, peer = getattr(ni, name), getattr(torch.nn.init, name)
        return lambda: ours(weight, *arguments), lambda: peer(weight, *arguments)

    return sides


ELEMENTS = SIZE / 2 / 1e9, SIZE / 4 / 1e9
SQUARE = 2048 * 2048 * 4 / 1e9
TALL = 1_000_000 * 64 * 4 / 1e9
SPARSE = 8192 * 8192 * 4 / 1e9

PROMISES = [
    Promise("uniform_, float32", "torch", 12, pair("uniform", "float32", "torch")),
    Promise("normal_, float32", "torch", 8, pair("normal", "float32", "torch")),
    Promise("trunc_normal_, float32", "torch", 80, pair("truncated", "float32", "torch")),
    Promise(
        "trunc_normal_ beside normal_",
        "numinit",
        0.5,
        pair("truncated", "float32", "numinit", "normal"),
    ),
    Promise("normal_, float64", "NumPy", 5, pair("normal", "float64", "NumPy")),
    Promise(
        "normal_, bfloat16, elements",
        "numinit float32",
        0.8,
        pair("normal", "bfloat16", "numinit", "normal", "float32"),
        "10⁹/s",
        ELEMENTS,
    ),
    Promise("kaiming_uniform_ of 64 x 8", "torch", 1, small_weight, "µs", (0, 0), 5000),
    Promise("KaimingNormal()(shape), fresh memory", "np.empty + fill", 0.7, fresh_memory),
    Promise(
        "uniform_ beside the memory bus",
        "ndarray.fill",
        0.8,
        pair("uniform", "float32", "NumPy", "fill"),
    ),
    Promise(
        "orthogonal_, 2048 x 2048",
        "torch",
        1,
        matrices("orthogonal_", 2048, 2048),
        work=(SQUARE, SQUARE),
    ),
    Promise(
        "orthogonal_, 1,000,000 x 64",
        "torch",
        5,
        matrices("orthogonal_", 1_000_000, 64),
        work=(TALL, TALL),
    ),
    Promise(
        "sparse_, 8192 x 8192",
        "torch",
        2,
        matrices("sparse_", 8192, 8192, 0.9),
        work=(SPARSE, SPARSE),
    ),
]


def measure(sides: Sequence[Side], repeat: int, loops: int = 1) -> list[float]:
    """The median seconds of each side. They run in turn; the first run does not count."""
    times: list[list[float]] = [[] for _ in sides]
    for turn in range(repeat + 1):
        for run, found in zip(sides, times, strict=True):
            begin = time.perf_counter()
            for _ in range(loops):
                run()
            if turn:
                found.append((time.perf_counter() - begin) / loops)
    return [statistics.median(found) for found in times]


def shown(seconds: float, work: float, unit: str) -> str:
    value = work / seconds if work else seconds * 1e6
    return f"{value:.{1 if value >= 1 else 2 if value >= 0.1 else 3}f} {unit}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeat", type=int, default=REPEAT, help="runs whose median is taken")
    parser.add_argument("--markdown", action="store_true", help="the lines of the README's table")
    parser.add_argument("--only", default="", help="promises whose name contains this")
    arguments = parser.parse_args(argv)
    print(f"{machine()}; 256 MiB, median of {arguments.repeat}", flush=True)
    row = (
        "| {} | {} | {} {} | {} | {} |"
        if arguments.markdown
        else "{:38}{:>12}  {:>16} {:12}{:>8}{:>9}"
    )
    print(row.format("", "numinit", "peer", "", "ratio", "promise"), flush=True)
    broken, quiet = 0, Quiet()
    for promise in PROMISES:
        if arguments.only not in promise.what:
            continue
        why = ""
        try:
            sides = promise.sides()
        except (ImportError, NotImplementedError) as error:
            why = str(error)
        if why:
            print(f"{promise.what:38}skipped: {why}", flush=True)
            continue
        ours, peer = measure(sides, arguments.repeat, promise.loops)
        ratio = peer / ours
        if all(promise.work):
            ratio *= promise.work[0] / promise.work[1]
        held = ratio >= promise.ratio
        broken += not held
        values = [
            shown(t, w, promise.unit) for t, w in zip((ours, peer), promise.work, strict=True)
        ]
        mark = "" if held else ", not held" if arguments.markdown else "  does not hold"
        line = row.format(
            f"`{promise.what}`" if arguments.markdown else promise.what,
            values[0], promise.against, values[1],
            f"{ratio:.{2 if ratio < 10 else 3}g}" + mark * arguments.markdown, f"{promise.ratio:g}",
        )  # fmt: skip
        print(line + mark * (not arguments.markdown), flush=True)
    print(quiet)
    print(f"{broken} of the promises do not hold here" if broken else "all of these hold")
    return int(broken > 0)


if __name__ == "__main__":
    raise SystemExit(main())
