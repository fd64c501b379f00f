"""Orthogonal weights: whole matrices, which no part can be made of alone."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from numinit.dtypes import DType
from numinit.fans import Axes, as_axes
from numinit.haar import haar
from numinit.initializers.base import Filler, Law, Part
from numinit.initializers.computed import stored, view
from numinit.initializers.laws import Normal, divided, set_real
from numinit.keys import Key

_NORMAL = Normal()


class _Whole(Law):
    """A weight that is made as a whole, by matrix products.

    The order of their sums is the BLAS library's, so values may differ between machines by
    roundings: `tolerance` says by how much at most.
    """

    gain: float

    whole: ClassVar[bool] = True

    def accept(self, shape: tuple[int, ...]) -> None:
        """Refuse a shape without such values."""
        raise NotImplementedError

    def made(
        self, shape: tuple[int, ...], dtype: str, key: Key, place: np.ndarray | None
    ) -> np.ndarray:
        """The values, as float32, float64, complex64 or complex128.

        `place` is where they go, if it is C-contiguous and of that type: they may be made there.
        """
        raise NotImplementedError

    def law(self, shape: Sequence[int]) -> Law:
        self.accept(tuple(shape))
        return self

    def check(self, shape: Sequence[int], dtype: DType) -> None:
        self.accept(tuple(shape))
        dtype.refuse_beyond("gain", self.gain)

    def filler(self, whole: tuple[int, ...], dtype: DType, part: Part) -> tuple[Filler, bool]:
        flat = part.shape == (math.prod(whole),)  # as in a file: all elements in C order
        if part.by_rows or not (part.shape == whole or flat):
            raise ValueError(
                f"{type(self).__name__} makes a weight of shape {whole} as a whole: every element "
                "depends on all others of its matrix, so a block, a row or a shard cannot be made "
                "alone; make the whole and slice it"
            )
        work = dtype.name if dtype.complex else dtype.real

        def fill(address: int, first: int, rows: int, seed: int, stream: int) -> None:
            target = view(address, part.shape, part.strides, dtype)
            fits = target.dtype == work and target.flags.c_contiguous
            place = target.reshape(whole) if fits else None
            values = self.made(whole, work, Key(seed, stream), place)
            if values is not place:
                target[...] = stored(values.reshape(part.shape) if flat else values, dtype)

        return fill, True


def _times(values: np.ndarray, gain: float) -> None:
    """Multiply in place; zeros are +0.0."""
    if gain != 1:
        values *= gain
        values += 0.0


def _orthonormal(
    m: int, n: int, dtype: str, key: Key, place: np.ndarray | None = None
) -> np.ndarray:
    """An m x n matrix of orthonormal columns, m >= n, or rows."""
    long, short = max(m, n), min(m, n)

    def draw(out: np.ndarray, i: int, j: int) -> None:
        _NORMAL.fill_(out, shape=(long, short), offset=(i, j), seed=key)

    if m < n:
        return haar(n, m, dtype, draw).T
    return haar(m, n, dtype, draw, place)


@dataclass(frozen=True)
class Orthogonal(_Whole):
    """Orthonormal rows or columns, whichever are fewer, with the Haar distribution, times `gain`.

    Saxe, McClelland and Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep
    linear neural networks", ICLR 2014. Complex weights are unitary. 16- and 8-bit ones are rounded
    from float32. Every element of ``Q^H Q`` is within about 1e-6 of the identity's in float32, and
    1e-14 in float64; see `numinit.haar`.

    Parameters
    ----------
    gain : float
        See `numinit.calculate_gain`.
    out_axis : int or sequence of int
        One side of the matrix; the other axes, flattened, are the other. 0 is torch's
        ``orthogonal_``, -1 is JAX's ``column_axis=-1`` and Keras.
    batch_axis : int or sequence of int, optional
        Axes of independent matrices, such as stacked experts: matrix b is that of the key
        ``key.fold_in(b)``.

    Raises
    ------
    ValueError
        For fewer than 2 axes besides those of `batch_axis`; for a part of a weight.
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

    @property
    def tolerance(self) -> float:
        return abs(self.gain) * 1e-5

    def narrowed(self, divisor: float) -> "Orthogonal":
        return replace(self, gain=divided("gain", self.gain, divisor))

    def _axes(self, shape: tuple[int, ...]) -> tuple[list[int], list[int], list[int]]:
        """The axes of the batch, of one side and of the other."""
        rank, taken = len(shape), []
        for name in ("batch_axis", "out_axis"):
            axes = as_axes(name, getattr(self, name))
            if any(not -rank <= axis < rank for axis in axes):
                raise ValueError(f"{name}: {axes} is out of range for shape {shape}")
            taken.append([axis % rank for axis in axes])
        batch, out = taken
        if len({*batch, *out}) < len(batch) + len(out):
            raise ValueError(f"out_axis, batch_axis: {out} and {batch} name an axis twice")
        rest = [axis for axis in range(rank) if axis not in (*batch, *out)]
        return batch, out, rest

    def accept(self, shape: tuple[int, ...]) -> None:
        if len(shape) < 2 + len(as_axes("batch_axis", self.batch_axis)):
            raise ValueError(
                "Only tensors with 2 or more dimensions are supported: shape "
                f"{shape} was given, with batch_axis {self.batch_axis}"
            )
        self._axes(shape)

    def made(
        self, shape: tuple[int, ...], dtype: str, key: Key, place: np.ndarray | None
    ) -> np.ndarray:
        batch, out, rest = self._axes(shape)
        size = [[shape[axis] for axis in axes] for axes in (batch, out, rest)]
        m, n = math.prod(size[1]), math.prod(size[2])
        order = [*batch, *out, *rest]
        if m < n or order != sorted(order) or batch:
            place = None
        if batch:
            values = np.empty((math.prod(size[0]), m, n), dtype)
            for b in range(len(values)):
                values[b] = _orthonormal(m, n, dtype, key.fold_in(b))
        else:
            values = _orthonormal(m, n, dtype, key, None if place is None else place.reshape(m, n))
        _times(values, self.gain)
        if place is not None:
            return place
        places = [order.index(axis) for axis in range(len(shape))]
        return values.reshape([*size[0], *size[1], *size[2]]).transpose(places)


