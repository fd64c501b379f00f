"""What the initializers share whose values follow from an element's indices: nothing is drawn."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from numinit.arrays import c_steps
from numinit.dtypes import DType
from numinit.initializers.base import Filler, Law, Part
from numinit.initializers.laws import RangeError

CHUNK = 1 << 16  # elements made at a time: 512 KiB of float64, which a core's cache holds

Index = tuple[np.ndarray, ...]


class Box(NamedTuple):
    """Where an array lies in a weight."""

    low: tuple[int, ...]
    """The first index along each axis of the weight."""
    axes: tuple[int | None, ...]
    """The array's axis for each of the weight's, None where there is one index only."""
    ids: np.ndarray | None = None
    """The indices of the weight's axis 0 instead."""


Write = Callable[[np.ndarray, tuple[int, ...], DType, Box], None]


class Computed(Law):
    """An initializer whose values NumPy computes from the elements' indices; it draws nothing.

    A subclass has `values` and `accept`, and `largest` where values may be beyond 1.
    """

    complex: bool = False
    """Whether the values are complex."""

    def values(self, shape: tuple[int, ...], index: Index) -> np.ndarray:
        """The exact or nearest float64 or complex128 values at some indices.

        Parameters
        ----------
        shape : tuple of int
            Of the whole weight, accepted.
        index : tuple of numpy.ndarray
            For each axis of `shape` the int64 indices along it. They broadcast together, and the
            result with them. Only those of axis 0 may be other than consecutive.
        """
        raise NotImplementedError

    def accept(self, shape: tuple[int, ...]) -> None:
        """Refuse a shape without such values.

        Raises
        ------
        ValueError
            Saying what is accepted.
        """
        raise NotImplementedError

    def largest(self, shape: tuple[int, ...]) -> float:
        """A bound of the finite values' magnitudes."""
        return 1.0

    def law(self, shape: Sequence[int]) -> "Law":
        self.accept(tuple(shape))
        return self

    def check(self, shape: Sequence[int], dtype: DType) -> None:
        shape = tuple(shape)
        self.accept(shape)
        name = type(self).__name__
        if self.complex and not dtype.complex:
            raise TypeError(f"dtype: {name} has complex values; {dtype.name} holds real ones")
        if (largest := self.largest(shape)) > dtype.max:
            raise RangeError(
                f"dtype: {name} has values up to {largest:.6g}; {dtype.name} holds numbers up to "
                f"{dtype.max:.6g}"
            )

    def filler(self, whole: tuple[int, ...], dtype: DType, part: Part) -> tuple[Filler, bool]:
        return self._filler(whole, dtype, part, self._write), False

    def _filler(self, whole: tuple[int, ...], dtype: DType, part: Part, write: Write) -> Filler:
        """What fills a part, box by box."""
        shape, strides, steps, by_rows, _ = part
        flat = steps == (1,) and not by_rows  # a run in C order, over the ends of rows

        def fill(address: int, first: int, rows: int, seed: int, stream: int) -> None:
            target = view(address, shape, strides, dtype)
            if flat:
                axes: tuple[int | None, ...] = tuple(range(len(whole)))
                for begin, low, size in _boxes(whole, first, shape[0]):
                    run = target[begin : begin + math.prod(size)]
                    write(run.reshape(size), whole, dtype, Box(low, axes))
                return
            # An axis along which there is more than one index has its step to itself.
            owner = {step: axis for axis, step in enumerate(steps) if shape[axis] > 1}
            ids = _view(rows, shape[:1], (8,), "int64") if by_rows else None
            low = tuple(map(int, np.unravel_index(first, whole))) if whole else ()
            axes = tuple(
                owner.get(step) if size > 1 else None
                for step, size in zip(c_steps(whole), whole, strict=True)
            )
            write(target, whole, dtype, Box(low, axes, ids))

        return fill

    def _write(self, target: np.ndarray, whole: tuple[int, ...], dtype: DType, box: Box) -> None:
        """Write a box of a weight: its values."""
        for block in blocks(target.shape):
            index = []
            for begin, axis in zip(box.low, box.axes, strict=True):
                along = [1] * target.ndim
                if axis is None:
                    at = np.array([begin], np.int64)
                else:
                    along[axis] = -1
                    at = np.arange(
                        begin + block[axis].start, begin + block[axis].stop, dtype=np.int64
                    )
                index.append(at.reshape(along))
            if box.ids is not None:
                index[0] = box.ids[block[0]].reshape(-1, *[1] * (target.ndim - 1))
            target[block] = stored(self.values(whole, tuple(index)), dtype)


