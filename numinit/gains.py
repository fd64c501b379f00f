"""Gains: the factor by which weights must grow to make up for an activation.

With unit-normal inputs z, an activation f keeps the variance of the next layer's inputs if the
weights' standard deviation has the factor 1 / sqrt(E[f(z)**2]) (He et al., ICCV 2015, section 2.2,
for any f). torch's table has that value for relu and leaky_relu, and others for three names:

======== ============== ====================
name     torch's table  variance-preserving
======== ============== ====================
sigmoid  1              1.8462
tanh     5/3            1.5925
selu     3/4            1
======== ============== ====================

`calculate_gain` gives torch's, `variance_gain` the variance-preserving one; so does the activation
itself, as a callable, wherever a name is taken: ``KaimingNormal(nonlinearity=np.tanh)``.
"""

import functools
import math
import numbers
import sys
from collections.abc import Callable
from decimal import Decimal, localcontext
from typing import Any

import numpy as np

from numinit.tails import CONTEXT, upper_tail

#: torch's table, to the digit (torch.nn.init.calculate_gain); leaky_relu takes a parameter.
GAINS: dict[str, float] = {
    "linear": 1.0,
    "conv1d": 1.0,
    "conv2d": 1.0,
    "conv3d": 1.0,
    "conv_transpose1d": 1.0,
    "conv_transpose2d": 1.0,
    "conv_transpose3d": 1.0,
    "sigmoid": 1.0,
    "tanh": 5.0 / 3,
    "relu": math.sqrt(2.0),
    "selu": 3.0 / 4,
}

#: 1 / sqrt(E[f(z)**2]), integrated in 40 digits, of each activation as torch defines it, with the
#: defaults of its parameters.
VARIANCE_GAINS: dict[str, float] = {
    **{name: gain for name, gain in GAINS.items() if name not in ("sigmoid", "tanh", "selu")},
    "celu": 1.2451983007007066,
    "elu": 1.2451983007007066,
    "gelu": 1.5335304411955352,
    "gelu_tanh": 1.5335805216661469,
    "glu": 1.8462285453386054,  # a * sigmoid(b)
    "hardshrink": 1.015796354719734,
    "hardsigmoid": 1.897840424729559,
    "hardswish": 1.7366572127665416,
    "hardtanh": 1.3920361404483098,
    "identity": 1.0,
    "logsigmoid": 1.0418668355353017,
    "mish": 1.4868475812732081,
    "relu6": 1.4142135650950737,
    "selu": 1.0,
    "sigmoid": 1.8462285453386054,
    "silu": 1.6765324703310912,
    "softplus": 1.0418668355353017,
    "softshrink": 1.5443605282801334,
    "softsign": 2.3375333631085397,
    "swish": 1.6765324703310912,  # another name of silu
    "tanh": 1.5925374197228314,
    "tanhshrink": 2.3383675301021214,
}

#: Names whose parameter counts, and its default: the negative slope, or alpha.
PARAMETERS: dict[str, float] = {"leaky_relu": 0.01, "prelu": 0.25, "elu": 1.0, "celu": 1.0}


def calculate_gain(nonlinearity: str | Callable[[Any], Any], param: Any = None) -> float:
    """The recommended gain for an activation, as torch.nn.init.calculate_gain, and for others.

    Parameters
    ----------
    nonlinearity : str or callable
        A name of torch's table (`GAINS`, "leaky_relu"), which has torch's gain; a name of
        `VARIANCE_GAINS`, "prelu"; or an activation: see `variance_gain`.
    param : real number, optional
        The negative slope of leaky_relu (None means 0.01) and prelu (0.25), alpha of elu and celu
        (1). Ignored by the others.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        For an unknown name, a parameter that is not a real number, or an activation that has no
        such gain.
    """
    if isinstance(nonlinearity, str) and nonlinearity in GAINS:
        return GAINS[nonlinearity]
    return variance_gain(nonlinearity, param)


def variance_gain(nonlinearity: str | Callable[[Any], Any], param: Any = None) -> float:
    """The gain that keeps the variance, 1 / sqrt(E[f(z)**2]) for a standard normal z.

    Parameters
    ----------
    nonlinearity : str or callable
        A name, or an elementwise function of a float64 array, of a float, or of a torch tensor. It
        is integrated numerically, to 12 digits where it is smooth between its kinks and jumps.
    param : real number, optional
        As `calculate_gain` takes it.

    Raises
    ------
    ValueError
        As `calculate_gain` does.

    Examples
    --------
    >>> import numinit as ni
    >>> ni.calculate_gain("tanh"), ni.variance_gain("tanh")
    (1.6666666666666667, 1.5925374197228314)
    >>> round(ni.variance_gain(lambda z: abs(z)), 9)
    1.0
    """
    if callable(nonlinearity):
        return _integrated(nonlinearity)
    if not isinstance(nonlinearity, str) or nonlinearity not in {*VARIANCE_GAINS, *PARAMETERS}:
        known = ", ".join(sorted({*VARIANCE_GAINS, *PARAMETERS}))
        raise ValueError(
            f"Unsupported nonlinearity {nonlinearity!r}; one of {known}, or a callable, is accepted"
        )
    if nonlinearity not in PARAMETERS:
        return VARIANCE_GAINS[nonlinearity]
    if param is None:
        param = PARAMETERS[nonlinearity]
    elif not isinstance(param, numbers.Real) or isinstance(param, bool):
        what = "alpha" if "elu" in nonlinearity[:4] else "negative_slope"
        raise ValueError(f"{what} {param!r} not a valid number")
    value = float(param)
    if nonlinearity in ("leaky_relu", "prelu"):
        return math.sqrt(2.0 / (1 + value * value))
    return _celu_gain(value) if nonlinearity == "celu" else _elu_gain(value)


