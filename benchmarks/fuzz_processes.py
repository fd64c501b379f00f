"""Random mixes of signals, forks, threads and fills: nothing hangs, every value is right.

    python -m benchmarks.fuzz_processes --seconds 180 --seed 0

Each case is a process that runs a random mix for a few seconds. If it does not end in time it
hangs: it says where its threads and children are, and is killed with them. ``--case SEED`` repeats
a case. POSIX only.
"""

import argparse
import faulthandler
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

# Seconds that a case may take, and its children half of that: all may compile on a busy machine.
PATIENCE = 240
ROOT = Path(__file__).resolve().parents[1]


def play(seed: int) -> None:
    """One case, in this process; prints what it did."""
    import threading

    import numpy as np

    import numinit as ni

    faulthandler.register(signal.SIGUSR1)
    rng = random.Random(seed)
    initializers = [ni.Normal(), ni.Uniform(), ni.TruncNormal(), ni.Sparse(0.5)]
    shapes = [(64, 8), (1 << 9, 1 << 9), (1 << 10, 1 << 11)]
    init, shape = rng.choice(initializers), rng.choice(shapes)
    compiles, threads = rng.random() < 0.5, rng.randrange(3)
    acts = rng.sample(["draw", "fill", "fork", "raise"], rng.randint(1, 3))
    pace = 10 ** rng.uniform(-3.3, -1.5)
    done: Counter[str] = Counter()
    main, children, drawn = os.getpid(), [], []
    over = False  # no Event, whose lock stays locked if a handler raises while it is set

    class Stop(BaseException):
        pass

    want: Any = None
    if not compiles:
        want = init(shape, seed=1)

    def check(made: Any) -> None:
        nonlocal want
        want = made if want is None else want
        if not np.array_equal(made, want):
            raise AssertionError(
                f"case {seed}: wrong values in {'main' if main == os.getpid() else 'child'}"
            )

    inside = False

    # Here, as programs do: a child that is born while a thread imports a module for the first time
    # can never import it, whatever numinit does.
    import numba

    def handler(*_: object) -> None:
        nonlocal inside
        if inside or over:
            return
        inside, act = True, handler_rng.choice(acts)
        try:
            done[act] += 1
            if act == "draw":
                drawn.append(ni.weights.keys.default_generator.next_key())
            elif act == "fill":
                try:
                    ni.normal_(np.empty(shape, np.float32))
                except RuntimeError as error:  # the one thing that a handler may be refused
                    if "in the middle of a compilation" not in str(error):
                        raise
                    done["refused"] += 1
            elif (
                act == "fork" and os.getpid() == main and len(children) < 12 and (pid := os.fork())
            ):
                children.append(pid)
        finally:
            inside = False
            if os.getpid() == main and act != "raise":  # after that, the loop below sets it
                signal.setitimer(signal.ITIMER_REAL, pace * handler_rng.uniform(0.2, 2))
        if act == "raise":
            raise Stop

    def beside(number: int) -> None:
        own = random.Random(seed + number)
        while not over and os.getpid() == main:
            act = own.choice(["draw", "fill", "fork", "njit"])
            done[f"thread {act}"] += 1
            if act == "draw":
                drawn.append(ni.weights.keys.default_generator.next_key())
            elif act == "fill":
                check(init(shape, seed=1))
            elif act == "njit" and done["njit"] < 3:
                done["njit"] += 1
                assert numba.njit(lambda x: x * 2 + number)(3) == 6 + number
            elif act == "fork" and done["forked"] < 8:
                done["forked"] += 1
                child = os.fork()
                if not child:
                    signal.signal(signal.SIGALRM, signal.SIG_DFL)
                    faulthandler.dump_traceback_later(PATIENCE // 2, exit=True)
                    code = 1
                    try:
                        code = 0 if np.array_equal(init(shape, seed=1), init(shape, seed=1)) else 3
                    finally:
                        os._exit(code)
                children.append(child)
            time.sleep(0.002)

    handler_rng = random.Random(seed + 100)
    signal.signal(signal.SIGALRM, handler)
    others = [threading.Thread(target=beside, args=(n,), daemon=True) for n in range(threads)]
    for other in others:
        other.start()
    # Python drops a handler's exception where nobody can catch it, as in a hook of a fork.
    sys.unraisablehook = lambda raised: done.update(["dropped"])
    end = time.monotonic() + rng.uniform(0.5, 2)
    while not over:
        try:
            signal.setitimer(signal.ITIMER_REAL, pace)
            while time.monotonic() < end and os.getpid() == main:
                check(init(shape, seed=1))
                done["main fill"] += 1
            over = True
        except Stop:
            pass
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    if os.getpid() != main:
        # A child that hangs says where, and dies. (Before, it may have set the timer that its
        # parent was to set.)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        faulthandler.dump_traceback_later(PATIENCE // 2, exit=True)
        code = 1
        try:
            check(init(shape, seed=1))
            code = 0
        finally:
            os._exit(code)
    for other in others:
        other.join()
    codes = [os.waitpid(child, 0)[1] for child in children]
    assert not any(codes), f"case {seed}: children ended with {codes}"
    assert len(set(drawn)) == len(drawn), f"case {seed}: a key was drawn twice"
    done["children"] = len(children)
    print(" ".join(f"{name.replace(' ', '_')}={count}" for name, count in done.items()))


def case(seed: int) -> tuple[str, Counter[str]]:
    """Run a case; returns what went wrong, "" if nothing did, and what the case did."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {
            **os.environ,
            "NUMBA_NUM_THREADS": str(random.Random(seed).choice([1, 2, 4])),
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }
        if seed % 4 == 0:  # compile all; else load, which is where most of the races are
            environment["NUMBA_CACHE_DIR"] = cache
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.fuzz_processes", "--case"]
        running = subprocess.Popen(
            [*command, str(seed)], env=environment, cwd=ROOT, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            out, errors = running.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGUSR1)
            time.sleep(1)
            os.killpg(running.pid, signal.SIGKILL)
            _, errors = running.communicate()
            return f"case {seed} hangs: {errors}", Counter()
    if running.returncode:
        return f"case {seed} ended with {running.returncode}: {errors[-9000:]}", Counter()
    done = Counter[str]()
    for word in out.split():
        name, _, count = word.partition("=")
        done[name] += int(count)
    return "", done


def main() -> int:
    """Run the command; 1 if a case failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, metavar="SEED", help="play one case in this process")
    arguments = parser.parse_args()
    if os.name != "posix":
        print("signals and forks are POSIX's: nothing to do here")
        return 0
    if arguments.case is not None:
        play(arguments.case)
        return 0
    end, total, failures, cases = time.monotonic() + arguments.seconds, Counter[str](), 0, 0
    while time.monotonic() < end:
        failure, done = case(arguments.seed + cases)
        cases, total = cases + 1, total + done
        if failure:
            failures += 1
            print(failure, flush=True)
    print(f"{cases} cases, {failures} failures; " + ", ".join(f"{n} {c}" for n, c in total.items()))
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
