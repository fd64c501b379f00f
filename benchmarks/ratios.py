"""The promised ratios, and which of them do not hold here: ``python -m benchmarks.ratios``.

Every promise of speed in the README is a row of `PROMISES`, with a number for each class of machines
(see `benchmarks.measure`): what holds with AVX-512 need not hold with AVX2. The two sides are timed
in turn, so that other load on the machine affects both alike, and their medians are compared. The
exit code is 1 if a promise does not hold on this machine. ``--record`` keeps what was found in
``benchmarks/ratios.json``, one record a class; ``--markdown`` prints the README's table of all.

A fill by all threads competes with other processes more than a peer's single thread does. On a
machine that was busy with an installation, fewer than half of these promises held. So the command
says how many cores other processes used. Do not trust a ratio if that was more than 0.1.

The wall is memory: a fill that is stored past the caches (`zeros_`), and C's memset by as many
threads. NumPy's `fill` reads what it overwrites. Fresh memory must be found and cleared by the
system first, for a virtual machine by its host as well, which takes as long as normals do.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import numinit as ni

from .fills import FILLS, SIZE, buffer
from .measure import CLASSES, Quiet, machine, machine_class

REPEAT = 9

Side = Callable[[], Any]


class Promise(NamedTuple):
    """`ours` is at least `ratios` times as fast as `peer`, per unit of work."""

    what: str
    """The first column of the README's table."""
    against: str
    """The beginning of the peer's column."""
    ratios: dict[str, float]
    """By class of machines. A class without a number has no promise."""
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


def both(wide: float, narrow: float) -> dict[str, float]:
    """The promises for AVX-512 and for AVX2."""
    return {"AVX-512": wide, "AVX2": narrow}


PROMISES = [
    Promise("uniform_, float32", "torch", both(12, 6), pair("uniform", "float32", "torch")),
    Promise("normal_, float32", "torch", both(8, 4), pair("normal", "float32", "torch")),
    Promise("trunc_normal_, float32", "torch", both(80, 50), pair("truncated", "float32", "torch")),
    Promise(
        "normal_ beside uniform_",
        "numinit",
        both(0.5, 0.5),
        pair("normal", "float32", "numinit", "uniform"),
    ),
    Promise(
        "trunc_normal_ beside normal_",
        "numinit",
        both(0.6, 0.6),
        pair("truncated", "float32", "numinit", "normal"),
    ),
    Promise("normal_, float64", "NumPy", both(5, 4), pair("normal", "float64", "NumPy")),
    Promise(
        "normal_, bfloat16, elements",
        "numinit float32",
        both(0.8, 0.8),
        pair("normal", "bfloat16", "numinit", "normal", "float32"),
        "10⁹/s",
        ELEMENTS,
    ),
    Promise("kaiming_uniform_ of 64 x 8", "torch", both(1, 1), small_weight, "µs", (0, 0), 5000),
    Promise(
        "KaimingNormal()(shape), fresh memory", "np.empty + fill", both(0.7, 0.6), fresh_memory
    ),
    Promise(
        "zeros_ beside memset by all threads",
        "C",
        both(0.95, 0.95),
        pair("zeros", "float32", "C", "memset"),
    ),
    Promise(
        "uniform_ beside a fill that reads",
        "ndarray.fill",
        both(1, 0.7),
        pair("uniform", "float32", "NumPy", "fill"),
    ),
    Promise(
        "orthogonal_, 64 x 64",
        "torch",
        both(1, 1),
        matrices("orthogonal_", 64, 64),
        "µs",
        (0, 0),
        50,
    ),
    Promise(
        "orthogonal_, 2048 x 2048",
        "torch",
        both(1.5, 1.5),
        matrices("orthogonal_", 2048, 2048),
        work=(SQUARE, SQUARE),
    ),
    Promise(
        "orthogonal_, 1,000,000 x 64",
        "torch",
        both(5, 4),
        matrices("orthogonal_", 1_000_000, 64),
        work=(TALL, TALL),
    ),
    Promise(
        "sparse_, 8192 x 8192",
        "torch",
        both(4, 3),
        matrices("sparse_", 8192, 8192, 0.9),
        work=(SPARSE, SPARSE),
    ),
    Promise("eye_, 512 x 512", "torch", both(1, 1), matrices("eye_", 512, 512), "µs", (0, 0), 200),
]

