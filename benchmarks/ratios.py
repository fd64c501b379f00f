"""The promised ratios, side by side in one process: ``python -m benchmarks.ratios``.

Every pair is timed in turn, so that a noisy machine hurts both alike; medians are compared. The
exit code is 1 if a promise does not hold on this machine.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import numinit as ni

from .peers import FILLS, SIZE, buffer

REPEAT = 9


class Promise(NamedTuple):
    """`ours` is at least `ratio` times as fast as `peer`, per unit of work."""

    name: str
    ours: Callable[[], Any]
    peer: Callable[[], Any]
    ratio: float
    work: tuple[float, float] = (SIZE, SIZE)  # of ours and the peer's
    loops: int = 1


def promises() -> list[Promise]:
    """What is measured, on shared buffers."""
    f4, f8, t4, b2 = (
        buffer(*kind)
        for kind in (
            ("numinit", "float32"),
            ("numinit", "float64"),
            ("torch", "float32"),
            ("torch", "bfloat16"),
        )
    )
    uniform, normal = FILLS["numinit", "uniform"], FILLS["numinit", "normal"]
    weight = t4[:512].reshape(64, 8)
    torch_init = sys.modules["torch"].nn.init
    shape = (8192, SIZE // 4 // 8192)
    half = (SIZE / 2, SIZE / 4)  # elements
    fresh = ni.KaimingNormal()
    return [
        Promise("uniform_ / ndarray.fill", lambda: uniform(f4), lambda: f4.fill(1.0), 0.8),
        Promise("uniform_ / torch", lambda: uniform(f4), lambda: FILLS["torch", "uniform"](t4), 12),
        Promise("normal_ / torch", lambda: normal(f4), lambda: FILLS["torch", "normal"](t4), 8),
        Promise(
            "normal_, elements: bfloat16 / float32",
            lambda: normal(b2),
            lambda: normal(f4),
            0.8,
            half,
        ),
        Promise(
            "normal_ float64 / NumPy", lambda: normal(f8), lambda: FILLS["numpy", "normal"](f8), 5
        ),
        Promise(
            "kaiming_uniform_ 64x8 / torch",
            lambda: ni.kaiming_uniform_(weight),
            lambda: torch_init.kaiming_uniform_(weight),
            1,
            (2048, 2048),
            5000,
        ),
        Promise(
            "KaimingNormal()(shape) / np.empty + fill",
            lambda: fresh(shape, seed=0),
            lambda: np.empty(shape, np.float32).fill(1.0),
            0.7,
        ),
    ]


def measure(promise: Promise, repeat: int) -> tuple[float, float]:
    """Median work per second of ours and of the peer."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeat + 1):
        for run, found in zip((promise.ours, promise.peer), times, strict=True):
            begin = time.perf_counter()
            for _ in range(promise.loops):
                run()
            found.append((time.perf_counter() - begin) / promise.loops)
    ours, peer = (
        work / statistics.median(t[1:]) for work, t in zip(promise.work, times, strict=True)
    )
    return ours, peer


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeat", type=int, default=REPEAT, help="runs whose median is taken")
    repeat = parser.parse_args().repeat
    print(
        f"{'256 MiB, median of ' + str(repeat):42}{'ours':>9}{'peer':>9}{'ratio':>8}{'promise':>9}"
    )
    broken = 0
    for promise in promises():
        ours, peer = measure(promise, repeat)
        held = ours / peer >= promise.ratio
        broken += not held
        print(
            f"{promise.name:42}{ours / 1e9:9.2f}{peer / 1e9:9.2f}{ours / peer:8.2f}"
            f"{promise.ratio:9.4g}  {'' if held else 'does not hold'}".rstrip()
        )
    return int(broken > 0)


if __name__ == "__main__":
    raise SystemExit(main())
