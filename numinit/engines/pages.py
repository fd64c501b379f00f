"""Pages of the host's memory: whether they were touched, and larger ones."""

import ctypes
import functools
import mmap
import sys
from collections.abc import Callable

LEAST = 4 << 20  # bytes of memory that gets huge pages, as in NumPy
HUGE = 2 << 20
MADV_HUGEPAGE = 14
SAMPLES = 8


def use_huge_pages(address: int, nbytes: int) -> None:
    """Ask for huge pages under memory that is new, where the system has them.

    Memory that was never touched costs a page fault for each page; huge ones are 512 times fewer.

    Parameters
    ----------
    address : int
    nbytes : int
        Less than `LEAST` is left as it is.
    """
    if nbytes < LEAST or sys.platform != "linux":
        return
    first = -(-address // HUGE) * HUGE
    size = (address + nbytes) // HUGE * HUGE - first
    if address and size > 0:
        _function("madvise", ctypes.c_int)(first, size, MADV_HUGEPAGE)  # refusal changes nothing


def touched(address: int, nbytes: int) -> bool:
    """Whether most of some memory has pages; True where the system does not say.

    The system clears a page when it is first touched, and leaves it in the caches.

    Parameters
    ----------
    address, nbytes : int
        At least a byte.
    """
    if sys.platform not in ("linux", "darwin"):
        return True
    in_core, missing = _function("mincore", ctypes.c_char_p), 0
    for sample in range(SAMPLES):
        byte = address + nbytes * sample // SAMPLES
        state = ctypes.create_string_buffer(1)
        failed = in_core(byte // mmap.PAGESIZE * mmap.PAGESIZE, 1, state)
        missing += not failed and not state.raw[0] & 1
    return 2 * missing <= SAMPLES


@functools.cache
def _function(name: str, last: type) -> Callable[..., int]:
    """A function of the C library that takes an address, a size and one thing more."""
    function = getattr(ctypes.CDLL(None), name)
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, last)
    found: Callable[..., int] = function
    return found
