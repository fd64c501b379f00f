"""Weights whose elements are given."""

import functools
import hashlib
import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from numinit.arrays.frameworks import values_of
from numinit.engines.by_index import CHUNK
from numinit.engines.spec import ByIndex, Index, Plan
from numinit.initializers.base import Initializer
from numinit.show import show
from numinit.stream.dtypes import DTYPES, DType, as_dtype

LARGEST_INTEGER = 1 << 53  # float64 has every integer up to this one
SHOWN = 16  # the most elements that a repr lists


@dataclass(frozen=True, eq=False, repr=False)
class Assign(Initializer):
    """The values of an array, each rounded once to the weight's type.

    This is Paddle's ``nn.initializer.Assign``. The array is copied. Two of these initializers are
    equal if their arrays have equal shapes and values; their types may differ.

    Parameters
    ----------
    value : array_like or torch.Tensor
        An array of the weight's shape, or of one that broadcasts to it, as in NumPy. Its elements
        are bools, integers up to 2**53, or of a type of `numinit.stream.dtypes.DTYPES`.

    Raises
    ------
    TypeError
        If the values are of another type, or are complex and the weight is real.
    ValueError
        If the weight has another shape, or a finite value is beyond the largest number of its type.

    Examples
    --------
    >>> ni.Assign([1.0, 2.5])((2,))
    array([1. , 2.5], dtype=float32)
    """

    has_spread: ClassVar[bool] = False

    value: Any
    _digest: bytes = field(init=False)
    _largest: float = field(init=False)

    def __post_init__(self) -> None:
        value = _copy(self.value)
        digest, largest = hashlib.blake2b(f"{value.shape} {value.dtype.kind == 'c'}".encode()), 0.0
        for begin in range(0, value.size, CHUNK):
            with np.errstate(all="ignore"):
                part = _exact(value.reshape(-1)[begin : begin + CHUNK])
                sizes = np.abs(part.view(np.float64))
            digest.update(part.tobytes())
            largest = max(largest, float(sizes.max(initial=0.0, where=np.isfinite(sizes))))
        object.__setattr__(self, "value", value)
        object.__setattr__(self, "_digest", digest.digest())
        object.__setattr__(self, "_largest", largest)

    def __eq__(self, other: object) -> bool:
        return self._digest == other._digest if isinstance(other, Assign) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._digest)

    def __repr__(self) -> str:
        value = self.value
        if math.prod(max(size, 1) for size in value.shape) <= SHOWN:
            return f"Assign(value={value.tolist()})"
        return f"Assign(value=<{value.dtype} of shape {value.shape}>)"

    def __reduce__(self) -> tuple[type, tuple[np.ndarray]]:
        return Assign, (self.value,)  # an unpickled array could be written

    def plan(self, shape: tuple[int, ...], dtype: DType) -> Plan:
        own = self.value.shape
        if shape != own and not _broadcasts(own, shape):
            raise ValueError(
                f"shape: {shape} was given; that of value, {own}, is accepted, and one that it "
                "broadcasts to"
            )
        # A function of the array, because this object keeps the plan's fill.
        values = functools.partial(_values, self.value)
        return ByIndex("Assign", values, self._largest, self.value.dtype.kind == "c")


def _values(value: np.ndarray, index: Index) -> np.ndarray:
    own = value.shape
    index = index[len(index) - len(own) :]
    if any(size == 1 for size in own):
        index = tuple(
            at[(slice(0, 1),) * at.ndim] * 0 if size == 1 else at
            for at, size in zip(index, own, strict=True)
        )
    # Consecutive indices as slices, because NumPy copies those faster.
    where: list[Any] = [at.reshape(-1) for at in index[:1]]
    where += [slice(int(at.flat[0]), int(at.flat[0]) + at.size) for at in index[1:]]
    return _exact(value[(*where, ...)]).reshape(np.broadcast_shapes(*(i.shape for i in index)))


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    """Whether an array of a shape broadcasts to another shape."""
    pairs = zip(reversed(shape), reversed(to), strict=False)
    return len(shape) <= len(to) and all(size in (1, other) for size, other in pairs)


def _copy(value: Any) -> np.ndarray:
    """Return a read-only copy in C order."""
    array = values_of("value", value)
    kind = array.dtype.kind
    if kind not in "biu":
        try:
            as_dtype(array.dtype)
        except TypeError:
            raise TypeError(
                f"value: {array.dtype} elements were given; bools, integers and "
                f"{', '.join(DTYPES)} are accepted"
            ) from None
    elif kind in "iu" and array.size:
        for bound in (int(array.min()), int(array.max())):
            if abs(bound) > LARGEST_INTEGER:
                raise ValueError(
                    f"value: {show(bound)} was given; integers up to 2**53 are accepted"
                )
    array = np.array(array, order="C")
    array.flags.writeable = False
    return array


def _exact(values: np.ndarray) -> np.ndarray:
    """Return the same values in the type that `ByIndex.values` returns."""
    return values.astype(np.complex128 if values.dtype.kind == "c" else np.float64)
