"""Variance scaling: distributions whose standard deviation follows from the fans of the weight."""

import functools
import math
import numbers
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from numinit.arrays.memory import Function
from numinit.engines.spec import Plan, Sampled
from numinit.initializers.base import Distribution, Initializer
from numinit.initializers.distributions import Normal, Uniform, set_real, set_scale
from numinit.initializers.truncated_normal import TruncNormal
from numinit.show import show
from numinit.stream.complex_disk import DISK, TRUNCATED_DISK
from numinit.stream.dtypes import DType, RangeError, quotient
from numinit.stream.transform import Transform
from numinit.weights.fans import MODES, fan, fans
from numinit.weights.gains import PARAMETERS, calculate_gain, is_parameter
from numinit.weights.shapes import Axes, as_axes, check_count

DISTRIBUTIONS = ("normal", "truncated_normal", "uniform")
Mode = Literal["fan_in", "fan_out", "fan_avg", "fan_geo_avg"]


#: The standard deviations of a normal, and of a complex normal, truncated at 2. (JAX divides by
#: 0.95311 instead of the latter, which gives a variance that is 2% too large.)
TRUNCATED_STD = 0.87962566103423978
TRUNCATED_DISK_STD = 0.96196182800821354
#: exp(-2**2): the mass outside a disk of two standard deviations.
EXP_MINUS_4 = 0.01831563888873418


@dataclass(frozen=True)
class Spread(Distribution):
    """A uniform or truncated normal distribution around 0 whose standard deviation is `std`.

    A normal is truncated at two of its standard deviations, which are larger than `std`. A complex
    element is distributed on a disk, as in JAX: of radius sqrt(2) std if uniform.
    """

    std: float
    distribution: str  # "uniform" or "truncated_normal"

    def transform(self, dtype: DType) -> tuple[Transform, tuple[float, ...]]:
        if self.distribution == "uniform":
            bound = math.sqrt(2.0 if dtype.complex else 3.0) * self.std
            dtype.refuse_beyond("std", self.std, bound)
            if dtype.complex:
                return DISK, DISK.Parameters(bound)
            return Uniform(-bound, bound).transform(dtype)
        std = self.std / (TRUNCATED_DISK_STD if dtype.complex else TRUNCATED_STD)
        dtype.refuse_beyond("std", self.std, 2.0 * std)
        if not dtype.complex:
            return TruncNormal(0.0, std, -2.0 * std, 2.0 * std).transform(dtype)
        ulp = 2.0**-64 if dtype.wide else 2.0**-32
        step = (1.0 - EXP_MINUS_4) * ulp
        lowest, rest = EXP_MINUS_4 + step / 2, step / 2
        return TRUNCATED_DISK, TRUNCATED_DISK.Parameters(std / math.sqrt(2.0), step, lowest, rest)

    def divided(self, divisor: float) -> Distribution:
        return replace(self, std=quotient("std", self.std, divisor))


@dataclass(frozen=True, kw_only=True)
class _Fans(Initializer):
    """The base of initializers that use fans; see `numinit.fans` for its fields."""

    in_axis: Axes = 1
    out_axis: Axes = 0
    batch_axis: Axes = ()
    groups: int = 1
    packed: int = 1
    transposed: bool = False

    def __post_init__(self) -> None:
        for name in ("in_axis", "out_axis", "batch_axis"):
            axes = as_axes(name, given := getattr(self, name))
            if isinstance(given, Iterable):  # a list, as from TOML, has no hash
                object.__setattr__(self, name, axes)
        for name in ("groups", "packed"):
            check_count(name, getattr(self, name))
        if not isinstance(self.transposed, bool):
            raise TypeError(
                f"transposed: {show(self.transposed)} was given; True or False is accepted"
            )

    def _scaled(self, shape: Sequence[int], gain: float, mode: str, distribution: str) -> Plan:
        """Return a plan with std gain / sqrt(fan), or 0 for a weight without elements."""
        axes = self.in_axis, self.out_axis, self.batch_axis
        n = fan(mode, *fans(shape, *axes, self.groups, self.packed, self.transposed))
        std = gain / math.sqrt(n) if n else 0.0
        normal = distribution == "normal"
        return Sampled(Normal(0.0, std) if normal else Spread(std, distribution))


