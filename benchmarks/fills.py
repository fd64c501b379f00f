"""The same in-place fills by numinit and by its peers, for `ratios`."""

from collections.abc import Callable
from typing import Any

import numpy as np

import numinit as ni

from .cases import MIB, numpy_dtype

SIZE = 256 * MIB

_generator = np.random.Generator(np.random.SFC64(0))

#: (library, distribution) -> a function that fills a buffer that `buffer` made.
FILLS: dict[tuple[str, str], Callable[[Any], Any]] = {
    ("numinit", "uniform"): lambda a: ni.uniform_(a, seed=0),
    ("numinit", "normal"): lambda a: ni.normal_(a, seed=0),
    ("numinit", "truncated"): lambda a: ni.trunc_normal_(a, seed=0),
    ("NumPy", "fill"): lambda a: a.fill(1.0),
    ("NumPy", "uniform"): lambda a: _generator.random(dtype=a.dtype, out=a),
    ("NumPy", "normal"): lambda a: _generator.standard_normal(dtype=a.dtype, out=a),
    ("torch", "uniform"): lambda a: _torch().nn.init.uniform_(a),
    ("torch", "normal"): lambda a: _torch().nn.init.normal_(a),
    ("torch", "truncated"): lambda a: _torch().nn.init.trunc_normal_(a),
}


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
