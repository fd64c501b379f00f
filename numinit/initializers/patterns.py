"""Weights with a fixed pattern: identities, and the kernels of bilinear upsampling."""

import functools
import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from numinit.engines.by_index import selected
from numinit.engines.spec import ByIndex, Index, Place, Plan, Selection
from numinit.initializers.base import Initializer
from numinit.initializers.distributions import set_real
from numinit.show import show
from numinit.stream.dtypes import DType
from numinit.weights.shapes import Axes, as_axes, check_count


@dataclass(frozen=True)
class Eye(Initializer):
    """`gain` on the diagonal of a matrix, square or not, and 0 elsewhere.

    This is torch's ``eye_`` and Keras' ``Identity``. With ``batch_axis=0`` it makes a stack of such
    matrices.

    Parameters
    ----------
    gain : float
        The value on the diagonal.
    batch_axis : int or sequence of int
        The axes of a stack of matrices; two other axes must be left.

    Raises
    ------
    ValueError
        If the weight does not have two axes beside those of `batch_axis`.

    Examples
    --------
    >>> ni.Eye(gain=2.0)((2, 3)).tolist()
    [[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]]
    """

    has_spread: ClassVar[bool] = False

    gain: float = 1.0
    batch_axis: Axes = ()

    def __post_init__(self) -> None:
        set_real(self, "gain")
        axes = as_axes("batch_axis", self.batch_axis)
        if isinstance(self.batch_axis, Iterable):  # a list, as from TOML, has no hash
            object.__setattr__(self, "batch_axis", axes)

    def plan(self, shape: tuple[int, ...], dtype: DType) -> Plan:
        axes = self._matrix(shape)
        if len(axes) != 2:
            given = f"shape {shape} was given"
            if self.batch_axis != ():
                given = f"beside those of batch_axis {show(self.batch_axis)}, {given}"
            raise ValueError(f"Only tensors with 2 dimensions are supported: {given}")
        row, column = axes
        largest = abs(self.gain) if np.isfinite(self.gain) else 0.0
        return _selected(self, Selection(row, self.gain, {column: np.positive}), largest)

    def _matrix(self, shape: tuple[int, ...]) -> list[int]:
        """Return the axes that are not batch axes."""
        batch = {_axis("batch_axis", a, shape) for a in as_axes("batch_axis", self.batch_axis)}
        return [axis for axis in range(len(shape)) if axis not in batch]


Identity = Eye


