"""The initializers and dtypes that are measured, and buffers to fill."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import numinit as ni

MIB = 1 << 20
DTYPES = [
    "float32",
    "float64",
    "float16",
    "bfloat16",
    "float8_e4m3fn",
    "float8_e5m2",
    "complex64",
    "complex128",
]


def matrix(elements: int) -> tuple[int, ...]:
    """A shape of about so many elements whose columns are a power of two."""
    columns = 1 << (math.isqrt(max(elements, 1)).bit_length() - 1)
    return max(1, elements // columns), columns


def square(elements: int) -> tuple[int, ...]:
    side = max(1, math.isqrt(elements))
    return side, side


def kernels(elements: int) -> tuple[int, ...]:
    """A stack of 3 x 3 kernels, as many out as in."""
    channels = max(1, math.isqrt(elements // 9))
    return channels, channels, 3, 3


def kernels_last(elements: int) -> tuple[int, ...]:
    """The same with the channels last, as JAX and Keras have them."""
    return kernels(elements)[:1:-1] + kernels(elements)[:2]


class Family(NamedTuple):
    """An initializer that is measured."""

    kind: str
    """The name of its class in `numinit`. It is skipped if this version has no such class."""
    fields: dict[str, Any] = {}
    shape: Callable[[int], tuple[int, ...]] = matrix
    largest: int = 1 << 40
    """Bytes above which a run takes too long."""

    def make(self) -> ni.Initializer:
        if not hasattr(ni, self.kind):
            raise NotImplementedError(f"this numinit has no {self.kind}")
        return getattr(ni, self.kind)(**self.fields)


#: The initializers that are measured, by name: one row each.
FAMILIES: dict[str, Family] = {
    "constant": Family("Constant", {"value": 1.0}),
    "uniform": Family("Uniform"),
    "normal": Family("Normal"),
    "truncated normal, 2 sigma": Family("TruncNormal"),
    "truncated normal, far tail": Family("TruncNormal", {"a": 8.0, "b": 9.0}),
    "kaiming normal": Family("KaimingNormal"),
    "xavier uniform": Family("XavierUniform"),
    "variance scaling, truncated": Family("VarianceScaling", {"distribution": "truncated_normal"}),
    "sparse, 90% zeros": Family("Sparse", {"sparsity": 0.9}),
    "orthogonal": Family("Orthogonal", shape=square, largest=4 * MIB),
    "delta orthogonal": Family("DeltaOrthogonal", shape=kernels_last, largest=4 * MIB),
    "identity": Family("Eye", shape=square),
    "dirac": Family("Dirac", shape=kernels),
    "bilinear": Family("Bilinear", shape=kernels),
    "embedding uniform": Family("EmbeddingUniform"),
}
#: One for each transform, for measurements where the others would be alike.
KERNELS = ["constant", "uniform", "normal", "truncated normal, 2 sigma", "sparse, 90% zeros"]


def numpy_dtype(dtype: str) -> np.dtype:
    """Raises NotImplementedError where ml_dtypes is needed and missing."""
    if dtype.startswith(("bfloat", "float8")):
        try:
            import ml_dtypes
        except ImportError:
            raise NotImplementedError("ml_dtypes is not installed") from None
        return np.dtype(getattr(ml_dtypes, dtype))
    return np.dtype(dtype)


class Cell(NamedTuple):
    """An initializer and a buffer, ready: compiled, and all pages touched."""

    init: ni.Initializer
    buffer: np.ndarray

    def fill(self) -> Any:
        return self.init.fill_(self.buffer, seed=0)


@functools.lru_cache(1)
def cell(family: str, dtype: str, nbytes: int) -> Cell:
    """A cell of about `nbytes`.

    It is cached, because asv calls `setup` before every call that it times, and would then time
    fresh pages.

    Raises
    ------
    NotImplementedError
        If there is no such cell, with the reason; asv skips it then.
    """
    entry = FAMILIES[family]
    init, kind = entry.make(), numpy_dtype(dtype)
    if nbytes > entry.largest:
        raise NotImplementedError(f"{family}: {nbytes} bytes would take too long")
    try:
        buffer = np.ones(entry.shape(max(1, nbytes // kind.itemsize)), kind)
        init.fill_(buffer, seed=0)
    except (TypeError, ValueError) as error:
        raise NotImplementedError(f"{family}, {dtype}: {error}") from None
    except MemoryError:
        raise NotImplementedError(f"{nbytes} bytes of memory cannot be had") from None
    return Cell(init, buffer)


# asv forks a process for each cell from one that has imported this. So Numba's work before its
# first kernel is done here, once.
ni.constant_(np.empty(1, np.float32), 0.0)