@dataclass(frozen=True)
class DeltaOrthogonal(_Whole):
    """Convolutions that keep norms: an orthogonal matrix in the kernel's centre, zeros elsewhere.

    Xiao et al., "Dynamical isometry and a mean field theory of CNNs", ICML 2018, section 3.3; JAX's
    ``delta_orthogonal``. The centre of an axis of size k is (k - 1) // 2.

    Parameters
    ----------
    gain : float
    in_axis, out_axis : int
        The axes of channels, torch's by default; JAX's are -2 and -1. The other 1 to 3 are the
        kernel's.

    Raises
    ------
    ValueError
        For other than 3 to 5 axes, or fewer outputs than inputs; for a part of a weight.
    """

    gain: float = 1.0
    in_axis: int = 1
    out_axis: int = 0

    def __post_init__(self) -> None:
        set_real(self, "gain")
        for name in ("in_axis", "out_axis"):
            if len(axes := as_axes(name, getattr(self, name))) != 1:
                raise ValueError(f"{name}: {axes} was given; one axis is accepted")

    @property
    def tolerance(self) -> float:
        return abs(self.gain) * 1e-5

    def narrowed(self, divisor: float) -> "DeltaOrthogonal":
        return replace(self, gain=divided("gain", self.gain, divisor))

    def accept(self, shape: tuple[int, ...]) -> None:
        rank = len(shape)
        if not 3 <= rank <= 5:
            raise ValueError(
                f"shape: {shape} was given; 3 to 5 axes, of 1 to 3 kernel dimensions, are accepted"
            )
        axes = [self.in_axis, self.out_axis]
        if any(not -rank <= axis < rank for axis in axes) or len({a % rank for a in axes}) < 2:
            raise ValueError(f"in_axis, out_axis: {axes} do not fit shape {shape}")
        if shape[self.out_axis] < shape[self.in_axis]:
            raise ValueError(
                f"shape: {shape} has {shape[self.out_axis]} outputs for {shape[self.in_axis]} "
                "inputs; at least as many outputs are accepted"
            )

    def made(
        self, shape: tuple[int, ...], dtype: str, key: Key, place: np.ndarray | None
    ) -> np.ndarray:
        values = np.zeros(shape, dtype)
        matrices = np.moveaxis(values, (self.out_axis, self.in_axis), (0, 1))
        centre: Any = (..., *((k - 1) // 2 for k in matrices.shape[2:]))
        matrix = matrices[centre]
        matrix[...] = _orthonormal(matrix.shape[0], matrix.shape[1], dtype, key)
        _times(matrix, self.gain)
        return values
