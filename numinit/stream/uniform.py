"""Uniform values on [low, high): one word an element, one fused multiply-add."""

import numpy as np

from numinit.jit import fma, inline

UNIT24 = np.float32(2.0**-24)
UNIT53 = 2.0**-53


@inline
def clamp(x, least, most):
    """`x` moved into [least, most]."""
    x = x if x < most else most
    return x if x > least else least


@inline
def uniform_float32(word0, word1, p):
    """``u * (high - low) + low`` with u = (word >> 8) * 2**-24 in [0, 1), float32.

    `p` has high - low, low, and the least and the greatest value of the array's type in
    [low, high), to which the result is clamped.
    """
    width, low = np.float32(p[0]), np.float32(p[1])
    least, most = np.float32(p[2]), np.float32(p[3])
    u0 = np.float32(np.int32(word0 >> np.uint32(8))) * UNIT24
    u1 = np.float32(np.int32(word1 >> np.uint32(8))) * UNIT24
    return clamp(fma(u0, width, low), least, most), clamp(fma(u1, width, low), least, most)


@inline
def uniform_float64(word0, word1, p):
    """As `uniform_float32`, with u = (word >> 11) * 2**-53."""
    u0 = np.float64(np.int64(word0 >> np.uint64(11))) * UNIT53
    u1 = np.float64(np.int64(word1 >> np.uint64(11))) * UNIT53
    return clamp(fma(u0, p[0], p[1]), p[2], p[3]), clamp(fma(u1, p[0], p[1]), p[2], p[3])


@inline
def constant_float32(word0, word1, p):
    """The values of `p`, whatever the words: the compiler removes the generator."""
    return np.float32(p[0]), np.float32(p[1])


@inline
def constant_float64(word0, word1, p):
    """As `constant_float32`."""
    return p[0], p[1]
