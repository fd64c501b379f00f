"""Weights that are given, element by element."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from numinit.arrays import adapter_of
from numinit.dtypes import DTYPES, as_dtype
from numinit.initializers.computed import CHUNK, Computed, Index

LARGEST_INTEGER = 1 << 53  # up to here float64 has them all
SHOWN = 16  # elements that a repr lists


@dataclass(frozen=True, eq=False, repr=False)
class Assign(Computed):
    """The values of an array, each rounded once to the weight's type.

    Paddle's ``nn.initializer.Assign``. The array is copied. Two of these are equal if their shapes
    and all their values are, whatever the types.

    Parameters
    ----------
    value : array_like or torch.Tensor
        Of the weight's shape; bools, integers up to 2**53, or a type of `numinit.dtypes.DTYPES`.

    Raises
    ------
    TypeError
        For values of another kind, and for complex ones in a real weight.
    ValueError
        For a weight of another shape, and if a finite value is beyond the largest of its type.
    """

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
        if value.size <= SHOWN:
            return f"Assign(value={value.tolist()})"
        return f"Assign(value=<{value.dtype} of shape {value.shape}>)"

    def __reduce__(self) -> tuple[type, tuple[np.ndarray]]:
        return Assign, (self.value,)  # an unpickled array could be written

    @property
    def complex(self) -> bool:  # type: ignore[override]
        return bool(self.value.dtype.kind == "c")

    def accept(self, shape: tuple[int, ...]) -> None:
        if shape != self.value.shape:
            raise ValueError(
                f"shape: {shape} was given; that of value, {self.value.shape}, is accepted"
            )

    def largest(self, shape: tuple[int, ...]) -> float:
        return self._largest

    def values(self, shape: tuple[int, ...], index: Index) -> np.ndarray:
        # Consecutive indices as slices, for NumPy copies those faster.
        rows = tuple(at.reshape(-1) for at in index[:1])
        rest = tuple(slice(int(at.flat[0]), int(at.flat[0]) + at.size) for at in index[1:])
        return _exact(self.value[(*rows, *rest, ...)]).reshape(
            np.broadcast_shapes(*(i.shape for i in index))
        )

    _ready = Computed._prepare  # a cache would keep the array


def _copy(value: Any) -> np.ndarray:
    """A copy that nobody can write, in C order."""
    try:
        adapter = adapter_of(value)
    except TypeError:
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise ValueError(f"value: it is no array: {error}") from None
    else:
        array = adapter.values(value)
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
                raise ValueError(f"value: {bound} was given; integers up to 2**53 are accepted")
    array = np.array(array, order="C")
    array.flags.writeable = False
    return array


def _exact(values: np.ndarray) -> np.ndarray:
    """The same values in the type that `Computed.values` returns."""
    return values.astype(np.complex128 if values.dtype.kind == "c" else np.float64)
