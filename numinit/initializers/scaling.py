"""Variance scaling: distributions whose spread follows from the fans of the weight."""

import math
import numbers
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from numinit.dtypes import DType
from numinit.engines.cpu import Formula
from numinit.fans import MODES, Axes, as_axes, check_count, fan, fans
from numinit.gains import Function, calculate_gain
from numinit.initializers.base import Initializer, Law
from numinit.initializers.laws import Normal, Uniform, divided, set_real, set_scale
from numinit.initializers.truncated import TruncNormal

DISTRIBUTIONS = ("normal", "truncated_normal", "uniform")
Mode = Literal["fan_in", "fan_out", "fan_avg", "fan_geo_avg"]


#: The standard deviation of a normal, and of a complex normal, truncated at 2. (JAX's constant for
#: the latter, 0.95311, is not divided by the mass that is kept: its variance comes out 2% large.)
TRUNCATED_STD = 0.87962566103423978
TRUNCATED_DISK_STD = 0.96196182800821354
#: exp(-2**2): the mass beyond a disk of two standard deviations.
EXP_MINUS_4 = 0.01831563888873418


@dataclass(frozen=True)
class Spread(Law):
    """Around 0 with a given standard deviation, as variance scaling wants it.

    Uniform on +-sqrt(3) std, or normal and truncated at two standard deviations of the whole
    normal, which is scaled up so that `std` is what remains. A complex element is uniform on the
    disk of radius sqrt(2) std, or complex normal and truncated to a disk of two standard
    deviations, as in JAX.
    """

    std: float
    distribution: str  # "uniform" or "truncated_normal"

    def formula(self, dtype: DType) -> Formula:
        if self.distribution == "uniform":
            bound = math.sqrt(2.0 if dtype.complex else 3.0) * self.std
            dtype.refuse_beyond("std", self.std, bound)
            if dtype.complex:
                return Formula("disk", (bound,))
            return Uniform(-bound, bound).formula(dtype)
        std = self.std / (TRUNCATED_DISK_STD if dtype.complex else TRUNCATED_STD)
        dtype.refuse_beyond("std", self.std, 2.0 * std)
        if not dtype.complex:
            return TruncNormal(0.0, std, -2.0 * std, 2.0 * std).formula(dtype)
        ulp = 2.0**-64 if dtype.real == "float64" else 2.0**-32
        step = (1.0 - EXP_MINUS_4) * ulp
        return Formula(
            "truncated disk", (std / math.sqrt(2.0), step, EXP_MINUS_4 + step / 2, step / 2)
        )

    def narrowed(self, divisor: float) -> Law:
        return replace(self, std=divided("std", self.std, divisor))


@dataclass(frozen=True, kw_only=True)
class _Fans(Initializer):
    """The fields of initializers that look at fans; see `numinit.fans.fans`."""

    in_axis: Axes = 1
    out_axis: Axes = 0
    batch_axis: Axes = ()
    groups: int = 1
    packed: int = 1
    transposed: bool = False

    def __post_init__(self) -> None:
        for name in ("in_axis", "out_axis", "batch_axis"):
            axes = as_axes(name, given := getattr(self, name))
            if isinstance(given, Iterable):  # a list, as in TOML: fields are hashable
                object.__setattr__(self, name, axes)
        for name in ("groups", "packed"):
            check_count(name, getattr(self, name))
        if not isinstance(self.transposed, bool):
            raise TypeError(f"transposed: {self.transposed!r} was given; True or False is accepted")

    def _scaled(self, shape: Sequence[int], gain: float, mode: str, distribution: str) -> Law:
        """Standard deviation gain / sqrt(fan); 0 for a weight without elements."""
        axes = self.in_axis, self.out_axis, self.batch_axis
        n = fan(mode, *fans(shape, *axes, self.groups, self.packed, self.transposed))
        std = gain / math.sqrt(n) if n else 0.0
        return Normal(0.0, std) if distribution == "normal" else Spread(std, distribution)