RECORD = Path(__file__).with_name("ratios.json")


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


def row(promise: Promise, repeat: int) -> dict[str, Any]:
    """What one promise gives on this machine."""
    ours, peer = measure(promise.sides(), repeat, promise.loops)
    ratio = peer / ours
    if all(promise.work):
        ratio *= promise.work[0] / promise.work[1]
    ours_shown, peer_shown = (
        shown(t, w, promise.unit) for t, w in zip((ours, peer), promise.work, strict=True)
    )
    return {"numinit": ours_shown, "peer": peer_shown, "ratio": float(f"{ratio:.3g}")}


def held(promise: Promise, found: dict[str, Any], kind: str) -> bool:
    """Whether a promise for a class of machines holds; without one, nothing is broken."""
    return bool(found["ratio"] >= promise.ratios.get(kind, 0))


def table(records: dict[str, Any]) -> str:
    """The README's table: one column for each class that there is a record of."""
    kinds = [kind for kind in CLASSES if kind in records]
    lines = [["", "beside", *(f"{kind}: numinit, peer, ratio (promised)" for kind in kinds)]]
    lines.append(["---"] * len(lines[0]))
    for promise in PROMISES:
        cells = []
        for kind in kinds:
            found = records[kind]["rows"].get(promise.what)
            if found is None:
                cells.append("")
                continue
            end = "" if held(promise, found, kind) else ", not held"
            cells.append(
                f"{found['numinit']}, {found['peer']}, "
                f"**{found['ratio']:g}** ({promise.ratios[kind]:g}{end})"
            )
        lines.append([f"`{promise.what}`", promise.against, *cells])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeat", type=int, default=REPEAT, help="runs whose median is taken")
    parser.add_argument("--only", default="", help="promises whose name contains this")
    parser.add_argument("--record", action="store_true", help=f"keep the result in {RECORD.name}")
    parser.add_argument(
        "--markdown", action="store_true", help="print the README's table, and measure nothing"
    )
    arguments = parser.parse_args(argv)
    records = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    if arguments.markdown:
        print(table(records))
        return 0
    kind = machine_class()
    print(f"{machine()}, {kind or 'no class with promises'}; median of {arguments.repeat}")
    if kind not in records:
        print("there is no record of this class of machines")
    print(f"{'':38}{'numinit':>12}  {'peer':>32}{'ratio':>9}{'promise':>9}", flush=True)
    rows, broken, quiet = {}, 0, Quiet()
    for promise in PROMISES:
        if arguments.only not in promise.what:
            continue
        try:
            found = row(promise, arguments.repeat)
        except (ImportError, NotImplementedError) as error:
            print(f"{promise.what:38}skipped: {error}", flush=True)
            continue
        rows[promise.what] = found
        peer = f"{promise.against} {found['peer']}"
        kept = held(promise, found, kind)
        broken += not kept
        end = "" if kept else "  does not hold"
        line = f"{promise.what:38}{found['numinit']:>12}  {peer:>32}{found['ratio']:>9g}"
        print(f"{line}{promise.ratios.get(kind, '-'):>9}{end}", flush=True)
    print(quiet)
    print(f"{broken} of the promises do not hold here" if broken else "all of these hold")
    if arguments.record and kind:
        about = {"machine": machine(), "repeat": arguments.repeat, "others": str(quiet)}
        records[kind] = {**about, "rows": rows}
        RECORD.write_text(json.dumps(records, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return int(broken > 0)


if __name__ == "__main__":
    raise SystemExit(main())
