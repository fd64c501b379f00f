"""Normal values by the Box-Muller transform: two words make two values.

G. E. P. Box and M. E. Muller, "A note on the generation of random normal deviates", Ann. Math.
Stat. 29 (1958).

    u = (word0 + 1/2) / 2**32,  v = (word1 + 1/2) / 2**32      (2**64 for float64)
    z0 = sqrt(-2 ln u) cos(2 pi v),  z1 = sqrt(-2 ln u) sin(2 pi v)

Both intervals are open and symmetric, so the logarithm needs no guard. |z| reaches 6.76 in
float32 (u = 2**-33) and 9.49 in float64 (u = 2**-65).

Two steps work on the integer words, where nothing is rounded. Where u is near 1, the logarithm
takes 1 - u from the complement of the word. The quadrant of the angle comes from the word's top
bits.
"""

import math
from typing import NamedTuple

import numpy as np

from numinit.compiler.inline import inline
from numinit.compiler.intrinsics import fma, root
from numinit.stream.elementary import (
    cos_sin_float32,
    cos_sin_float64,
    minus_2_log_float32,
    minus_2_log_float64,
    reduced_float32,
    reduced_float64,
)
from numinit.stream.transform import Transform

# sqrt(1/2) as a word: above it, the logarithm works from the complement.
ROOT_WORD32 = np.uint32(0xB504F334)
ROOT_WORD64 = np.uint64(0xB504F333F9DE6484)

ULP32 = np.float32(2.0**-32)
HALF_ULP32 = np.float32(2.0**-33)
ULP64 = 2.0**-64
HALF_ULP64 = 2.0**-65


class Parameters(NamedTuple):
    """Parameters of the transform."""

    mean: float
    """Mean of the first value, or of the real part."""
    std: float
    """Standard deviation of each value."""
    second_mean: float
    """Mean of the second value, or of the imaginary part."""


@inline
def radius_float32(word):
    """sqrt(-2 ln u), float32, with u = (word + 1/2) / 2**32, for a uint32 word."""
    near_one = word >= ROOT_WORD32
    # Each is exact but for one rounding. Both are made, because Intel's processors with AVX-512 are
    # slow to choose between the words.
    u = fma(np.float32(word), ULP32, HALF_ULP32)
    rest = fma(np.float32(np.uint32(~word)), ULP32, HALF_ULP32)  # 1 - u
    exponent, f = reduced_float32(u)
    if near_one:  # the exponent is 0
        f = -rest
    return root(minus_2_log_float32(exponent, f))


@inline
def normal_float32(word0, word1, p):
    """Two uint32 words to two float32 values ``z * std + mean``; z is exact to 1e-6."""
    radius, std = radius_float32(word0), np.float32(p.std)
    cos, sin = cos_sin_float32(word1)
    first = fma(radius * cos, std, np.float32(p.mean))
    return first, fma(radius * sin, std, np.float32(p.second_mean))


@inline
def radius_float64(word):
    """sqrt(-2 ln u), float64, with u = (word + 1/2) / 2**64, for a uint64 word."""
    near_one = word >= ROOT_WORD64
    t = fma(np.float64(~word if near_one else word), ULP64, HALF_ULP64)
    exponent, f = reduced_float64(t)
    if near_one:
        exponent, f = 0.0, -t
    return math.sqrt(minus_2_log_float64(exponent, f))


@inline
def normal_float64(word0, word1, p):
    """As `normal_float32`: two uint64 words to two float64 values; z is exact to 1e-14."""
    radius = radius_float64(word0)
    cos, sin = cos_sin_float64(word1)
    return fma(radius * cos, p.std, p.mean), fma(radius * sin, p.std, p.second_mean)


NORMAL = Transform("normal", Parameters, normal_float32, normal_float64)
