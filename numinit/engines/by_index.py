"""Weights whose values follow from the indices: NumPy makes them on the host, window by window."""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from numinit.engines.cpu import Fill
from numinit.engines.floats import default_mode
from numinit.engines.layout import View, c_steps
from numinit.engines.spec import ByIndex, Index, Selection, Spec
from numinit.stream.constant import CONSTANT
from numinit.stream.dtypes import DType

CHUNK = 1 << 16  # elements made at a time: 512 KiB of float64, which a core's cache holds
FEW = 64  # below so many elements for each nonzero one, all values are made

HostFill = Callable[[int, int, int, int, int], None]

_CLEAR = Spec(CONSTANT, CONSTANT.Parameters(0.0, 0.0))


class Window(NamedTuple):
    """Where an array lies in a weight."""

    low: tuple[int, ...]
    """The first index along each axis of the weight."""
    axes: tuple[int | None, ...]
    """For each axis of the weight the axis of the array, None where there is one index only."""
    ids: np.ndarray | None = None
    """The indices along axis 0 of the weight if they are not consecutive, int64 (rows,)."""


Write = Callable[[np.ndarray, DType, Window], None]


def fill_of(plan: ByIndex, whole: tuple[int, ...], dtype: DType, asked: View) -> HostFill:
    """A function that fills a view of a weight.

    Parameters
    ----------
    plan : ByIndex
        The values.
    whole : tuple of int
        The shape of the whole weight.
    dtype : DType
        The element type.
    asked : View
        The memory, not empty.

    Returns
    -------
    callable
        With the parameters of a call of `numinit.engines.cpu.Fill`.
    """
    selection = plan.selection
    if (lined := lined_fill(plan, whole, dtype, asked)) is not None:
        return lined
    if selection is None or asked.by_rows:
        return _filled(functools.partial(_write, plan), whole, dtype, asked)
    if math.prod(whole[axis] for axis in selection.places) < FEW:
        return _filled(functools.partial(_write, plan), whole, dtype, asked)
    put = _filled(functools.partial(_select, selection), whole, dtype, asked)
    return _both(Fill(asked, dtype, _CLEAR), put)


def lined_fill(
    plan: ByIndex,
    whole: tuple[int, ...],
    dtype: DType,
    asked: View,
    engine: Callable[[View, DType, Spec], Callable[..., None]] = Fill,
) -> Callable[..., None] | None:
    """A fill by kernels, of zeros and then of the selected elements; None if these are on no line.

    Parameters
    ----------
    plan, whole, dtype, asked
        See `fill_of`.
    engine : callable
        `numinit.engines.cpu.Fill` or `numinit.engines.cuda.Fill`.
    """
    selection = plan.selection
    if selection is None or asked.by_rows:
        return None
    line = _line(selection, whole, asked)
    if line is None:
        return None
    clear = engine(asked, dtype, _CLEAR)
    begin, view = line
    if 0 in view.shape:
        return clear
    value = _rounded(selection.value, dtype)
    parameters = CONSTANT.Parameters(value, 0.0 if dtype.complex else value)
    return _both(clear, engine(view, dtype, Spec(CONSTANT, parameters)), begin)


def _both(
    clear: Callable[..., None], put: Callable[..., None], begin: int = 0
) -> Callable[..., None]:
    """Two fills, of which the second begins some bytes after the first."""

    def fill(address: int, *where: int) -> None:
        clear(address, *where)
        put(address + begin, *where)

    return fill


def _line(selection: Selection, whole: tuple[int, ...], asked: View) -> tuple[int, View] | None:
    """Where the selected elements of a whole weight lie, if they are evenly spaced in memory.

    Returns how many bytes the first of them is after the weight's first element, and their layout.
    A kernel fills it in a tenth of the time that NumPy's arrays of indices take.
    """
    axis, value, places = selection
    shape, strides, steps, _ = asked
    all_asked = shape == whole and steps == c_steps(whole)
    if not all_asked or whole[axis] > CHUNK or not math.isfinite(value):
        return None
    index = {axis: np.arange(whole[axis], dtype=np.int64)}
    index |= {other: place(index[axis]) for other, place in places.items()}
    away = np.zeros(whole[axis], np.int64)
    for other, at in index.items():
        away += at * strides[other]
    away = away[_inside(index, whole)]
    apart = np.unique(np.diff(away))
    if len(apart) > 1:
        return None
    free = [other for other in range(len(whole)) if other not in index]
    sizes = (*(whole[other] for other in free), len(away))
    distances = (*(strides[other] for other in free), int(apart.sum()))
    return int(away[:1].sum()), View(sizes, distances, c_steps(sizes))