@dataclass(frozen=True)
class VarianceScaling(_Fans):
    """Variance ``scale / fan``, the formula behind Xavier, Kaiming and LeCun.

    Parameters
    ----------
    scale : float
        At least 0.
    mode : {"fan_in", "fan_out", "fan_avg", "fan_geo_avg"}
        The fan n that divides the variance.
    distribution : {"normal", "truncated_normal", "uniform"}
        Normal with std sqrt(scale / n); normal, truncated at two standard deviations, with that std
        after truncation (JAX, Keras); or uniform on +-sqrt(3 scale / n).
    in_axis, out_axis, batch_axis, groups, packed, transposed
        See `numinit.fans`, which raises a ValueError if they do not fit the shape.

    Raises
    ------
    ValueError
        If `scale` is negative, or `mode` or `distribution` is unknown.

    Examples
    --------
    >>> round(float(ni.VarianceScaling(2.0, "fan_in", "normal")((100, 200), seed=0).std()), 2)
    0.1
    """

    scale: float = 1.0
    mode: Mode = "fan_in"
    distribution: Literal["normal", "truncated_normal", "uniform"] = "normal"

    def __post_init__(self) -> None:
        super().__post_init__()
        set_scale(self, "scale")
        _check_mode(self.mode)
        if self.distribution not in DISTRIBUTIONS:
            raise ValueError(
                f"distribution: {show(self.distribution)} was given; one of {', '.join(DISTRIBUTIONS)} "
                "is accepted"
            )

    def plan(self, shape: tuple[int, ...], dtype: DType) -> Plan:
        return self._scaled(shape, math.sqrt(self.scale), self.mode, self.distribution)


def _check_mode(mode: str) -> None:
    if mode not in MODES:
        raise ValueError(f"mode: {show(mode)} was given; one of {', '.join(MODES)} is accepted")


@dataclass(frozen=True)
class _Xavier(_Fans):
    """The base of the Xavier initializers: variance gain**2 / fan_avg."""

    gain: float = 1.0

    distribution: ClassVar[str]

    def __post_init__(self) -> None:
        super().__post_init__()
        set_scale(self, "gain")

    def plan(self, shape: tuple[int, ...], dtype: DType) -> Plan:
        return self._scaled(shape, self.gain, "fan_avg", self.distribution)


@dataclass(frozen=True)
class XavierNormal(_Xavier):
    """Normal with std = gain * sqrt(2 / (fan_in + fan_out)).

    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural
    networks", AISTATS 2010, eq. 12.

    Parameters
    ----------
    gain : float
        A factor of the standard deviation, at least 0; see `numinit.calculate_gain`.
    in_axis, out_axis, batch_axis, groups, packed, transposed
        See `numinit.fans`, which raises a ValueError if they do not fit the shape.

    Examples
    --------
    >>> round(float(ni.XavierNormal()((100, 100), seed=0).std()), 2)
    0.1
    """

    distribution: ClassVar[str] = "normal"


@dataclass(frozen=True)
class XavierUniform(_Xavier):
    """Uniform on +-gain * sqrt(6 / (fan_in + fan_out)).

    Glorot and Bengio, AISTATS 2010, eq. 16.

    Parameters
    ----------
    gain, in_axis, out_axis, batch_axis, groups, packed, transposed
        See `XavierNormal`.

    Examples
    --------
    >>> bool(abs(ni.XavierUniform()((2, 4), seed=0)).max() <= 1)
    True
    """

    distribution: ClassVar[str] = "uniform"


@dataclass(frozen=True)
class _Kaiming(_Fans):
    """The base of the Kaiming initializers: variance gain**2 / fan, with the activation's gain."""

    a: float | None = 0.0
    mode: Mode = "fan_in"
    # Not compared, because a callable may have no hash. Its gain is compared instead.
    nonlinearity: str | Function = field(default="leaky_relu", compare=False)
    gain: float = 1.0
    _gain: float = field(init=False, repr=False)

    distribution: ClassVar[str]

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_mode(self.mode)
        named = isinstance(self.nonlinearity, str) and self.nonlinearity in PARAMETERS
        if named and not is_parameter(self.a):
            raise ValueError(f"a: {show(self.a)} not a valid number")
        if isinstance(self.a, numbers.Real) and not isinstance(self.a, bool):
            set_real(self, "a")  # its errors name the field
        leaky = isinstance(self.nonlinearity, str) and self.nonlinearity == "leaky_relu"
        gain = calculate_gain(self.nonlinearity, self.a if leaky or self.a != 0 else None)
        if math.isnan(gain):
            raise RangeError(f"a: {show(self.a)} not a valid number")
        object.__setattr__(self, "_gain", gain)
        if self.a is not None:
            set_real(self, "a")
        set_scale(self, "gain")

    def plan(self, shape: tuple[int, ...], dtype: DType) -> Plan:
        return self._scaled(shape, self.gain * self._gain, self.mode, self.distribution)


