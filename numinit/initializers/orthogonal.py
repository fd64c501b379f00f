"""Orthogonal weights. They are made whole, because every element depends on all others."""

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from numinit.engines.spec import Plan, Whole
from numinit.initializers.base import Initializer
from numinit.initializers.distributions import Normal, set_real
from numinit.initializers.haar import haar
from numinit.show import show
from numinit.stream.dtypes import DTYPES, DType
from numinit.weights.keys import Key
from numinit.weights.shapes import Axes, as_axes

_NORMAL = Normal()

#: Bounds of the differences between machines in float32 and float64. They are also those of every
#: element of ``Q^H Q``. OpenBLAS's kernels for seven kinds of processor, with one thread and two,
#: gave elements that differ by up to 2.6e-7 and 8.9e-16, in matrices of up to 1000 x 1000 and
#: 200,000 x 16.
ERRORS = (1e-6, 1e-14)


def _compile(dtype: str) -> None:
    """Compile the kernel that draws."""
    _NORMAL._ready((1, 1), DTYPES[dtype], (1, 1), (1, 1))


def _multiply(values: np.ndarray, gain: float) -> None:
    """Multiply in place; zeros are +0.0."""
    if gain == 0:
        values[...] = 0
    elif gain != 1:
        values *= gain
        values += 0.0


def _orthonormal(
    m: int, n: int, dtype: str, key: Key, place: np.ndarray | None = None
) -> np.ndarray:
    """Make an m x n matrix with orthonormal columns if m >= n, else with orthonormal rows."""
    if m < n:
        return _orthonormal(n, m, dtype, key).T
    q = np.empty((m, n), dtype) if place is None else place
    return haar(_NORMAL.fill_(q, seed=key))


class _Order(NamedTuple):
    """How a weight's axes are arranged as matrices."""

    batch: tuple[int, ...]
    """The sizes of the axes of the batch."""
    rows: int
    columns: int
    sizes: tuple[int, ...]
    """The sizes of the axes of the batch, of the rows and of the columns."""
    places: tuple[int, ...]
    """Where the weight's axes are among those."""


def _order(shape: tuple[int, ...], *axes: list[int]) -> _Order:
    """Arrange a weight's axes, given those of the batch, of one side and of the other."""
    batch, out, rest = (tuple(shape[axis] for axis in some) for some in axes)
    order = [axis for some in axes for axis in some]
    places = tuple(order.index(axis) for axis in range(len(shape)))
    return _Order(batch, math.prod(out), math.prod(rest), (*batch, *out, *rest), places)


def _stacked(
    order: _Order, dtype: str, seed: int, stream: int, place: np.ndarray | None, gain: float
) -> np.ndarray:
    """Make a weight."""
    batch, m, n, sizes, places = order
    key = Key(seed, stream)
    if batch:
        values = np.empty((math.prod(batch), m, n), dtype)
        for b in range(len(values)):
            values[b] = _orthonormal(m, n, dtype, key.fold_in(b))
    elif place is not None and m >= n and places == tuple(range(len(places))):
        _multiply(_orthonormal(m, n, dtype, key, place.reshape(m, n)), gain)
        return place
    else:
        values = _orthonormal(m, n, dtype, key)
    _multiply(values, gain)
    return values.reshape(sizes).transpose(places)


@dataclass(frozen=True)
class Orthogonal(Initializer):
    """Orthonormal rows or columns, whichever are fewer, with the Haar distribution, times `gain`.

    Saxe, McClelland and Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep
    linear neural networks", ICLR 2014. Complex weights are unitary. 16- and 8-bit weights are
    rounded from float32. Every element of ``Q^H Q`` is within about 1e-6 of the identity's in
    float32, and within 1e-14 in float64; see `numinit.initializers.haar`.

    Parameters
    ----------
    gain : float
        A factor of all values; see `numinit.calculate_gain`.
    out_axis : int or sequence of int
        The axes that are flattened to one side of the matrix; the others are flattened to the
        other side. 0 is torch's ``orthogonal_``; -1 is JAX's ``column_axis=-1`` and Keras'.
    batch_axis : int or sequence of int, optional
        Axes of independent matrices, such as stacked experts. Matrix b is drawn from
        ``key.fold_in(b)``.

    Raises
    ------
    ValueError
        If fewer than 2 axes are left beside those of `batch_axis`, or rows of a weight are asked
        for.

    Examples
    --------
    >>> w = ni.Orthogonal()((4, 4), "float64", seed=0)
    >>> bool(np.allclose(w @ w.T, np.eye(4)))
    True
    """

    gain: float = 1.0
    out_axis: Axes = 0
    batch_axis: Axes = ()

    def __post_init__(self) -> None:
        set_real(self, "gain")
        for name in ("out_axis", "batch_axis"):
            axes = as_axes(name, given := getattr(self, name))
            if isinstance(given, Iterable):
                object.__setattr__(self, name, axes)

    def _axes(self, shape: tuple[int, ...]) -> tuple[list[int], list[int], list[int]]:
        """Return the axes of the batch, of one side and of the other."""
        rank, taken = len(shape), []
        for name in ("batch_axis", "out_axis"):
            axes = as_axes(name, getattr(self, name))
            if any(not -rank <= axis < rank for axis in axes):
                raise ValueError(f"{name}: {show(axes)} is out of range for shape {shape}")
            taken.append([axis % rank for axis in axes])
        batch, out = taken
        if len({*batch, *out}) < len(batch) + len(out):
            raise ValueError(
                f"out_axis, batch_axis: {show(out)} and {show(batch)} name an axis twice"
            )
        rest = [axis for axis in range(rank) if axis not in (*batch, *out)]
        return batch, out, rest

    def plan(self, shape: tuple[int, ...], dtype: DType) -> Plan:
        if len(shape) < 2 + len(as_axes("batch_axis", self.batch_axis)):
            batch = self.batch_axis
            beside = "" if batch == () else f", with batch_axis {show(batch)}"
            raise ValueError(
                "Only tensors with 2 or more dimensions are supported: shape "
                f"{shape} was given{beside}"
            )
        make = functools.partial(_stacked, _order(shape, *self._axes(shape)))
        return Whole("Orthogonal", make, self.gain, ERRORS, compile=_compile)