def _inside(index: dict[int, np.ndarray], size: Any) -> np.ndarray:
    """Return which indices on several axes are all in a window."""
    within = ((i >= 0) & (i < size[axis]) for axis, i in index.items())
    inside: np.ndarray = functools.reduce(np.logical_and, within)
    return inside


def _rounded(value: float, dtype: DType) -> float:
    """Return the number of a type to which a finite value is rounded once."""
    if dtype.rounding is None:
        return value  # kernels round it once
    return float(decoded(stored(np.array([value]), dtype), dtype)[0])


def selected(selection: Selection, index: Index) -> np.ndarray:
    """The values of a selection at some indices, float64, as `ByIndex.values` returns them."""
    axis, value, places = selection
    equal = (index[other] == place(index[axis]) for other, place in places.items())
    return np.where(functools.reduce(np.logical_and, equal), value, 0.0)


def cut_of(
    make: Callable[[int, int], np.ndarray], whole: tuple[int, ...], dtype: DType, asked: View
) -> HostFill:
    """A function that fills a view of a weight, which is made whole by each call.

    Parameters
    ----------
    make : callable
        ``make(seed, stream)`` returns all values of the weight.
    whole, dtype, asked
        See `fill_of`. The view is not by rows.
    """

    def fill(address: int, first: int, rows: int, seed: int, stream: int) -> None:
        values = make(seed, stream)

        def write(target: np.ndarray, dtype: DType, window: Window) -> None:
            index = tuple(
                low if axis is None else slice(low, low + target.shape[axis])
                for low, axis in zip(window.low, window.axes, strict=True)
            )
            part = values[index].reshape(target.shape)
            for block in blocks(target.shape):  # rounding needs several times their memory
                target[block] = stored(part[block], dtype)

        _filled(write, whole, dtype, asked)(address, first, rows, seed, stream)

    return fill


def undisturbed(fill: HostFill) -> HostFill:
    """Run a fill by NumPy in the default floating-point mode, without NumPy's warnings.

    Which warnings NumPy would give depends on the instructions that it chooses.
    """

    @default_mode()
    def run(*where: int) -> None:
        with np.errstate(all="ignore"):
            fill(*where)

    return run


def _filled(write: Write, whole: tuple[int, ...], dtype: DType, asked: View) -> HostFill:
    """A function that fills a view by calls of `write`, one for each window."""
    shape, strides, steps, by_rows = asked
    flat = steps == (1,) and not by_rows  # a run of elements in C order, across rows

    @undisturbed
    def fill(address: int, first: int, rows: int, seed: int, stream: int) -> None:
        target = view(address, shape, strides, dtype)
        if flat:
            axes: tuple[int | None, ...] = tuple(range(len(whole)))
            for begin, low, size in boxes(whole, first, shape[0]):
                run = target[begin : begin + math.prod(size)]
                write(run.reshape(size), dtype, Window(low, axes))
            return
        # Among the axes with more than one index, no two have the same step.
        owner = {step: axis for axis, step in enumerate(steps) if shape[axis] > 1}
        ids = row_numbers(rows, shape[0]) if by_rows else None
        low = tuple(map(int, np.unravel_index(first, whole))) if whole else ()
        axes = tuple(
            owner.get(step) if size > 1 else None
            for step, size in zip(c_steps(whole), whole, strict=True)
        )
        write(target, dtype, Window(low, axes, ids))

    return fill


def _write(plan: ByIndex, target: np.ndarray, dtype: DType, window: Window) -> None:
    """Write all values of a window into the array `target`."""
    for block in blocks(target.shape):
        index = []
        for begin, axis in zip(window.low, window.axes, strict=True):
            along = [1] * target.ndim
            if axis is None:
                at = np.array([begin], np.int64)
            else:
                along[axis] = -1
                at = np.arange(begin + block[axis].start, begin + block[axis].stop, dtype=np.int64)
            index.append(at.reshape(along))
        if window.ids is not None:
            index[0] = window.ids[block[0]].reshape(-1, *[1] * (target.ndim - 1))
        values = plan.values(tuple(index))
        if not plan.complex and np.iscomplexobj(values):
            raise TypeError(
                f"values: {plan.name} made complex numbers; real ones are accepted, or complex=True"
            )
        target[block] = stored(values, dtype)


