"""Gains: the factor by which weights must grow to make up for an activation."""

import math
import numbers
from typing import Any

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


def calculate_gain(nonlinearity: str, param: Any = None) -> float:
    """The recommended gain for an activation, as torch.nn.init.calculate_gain.

    Parameters
    ----------
    nonlinearity : str
        A name of `GAINS`, or "leaky_relu", whose gain is sqrt(2 / (1 + slope * slope)).
    param : real number, optional
        The negative slope of leaky_relu; None means 0.01. Ignored by the others.

    Raises
    ------
    ValueError
        For an unknown name, or a slope that is not a real number.
    """
    if nonlinearity == "leaky_relu":
        if param is None:
            slope = 0.01
        elif isinstance(param, numbers.Real) and not isinstance(param, bool):
            slope = float(param)
        else:
            raise ValueError(f"negative_slope {param!r} not a valid number")
        return math.sqrt(2.0 / (1 + slope * slope))
    try:
        return GAINS[nonlinearity]
    except (KeyError, TypeError):
        known = ", ".join([*GAINS, "leaky_relu"])
        raise ValueError(
            f"Unsupported nonlinearity {nonlinearity!r}; one of {known} is accepted"
        ) from None
