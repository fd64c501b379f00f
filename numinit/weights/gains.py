"""Gains: factors of weights that correct for the change of variance by an activation.

If the inputs z of an activation f are standard normal, a factor of 1 / sqrt(E[f(z)**2]) in the
weights keeps the variance of the next layer's inputs (He et al., ICCV 2015, section 2.2, for any
f). torch's table has that value for relu and leaky_relu, and other values for three names:

======== ============== ====================
name     torch's table  variance-preserving
======== ============== ====================
sigmoid  1              1.8462
tanh     5/3            1.5925
selu     3/4            1
======== ============== ====================

`calculate_gain` returns torch's value for a name, and `variance_gain` the variance-preserving one.
For the activation itself, as in ``KaimingNormal(nonlinearity=np.tanh)``, both return the latter.
"""

import math
import numbers
from collections.abc import Iterator
from decimal import Decimal, localcontext
from typing import Any

import numpy as np

from numinit.arrays.frameworks import in_use
from numinit.arrays.memory import Function
from numinit.engines.floats import default_mode
from numinit.show import show
from numinit.stream.normal_tail import CONTEXT, upper_tail

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

#: 1 / sqrt(E[f(z)**2]), computed with 40 digits. Activations and their defaults are torch's.
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

#: The names that have a parameter, the negative slope or alpha, and its default.
PARAMETERS: dict[str, float] = {"leaky_relu": 0.01, "prelu": 0.25, "elu": 1.0, "celu": 1.0}


def calculate_gain(nonlinearity: str | Function, param: Any = None) -> float:
    """Return the gain of an activation: torch's where torch.nn.init.calculate_gain has one.

    Parameters
    ----------
    nonlinearity : str or callable
        A name of torch's table (`GAINS` and "leaky_relu") gives torch's gain. Another name
        (`VARIANCE_GAINS` and "prelu"), or the activation itself, gives that of `variance_gain`.
    param : real number, optional
        The negative slope of leaky_relu (None means 0.01) and prelu (0.25), or alpha of elu and
        celu (1). Others ignore it.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If the name is unknown, the parameter is not a real number, or the activation has no such
        gain.

    Examples
    --------
    >>> round(ni.calculate_gain("relu"), 4), round(ni.calculate_gain("tanh"), 4)
    (1.4142, 1.6667)
    """
    if isinstance(nonlinearity, str) and nonlinearity in GAINS:
        return GAINS[nonlinearity]
    return variance_gain(nonlinearity, param)


@default_mode()
def variance_gain(nonlinearity: str | Function, param: Any = None) -> float:
    """Return the gain that keeps the variance, 1 / sqrt(E[f(z)**2]) for a standard normal z.

    A callable is integrated on [-16, 16], in steps that are halved where it is not smooth. The
    error is below 1e-11, also at kinks and jumps, if no feature is narrower than 0.01. A function
    in single precision, JAX's default, gives 6 digits. The gain is rounded to 12 digits, so that
    machines whose exp differs in the last bit make the same weights. Every call integrates again,
    because a module may change.

    Parameters
    ----------
    nonlinearity : str or callable
        A name, or the activation itself: a function, or module, that maps each element by itself,
        of NumPy arrays, of torch tensors or of one float.
    param : real number, optional
        See `calculate_gain`.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        See `calculate_gain`.

    Examples
    --------
    >>> round(ni.variance_gain("tanh"), 4)
    1.5925
    >>> round(ni.variance_gain(lambda z: abs(z)), 9)
    1.0
    """
    if callable(nonlinearity):
        return _quadrature(_of_arrays(nonlinearity), nonlinearity)
    if not isinstance(nonlinearity, str) or nonlinearity not in {*VARIANCE_GAINS, *PARAMETERS}:
        known = ", ".join(sorted({*VARIANCE_GAINS, *PARAMETERS}))
        raise ValueError(
            f"Unsupported nonlinearity {show(nonlinearity)}; one of {known}, or a callable, is accepted"
        )
    if nonlinearity not in PARAMETERS:
        return VARIANCE_GAINS[nonlinearity]
    what = "alpha" if "elu" in nonlinearity[:4] else "negative_slope"
    if param is None:
        param = PARAMETERS[nonlinearity]
    elif not is_parameter(param):
        raise ValueError(f"{what} {show(param)} not a valid number")
    try:
        value = float(param)
    except OverflowError:
        raise ValueError(f"{what}: the number is beyond the largest float64") from None
    if nonlinearity in ("leaky_relu", "prelu"):
        return math.sqrt(2.0 / (1 + value * value))
    return _celu_gain(value) if nonlinearity == "celu" else _elu_gain(value)


def is_parameter(param: Any) -> bool:
    """Return whether `param` is a real number, or None for the default."""
    return param is None or (isinstance(param, numbers.Real) and not isinstance(param, bool))


def _elu_gain(alpha: float) -> float:
    """Return the gain of elu.

    E[f(z)**2] = 1/2 + alpha**2 E[exp(2z) - 2 exp(z) + 1; z < 0], and E[exp(tz); z < 0] is
    exp(t**2 / 2) Q(t).
    """
    with localcontext(CONTEXT):
        return float(
            (Decimal("0.5") + Decimal(alpha) ** 2 * _negative(Decimal(1))) ** Decimal("-0.5")
        )


