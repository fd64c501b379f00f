"""Weights that are made of other weights: parts along an axis, copies, and norms of their rows."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from numinit.engines import driver
from numinit.engines.by_index import CHUNK, decoded
from numinit.engines.driver import NOTHING
from numinit.engines.layout import c_steps
from numinit.engines.spec import Joined, Part, Plan, Whole, divided_parts
from numinit.initializers.base import Initializer, Planned
from numinit.initializers.wrappers import MAX_PARTS, Wrapper, _set_integer
from numinit.show import show
from numinit.stream.dtypes import DTYPES, DType, as_dtype
from numinit.weights.keys import Key
from numinit.weights.shapes import as_shape


@dataclass(frozen=True)
class Parts(Initializer):
    """Several weights side by side along an axis, each with an initializer of its own.

    Examples are query, key and value of unequal sizes in one matrix, and the gates of an LSTM. Each
    part is a weight by itself: its initializer sees the shape of the part, and so its fans, and part
    number p is drawn from ``key.fold_in(p)``. So the values are those of
    ``numpy.concatenate([init(shape_p, dtype, seed=key.fold_in(p)), ...], axis)``.

    Parameters
    ----------
    parts : sequence of (int or None, Initializer)
        The size of each part along the axis, and its initializer. Those whose size is None have
        equal shares of what the others leave.
    axis : int
        The axis along which the parts lie.

    Raises
    ------
    TypeError
        If `parts` has another form, or `axis` is no integer.
    ValueError
        If there are no parts or more than 1024, a size is below 1, or the weight has no such axis
        or another size along it.

    Examples
    --------
    >>> ni.Parts([(1, ni.Ones()), (None, ni.Zeros())])((3, 2)).tolist()
    [[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]
    """

    parts: Sequence[tuple[int | None, Initializer]]
    axis: int = 0

    def __post_init__(self) -> None:
        try:
            parts = tuple((size, init) for size, init in self.parts)
        except (TypeError, ValueError):
            raise TypeError(
                f"parts: {show(self.parts)} was given; pairs of a size and an initializer are accepted"
            ) from None
        if not 0 < len(parts) <= MAX_PARTS:
            raise ValueError(f"parts: {len(parts)} were given; 1 to {MAX_PARTS} are accepted")
        for number, (size, init) in enumerate(parts):
            if not isinstance(init, Initializer):
                raise TypeError(f"parts: part {number}: {show(init)} is no initializer")
            if size is not None and (
                not isinstance(size, int | np.integer) or isinstance(size, bool)
            ):
                raise TypeError(f"parts: part {number}: {show(size)} is no size; an integer is")
            if size is not None and size < 1:
                raise ValueError(
                    f"parts: part {number} has size {show(size)}; at least 1 is accepted"
                )
        parts = tuple((None if size is None else int(size), init) for size, init in parts)
        object.__setattr__(self, "parts", parts)
        _set_integer(self, "axis")

    def plan(self, shape: tuple[int, ...], dtype: DType) -> Plan:
        rank = len(shape)
        if not -rank <= self.axis < rank:
            raise ValueError(f"axis: {show(self.axis)} was given; shape {shape} has {rank} axes")
        axis = self.axis % rank
        made, start = [], 0
        for number, (size, (_, init)) in enumerate(
            zip(self._sizes(shape[axis], shape), self.parts, strict=True)
        ):
            own = (*shape[:axis], size, *shape[axis + 1 :])
            try:
                plan = init.plan(own, dtype)
            except (TypeError, ValueError) as error:
                raise type(error)(f"part {number} of shape {own}: {error}") from error
            made.append(Part(start, 1, size, plan, own, 0, functools.partial(_folded, number)))
            start += size
        return _joined("Parts", axis, made, shape, dtype)

    def _sizes(self, whole: int, shape: tuple[int, ...]) -> list[int]:
        sizes = [size for size, _ in self.parts]
        open_, rest = sizes.count(None), whole - sum(size for size in sizes if size is not None)
        if (open_ == 0 and rest) or (open_ and (rest < open_ or rest % open_)):
            left = f" leave {rest} for {open_} others" if open_ else f" are {whole - rest} together"
            raise ValueError(
                f"parts: the sizes{left}; axis {self.axis} of shape {shape} has size {whole}"
            )
        return [rest // open_ if size is None else size for size in sizes]


def _folded(number: int, seed: int, stream: int) -> tuple[int, int]:
    """From a key's words to those of ``key.fold_in(number)``."""
    key = Key(seed, stream).fold_in(number)
    return key.seed, key.stream


@dataclass(frozen=True)
class ICNR(Wrapper):
    """Another initializer with groups of equal output channels, for upsampling by pixel shuffle.

    Output channels ``scale**2 c`` to ``scale**2 c + scale**2 - 1`` all have the values of channel c
    of the other initializer's weight, so that the upsampled image begins as one of nearest
    neighbours, without a checkerboard. Aitken et al., "Checkerboard artifact free sub-pixel
    convolution", arXiv:1707.02937, section 2.

    Parameters
    ----------
    init : Initializer
        Sees the smaller weight, of ``channels / scale**2`` outputs.
    scale : int
        The factor of the upsampling, at least 1.
    axis : int
        The axis of the output channels.

    Raises
    ------
    TypeError
        If `init` is no initializer, or `scale` or `axis` is no integer.
    ValueError
        If `scale` is below 1 or above 32, or ``scale**2`` does not divide the number of channels.

    Examples
    --------
    >>> weight = ni.ICNR(ni.KaimingNormal(), scale=2)((8, 3, 3, 3), seed=0)
    >>> bool((weight[0] == weight[3]).all()), bool((weight[3] == weight[4]).any())
    (True, False)
    """

    scale: int = 2
    axis: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= _set_integer(self, "scale") <= math.isqrt(MAX_PARTS):
            raise ValueError(
                f"scale: {show(self.scale)} was given; 1 to {math.isqrt(MAX_PARTS)} is accepted"
            )
        _set_integer(self, "axis")

    def plan(self, shape: tuple[int, ...], dtype: DType) -> Plan:
        rank, group = len(shape), self.scale**2
        if not -rank <= self.axis < rank:
            raise ValueError(f"axis: {show(self.axis)} was given; shape {shape} has {rank} axes")
        axis = self.axis % rank
        if shape[axis] % group:
            raise ValueError(
                f"scale: {group} = {self.scale}**2 does not divide axis {axis} of shape {shape}"
            )
        count = shape[axis] // group
        own = (*shape[:axis], count, *shape[axis + 1 :])
        plan = self.init.plan(own, dtype)
        made = [Part(start, group, count, plan, own, 0, None) for start in range(group)]
        return _joined("ICNR", axis, made, shape, dtype)


@dataclass(frozen=True)
class NormOf(Wrapper):
    """The norms of another weight: weight normalization's g, which follows from its v.

    The axes of which the weight has one index and the other weight more are those that a norm is
    taken over; the two agree in all others. With the key of v the values are the norms of v's.
    Salimans and Kingma, "Weight normalization", NeurIPS 2016, eq. 2; ``torch.nn.utils.weight_norm``
    makes such a g of shape (out, 1, 1).

    Parameters
    ----------
    init : Initializer
        The other weight's initializer.
    of_shape : sequence of int
        The other weight's shape.
    of_dtype : str, optional
        The other weight's type, whose values the norms are of. If left out, it is the weight's own.

    Raises
    ------
    TypeError
        If `init` is no initializer, or a shape or a type is none.
    ValueError
        If the two shapes do not fit each other.

    Examples
    --------
    >>> v, key = ni.Normal(), ni.Key(0)
    >>> g = ni.NormOf(v, (4, 25))((4, 1), seed=key)
    >>> expected = np.linalg.norm(v((4, 25), seed=key), axis=1, keepdims=True)
    >>> bool(np.allclose(g, expected))
    True
    """

    of_shape: Sequence[int]
    of_dtype: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "of_shape", as_shape(self.of_shape, "of_shape"))
        if self.of_dtype is not None:
            object.__setattr__(self, "of_dtype", as_dtype(self.of_dtype).name)

    def plan(self, shape: tuple[int, ...], dtype: DType) -> Plan:
        other = tuple(self.of_shape)
        kind = dtype if self.of_dtype is None else DTYPES[self.of_dtype]
        return norms(self.init.plan(other, kind), other, kind, shape, dtype)


