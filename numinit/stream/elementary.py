"""Logarithm, cosine and sine from correctly rounded operations alone: the same on every machine.

The logarithm's argument is reduced to [sqrt(1/2), sqrt(2)), an angle to the nearest quarter of a
turn. Polynomials do the rest. Those here and in the transforms were fitted in 50 digits at
Chebyshev nodes. The error beside each is relative to the whole function on the stated interval, for
the coefficients as they are rounded here.
"""

import math

import numpy as np

from numinit.compiler.inline import inline
from numinit.compiler.intrinsics import (
    bits_float32,
    bits_float64,
    float32_bits,
    float64_bits,
    fma,
    overlap,
)

# sqrt(1/2) as float32 bits and as float64 bits.
ROOT_BITS32 = np.uint32(0x3F3504F3)
ROOT_BITS64 = np.uint64(0x3FE6A09E667F3BCD)
EXPONENT32 = np.uint32(0xFF800000)
MANTISSA64 = np.uint64(0x000FFFFFFFFFFFFF)

F1 = np.float32(1.0)
MINUS_2_LN2_32 = np.float32(-2.0 * math.log(2.0) * 2.0**-23)  # for an exponent times 2**23
MINUS_2_LN2_64 = -2.0 * math.log(2.0)

# -2 ln(1 + f) = -2f + f**2 + f**3 A(f) for 1 + f in [sqrt(1/2), sqrt(2)]: error 1.3e-7, which is
# reached where the result is below 1.
A0 = np.float32(-0.6666682958602905)
A1 = np.float32(0.500014066696167)
A2 = np.float32(-0.39968445897102356)
A3 = np.float32(0.33205437660217285)
A4 = np.float32(-0.29407799243927)
A5 = np.float32(0.2806178331375122)
A6 = np.float32(-0.18097569048404694)

# -2 ln(1 + f) = -4s + s**3 B(s**2) with s = f / (2 + f) on the same interval: error 4.6e-18.
B0 = -1.333333333333334
B1 = -0.7999999999979891
B2 = -0.5714285725199711
B3 = -0.4444442226205704
B4 = -0.3636577879935544
B5 = -0.30663424958762603
B6 = -0.2923312484420929


@inline
def reduced_float32(t):
    """Split a normal float32 t > 0 as t = 2**exponent * (1 + f).

    The results are 2**23 times the exponent, as it stands in the bits, and f, both float32.
    """
    bits = float32_bits(t)
    exponent = np.uint32(np.uint32(bits - ROOT_BITS32) & EXPONENT32)
    return np.float32(np.int32(exponent)), bits_float32(np.uint32(bits - exponent)) - F1


@inline
def minus_2_log_float32(exponent, f):
    """-2 ln(2**exponent * (1 + f)) of the results of `reduced_float32`; a float32."""
    # By pairs (Estrin's scheme): the chain of dependent operations is half as long.
    f2 = f * f
    a0 = fma(fma(A3, f, A2), f2, fma(A1, f, A0))
    a4 = fma(A6, f2, fma(A5, f, A4))
    a = fma(a4, f2 * f2, a0)
    return fma(exponent, MINUS_2_LN2_32, fma(f2, fma(a, f, F1), -(f + f)))


@inline
def reduced_float64(t):
    """As `reduced_float32`, in float64; the exponent is itself."""
    shifted = np.uint64(float64_bits(t) - ROOT_BITS64)
    exponent = np.float64(np.int64(shifted) >> np.int64(52))
    return exponent, bits_float64(np.uint64((shifted & MANTISSA64) + ROOT_BITS64)) - 1.0


@inline
def minus_2_log_float64(exponent, f):
    """-2 ln(2**exponent * (1 + f)) of the results of `reduced_float64`; a float64."""
    s = f / (2.0 + f)
    z = s * s
    b = fma(fma(fma(fma(fma(fma(B6, z, B5), z, B4), z, B3), z, B2), z, B1), z, B0)
    return fma(exponent, MINUS_2_LN2_64, fma(b * z, s, -4.0 * s))


# A word is the angle 2 pi (word + 1/2) / 2**32; a 64-bit word has 2**64 instead.

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
S0 = np.float32(-0.166666641831398)  # error 1.3e-8
S1 = np.float32(0.008332747966051102)
S2 = np.float32(-0.00019587865972425789)
C0 = np.float32(0.0416666641831398)  # error 5.9e-10
C1 = np.float32(-0.001388830249197781)
C2 = np.float32(2.454791683703661e-05)

T0 = -0.16666666666666666  # float64: error 2.0e-17
T1 = 0.008333333333330948
T2 = -0.00019841269836756774
T3 = 2.7557316101617874e-06
T4 = -2.505113165023518e-08
T5 = 1.5918115263265974e-10
D0 = 0.041666666666666664  # float64: error 9.0e-19
D1 = -0.0013888888888887398
D2 = 2.480158729876456e-05
D3 = -2.7557317271145144e-07
D4 = 2.087614614655861e-09
D5 = -1.1382623647474604e-11


@inline
def cos_sin_float32(word):
    """Cosine and sine, float32, of 2 pi v with v = (word + 1/2) / 2**32, for a uint32 word."""
    turned = np.uint32(word + EIGHTH32)  # its top two bits are the nearest quadrant
    rest = np.int32(np.uint32(word << np.uint32(2)))  # four times the distance from its middle
    x = fma(np.float32(rest), TURN32, HALF_TURN32)
    z = x * x
    sin = fma(fma(fma(S2, z, S1), z, S0) * z, x, x)
    cos = fma(fma(fma(fma(C2, z, C1), z, C0), z, np.float32(-0.5)), z, F1)
    if overlap(turned, QUARTER32):
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
    """Cosine and sine, float64, of 2 pi v with v = (word + 1/2) / 2**64, for a uint64 word."""
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