@dataclass(frozen=True)
class Dirac(Initializer):
    """The identity of a convolution: each output channel copies the input channel of its number.

    This is torch's ``dirac_``. The outputs are split into `groups` equal parts. In each part,
    output d has a 1 at the kernel's centre for input d, if there is an input d, and zeros
    elsewhere. The centre of a kernel of size k is k // 2.

    Parameters
    ----------
    groups : int
        The number of parts. It must divide the number of outputs.
    in_axis, out_axis : int
        The axes of the inputs of one group and of the outputs. The others are the kernel's. The
        defaults are torch's layout; JAX and Keras have ``in_axis=-2, out_axis=-1``.

    Raises
    ------
    ValueError
        If the weight has fewer than 3 or more than 5 axes, or `groups` does not divide the outputs.

    Examples
    --------
    >>> ni.Dirac()((2, 2, 3))[:, :, 1].tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """

    has_spread: ClassVar[bool] = False

    groups: int = 1
    in_axis: int = 1
    out_axis: int = 0

    def __post_init__(self) -> None:
        check_count("groups", self.groups)
        _check_axes(self)

    def plan(self, shape: tuple[int, ...], dtype: DType) -> Plan:
        if not 3 <= len(shape) <= 5:
            raise ValueError(
                f"Only tensors with 3, 4, or 5 dimensions are supported: shape {shape} was given"
            )
        input_, output = self._axes(shape)
        if input_ == output:
            raise ValueError(f"in_axis, out_axis: both are axis {output} of shape {shape}")
        if shape[output] % self.groups:
            raise ValueError(
                f"dim {output} must be divisible by groups: shape {shape} and groups "
                f"{show(self.groups)} were given"
            )
        outputs = shape[output] // self.groups
        places: dict[int, Place] = {input_: functools.partial(_remainder, outputs)}
        for axis, size in enumerate(shape):
            if axis not in (input_, output):
                places[axis] = functools.partial(np.full_like, fill_value=size // 2)
        return _selected(self, Selection(output, 1.0, places), 1.0)

    def _axes(self, shape: tuple[int, ...]) -> tuple[int, int]:
        return _axis("in_axis", self.in_axis, shape), _axis("out_axis", self.out_axis, shape)


@dataclass(frozen=True)
class Bilinear(Initializer):
    """Kernels with which a transposed convolution upsamples bilinearly.

    The weight has the shape (in, out, k, k), or another order of these axes. Each kernel is the
    product of two triangles. With ``f = ceil(k / 2)`` and ``c = (2 f - 1 - f % 2) / (2 f)`` the
    value at (y, x) is ``(1 - |y / f - c|) (1 - |x / f - c|)``, as in Caffe's bilinear filler and
    Paddle's ``nn.initializer.Bilinear``. (Paddle's kernels are not symmetric, because it adds x / k
    to the row number y; the division was meant to be one of integers.) To upsample each channel by
    an integer s, use k = 2 s - s % 2, stride s, padding ceil((s - 1) / 2) and as many groups as
    channels.

    Parameters
    ----------
    in_axis, out_axis : int
        The axes of channels. The defaults are torch's; Keras' are -1 and -2.

    Raises
    ------
    ValueError
        If the weight does not have 4 axes, or the kernel is not square.

    Examples
    --------
    >>> ni.Bilinear()((1, 1, 4, 4))[0, 0, 1].tolist()
    [0.1875, 0.5625, 0.5625, 0.1875]
    """

    has_spread: ClassVar[bool] = False
    in_axis: int = 0
    out_axis: int = 1

    def __post_init__(self) -> None:
        _check_axes(self)

    def plan(self, shape: tuple[int, ...], dtype: DType) -> Plan:
        channels: set[int] = set()
        if len(shape) == 4:
            channels = {_axis(name, getattr(self, name), shape) for name in ("in_axis", "out_axis")}
        kernel = [axis for axis in range(len(shape)) if axis not in channels]
        if len(shape) != 4 or len(kernel) != 2 or shape[kernel[0]] != shape[kernel[1]]:
            raise ValueError(
                "Only tensors with 4 dimensions and square kernels, the axes beside in_axis "
                f"{show(self.in_axis)} and out_axis {show(self.out_axis)}, are supported: shape "
                f"{shape} was given"
            )
        factor = -(-shape[kernel[0]] // 2)
        centre = (2 * factor - 1 - factor % 2) / (2 * factor) if factor else 0.0
        return ByIndex("Bilinear", functools.partial(_triangles, factor, centre, tuple(kernel)))


# Functions of the module, so that plans can be pickled.


def _remainder(divisor: int, at: np.ndarray) -> np.ndarray:
    return at % divisor


def _triangles(factor: int, centre: float, kernel: tuple[int, ...], index: Index) -> np.ndarray:
    y, x = (1.0 - np.abs(index[axis] / factor - centre) for axis in kernel)
    product: np.ndarray = y * x
    return product


def _selected(initializer: Initializer, selection: Selection, largest: float) -> Plan:
    """Return the plan of a weight with one value in a few places, and zeros elsewhere."""
    values = functools.partial(selected, selection)
    return ByIndex(type(initializer).__name__, values, largest, selection=selection)


def _check_axes(initializer: Dirac | Bilinear) -> None:
    for name in ("in_axis", "out_axis"):
        try:
            operator.index(axis := getattr(initializer, name))
        except TypeError:
            raise TypeError(f"{name}: {show(axis)} was given; an integer is accepted") from None


def _axis(name: str, axis: int, shape: tuple[int, ...]) -> int:
    """Return the number of an axis of `shape`, counted from the front."""
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"{name}: axis {show(axis)} is out of range for shape {shape}")
    return axis % len(shape)
