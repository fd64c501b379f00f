"""Initializers: distributions whose parameters may follow from a weight's shape.

Every initializer is a small frozen dataclass. The value of an element is a pure function of the
initializer, the key, the whole weight's logical shape and the element's index; the four ways to
ask for values (`Initializer.__call__`, `fill_`, `block`, `rows`) agree to the bit.
"""

import functools
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from numinit.arrays import adapter_of, c_steps, refuse_overlap
from numinit.dtypes import DType, as_dtype
from numinit.engines import cpu
from numinit.fans import MODES, Axes, as_axes, as_shape, fan, fans
from numinit.gains import calculate_gain
from numinit.keys import Key, as_key

Mode = Literal["fan_in", "fan_out", "fan_avg", "fan_geo_avg"]


class Initializer:
    """What all initializers can do. `law` is the one method that they differ in."""

    def law(self, shape: Sequence[int]) -> "Law":
        """The distribution of the elements of a weight of this shape."""
        raise NotImplementedError

    def __call__(self, shape: Any, dtype: Any = "float32", *, seed: Any = None) -> np.ndarray:
        """A new array.

        Parameters
        ----------
        shape : int or sequence of int
            Of the whole weight.
        dtype : str or dtype, optional
            float32, float64, float16, or bfloat16 (which needs the extra numinit[bfloat16]).
        seed : int, Key, Generator or None, optional
            See `numinit.keys.as_key`.
        """
        shape = as_shape(shape)
        return self._new(shape, c_steps(shape), 0, shape, as_dtype(dtype), seed)

    def fill_(self, array: Any, *, shape: Any = None, offset: Any = None, seed: Any = None) -> Any:
        """Fill an array, or the part of a weight that it is, in place.

        Parameters
        ----------
        array : numpy.ndarray or torch.Tensor
            Writable, of any layout whose elements do not overlap.
        shape : sequence of int, optional
            Of the whole weight; that of `array` if left out.
        offset : sequence of int, optional
            Where in the whole weight `array` begins, one index for each axis; the origin if
            left out.
        seed : int, Key, Generator or None, optional
            See `numinit.keys.as_key`. For a torch tensor None draws from torch's own generator.

        Returns
        -------
        array
            The same object.

        Raises
        ------
        TypeError, ValueError
            Naming the argument; the array is untouched then.
        """
        adapter = adapter_of(array)
        memory = adapter.memory(array)
        if memory is None:
            return array
        if shape is None and offset is None:
            whole, start = memory.shape, 0
        else:
            whole = memory.shape if shape is None else as_shape(shape)
            start = _window_start(memory.shape, whole, offset)
        fill, random = _ready(
            self, whole, memory.dtype, memory.shape, memory.strides, c_steps(whole)
        )
        if fill is None:
            return array
        key = adapter.default_key(array) if seed is None and random else None
        if key is None:
            key = _key(random, seed)
        try:
            fill(memory.address, start, 0, key.seed, key.stream)
        finally:
            adapter.written(array)
        return array

    def block(
        self, shape: Any, index: Any, dtype: Any = "float32", *, seed: Any = None
    ) -> np.ndarray:
        """``self(shape, dtype, seed=seed)[index]`` without making the rest.

        Parameters
        ----------
        shape : sequence of int
            Of the whole weight.
        index : int, slice, Ellipsis or tuple of them
            Slices with step 1; as in NumPy, an integer drops its axis.
        dtype, seed
            As for `__call__`.
        """
        whole = as_shape(shape)
        index = index if isinstance(index, tuple) else (index,)
        ellipses = sum(i is Ellipsis for i in index)
        if ellipses > 1 or len(index) - ellipses > len(whole):
            raise IndexError(f"index: {index!r} does not fit shape {whole}")
        at = next((n for n, i in enumerate(index) if i is Ellipsis), len(index))
        missing = len(whole) - (len(index) - ellipses)
        index = index[:at] + (slice(None),) * missing + index[at + 1 :]
        start, part, steps = 0, [], []
        for axis, (item, size, step) in enumerate(zip(index, whole, c_steps(whole), strict=True)):
            if isinstance(item, slice):
                low, high, stride = item.indices(size)
                if stride != 1:
                    raise IndexError(f"index: step {stride} on axis {axis}; only step 1 is accepted")
                part.append(max(0, high - low))
                steps.append(step)
            else:
                try:
                    low = operator.index(item)
                except TypeError:
                    raise IndexError(
                        f"index: {item!r} on axis {axis}; integers, slices and ... are accepted"
                    ) from None
                if not -size <= low < size:
                    raise IndexError(f"index: {low} is out of range for axis {axis} of shape {whole}")
                low %= size
            start += low * step
        return self._new(tuple(part), tuple(steps), start, whole, as_dtype(dtype), seed)

    def rows(self, shape: Any, ids: Any, dtype: Any = "float32", *, seed: Any = None) -> np.ndarray:
        """``self(shape, dtype, seed=seed)[ids]`` without making the rest.

        Parameters
        ----------
        shape : sequence of int
            Of the whole weight, at least one axis.
        ids : array_like of int
            Any rows (indices of axis 0) in any order, repeated or not; negative ones count from
            the end.
        dtype, seed
            As for `__call__`.

        Returns
        -------
        numpy.ndarray
            Of shape ``ids.shape + shape[1:]``.
        """
        whole = as_shape(shape)
        if not whole:
            raise ValueError("shape: () has no rows; at least one axis is accepted")
        ids = np.asarray(ids)
        if ids.dtype.kind not in "iu" and ids.size:
            raise TypeError(f"ids: {ids.dtype} values were given; integers are accepted")
        bad = (ids >= whole[0]) | (ids < -whole[0])
        if bad.any():
            raise IndexError(f"ids: {ids[bad].flat[0]} is out of range for {whole[0]} rows")
        flat = np.ascontiguousarray(ids.reshape(-1), dtype=np.int64)
        flat = np.where(flat < 0, flat + whole[0], flat)
        steps = c_steps(whole)
        made = self._new(
            (flat.size, *whole[1:]), (0, *steps[1:]), 0, whole, as_dtype(dtype), seed, flat
        )
        return made.reshape(ids.shape + whole[1:])

    def fill_flat(
        self, out: np.ndarray, start: int, shape: Sequence[int], dtype: Any, key: Key
    ) -> None:
        """Write elements `start`, `start` + 1, ... of a weight, in C order, as raw bytes.

        Parameters
        ----------
        out : numpy.ndarray of uint8
            Contiguous and writable, for instance a window of a mapped file.
        start : int
            The first element's index in the whole weight.
        shape, dtype, key
            Of the whole weight.
        """
        kind = as_dtype(dtype)
        size = kind.itemsize
        fill, _ = _ready(self, tuple(shape), kind, (out.size // size,), (size,), (1,))
        if fill is not None:
            fill(out.ctypes.data, start, 0, key.seed, key.stream)

    def _new(
        self,
        part: tuple[int, ...],
        steps: tuple[int, ...],
        start: int,
        whole: tuple[int, ...],
        dtype: DType,
        seed: Any,
        rows: np.ndarray | None = None,
    ) -> np.ndarray:
        """A new array of shape `part` whose elements have the given global indices."""
        array = np.empty(part, numpy_dtype(dtype))
        fill, random = _ready(self, whole, dtype, part, array.strides, steps, rows is not None)
        key = _key(random, seed)
        if fill is not None:
            rows_address = 0 if rows is None else rows.ctypes.data
            fill(array.ctypes.data, start, rows_address, key.seed, key.stream)
        return array


_NO_KEY = Key(0)


def _key(random: bool, seed: Any) -> Key:
    """The key of a seed argument; a law that draws nothing advances no generator."""
    return _NO_KEY if seed is None and not random else as_key(seed)


@functools.lru_cache(1024)
def _ready(
    initializer: Initializer,
    whole: tuple[int, ...],
    dtype: DType,
    part: tuple[int, ...],
    strides: tuple[int, ...],
    steps: tuple[int, ...],
    by_rows: bool = False,
) -> tuple[cpu.Fill | None, bool]:
    """What fills such a part of such a weight, None if it has no elements; and is it random?

    Cached, for the layers of a model are alike and small ones must not wait for Python.
    """
    law = initializer.law(whole)
    parameters = law.parameters(dtype)
    if 0 in part:
        return None, law.random
    refuse_overlap(part, strides, dtype.itemsize)
    return cpu.Fill(part, strides, steps, law.name, dtype.name, parameters, by_rows), law.random


def _window_start(part: tuple[int, ...], whole: tuple[int, ...], offset: Any) -> int:
    """The global index of a window's first element, after checking that it lies inside."""
    begin = (0,) * len(whole) if offset is None else as_shape(offset, "offset")
    if not len(part) == len(whole) == len(begin):
        raise ValueError(
            f"shape, offset: {whole} and {begin} were given; as many axes as the array's "
            f"shape {part} has are accepted"
        )
    if any(o + p > w for o, p, w in zip(begin, part, whole, strict=True)):
        raise ValueError(
            f"offset: a window of shape {part} at {begin} reaches beyond the whole shape {whole}"
        )
    return sum(map(operator.mul, begin, c_steps(whole)))


def numpy_dtype(dtype: DType) -> np.dtype:
    """The NumPy dtype of an element type.

    Raises
    ------
    ImportError
        For bfloat16 without the package ml_dtypes, naming the extra.
    """
    if dtype.name != "bfloat16":
        return np.dtype(dtype.name)
    try:
        import ml_dtypes
    except ImportError:
        raise ImportError(
            "dtype: bfloat16 NumPy arrays need ml_dtypes: pip install 'numinit[bfloat16]'"
        ) from None
    return np.dtype(ml_dtypes.bfloat16)


class Law(Initializer):
    """An initializer whose distribution is the same for every shape."""

    name: ClassVar[str]
    random: ClassVar[bool] = True

    def law(self, shape: Sequence[int]) -> "Law":
        return self

    def parameters(self, dtype: DType) -> tuple[float, float, float, float]:
        """The four parameters of the law's transform, for arrays of `dtype`."""
        raise NotImplementedError


def _real(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: {value!r} was given; a real number is accepted") from None


@dataclass(frozen=True)
class Constant(Law):
    """Every element is `value`, rounded to the array's type."""

    value: float = 0.0

    name: ClassVar[str] = "constant"
    random: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _real("value", self.value)

    def parameters(self, dtype: DType) -> tuple[float, float, float, float]:
        return float(self.value), 0.0, 0.0, 0.0


@dataclass(frozen=True)
class Zeros(Constant):
    """Every element is 0."""

    value: float = 0.0


@dataclass(frozen=True)
class Ones(Constant):
    """Every element is 1."""

    value: float = 1.0


@dataclass(frozen=True)
class Uniform(Law):
    """Uniform on [low, high): never `high`, in any type.

    Element i is ``u * (high - low) + low`` with one rounding, u = (word >> 8) * 2**-24 (float64:
    53 bits), then moved to the nearest value of the array's type within [low, high).

    Raises
    ------
    ValueError
        If the bounds are not finite or low > high. With low == high every element is `low`.
    """

    low: float = 0.0
    high: float = 1.0

    name: ClassVar[str] = "uniform"

    def __post_init__(self) -> None:
        low, high = _real("low", self.low), _real("high", self.high)
        if not (math.isfinite(low) and math.isfinite(high) and low <= high):
            raise ValueError(f"low, high: {low} and {high} were given; finite low <= high is accepted")

    def parameters(self, dtype: DType) -> tuple[float, float, float, float]:
        low, high = float(self.low), float(self.high)
        wide = dtype.name == "float64"
        arithmetic = _FLOAT64 if wide else _FLOAT32
        if max(abs(low), abs(high), high - low) > arithmetic.max:
            raise ValueError(
                f"low, high: [{low}, {high}) is too wide for {dtype.name}; a width and bounds up "
                f"to {arithmetic.max:.3g} are accepted"
            )
        least, most = -dtype.floor(-low), dtype.below(high)
        if least > most:  # no value of the type lies in the interval
            least = most = dtype.floor(low)
        return (high - low) * 2.0 ** (-53 if wide else -24), low, least, most


_FLOAT32, _FLOAT64 = as_dtype("float32"), as_dtype("float64")


@dataclass(frozen=True)
class Normal(Law):
    """Normal with the given mean and standard deviation, by the Box-Muller transform.

    Raises
    ------
    ValueError
        If std is negative.
    """

    mean: float = 0.0
    std: float = 1.0

    name: ClassVar[str] = "normal"

    def __post_init__(self) -> None:
        _real("mean", self.mean)
        if not _real("std", self.std) >= 0:
            raise ValueError(f"std: {self.std!r} was given; a number >= 0 is accepted")

    def parameters(self, dtype: DType) -> tuple[float, float, float, float]:
        return float(self.mean), float(self.std), 0.0, 0.0


@dataclass(frozen=True, kw_only=True)
class _Fans(Initializer):
    """The fields of initializers that look at fans; see `numinit.fans.fans`."""

    in_axis: Axes = 1
    out_axis: Axes = 0
    batch_axis: Axes = ()
    groups: int = 1

    def __post_init__(self) -> None:
        for name in ("in_axis", "out_axis", "batch_axis"):
            axes = as_axes(name, given := getattr(self, name))
            if isinstance(given, list):  # as in TOML; fields are hashable
                object.__setattr__(self, name, axes)

    def _scaled(self, shape: Sequence[int], scale: float, mode: str, distribution: str) -> Law:
        """Variance scale / fan; a weight without elements has variance 0."""
        sizes = fans(shape, self.in_axis, self.out_axis, self.batch_axis, self.groups)
        n = fan(mode, *sizes)
        variance = scale / n if n else 0.0
        if distribution == "normal":
            return Normal(0.0, math.sqrt(variance))
        bound = math.sqrt(3.0 * variance)
        return Uniform(-bound, bound)


@dataclass(frozen=True)
class VarianceScaling(_Fans):
    """Variance ``scale / fan``: the one formula behind Xavier, Kaiming and LeCun.

    Parameters
    ----------
    scale : float
        At least 0.
    mode : {"fan_in", "fan_out", "fan_avg", "fan_geo_avg"}
        Which fan n the variance is divided by.
    distribution : {"normal", "uniform"}
        Normal with std sqrt(scale / n), or uniform on +-sqrt(3 scale / n).
    in_axis, out_axis, batch_axis, groups
        See `numinit.fans.fans`.
    """

    scale: float = 1.0
    mode: Mode = "fan_in"
    distribution: Literal["normal", "uniform"] = "normal"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not _real("scale", self.scale) >= 0:
            raise ValueError(f"scale: {self.scale!r} was given; a number >= 0 is accepted")
        _check_mode(self.mode)
        if self.distribution not in ("normal", "uniform"):
            raise ValueError(
                f"distribution: {self.distribution!r} was given; 'normal' or 'uniform' is accepted"
            )

    def law(self, shape: Sequence[int]) -> Law:
        return self._scaled(shape, self.scale, self.mode, self.distribution)


def _check_mode(mode: str) -> None:
    if mode not in MODES:
        raise ValueError(f"mode: {mode!r} was given; one of {', '.join(MODES)} is accepted")


@dataclass(frozen=True)
class _Xavier(_Fans):
    """Variance gain**2 / fan_avg.

    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural
    networks", AISTATS 2010, eq. 16.

    Parameters
    ----------
    gain : float
        See `numinit.calculate_gain`.
    in_axis, out_axis, batch_axis, groups
        See `numinit.fans.fans`.
    """

    gain: float = 1.0
    distribution: ClassVar[str]

    def __post_init__(self) -> None:
        super().__post_init__()
        _real("gain", self.gain)

    def law(self, shape: Sequence[int]) -> Law:
        return self._scaled(shape, self.gain**2, "fan_avg", self.distribution)


@dataclass(frozen=True)
class XavierUniform(_Xavier):
    __doc__ = (_Xavier.__doc__ or "").replace("Variance", "Uniform, variance", 1)
    distribution: ClassVar[str] = "uniform"


@dataclass(frozen=True)
class XavierNormal(_Xavier):
    __doc__ = (_Xavier.__doc__ or "").replace("Variance", "Normal, variance", 1)
    distribution: ClassVar[str] = "normal"


@dataclass(frozen=True)
class _Kaiming(_Fans):
    """Variance gain**2 / fan, with the gain of the layer's activation.

    He, Zhang, Ren and Sun, "Delving deep into rectifiers", ICCV 2015, eqs. 10 and 14.

    Parameters
    ----------
    a : float
        Negative slope of leaky_relu; used with that nonlinearity only.
    mode : {"fan_in", "fan_out", "fan_avg", "fan_geo_avg"}
        fan_in keeps the variance in the forward pass, fan_out in the backward pass.
    nonlinearity : str
        See `numinit.calculate_gain`.
    in_axis, out_axis, batch_axis, groups
        See `numinit.fans.fans`.
    """

    a: float = 0.0
    mode: Mode = "fan_in"
    nonlinearity: str = "leaky_relu"
    distribution: ClassVar[str]

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_mode(self.mode)
        calculate_gain(self.nonlinearity, self.a)

    def law(self, shape: Sequence[int]) -> Law:
        gain = calculate_gain(self.nonlinearity, self.a)
        return self._scaled(shape, gain**2, self.mode, self.distribution)


@dataclass(frozen=True)
class KaimingUniform(_Kaiming):
    __doc__ = (_Kaiming.__doc__ or "").replace("Variance", "Uniform, variance", 1)
    distribution: ClassVar[str] = "uniform"


@dataclass(frozen=True)
class KaimingNormal(_Kaiming):
    __doc__ = (_Kaiming.__doc__ or "").replace("Variance", "Normal, variance", 1)
    distribution: ClassVar[str] = "normal"


@dataclass(frozen=True)
class LecunUniform(_Fans):
    """Uniform, variance 1 / fan_in (LeCun, Bottou, Orr and Mueller, "Efficient BackProp", 1998)."""

    def law(self, shape: Sequence[int]) -> Law:
        return self._scaled(shape, 1.0, "fan_in", "uniform")


@dataclass(frozen=True)
class LecunNormal(_Fans):
    """Normal, variance 1 / fan_in (LeCun, Bottou, Orr and Mueller, "Efficient BackProp", 1998)."""

    def law(self, shape: Sequence[int]) -> Law:
        return self._scaled(shape, 1.0, "fan_in", "normal")


GlorotUniform, GlorotNormal = XavierUniform, XavierNormal
HeUniform, HeNormal = KaimingUniform, KaimingNormal
