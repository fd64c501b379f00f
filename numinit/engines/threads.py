"""How many threads a fill may use: as set, else as many as the process has CPUs."""

import functools
import math
import operator
import os
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from numinit.show import show

_set: list[int] = []  # the number by `set_num_threads`, if one was set


def set_num_threads(number: int) -> None:
    """Set the number of threads that fills of this process use from now on.

    Values do not depend on it. Small arrays are filled by the calling thread alone.

    Parameters
    ----------
    number : int
        At least 1; it includes the calling thread.

    Raises
    ------
    TypeError, ValueError
        If `number` is no integer, or less than 1.

    Examples
    --------
    >>> before = ni.get_num_threads()
    >>> ni.set_num_threads(1)
    >>> ni.get_num_threads()
    1
    >>> ni.set_num_threads(before)
    """
    try:
        count = operator.index(number)
    except TypeError:
        count = None
    if count is None or isinstance(number, bool):
        raise TypeError(f"number: {show(number)} was given; an integer is accepted")
    if count < 1:
        raise ValueError(f"number: {show(number)} was given; 1 thread or more are accepted")
    _set[:] = [count]


def get_num_threads() -> int:
    """Return the number of threads that a fill of a large array may use now.

    Returns
    -------
    int
        The first of these that is set: `set_num_threads`, ``numba.set_num_threads``, the variables
        NUMBA_NUM_THREADS and OMP_NUM_THREADS. Else the number of CPUs that the process may run on,
        or that its container's quota is worth, whichever is smaller.

    Examples
    --------
    >>> ni.get_num_threads() >= 1
    True
    """
    return _chosen()[0]


def source() -> str:
    """The setting that the number of threads comes from, in words."""
    return _chosen()[1]


def _chosen() -> tuple[int, str]:
    for number in _set:
        return number, "numinit.set_num_threads"
    config = sys.modules.get("numba.core.config")
    if config is None or not hasattr(config, "NUMBA_NUM_THREADS"):  # not, or not wholly imported
        told = os.environ.get("NUMBA_NUM_THREADS", "")
        if not told.isdecimal():
            return default()
        if int(told) < 1:
            raise ValueError(f"NUMBA_NUM_THREADS: {told} was given; 1 thread or more are accepted")
        return int(told), "NUMBA_NUM_THREADS"
    number = int(config.NUMBA_NUM_THREADS)
    parallel = sys.modules.get("numba.np.ufunc.parallel")
    if parallel is not None and getattr(parallel, "_is_initialized", True):
        # set_num_threads may have been called. The public get_num_threads takes locks, one of
        # them shared with other processes, which a fork or a killed child can leave locked.
        ask = getattr(parallel, "_get_num_threads", parallel.get_num_threads)
        if (now := int(ask())) != number:
            return now, "numba.set_num_threads"
    if "NUMBA_NUM_THREADS" in os.environ or number != config.NUMBA_DEFAULT_NUM_THREADS:
        return number, "NUMBA_NUM_THREADS"
    return default()


def default(root: str = "/") -> tuple[int, str]:
    """The number of threads where none was set, and where that number comes from.

    It is the first number in OMP_NUM_THREADS, if there is one. Else it is the number of CPUs that
    the process may run on, or that its container's quota is worth, whichever is smaller.

    Parameters
    ----------
    root : str, optional
        The directory that has ``proc`` and ``sys``.
    """
    told = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if told.isascii() and told.isdigit() and int(told) > 0:
        return int(told), "OMP_NUM_THREADS"
    if hasattr(os, "process_cpu_count"):  # from Python 3.13: by PYTHON_CPU_COUNT or the affinity
        count = os.process_cpu_count() or 1
    elif hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    quota = _quota_of(root)
    if quota < count:
        return max(1, math.ceil(quota)), "CPU quota of the container"
    return count, "CPUs of the process"


@functools.cache
def _quota_of(root: str) -> float:
    """The least quota, in CPUs, of the control groups around the process."""
    return min(_quotas(Path(root)), default=math.inf)


def _quotas(root: Path) -> Iterator[float]:
    """The number of CPUs that the quota of each control group around the process is worth."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        # A line of version 2 names no controllers. The path may be the host's, while the container
        # sees its own group at the root of the mount. So all groups on the way up are read.
        folders = ("",) if not controllers else (controllers, "cpu", "cpu,cpuacct")
        own = PurePosixPath("/", path).relative_to("/")
        for folder in folders:
            mounted = root / "sys/fs/cgroup" / folder
            for group in (own, *own.parents):
                if ".." not in group.parts:
                    yield from _quota(mounted / group)


def _quota(group: Path) -> Iterator[float]:
    """The quota of one control group in CPUs, if it has one."""
    words = _read(group / "cpu.max").split() or [
        *_read(group / "cpu.cfs_quota_us").split(),
        *_read(group / "cpu.cfs_period_us").split(),
    ]
    try:
        quota, period = map(int, words)  # "max": no quota, as is -1
    except ValueError:
        return
    if quota > 0 and period > 0:
        yield quota / period


def _read(file: Path) -> str:
    # A file opened as ASCII imports Python's module of that encoding. An import beside a fork or a
    # handler that raises can leave the module locked for ever.
    try:
        return file.read_bytes().decode("ascii", "replace")
    except OSError:
        return ""
