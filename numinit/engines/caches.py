"""The size of the processor's caches."""

import contextlib
import functools
import os
from pathlib import Path

USUAL = 32 << 20
A_THREAD = 16 << 20
_LINUX = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"K": 10, "M": 20, "G": 30}


@functools.cache
def cache_size() -> int:
    """Bytes of the last-level cache that this process may count on.

    Where many threads share one, as those of other virtual machines do, that is no more than
    `A_THREAD` for each of ours. Where the system does not say, it is `USUAL`.
    """
    sizes = [_size(folder) for folder in _LINUX.glob("index*")]
    return min(max(sizes, default=0) or USUAL, A_THREAD * (os.cpu_count() or 1))


def _size(folder: Path) -> int:
    with contextlib.suppress(OSError, ValueError, KeyError):
        # Decoded by itself, because a file opened as ASCII imports a module; see `threads._read`.
        text = (folder / "size").read_bytes().decode("ascii").strip()
        return int(text[:-1]) << _UNITS[text[-1]]
    return 0
