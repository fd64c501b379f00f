"""Uniform values on [low, high): one word an element, one fused multiply-add."""

from typing import NamedTuple

import numpy as np

from numinit.compiler.inline import inline
from numinit.compiler.intrinsics import fma, larger, smaller
from numinit.stream.transform import Transform

UNIT24 = np.float32(2.0**-24)
UNIT53 = 2.0**-53


class Parameters(NamedTuple):
    """Parameters of the transform."""

    width: float
    """high - low."""
    low: float
    least: float
    """The least value of the array's type in [low, high), to which results are clamped."""
    most: float
    """The greatest one."""


@inline
def clamp(x, least, most):
    """`x` moved into [least, most], in the type of its arguments."""
    x = x if x < most else most
    return x if x > least else least


@inline
def uniform_float32(word0, word1, p):
    """Two uint32 words to two float32 ``u * width + low``; u = (word >> 8) * 2**-24 in [0, 1)."""
    width, low = np.float32(p.width), np.float32(p.low)
    least, most = np.float32(p.least), np.float32(p.most)
    u0 = np.float32(np.int32(word0 >> np.uint32(8))) * UNIT24
    u1 = np.float32(np.int32(word1 >> np.uint32(8))) * UNIT24
    first, second = smaller(fma(u0, width, low), most), smaller(fma(u1, width, low), most)
    return larger(first, least), larger(second, least)


@inline
def uniform_float64(word0, word1, p):
    """As `uniform_float32`: two uint64 words to two float64; u = (word >> 11) * 2**-53."""
    u0 = np.float64(np.int64(word0 >> np.uint64(11))) * UNIT53
    u1 = np.float64(np.int64(word1 >> np.uint64(11))) * UNIT53
    first, second = fma(u0, p.width, p.low), fma(u1, p.width, p.low)
    return clamp(first, p.least, p.most), clamp(second, p.least, p.most)


UNIFORM = Transform("uniform", Parameters, uniform_float32, uniform_float64)