def _elu_gain(alpha: float) -> float:
    """E = 1/2 + alpha**2 (E[exp(2z) - 2 exp(z) + 1; z < 0]), E[exp(tz); z < 0] = exp(t**2/2) Q(t)."""
    with localcontext(CONTEXT):
        return float(
            (Decimal("0.5") + Decimal(alpha) ** 2 * _negative(Decimal(1))) ** Decimal("-0.5")
        )


def _celu_gain(alpha: float) -> float:
    """As elu, with exp(z / alpha)."""
    if not alpha:
        raise ValueError(f"alpha {alpha!r} not a valid number: celu divides by it")
    with localcontext(CONTEXT):
        rate = 1 / Decimal(alpha)
        return float((Decimal("0.5") + Decimal(alpha) ** 2 * _negative(rate)) ** Decimal("-0.5"))


def _negative(rate: Decimal) -> Decimal:
    """E[(exp(rate z) - 1)**2; z < 0]."""
    twice = 2 * rate
    return (
        (twice * twice / 2).exp() * upper_tail(twice)
        - 2 * (rate * rate / 2).exp() * upper_tail(rate)
        + Decimal("0.5")
    )


REACH = 14.0  # standard deviations: 1e-42 of the mass is beyond
LEVELS = 45  # bisections of an interval: to 1e-14


def _integrated(function: Callable[[Any], Any]) -> float:
    """1 / sqrt(E[f(z)**2]), to 12 digits, so that it is the same wherever libm differs a little."""
    try:
        return _integrate(function)
    except TypeError as error:
        if "unhashable" not in str(error):
            raise
        gain: float = _integrate.__wrapped__(function)
        return gain


@functools.lru_cache(256)
def _integrate(function: Callable[[Any], Any]) -> float:
    nodes, weights = np.polynomial.legendre.leggauss(16)
    edges = np.linspace(-REACH, REACH, 57)
    low, high = edges[:-1], edges[1:]

    def parts(low: np.ndarray, high: np.ndarray) -> np.ndarray:
        half = (high - low) / 2
        z = (low + half)[:, None] + half[:, None] * nodes
        density = np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        values = _values(function, z.ravel()).reshape(z.shape)
        with np.errstate(over="ignore"):
            sums: np.ndarray = (values * values * density) @ weights * half
        return sums

    total, whole = 0.0, parts(low, high)
    for level in range(
        LEVELS
    ):  # intervals with a kink or a jump are halved until they do not count
        middle = (low + high) / 2
        left, right = parts(low, middle), parts(middle, high)
        done = np.abs(left + right - whole) <= 1e-15 * max(total, whole.sum(), 1e-300)
        if level == LEVELS - 1:
            done[:] = True
        total += float((left + right)[done].sum())
        low, high = (np.concatenate(pair) for pair in ((low[~done], middle[~done]), (middle[~done], high[~done])))  # fmt: skip
        whole = np.concatenate([left[~done], right[~done]])
        if not low.size:
            break
    if not 0 < total < math.inf:
        raise ValueError(
            f"nonlinearity: {_name(function)} has E[f(z)**2] = {total}; a positive number is accepted"
        )
    return float(f"{1 / math.sqrt(total):.12g}")


def _values(function: Callable[[Any], Any], z: np.ndarray) -> np.ndarray:
    """An activation's values at float64 points, however it takes them."""
    torch = sys.modules.get("torch")
    ways: list[Callable[[], Any]] = [lambda: function(z.copy())]
    if torch is not None:
        ways.append(lambda: function(torch.from_numpy(z.copy())).detach().numpy())
    ways.append(lambda: [function(float(x)) for x in z])
    failure: Exception | None = None
    for way in ways:
        try:
            values = np.asarray(way())
        except Exception as error:  # whatever the function makes of a kind it does not take
            failure = failure or error
            continue
        if values.shape == z.shape:
            break
    else:
        raise ValueError(
            f"nonlinearity: {_name(function)} is no function of one number or array of them"
        ) from failure
    if values.dtype.kind not in "bfiu" or not np.isfinite(values).all():
        raise ValueError(
            f"nonlinearity: {_name(function)} gives {values.dtype} values that are not all finite "
            "real numbers"
        )
    return values.astype(np.float64)


def _name(function: Callable[[Any], Any]) -> str:
    return getattr(function, "__name__", None) or repr(function)
