"""float32 to the bits of the 16-bit types, rounded once to nearest even."""

import numpy as np

from numinit.jit import bits_float32, float32_bits, inline


@inline
def bfloat16_bits(x):
    """The bits of `x` as bfloat16 (uint16); infinities and quiet NaNs stay what they are."""
    bits = float32_bits(x)
    odd = np.uint32(np.uint32(bits >> np.uint32(16)) & np.uint32(1))
    return np.uint16(np.uint32(bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))


@inline
def float16_bits(x):
    """The bits of `x` as IEEE float16 (uint16); overflows to infinity, NaN becomes 0x7e00."""
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
    if magnitude >= np.uint32(0x477FF000):  # 65520, half way beyond the largest
        half = np.uint32(0x7E00) if magnitude > np.uint32(0x7F800000) else np.uint32(0x7C00)
    return np.uint16(np.uint32(bits >> np.uint32(16)) & np.uint32(0x8000) | half)
