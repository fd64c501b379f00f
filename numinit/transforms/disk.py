"""Complex values: a radius from one word, an angle from the other.

Uniform on the disk |z| < R: |z| = R sqrt(u).

Complex normal truncated to the disk |z| < c: |z|**2 is exponential, cut at c**2, so
|z| = sqrt(-ln(1 - u (1 - exp(-c**2)))) for a complex normal z with E |z|**2 = 1. With the same u,
but counted from the other end, that is the radius of Box and Muller on a part of the unit interval.
"""

import math

import numpy as np

from numinit.jit import fma, inline
from numinit.transforms.circle import cos_sin_float32, cos_sin_float64
from numinit.transforms.logarithm import (
    minus_2_log_float32,
    minus_2_log_float64,
    reduced_float32,
    reduced_float64,
)
from numinit.transforms.normal import HALF_ULP32, HALF_ULP64, ULP32, ULP64

QUARTER32 = np.float32(0.25)
ZERO32 = np.float32(0.0)  # added to a product, it makes a zero +0.0


@inline
def disk_float32(word0, word1, p):
    """Uniform on the disk of radius `p[0]` around 0, float32."""
    radius = math.sqrt(fma(np.float32(word0), ULP32, HALF_ULP32)) * np.float32(p[0])
    cos, sin = cos_sin_float32(word1)
    return fma(radius, cos, ZERO32), fma(radius, sin, ZERO32)


@inline
def disk_float64(word0, word1, p):
    """As `disk_float32`."""
    radius = math.sqrt(fma(np.float64(word0), ULP64, HALF_ULP64)) * p[0]
    cos, sin = cos_sin_float64(word1)
    return fma(radius, cos, 0.0), fma(radius, sin, 0.0)


@inline
def truncated_disk_float32(word0, word1, p):
    """Complex normal truncated to a disk, float32.

    With u' = 1 - (1 - u) (1 - rho), which is uniform on (rho, 1), `p` has: the scale of
    sqrt(-2 ln u'); the step of u' from word to word; u' and 1 - u' where their words are 0.
    """
    step = np.float32(p[1])
    rest = fma(np.float32(np.uint32(~word0)), step, np.float32(p[3]))  # 1 - u'
    exponent, f = reduced_float32(fma(np.float32(word0), step, np.float32(p[2])))
    if rest < QUARTER32:
        exponent, f = np.float32(0.0), -rest
    radius = math.sqrt(minus_2_log_float32(exponent, f)) * np.float32(p[0])
    cos, sin = cos_sin_float32(word1)
    return fma(radius, cos, ZERO32), fma(radius, sin, ZERO32)


@inline
def truncated_disk_float64(word0, word1, p):
    """As `truncated_disk_float32`."""
    rest = fma(np.float64(~word0), p[1], p[3])
    exponent, f = reduced_float64(fma(np.float64(word0), p[1], p[2]))
    if rest < 0.25:
        exponent, f = 0.0, -rest
    radius = math.sqrt(minus_2_log_float64(exponent, f)) * p[0]
    cos, sin = cos_sin_float64(word1)
    return fma(radius, cos, 0.0), fma(radius, sin, 0.0)
