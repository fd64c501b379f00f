"""The cosine and sine of an angle that a word stands for: 2 pi (word + 1/2) / 2**32 (2**64)."""

import math

import numpy as np

from numinit.jit import bits_float32, bits_float64, float32_bits, float64_bits, fma, inline
from numinit.transforms.logarithm import F1

SIGN32 = np.uint32(0x80000000)
EIGHTH32 = np.uint32(0x20000000)  # an eighth of a turn
QUARTER32 = np.uint32(0x40000000)
SIGN64 = np.uint64(0x8000000000000000)
EIGHTH64 = np.uint64(0x2000000000000000)
QUARTER64 = np.uint64(0x4000000000000000)

TURN32 = np.float32(math.pi * 2.0**-33)  # radians in a quarter unit of the word
HALF_TURN32 = np.float32(math.pi * 2.0**-32)
TURN64 = math.pi * 2.0**-65
HALF_TURN64 = math.pi * 2.0**-64

# sin x = x + x**3 S(x**2) and cos x = 1 - x**2/2 + x**4 C(x**2) for |x| <= pi/4.
S0 = np.float32(-0.166666641831398)  # 1.3e-8
S1 = np.float32(0.008332747966051102)
S2 = np.float32(-0.00019587865972425789)
C0 = np.float32(0.0416666641831398)  # 5.9e-10
C1 = np.float32(-0.001388830249197781)
C2 = np.float32(2.454791683703661e-05)

T0 = -0.16666666666666666  # 2.0e-17, float64
T1 = 0.008333333333330948
T2 = -0.00019841269836756774
T3 = 2.7557316101617874e-06
T4 = -2.505113165023518e-08
T5 = 1.5918115263265974e-10
D0 = 0.041666666666666664  # 9.0e-19, float64
D1 = -0.0013888888888887398
D2 = 2.480158729876456e-05
D3 = -2.7557317271145144e-07
D4 = 2.087614614655861e-09
D5 = -1.1382623647474604e-11


@inline
def cos_sin_float32(word):
    """Cos and sin of 2 pi v with v = (word + 1/2) / 2**32, float32."""
    turned = np.uint32(word + EIGHTH32)  # its top two bits are the nearest quadrant
    rest = np.int32(np.uint32(word << np.uint32(2)))  # from there, four times as large
    x = fma(np.float32(rest), TURN32, HALF_TURN32)
    z = x * x
    sin = fma(fma(fma(S2, z, S1), z, S0) * z, x, x)
    cos = fma(fma(fma(fma(C2, z, C1), z, C0), z, np.float32(-0.5)), z, F1)
    if turned & QUARTER32:
        cos, sin = sin, cos
    # The cosine is negative in quadrants 1 and 2, the sine in 2 and 3.
    cos_sign = np.uint32(turned + QUARTER32) & SIGN32
    sin_sign = turned & SIGN32
    return (
        bits_float32(np.uint32(float32_bits(cos) ^ cos_sign)),
        bits_float32(np.uint32(float32_bits(sin) ^ sin_sign)),
    )


@inline
def cos_sin_float64(word):
    """Cos and sin of 2 pi v with v = (word + 1/2) / 2**64, float64."""
    turned = np.uint64(word + EIGHTH64)
    rest = np.int64(word << np.uint64(2))
    x = fma(np.float64(rest), TURN64, HALF_TURN64)
    z = x * x
    sin = fma(fma(fma(fma(fma(fma(T5, z, T4), z, T3), z, T2), z, T1), z, T0) * z, x, x)
    cos = fma(fma(fma(fma(fma(D5, z, D4), z, D3), z, D2), z, D1), z, D0)
    cos = fma(fma(cos, z, -0.5), z, 1.0)
    if turned & QUARTER64:
        cos, sin = sin, cos
    cos_sign = np.uint64(turned + QUARTER64) & SIGN64
    sin_sign = turned & SIGN64
    return bits_float64(float64_bits(cos) ^ cos_sign), bits_float64(float64_bits(sin) ^ sin_sign)
