"""The same in-place fills by numinit and by its peers, for `ratios`."""

import ctypes
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

import numinit as ni
from numinit.engines.threads import get_num_threads

from .cases import MIB, numpy_dtype

SIZE = 256 * MIB

_generator = np.random.Generator(np.random.SFC64(0))

#: (library, distribution) -> a function that fills a buffer that `buffer` made.
FILLS: dict[tuple[str, str], Callable[[Any], Any]] = {
    ("numinit", "zeros"): lambda a: ni.zeros_(a),
    ("numinit", "uniform"): lambda a: ni.uniform_(a, seed=0),
    ("numinit", "normal"): lambda a: ni.normal_(a, seed=0),
    ("numinit", "truncated"): lambda a: ni.trunc_normal_(a, seed=0),
    ("NumPy", "fill"): lambda a: a.fill(1.0),
    ("C", "memset"): lambda a: memset(a),
    ("NumPy", "uniform"): lambda a: _generator.random(dtype=a.dtype, out=a),
    ("NumPy", "normal"): lambda a: _generator.standard_normal(dtype=a.dtype, out=a),
    ("torch", "uniform"): lambda a: _torch().nn.init.uniform_(a),
    ("torch", "normal"): lambda a: _torch().nn.init.normal_(a),
    ("torch", "truncated"): lambda a: _torch().nn.init.trunc_normal_(a),
}


def memset(array: np.ndarray) -> None:
    """Fill memory by C's memset, by as many threads as numinit uses."""
    count = get_num_threads()
    size = -(-array.nbytes // count)
    begins = range(0, array.nbytes, size)
    address = array.ctypes.data
    parts = [(address + at, 0, min(size, array.nbytes - at)) for at in begins]
    list(_pool(count).map(lambda part: ctypes.memset(*part), parts))


@functools.cache
def _pool(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count)


def _torch() -> Any:
    import torch

    return torch


def buffer(peer: str, dtype: str, nbytes: int = SIZE) -> Any:
    """An array of a library, all of its memory already in use."""
    if peer == "torch":
        kind = getattr(_torch(), dtype)
        return _torch().full((nbytes // kind.itemsize,), 0.5, dtype=kind)
    kind = numpy_dtype(dtype)
    return np.full(nbytes // kind.itemsize, 0.5, kind)
