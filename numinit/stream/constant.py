"""The same value in every element."""

from typing import NamedTuple

import numpy as np

from numinit.compiler.inline import inline
from numinit.stream.transform import Transform


class Parameters(NamedTuple):
    """Parameters of the transform."""

    first: float
    """The value, or the real part of a complex one."""
    second: float
    """The value again, or the imaginary part."""


@inline
def constant_float32(word0, word1, p):
    """The two values as float32. The words are not used: no kernel makes them."""
    return np.float32(p.first), np.float32(p.second)


@inline
def constant_float64(word0, word1, p):
    """As `constant_float32`: the two values as float64."""
    return p.first, p.second


CONSTANT = Transform("constant", Parameters, constant_float32, constant_float64, draws=False)