@dataclass(frozen=True)
class DeltaOrthogonal(Initializer):
    """Convolutions that keep norms: an orthogonal matrix in the kernel's centre, zeros elsewhere.

    Xiao et al., "Dynamical isometry and a mean field theory of CNNs", ICML 2018, section 3.3; JAX's
    ``delta_orthogonal``. The centre of an axis of size k is (k - 1) // 2.

    Parameters
    ----------
    gain : float
        A factor of all values; see `numinit.calculate_gain`.
    in_axis, out_axis : int
        The axes of channels. The defaults are torch's; JAX's are -2 and -1. The other 1 to 3 axes
        are the kernel's.

    Raises
    ------
    ValueError
        If the weight has fewer than 3 or more than 5 axes, or fewer outputs than inputs, or rows of
        it are asked for.

    Examples
    --------
    >>> w = ni.DeltaOrthogonal()((4, 2, 3), "float64", seed=0)
    >>> bool(np.allclose(w[:, :, 1].T @ w[:, :, 1], np.eye(2))), int(np.count_nonzero(w[:, :, ::2]))
    (True, 0)
    """

    gain: float = 1.0
    in_axis: int = 1
    out_axis: int = 0

    def __post_init__(self) -> None:
        set_real(self, "gain")
        for name in ("in_axis", "out_axis"):
            if len(axes := as_axes(name, getattr(self, name))) != 1:
                raise ValueError(f"{name}: {show(axes)} was given; one axis is accepted")

    def plan(self, shape: tuple[int, ...], dtype: DType) -> Plan:
        rank = len(shape)
        if not 3 <= rank <= 5:
            raise ValueError(
                f"shape: {shape} was given; 3 to 5 axes, of 1 to 3 kernel dimensions, are accepted"
            )
        axes = [self.in_axis, self.out_axis]
        if any(not -rank <= axis < rank for axis in axes) or len({a % rank for a in axes}) < 2:
            raise ValueError(f"in_axis, out_axis: {show(axes)} do not fit shape {shape}")
        if shape[self.out_axis] < shape[self.in_axis]:
            raise ValueError(
                f"shape: {shape} has {shape[self.out_axis]} outputs for {shape[self.in_axis]} "
                "inputs; at least as many outputs are accepted"
            )

        make = functools.partial(_delta, shape, self.in_axis, self.out_axis)
        varies = functools.partial(_in_centre, shape, self.in_axis, self.out_axis)
        return Whole("DeltaOrthogonal", make, self.gain, ERRORS, varies, _compile)


def _in_centre(
    shape: tuple[int, ...], in_axis: int, out_axis: int, first: int, count: int
) -> np.ndarray:
    """Return a mask of the elements of a run, in C order, that are in the kernel's centre."""
    index = np.unravel_index(np.arange(first, first + count), shape)
    kernel = {*range(len(shape))} - {axis % len(shape) for axis in (in_axis, out_axis)}
    inside: np.ndarray = np.logical_and.reduce(
        [index[axis] == (shape[axis] - 1) // 2 for axis in kernel]
    )
    return inside


def _delta(
    shape: tuple[int, ...],
    in_axis: int,
    out_axis: int,
    dtype: str,
    seed: int,
    stream: int,
    place: np.ndarray | None,
    gain: float,
) -> np.ndarray:
    """Make a weight with an orthogonal matrix in the kernel's centre, and zeros elsewhere."""
    values = np.zeros(shape, dtype)
    matrices = np.moveaxis(values, (out_axis, in_axis), (0, 1))
    centre: Any = (..., *((k - 1) // 2 for k in matrices.shape[2:]))
    matrix = matrices[centre]
    inside = matrix if matrix.flags.c_contiguous else None
    made = _orthonormal(matrix.shape[0], matrix.shape[1], dtype, Key(seed, stream), inside)
    if made is not inside:
        matrix[...] = made
    _multiply(matrix, gain)
    return values