def _select(selection: Selection, target: np.ndarray, dtype: DType, window: Window) -> None:
    """Write the nonzero values of a window into the array `target`, which has zeros already."""
    axis, value, places = selection
    made = stored(np.asarray(value), dtype)
    own = {other: window.axes[other] for other in (axis, *places)}  # the target's axes
    size = {other: 1 if n is None else target.shape[n] for other, n in own.items()}
    free = [n for n in range(target.ndim) if n not in own.values()]
    for here, *parts in blocks((size[axis], *(target.shape[n] for n in free))):
        at = {axis: np.arange(here.start, here.stop, dtype=np.int64)}
        for other, place in places.items():
            at[other] = place(at[axis] + window.low[axis]) - window.low[other]
        if (inside := _inside(at, size)).any():
            index: dict[int | None, slice | np.ndarray] = dict(zip(free, parts, strict=True))
            index |= {own[other]: i[inside] for other, i in at.items()}
            target[tuple(index[n] for n in range(target.ndim))] = made


class _Memory:
    """Memory as NumPy takes it. The caller keeps it alive."""

    def __init__(self, **interface: Any) -> None:
        self.__array_interface__ = {"version": 3, **interface}


def _view(address: int, shape: tuple[int, ...], strides: tuple[int, ...], kind: str) -> np.ndarray:
    return np.asarray(_Memory(data=(address, False), shape=shape, strides=strides, typestr=kind))


def view(
    address: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: DType
) -> np.ndarray:
    """Memory as a NumPy array, of the bits where NumPy lacks the type; see `stored`."""
    return _view(address, shape, strides, _kind_of(dtype))


@functools.cache
def _kind_of(dtype: DType) -> str:
    """How NumPy calls the type of an array that `view` returns."""
    return np.dtype(_bits_of(dtype) or dtype.name).str


def row_numbers(address: int, count: int) -> np.ndarray:
    """Global rows that a caller gave by their address, int64."""
    return _view(address, (count,), (8,), np.dtype(np.int64).str)


def blocks(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """The slices of parts of at most CHUNK elements that cover an array, in C order."""
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


def boxes(
    shape: tuple[int, ...], first: int, count: int
) -> Iterator[tuple[int, tuple[int, ...], tuple[int, ...]]]:
    """Cut a run of elements in C order into windows.

    Yields where each begins in the run, its first index along each axis, and its shape.
    """
    if len(shape) < 2:
        yield 0, (first,) * len(shape), (count,) * len(shape)
        return
    inner = math.prod(shape[1:])
    done = 0
    while done < count:
        row, column = divmod(first + done, inner)
        rows = 0 if column else (count - done) // inner
        if rows:  # whole rows
            yield done, (row, *[0] * (len(shape) - 1)), (rows, *shape[1:])
            done += rows * inner
            continue
        length = min(inner - column, count - done)
        for begin, low, size in boxes(shape[1:], column, length):
            yield done + begin, (row, *low), (1, *size)
        done += length


def _bits_of(dtype: DType) -> str:
    """The unsigned integer type for the bits of a type that NumPy lacks; "" where NumPy has it."""
    if dtype.rounding is None or dtype.name == "float16":
        return ""
    return f"uint{8 * dtype.itemsize}"


def stored(values: np.ndarray, dtype: DType) -> np.ndarray:
    """Round values once, for an array that `view` returns.

    Parameters
    ----------
    values : array
        float64 or complex128, finite ones not beyond the largest number of the type.
    dtype : DType
        The element type.

    Returns
    -------
    array
        Values of the type, or its bits where NumPy lacks it.
    """
    if dtype.rounding is None:
        return values  # NumPy rounds them once when they are written
    fraction = dtype.precision - 1
    finite = np.isfinite(values)
    # Without NaN: what NumPy makes of it in these steps depends on the processor.
    magnitude = np.abs(np.where(finite, values, 0.0))
    exponent = np.where(magnitude > 0, np.frexp(magnitude)[1] - 1, dtype.min_exponent)
    exponent = np.maximum(exponent, dtype.min_exponent)
    rounded = np.rint(np.ldexp(magnitude, fraction - exponent)).astype(np.int64)
    bits = rounded + ((exponent.astype(np.int64) - dtype.min_exponent) << fraction)
    ones = (1 << (8 * dtype.itemsize - 1)) - 1
    infinity = ones >> fraction << fraction
    bits = np.minimum(bits, infinity if dtype.infinite else ones)  # beyond the largest number
    if dtype.infinite:
        bits = np.where(np.isinf(values), infinity, bits)
        bits = np.where(np.isnan(values), infinity | 1 << (fraction - 1), bits)
    else:
        bits = np.where(finite, bits, ones)
    bits |= np.signbit(values).astype(np.int64) << (8 * dtype.itemsize - 1)
    made: np.ndarray = bits.astype(f"uint{8 * dtype.itemsize}")
    return made if _bits_of(dtype) else made.view(dtype.name)


def decoded(bits: np.ndarray, dtype: DType) -> np.ndarray:
    """The values of an array of bits: in the type itself, or in float64 where NumPy lacks it."""
    if not (name := _bits_of(dtype)):
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
