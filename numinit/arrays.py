"""Arrays as memory: what every framework's array is turned into before it is filled."""

import ctypes
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from numinit.dtypes import DTYPES, DType, as_dtype
from numinit.keys import default_generator

#: A strided array's memory, valid while the array lives: the address, or None for an array that
#: has a shape only; the element type; the shape; the strides in bytes; where it is: nothing for
#: the host's memory, the ordinal of a GPU and the handle of the stream to work on for a GPU's.
Memory = tuple[int | None, DType, tuple[int, ...], tuple[int, ...], tuple[()] | tuple[int, int]]


class Adapter(NamedTuple):
    """What a framework's adapter offers."""

    kind: type
    """The type of its arrays."""
    memory: Callable[[Any], Memory]
    """The memory of an array that may be written."""
    default_key: Callable[[Any], tuple[int, int]]
    """Seed and stream of the next key for an array when no seed is given."""
    written: Callable[[Any], None]
    """Called after the memory was written."""
    values: Callable[[Any], np.ndarray]
    """An array's values, in a type of NumPy that holds them exactly; may share its memory."""


#: The types that NumPy has without ml_dtypes.
NUMPY_NAMES = ("float32", "float64", "float16", "complex64", "complex128")
_NUMPY_DTYPES = {np.dtype(name): DTYPES[name] for name in NUMPY_NAMES}


def refuse_own_items(array: Any, plain: Any) -> None:
    """Refuse a subclass whose elements are more than memory: masked arrays, units, ...

    Such a class has its own ``__setitem__``. Others (np.memmap, np.matrix, np.recarray) have not.

    Raises
    ------
    TypeError
    """
    kind: Any = type(array)
    if kind.__setitem__ is not plain.__setitem__:
        raise TypeError(
            f"array: a {kind.__name__} was given, which sets elements in its own way; a plain "
            "array, such as a masked array's data, is accepted"
        )


def _numpy_memory(array: np.ndarray) -> Memory:
    if type(array) is not np.ndarray:
        refuse_own_items(array, np.ndarray)
    if not array.flags.writeable:
        raise ValueError("array: it is read-only; a writable array is accepted")
    dtype = _NUMPY_DTYPES.get(array.dtype)
    if dtype is not None and array.flags.c_contiguous and array.size:
        address = ctypes.addressof(ctypes.c_char.from_buffer(array))  # faster than array.ctypes
    else:
        dtype, address = dtype or as_dtype(array.dtype), array.ctypes.data
    return address, dtype, array.shape, array.strides, ()


def _numpy_values(array: np.ndarray) -> np.ndarray:
    refuse_own_items(array, np.ndarray)
    return np.asarray(array)


def _numpy_default_key(array: np.ndarray) -> tuple[int, int]:
    key = default_generator.next_key()
    return key.seed, key.stream


#: package name -> adapter; the adapters of other frameworks are entered by `numinit` itself.
ADAPTERS: dict[str, Adapter | Callable[[], Adapter]] = {
    "numpy": Adapter(
        np.ndarray,
        _numpy_memory,
        _numpy_default_key,
        lambda array: None,
        _numpy_values,
    )
}


#: The adapter of what no package is entered for, but exports a GPU's memory by these.
EXPORTED = "exported"
_EXPORTS = ("__cuda_array_interface__", "__dlpack_device__")


class Maker(NamedTuple):
    """What makes arrays on a device."""

    empty: Callable[[tuple[int, ...], DType], tuple[Any, Memory]]
    """A new array, not initialized, and its memory."""
    upload: Callable[[np.ndarray], tuple[Any, int]]
    """A copy of an array on the device, and its address."""


#: What makes the `Maker` of a device, entered by `numinit` itself.
MAKERS: dict[str, Callable[[Any], Maker]] = {}


def maker_of(device: Any) -> Maker | None:
    """What makes arrays on a device; None for the host's memory.

    Raises
    ------
    ValueError, ImportError
        For a device that is unknown, or that nothing installed makes arrays on.
    """
    return None if device is None or str(device) == "cpu" else MAKERS["cuda"](device)


def adapter_of(array: Any) -> Adapter:
    """The adapter for an array.

    Raises
    ------
    TypeError
        If no package in its type's ancestry has one, and it exports no GPU's memory.
    """
    found = _adapter_of_type(type(array))  # type: ignore[arg-type]
    if found is not None:
        return found
    if any(hasattr(array, name) for name in _EXPORTS) and (entry := _entry(EXPORTED)):
        return entry
    raise TypeError(
        f"array: {type(array).__name__} was given; an array on a GPU, a NumPy array or a torch "
        "tensor is accepted"
    )


@functools.lru_cache(256)
def _adapter_of_type(kind: Any) -> Adapter | None:
    for base in kind.__mro__:
        entry = _entry(base.__module__.partition(".")[0])
        if entry is not None and issubclass(kind, entry.kind):
            return entry
    return None


def _entry(package: str) -> Adapter | None:
    entry = ADAPTERS.get(package)
    if entry is not None and not isinstance(entry, Adapter):
        entry = ADAPTERS[package] = entry()
    return entry


def refuse_misaligned(
    address: int, dtype: DType, shape: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    """Refuse elements that a GPU cannot store: one such store ends the whole context.

    Raises
    ------
    ValueError
        Unless the address and the strides that count are multiples of an element's part.
    """
    unit = dtype.itemsize // (2 if dtype.complex else 1)
    steps = (stride for stride, size in zip(strides, shape, strict=True) if size > 1)
    if 0 not in shape and (address % unit or any(step % unit for step in steps)):
        raise ValueError(
            f"array: address {address:#x} and strides {strides} bytes were given; on a GPU, "
            f"multiples of {unit} are accepted for {dtype.name}"
        )


def refuse_overlap(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> None:
    """Refuse a layout in which two elements share a byte, such as a broadcast view.

    Raises
    ------
    ValueError
        Views that interleave without overlapping in a way no slicing can make are refused too.
    """
    extent = itemsize
    for stride, size in sorted(
        (abs(stride), size) for stride, size in zip(strides, shape, strict=True) if size > 1
    ):
        if stride < extent:
            raise ValueError(
                f"array: elements of it overlap in memory (shape {shape}, strides {strides} "
                "bytes), as in a broadcast or expanded view; an array whose elements are apart "
                "is accepted"
            )
        extent += stride * (size - 1)


@functools.lru_cache(1024)
def c_steps(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Distances in C order, in elements, of neighbours along each axis."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
