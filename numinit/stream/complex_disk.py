"""Complex values: a radius from one word, an angle from the other.

Uniform on the disk |z| < R: |z| = R sqrt(u).

Complex normal truncated to the disk |z| < c: |z|**2 is exponential, cut at c**2, so
|z| = sqrt(-ln(1 - u (1 - exp(-c**2)))) for a complex normal z with E |z|**2 = 1. This is the radius
of the Box-Muller transform, with its uniform number on a part of the unit interval only.
"""

import math
from typing import NamedTuple

import numpy as np

from numinit.compiler.inline import inline
from numinit.compiler.intrinsics import fma
from numinit.stream.elementary import (
    cos_sin_float32,
    cos_sin_float64,
    minus_2_log_float32,
    minus_2_log_float64,
    reduced_float32,
    reduced_float64,
)
from numinit.stream.normal import HALF_ULP32, HALF_ULP64, ULP32, ULP64
from numinit.stream.transform import Transform

QUARTER32 = np.float32(0.25)
ZERO32 = np.float32(0.0)  # added to a product, it makes a zero +0.0


class DiskParameters(NamedTuple):
    """Parameters of the uniform disk."""

    radius: float
    """R."""


class TruncatedDiskParameters(NamedTuple):
    """Parameters of the truncated disk.

    Below, u' is uniform on (rho, 1) with rho = exp(-c**2). It grows with the word.
    """

    scale: float
    """The factor of sqrt(-2 ln u')."""
    step: float
    """By how much u' grows from one word to the next."""
    lowest: float
    """u' of the word 0."""
    rest: float
    """1 - u' of the largest word, whose complement is 0."""


@inline
def disk_float32(word0, word1, p):
    """Two uint32 words to the two float32 parts of a number uniform on the disk around 0."""
    radius = math.sqrt(fma(np.float32(word0), ULP32, HALF_ULP32)) * np.float32(p.radius)
    cos, sin = cos_sin_float32(word1)
    return fma(radius, cos, ZERO32), fma(radius, sin, ZERO32)


@inline
def disk_float64(word0, word1, p):
    """As `disk_float32`: two uint64 words to two float64 parts."""
    radius = math.sqrt(fma(np.float64(word0), ULP64, HALF_ULP64)) * p.radius
    cos, sin = cos_sin_float64(word1)
    return fma(radius, cos, 0.0), fma(radius, sin, 0.0)


@inline
def truncated_disk_float32(word0, word1, p):
    """Two uint32 words to the two float32 parts of a complex normal truncated to a disk."""
    step = np.float32(p.step)
    rest = fma(np.float32(np.uint32(~word0)), step, np.float32(p.rest))  # 1 - u'
    exponent, f = reduced_float32(fma(np.float32(word0), step, np.float32(p.lowest)))
    if rest < QUARTER32:
        exponent, f = np.float32(0.0), -rest
    radius = math.sqrt(minus_2_log_float32(exponent, f)) * np.float32(p.scale)
    cos, sin = cos_sin_float32(word1)
    return fma(radius, cos, ZERO32), fma(radius, sin, ZERO32)


@inline
def truncated_disk_float64(word0, word1, p):
    """As `truncated_disk_float32`: two uint64 words to two float64 parts."""
    rest = fma(np.float64(~word0), p.step, p.rest)
    exponent, f = reduced_float64(fma(np.float64(word0), p.step, p.lowest))
    if rest < 0.25:
        exponent, f = 0.0, -rest
    radius = math.sqrt(minus_2_log_float64(exponent, f)) * p.scale
    cos, sin = cos_sin_float64(word1)
    return fma(radius, cos, 0.0), fma(radius, sin, 0.0)


DISK = Transform("disk", DiskParameters, disk_float32, disk_float64)
TRUNCATED_DISK = Transform(
    "truncated_disk", TruncatedDiskParameters, truncated_disk_float32, truncated_disk_float64
)
