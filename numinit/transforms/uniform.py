"""Uniform values on [low, high): one word an element, one fused multiply-add."""

import numpy as np

from numinit.jit import fma, inline


@inline
def clamp(x, least, most):
    """`x` moved into [least, most]."""
    x = x if x < most else most
    return x if x > least else least


@inline
def uniform_float32(word0, word1, scale, low, least, most):
    """``u * (high - low) + low`` with u = (word >> 8) * 2**-24 in [0, 1), float32.

    Parameters
    ----------
    word0, word1 : uint32
    scale : float32
        (high - low) * 2**-24.
    low, least, most : float32
        The result is clamped to [least, most], the values of the array's type in [low, high).
    """
    value0 = fma(np.float32(np.int32(word0 >> np.uint32(8))), scale, low)
    value1 = fma(np.float32(np.int32(word1 >> np.uint32(8))), scale, low)
    return clamp(value0, least, most), clamp(value1, least, most)


@inline
def uniform_float64(word0, word1, scale, low, least, most):
    """As `uniform_float32`, with u = (word >> 11) * 2**-53 and scale = (high - low) * 2**-53."""
    value0 = fma(np.float64(np.int64(word0 >> np.uint64(11))), scale, low)
    value1 = fma(np.float64(np.int64(word1 >> np.uint64(11))), scale, low)
    return clamp(value0, least, most), clamp(value1, least, most)


@inline
def constant(word0, word1, value, unused0, unused1, unused2):
    """`value`, whatever the words: the compiler removes the generator."""
    return value, value