def norms(
    plan: Plan, other: tuple[int, ...], kind: DType, shape: tuple[int, ...], dtype: DType
) -> Plan:
    """The plan of the norms of a weight of shape `other` and type `kind`; see `NormOf`."""
    fits = len(shape) == len(other) and all(n in (1, m) for n, m in zip(shape, other, strict=True))
    if not fits:
        raise ValueError(
            f"shape: {shape} was given for the norms of a weight of shape {other}; as many axes, "
            "each of the same size or of size 1, are accepted"
        )
    if dtype.complex:
        raise TypeError(f"dtype: norms are real, not {dtype.name}")
    count = math.prod(m for n, m in zip(shape, other, strict=True) if n != m)
    errors = (0.0, 0.0)
    if isinstance(plan, Whole):  # a norm moves by no more than the vector
        errors = (plan.tolerance(kind) * math.sqrt(count),) * 2

    def make(work: str, seed: int, stream: int, place: Any, gain: float) -> np.ndarray:
        return gain * _norms(plan, other, shape, kind, Key(seed, stream))

    return Whole("NormOf", make, errors=errors, compile=lambda _: _compiled(plan, other, kind))


def _norms(
    plan: Plan, shape: tuple[int, ...], kept: tuple[int, ...], dtype: DType, key: Key
) -> np.ndarray:
    """The norms of a weight, float64 of shape `kept`; the sums' order follows from the shape alone."""
    total = np.zeros(kept)
    init = Planned(plan)
    rows = shape[0] if shape else 1
    inner = math.prod(shape[1:])
    step = max(1, 16 * CHUNK // max(1, inner))
    if isinstance(plan, Whole):
        step = max(1, rows)
    for low in range(0, rows, step):
        high = min(rows, low + step)
        values = _values(init, shape, dtype, key, low * inner, (high - low) * inner)
        values = np.square(np.abs(values)).reshape(high - low, *shape[1:])
        for axis in range(len(shape)):
            if kept[axis] != shape[axis]:
                values = _summed(values, axis)
        if len(values) == high - low and kept[:1] == shape[:1] and shape:
            total[low:high] += values
        else:
            total += values.reshape(total.shape)
    return np.sqrt(total)


def _summed(values: np.ndarray, axis: int) -> np.ndarray:
    """The sum along an axis, which stays, by halves: NumPy's own order of sums is its own."""
    values = np.moveaxis(values, axis, 0)
    while (count := len(values)) > 1:
        half = count // 2
        folded = values[:half] + values[half : 2 * half]
        values = folded if count % 2 == 0 else np.concatenate([folded, values[-1:]])
    if not len(values):
        values = np.zeros((1, *values.shape[1:]))
    return np.moveaxis(values, 0, axis)


def _values(
    init: Planned, shape: tuple[int, ...], dtype: DType, key: Key, first: int, count: int
) -> np.ndarray:
    """Elements of a weight in C order, as they are stored, in float64 or complex128."""
    out = np.empty(count * dtype.itemsize, np.uint8)
    init.fill_flat(out, first, shape, dtype, key)
    made = decoded(out, dtype)
    return made.astype(np.complex128 if dtype.complex else np.float64)


def _compiled(plan: Plan, shape: tuple[int, ...], dtype: DType) -> None:
    """Compile what makes a weight."""
    Planned(plan).prepare_flat(math.prod(shape) * dtype.itemsize, shape, dtype)


def _joined(name: str, axis: int, parts: list[Part], shape: tuple[int, ...], dtype: DType) -> Plan:
    """The plan of a weight of such parts: a whole one if one of them is."""
    for part in parts:
        driver.prepared(part.plan, part.shape, dtype, NOTHING)
    if any(isinstance(part.plan, Whole) for part in parts):
        return _whole(name, axis, tuple(parts), shape, dtype)
    return Joined(name, axis, tuple(parts))


class _WholeParts(Whole):
    """A weight of parts, some of which are made whole."""

    parts: tuple[Part, ...]
    again: Any

    def divided(self, divisor: float) -> "Whole":
        made: Whole = self.again(divided_parts(self.parts, divisor))
        return made


def _whole(
    name: str, axis: int, parts: tuple[Part, ...], shape: tuple[int, ...], dtype: DType
) -> Whole:
    def make(work: str, seed: int, stream: int, place: Any, gain: float) -> np.ndarray:
        values = np.empty(shape, work) if place is None else place
        last: Any = None
        for part in parts:
            key = (seed, stream) if part.key is None else part.key(seed, stream)
            if last is None or last[:2] != (id(part.plan), key):
                last = id(part.plan), key, _made(part, work, key, dtype)
            where: list[Any] = [slice(None)] * len(shape)
            where[axis] = slice(part.start, part.start + part.size * part.step, part.step)
            values[tuple(where)] = last[2]
        return values if gain == 1 else values * gain

    def varies(first: int, count: int) -> np.ndarray:
        mask = np.zeros(count, bool)
        step = c_steps(shape)[axis]
        at = np.arange(first, first + count) // step % shape[axis]
        for part in parts:
            if isinstance(part.plan, Whole):
                inside = (at >= part.start) & (at < part.start + part.size * part.step)
                mask |= inside & ((at - part.start) % part.step == 0)
        return mask

    def compile_(work: str) -> None:
        for part in parts:
            _compiled(part.plan, part.shape, dtype)

    wholes = [part.plan for part in parts if isinstance(part.plan, Whole)]
    errors = tuple(max(abs(plan.gain) * plan.errors[wide] for plan in wholes) for wide in (0, 1))
    made = _WholeParts(name, make, 1.0, (errors[0], errors[1]), varies, compile_)
    object.__setattr__(made, "parts", parts)
    object.__setattr__(made, "again", lambda new: _whole(name, axis, new, shape, dtype))
    return made


def _made(part: Part, work: str, key: tuple[int, int], dtype: DType) -> np.ndarray:
    plan = part.plan
    if isinstance(plan, Whole):
        return plan.make(work, *key, None, plan.gain)
    size = math.prod(part.shape)
    return _values(Planned(plan), part.shape, dtype, Key(*key), 0, size).reshape(part.shape)
