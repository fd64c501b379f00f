"""The natural logarithm, by a reduction to [sqrt(1/2), sqrt(2)) and a polynomial.

Polynomials here and in the other transforms were fitted in 50 digits at Chebyshev nodes; the error
given is relative to the whole function on the stated interval, with the coefficients as rounded.
"""

import math

import numpy as np

from numinit.jit import bits_float32, bits_float64, float32_bits, float64_bits, fma, inline

# sqrt(1/2) as float32 bits and as float64 bits.
ROOT_BITS32 = np.uint32(0x3F3504F3)
ROOT_BITS64 = np.uint64(0x3FE6A09E667F3BCD)
MANTISSA32 = np.uint32(0x007FFFFF)
MANTISSA64 = np.uint64(0x000FFFFFFFFFFFFF)

F1 = np.float32(1.0)
MINUS_2_LN2_32 = np.float32(-2.0 * math.log(2.0))
MINUS_2_LN2_64 = -2.0 * math.log(2.0)

# -2 ln(1 + f) = -2f + f**2 + f**3 A(f) for 1 + f in [sqrt(1/2), sqrt(2)]: 1.3e-7, largest where
# the result is below 1.
A0 = np.float32(-0.6666682958602905)
A1 = np.float32(0.500014066696167)
A2 = np.float32(-0.39968445897102356)
A3 = np.float32(0.33205437660217285)
A4 = np.float32(-0.29407799243927)
A5 = np.float32(0.2806178331375122)
A6 = np.float32(-0.18097569048404694)

# -2 ln(1 + f) = -4s + s**3 B(s**2) with s = f / (2 + f), the same interval: 4.6e-18.
B0 = -1.333333333333334
B1 = -0.7999999999979891
B2 = -0.5714285725199711
B3 = -0.4444442226205704
B4 = -0.3636577879935544
B5 = -0.30663424958762603
B6 = -0.2923312484420929


@inline
def reduced_float32(t):
    """Exponent and f with t = 2**exponent * (1 + f), for a normal float32 t > 0."""
    shifted = np.uint32(float32_bits(t) - ROOT_BITS32)
    exponent = np.float32(np.int32(shifted) >> np.int32(23))
    return exponent, bits_float32(np.uint32((shifted & MANTISSA32) + ROOT_BITS32)) - F1


@inline
def minus_2_log_float32(exponent, f):
    """-2 ln(2**exponent * (1 + f)), 1 + f in [sqrt(1/2), sqrt(2)], float32."""
    # By pairs (Estrin's scheme): the chain of dependent operations is half as long.
    f2 = f * f
    a0 = fma(fma(A3, f, A2), f2, fma(A1, f, A0))
    a4 = fma(A6, f2, fma(A5, f, A4))
    a = fma(a4, f2 * f2, a0)
    return fma(exponent, MINUS_2_LN2_32, fma(f2, fma(a, f, F1), -(f + f)))


@inline
def reduced_float64(t):
    """As `reduced_float32`, float64."""
    shifted = np.uint64(float64_bits(t) - ROOT_BITS64)
    exponent = np.float64(np.int64(shifted) >> np.int64(52))
    return exponent, bits_float64(np.uint64((shifted & MANTISSA64) + ROOT_BITS64)) - 1.0


@inline
def minus_2_log_float64(exponent, f):
    """As `minus_2_log_float32`, float64."""
    s = f / (2.0 + f)
    z = s * s
    b = fma(fma(fma(fma(fma(fma(B6, z, B5), z, B4), z, B3), z, B2), z, B1), z, B0)
    return fma(exponent, MINUS_2_LN2_64, fma(b * z, s, -4.0 * s))