def _celu_gain(alpha: float) -> float:
    """Return the gain of celu: as that of elu, with exp(z / alpha)."""
    if not alpha:
        raise ValueError(f"alpha {show(alpha)} not a valid number: celu divides by it")
    with localcontext(CONTEXT):
        rate = 1 / Decimal(alpha)
        return float((Decimal("0.5") + Decimal(alpha) ** 2 * _negative(rate)) ** Decimal("-0.5"))


def _negative(rate: Decimal) -> Decimal:
    """Return E[(exp(rate z) - 1)**2; z < 0]."""
    twice = 2 * rate
    return (
        (twice * twice / 2).exp() * upper_tail(twice)
        - 2 * (rate * rate / 2).exp() * upper_tail(rate)
        + Decimal("0.5")
    )


def _of_arrays(f: Function) -> Function:
    """Return `f` as a function from a float64 array to another, in the first way that works."""
    z = np.linspace(-2.5, 2.5, 64)
    errors = []
    for g in _ways(f):
        try:
            with np.errstate(all="ignore"):
                g(z.copy())
            return g
        except Exception as error:  # a framework may raise any error for another's array
            errors.append(f"{type(error).__name__}: {error}")
    raise ValueError(f"nonlinearity: {show(f)} could not be evaluated ({'; '.join(errors)})")


def _ways(f: Function) -> Iterator[Function]:
    yield f
    for framework in in_use():
        if framework.of_arrays is not None:
            yield framework.of_arrays(f)
    yield lambda z: np.array([f(x) for x in z.tolist()])


_POINTS = 10
_REACH = 16
_PANELS = 64
_MAX_DEPTH = 50  # halving 0.5 so often gives the spacing of float64 at 1
_MAX_PANELS = 4096  # more than that are open only where f is noise


def _quadrature(f: Function, shown: Any) -> float:
    """Return 1 / sqrt(E[f(z)**2]), by Gauss-Lobatto rules.

    A panel is halved until its halves give the same integral as the panel.

    A Lobatto rule has nodes at the ends of its panel, so it notices a jump that is close to them.
    No end is a round number, because an f may be undefined there.
    """
    nodes, weights = _lobatto(_POINTS)
    scale = 1.0

    def integrate(left: np.ndarray, width: float) -> np.ndarray:
        z = left[:, None] + width / 2 * (1 + nodes)
        y = _values(f, z.ravel(), shown).reshape(z.shape) / scale
        rule = weights * (width / 2 / math.sqrt(2 * math.pi))
        return np.asarray((y * y * np.exp(-z * z / 2)) @ rule)

    width = 2 * _REACH / _PANELS
    left = np.arange(_PANELS) * width - (_REACH + 0.0123456789)
    scale = _scale(f, left, shown)
    whole = integrate(left, width)
    if not whole.sum() > 0:
        raise ValueError(
            f"nonlinearity: {show(shown)} is zero everywhere, so no gain makes up for it"
        )
    if whole[0] + whole[-1] > 1e-12 * whole.sum():
        raise ValueError(f"nonlinearity: {show(shown)} grows too fast for E[f(z)**2] to be found")
    tolerance = 1e-15 * whole.sum()
    parts: list[float] = []
    for _ in range(_MAX_DEPTH):
        width /= 2
        left = np.stack([left, left + width], axis=1)
        halves = integrate(left.ravel(), width).reshape(-1, 2)
        wide = abs(halves.sum(axis=1) - whole) > tolerance
        parts.extend(halves[~wide].ravel())
        left, whole = left[wide].ravel(), halves[wide].ravel()
        if not 0 < whole.size <= _MAX_PANELS:
            break
    parts.extend(whole)
    return float(f"{1 / math.sqrt(math.fsum(parts)) / scale:.12g}")


def _scale(f: Function, z: np.ndarray, shown: Any) -> float:
    """Return the largest |f(z)|, after checking that f maps each element by itself."""
    y = _values(f, z, shown)
    middle = slice(z.size // 4, -z.size // 4)
    again = _values(f, z[middle], shown)
    largest = float(abs(y).max())
    if not np.allclose(again, y[middle], rtol=1e-4, atol=1e-6 * largest):
        raise ValueError(
            f"nonlinearity: {show(shown)} does not map each element by itself, or not always alike"
        )
    return largest or 1.0


def _values(f: Function, z: np.ndarray, shown: Any) -> np.ndarray:
    """Return f(z), after checking that it is as many finite real numbers."""
    try:
        with np.errstate(all="ignore"):
            y = np.asarray(f(z.copy()))  # a copy, because f may work in place
    except Exception as error:
        raise ValueError(f"nonlinearity: {show(shown)} could not be evaluated: {error}") from error
    if y.shape != z.shape or y.dtype.kind not in "biufO":
        raise ValueError(
            f"nonlinearity: {show(shown)} gave {y.dtype} of shape {y.shape} for float64 of shape "
            f"{z.shape}; real numbers of the same shape are accepted"
        )
    try:
        y = y.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"nonlinearity: {show(shown)} gave no real numbers: {error}") from None
    bad = ~np.isfinite(y)
    if bad.any():
        raise ValueError(f"nonlinearity: {show(shown)} gave {y[bad][0]} at {z[bad][0]:.6g}")
    return y


def _lobatto(points: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the nodes and weights of the Gauss-Lobatto rule on [-1, 1]."""
    polynomial = np.polynomial.Legendre.basis(points - 1)
    inner = polynomial.deriv().roots().real  # complex numbers since NumPy 2.5
    nodes = np.concatenate([[-1.0], inner, [1.0]])
    return nodes, 2 / (points * (points - 1) * polynomial(nodes) ** 2)