@dataclass(frozen=True)
class VarianceScaling(_Fans):
    """Variance ``scale / fan``: the one formula behind Xavier, Kaiming and LeCun.

    Parameters
    ----------
    scale : float
        At least 0.
    mode : {"fan_in", "fan_out", "fan_avg", "fan_geo_avg"}
        Which fan n the variance is divided by.
    distribution : {"normal", "truncated_normal", "uniform"}
        Normal with std sqrt(scale / n); the same, truncated at two standard deviations and scaled
        up to keep that std (JAX, Keras); or uniform on +-sqrt(3 scale / n).
    in_axis, out_axis, batch_axis, groups, packed, transposed
        See `numinit.fans.fans`.
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
                f"distribution: {self.distribution!r} was given; one of {', '.join(DISTRIBUTIONS)} "
                "is accepted"
            )

    def law(self, shape: Sequence[int]) -> Law:
        return self._scaled(shape, math.sqrt(self.scale), self.mode, self.distribution)


def _check_mode(mode: str) -> None:
    if mode not in MODES:
        raise ValueError(f"mode: {mode!r} was given; one of {', '.join(MODES)} is accepted")


@dataclass(frozen=True)
class _Xavier(_Fans):
    """Variance gain**2 / fan_avg."""

    gain: float = 1.0

    distribution: ClassVar[str]

    def __post_init__(self) -> None:
        super().__post_init__()
        set_scale(self, "gain")

    def law(self, shape: Sequence[int]) -> Law:
        return self._scaled(shape, self.gain, "fan_avg", self.distribution)


@dataclass(frozen=True)
class XavierNormal(_Xavier):
    """Normal with std = gain * sqrt(2 / (fan_in + fan_out)).

    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural
    networks", AISTATS 2010, eq. 12.

    Parameters
    ----------
    gain : float
        See `numinit.calculate_gain`.
    in_axis, out_axis, batch_axis, groups, packed, transposed
        See `numinit.fans`.
    """

    distribution: ClassVar[str] = "normal"


@dataclass(frozen=True)
class XavierUniform(_Xavier):
    """Uniform on +-gain * sqrt(6 / (fan_in + fan_out)), with the fields of `XavierNormal`.

    Glorot and Bengio, AISTATS 2010, eq. 16.
    """

    distribution: ClassVar[str] = "uniform"


@dataclass(frozen=True)
class _Kaiming(_Fans):
    """Variance gain**2 / fan, with the gain of the layer's activation."""

    a: float | None = 0.0
    mode: Mode = "fan_in"
    # Not compared, for it may be any callable, hashable or not; the gain is all that it gives.
    nonlinearity: str | Function = field(default="leaky_relu", compare=False)
    _gain: float = field(init=False, repr=False)

    distribution: ClassVar[str]

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_mode(self.mode)
        if isinstance(self.a, numbers.Real) and not isinstance(self.a, bool):
            set_real(self, "a")  # which names it
        leaky = isinstance(self.nonlinearity, str) and self.nonlinearity == "leaky_relu"
        gain = calculate_gain(self.nonlinearity, self.a if leaky or self.a != 0 else None)
        object.__setattr__(self, "_gain", gain)
        if self.a is not None:
            set_real(self, "a")

    def law(self, shape: Sequence[int]) -> Law:
        return self._scaled(shape, self._gain, self.mode, self.distribution)


@dataclass(frozen=True)
class KaimingNormal(_Kaiming):
    """Normal with std = gain / sqrt(fan).

    He, Zhang, Ren and Sun, "Delving deep into rectifiers", ICCV 2015, eqs. 10 and 14.

    Parameters
    ----------
    a : float or None
        Negative slope of leaky_relu, None for 0.01. The slope of prelu and alpha of elu and celu,
        None or 0 (torch's default for every nonlinearity) for theirs. Not used with others.
    mode : {"fan_in", "fan_out", "fan_avg", "fan_geo_avg"}
        fan_in keeps the variance in the forward pass, fan_out in the backward pass.
    nonlinearity : str or callable
        A name, or the activation itself: see `numinit.calculate_gain`.
    in_axis, out_axis, batch_axis, groups, packed, transposed
        See `numinit.fans`.
    """

    distribution: ClassVar[str] = "normal"


@dataclass(frozen=True)
class KaimingUniform(_Kaiming):
    """Uniform on +-gain * sqrt(3 / fan), with the fields of `KaimingNormal`."""

    distribution: ClassVar[str] = "uniform"


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


@dataclass(frozen=True)
class EmbeddingUniform(Initializer):
    """Uniform on +-sqrt(1 / rows), for the tables of recommender models.

    The rows (axis 0) are the embeddings, whatever shape each has. DLRM's ``create_emb``
    (facebookresearch/dlrm; Naumov et al., arXiv:1906.00091) and torchrec's default.
    """

    def law(self, shape: Sequence[int]) -> Law:
        if not shape:
            raise ValueError("shape: () has no rows; at least one axis is accepted")
        return VarianceScaling(1 / 3, "fan_out", "uniform", in_axis=()).law((shape[0],))


GlorotUniform, GlorotNormal = XavierUniform, XavierNormal
HeUniform, HeNormal = KaimingUniform, KaimingNormal