@dataclass(frozen=True)
class KaimingNormal(_Kaiming):
    """Normal with std = gain * (the activation's gain) / sqrt(fan).

    He, Zhang, Ren and Sun, "Delving deep into rectifiers", ICCV 2015, eqs. 10 and 14.

    Parameters
    ----------
    a : float or None
        The negative slope of leaky_relu; None means 0.01. With prelu it is the slope, and with elu
        and celu alpha; None or 0, torch's default, then means 0.25 and 1. Others ignore it.
    mode : {"fan_in", "fan_out", "fan_avg", "fan_geo_avg"}
        fan_in keeps the variance in the forward pass, fan_out in the backward pass.
    nonlinearity : str or callable
        A name, or the activation itself; see `numinit.calculate_gain`.
    gain : float
        One more factor of the standard deviation, at least 0.
    in_axis, out_axis, batch_axis, groups, packed, transposed
        See `numinit.fans`, which raises a ValueError if they do not fit the shape.

    Raises
    ------
    ValueError
        If `a` is not a real number, or `mode` or `nonlinearity` is unknown.

    Examples
    --------
    >>> round(float(ni.KaimingNormal(nonlinearity="relu")((100, 200), seed=0).std()), 2)
    0.1
    """

    distribution: ClassVar[str] = "normal"


@dataclass(frozen=True)
class KaimingUniform(_Kaiming):
    """Uniform on +-gain * (the activation's gain) * sqrt(3 / fan).

    Parameters
    ----------
    a, mode, nonlinearity, gain, in_axis, out_axis, batch_axis, groups, packed, transposed
        See `KaimingNormal`.

    Examples
    --------
    >>> bool(abs(ni.KaimingUniform(nonlinearity="relu")((2, 6), seed=0)).max() <= 1)
    True
    """

    distribution: ClassVar[str] = "uniform"


@dataclass(frozen=True)
class EmbeddingUniform(Initializer):
    """Uniform on +-sqrt(1 / rows), for the tables of recommender models.

    The rows (axis 0) are the embeddings; the other axes do not matter. This is DLRM's
    ``create_emb`` (facebookresearch/dlrm; Naumov et al., arXiv:1906.00091) and torchrec's default.

    Examples
    --------
    >>> bool(abs(ni.EmbeddingUniform()((100, 8), seed=0)).max() <= 0.1)
    True
    """

    def plan(self, shape: tuple[int, ...], dtype: DType) -> Plan:
        if not shape:
            raise ValueError("shape: () has no rows; at least one axis is accepted")
        rows = VarianceScaling(1 / 3, "fan_out", "uniform", in_axis=())
        return rows.plan((shape[0],), dtype)


#: Names that JAX and Keras give to initializers with other axes, most of them truncated. Until they
#: left for `numinit.jax` and `numinit.keras` they named these. Files that say them are still read.
FORMER: dict[str, "functools.partial[Any]"] = {
    "GlorotNormal": functools.partial(XavierNormal),
    "GlorotUniform": functools.partial(XavierUniform),
    "HeNormal": functools.partial(KaimingNormal),
    "HeUniform": functools.partial(KaimingUniform),
    "LecunNormal": functools.partial(VarianceScaling, 1.0, "fan_in", "normal"),
    "LecunUniform": functools.partial(VarianceScaling, 1.0, "fan_in", "uniform"),
}


def absent(module: str, name: str) -> AttributeError:
    """The error for a name that a module lacks; it says where a name of `FORMER` is."""
    if name not in FORMER:
        return AttributeError(f"module {module!r} has no attribute {name!r}")
    former = FORMER[name]
    return AttributeError(
        f"{module}.{name}: JAX and Keras give this name to an initializer with their axes; "
        f"numinit.jax and numinit.keras have it. With torch's axes, (out, in, *kernel), it is "
        f"numinit.{former.func.__name__}({', '.join(map(repr, former.args))})"
    )
