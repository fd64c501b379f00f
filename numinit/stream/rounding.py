"""float32 to the bits of the narrower types, rounded once to nearest even.

A zero keeps its sign. So does a negative number that rounds to zero: it becomes -0.0.
"""

import numpy as np

from numinit.compiler.inline import inline
from numinit.compiler.intrinsics import bits_float32, float32_bits


@inline
def bfloat16_bits(x):
    """The bits of a float32 as bfloat16, uint16. Infinities and quiet NaNs stay what they are."""
    bits = float32_bits(x)
    odd = np.uint32(np.uint32(bits >> np.uint32(16)) & np.uint32(1))
    return np.uint16(np.uint32(bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))


@inline
def float16_bits(x):
    """The bits of a float32 as IEEE float16, uint16. Overflows to infinity; NaN becomes 0x7e00."""
    bits = float32_bits(x)
    magnitude = np.uint32(bits & np.uint32(0x7FFFFFFF))
    odd = np.uint32(np.uint32(magnitude >> np.uint32(13)) & np.uint32(1))
    # Rebias the exponent from 127 to 15; a carry out of the fraction is right as it is.
    half = np.uint32(
        np.uint32(magnitude - np.uint32(0x38000000) + np.uint32(0xFFF) + odd) >> np.uint32(13)
    )
    if magnitude < np.uint32(0x38800000):
        # Subnormal: adding 1/2 makes the hardware round to a multiple of 2**-24.
        sum_bits = float32_bits(bits_float32(magnitude) + np.float32(0.5))
        half = np.uint32(sum_bits - np.uint32(0x3F000000))
    if magnitude >= np.uint32(0x477FF000):  # 65520: half a step beyond the largest number
        half = np.uint32(0x7E00) if magnitude > np.uint32(0x7F800000) else np.uint32(0x7C00)
    return np.uint16(np.uint32(bits >> np.uint32(16)) & np.uint32(0x8000) | half)


@inline
def float8_bits(x, mantissa, bias, infinity, overflow):
    """The bits of a float32 in an 8-bit type, uint8.

    The type has `mantissa` bits of fraction and an exponent `bias`. Where the bits of the magnitude
    are `overflow` or more, the result is `infinity`. NaN becomes 0x7f.
    """
    bits = float32_bits(x)
    magnitude = np.uint32(bits & np.uint32(0x7FFFFFFF))
    drop = np.uint32(23 - mantissa)
    odd = np.uint32(np.uint32(magnitude >> drop) & np.uint32(1))
    rebias = np.uint32((127 - bias) << 23)
    half = np.uint32((1 << (22 - mantissa)) - 1)
    byte = np.uint32(np.uint32(magnitude - rebias + half + odd) >> drop)
    smallest = np.uint32((128 - bias) << 23)
    if magnitude < smallest:
        # Subnormal: adding a power of two makes the hardware round to a multiple of the smallest.
        shift = np.uint32((127 + 24 - bias - mantissa) << 23)
        byte = np.uint32(float32_bits(bits_float32(magnitude) + bits_float32(shift)) - shift)
    if magnitude >= np.uint32(overflow):
        byte = np.uint32(infinity)
    if magnitude > np.uint32(0x7F800000):
        byte = np.uint32(0x7F)
    return np.uint8(np.uint32(np.uint32(bits >> np.uint32(24)) & np.uint32(0x80)) | byte)


@inline
def float8_e4m3fn_bits(x):
    """The bits of a float32 as float8_e4m3fn, uint8. Beyond 464 it is NaN: there is no infinity."""
    return float8_bits(x, 3, 7, 0x7F, 0x43E80001)


@inline
def float8_e5m2_bits(x):
    """The bits of a float32 as float8_e5m2, uint8. From 61440 on it is infinity."""
    return float8_bits(x, 2, 15, 0x7C, 0x47700000)


@inline
def floor_byte(x):
    """The last byte of the floor of a float32 from -256 up to 2**23, uint8: an int8 or a uint8."""
    return np.uint8(np.int32(x + np.float32(256.0)) & np.int32(0xFF))