class _Memory:
    """Memory for NumPy to look at; its owner keeps it alive."""

    def __init__(self, **interface: Any) -> None:
        self.__array_interface__ = {"version": 3, **interface}


def _view(address: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: str) -> np.ndarray:
    return np.asarray(
        _Memory(data=(address, False), shape=shape, strides=strides, typestr=np.dtype(dtype).str)
    )


def view(
    address: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: DType
) -> np.ndarray:
    """Memory as an array, of a type's bits where NumPy lacks the type; see `stored`."""
    return _view(address, shape, strides, _STORED.get(dtype.name, dtype.name))


def blocks(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Parts of at most CHUNK elements, in C order."""
    sizes: list[int] = []
    room = CHUNK
    for size in reversed(shape):
        sizes.insert(0, min(size, max(room, 1)))
        room //= size
    for place in np.ndindex(*(-(-n // size) for n, size in zip(shape, sizes, strict=True))):
        yield tuple(
            slice(k * size, min((k + 1) * size, n))
            for k, size, n in zip(place, sizes, shape, strict=True)
        )


def _boxes(
    shape: tuple[int, ...], first: int, count: int
) -> Iterator[tuple[int, tuple[int, ...], tuple[int, ...]]]:
    """Cut a run of elements in C order into boxes: begin in the run, first indices, size."""
    if len(shape) < 2:
        yield 0, (first,) * len(shape), (count,) * len(shape)
        return
    inner = math.prod(shape[1:])
    done = 0
    while done < count:
        row, column = divmod(first + done, inner)
        rows = 0 if column else (count - done) // inner
        if rows:  # whole ones
            yield done, (row, *[0] * (len(shape) - 1)), (rows, *shape[1:])
            done += rows * inner
            continue
        length = min(inner - column, count - done)
        for begin, low, size in _boxes(shape[1:], column, length):
            yield done + begin, (row, *low), (1, *size)
        done += length


#: Types that NumPy lacks are written as their bits.
_STORED = {"bfloat16": "uint16", "float8_e4m3fn": "uint8", "float8_e5m2": "uint8"}


def stored(values: np.ndarray, dtype: DType) -> np.ndarray:
    """Float64 values, none beyond the type's largest, rounded once; as `view` of it takes them."""
    if dtype.precision >= 24:
        return values  # which NumPy rounds once
    finite = np.isfinite(values)
    exponent = np.where(finite, np.frexp(values)[1] - 1, 0)  # else it is anything
    exponent = np.maximum(exponent, dtype.min_exponent)
    unit = np.ldexp(1.0, exponent - (dtype.precision - 1))  # the distance of neighbours
    values = np.rint(values / unit) * unit  # numbers of the type: what follows is exact
    if dtype.name == "float16":
        return values
    if dtype.name == "bfloat16":  # the upper half of a float32
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    if dtype.name == "float8_e5m2":  # the upper half of a float16
        return (values.astype(np.float16).view(np.uint16) >> 8).astype(np.uint8)
    # An e4m3fn has a float16's bits, but for the exponent's first one, at 2**-8 of its value. NaN
    # is all ones, and so is an infinity, for there are none.
    half = (values * 2.0**-8).astype(np.float16).view(np.uint16)
    bits = np.where(finite, half >> 7 & 0x7F, 0x7F)
    return (half >> 8 & 0x80 | bits).astype(np.uint8)


def decoded(bits: np.ndarray, dtype: DType) -> np.ndarray:
    """The values of a type's bits, as an array of a type that NumPy has."""
    if (name := _STORED.get(dtype.name)) is None:
        return bits.view(dtype.name)
    words = bits.view(name).astype(np.int64)
    fraction = dtype.precision - 1
    sign, exponent = words >> (8 * dtype.itemsize - 1), words >> fraction
    exponent &= (1 << (8 * dtype.itemsize - 1 - fraction)) - 1
    significand = (words & ((1 << fraction) - 1)) + ((exponent > 0) << fraction)
    magnitude = np.ldexp(
        significand.astype(np.float64), np.maximum(exponent, 1) - 1 + dtype.min_exponent - fraction
    )
    values: np.ndarray = np.where(sign == 1, -magnitude, magnitude)
    return values
