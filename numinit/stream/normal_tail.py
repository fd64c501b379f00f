"""Tail probabilities of the normal distribution, in decimal arithmetic.

The parameters of a truncated normal follow from them. They must not depend on a platform's libm,
and some are too small for float64: 1 - Phi(40) is 4e-350.
"""

from decimal import Context, Decimal, Overflow, localcontext

DIGITS = 60
#: Only an overflow raises. Numbers below 1e-999999 are 0.
CONTEXT = Context(prec=DIGITS, traps=[Overflow])
FRACTION_FROM = 4  # from here on the series would cancel, and the continued fraction converges fast
TERMS = 400  # of the continued fraction: an error of 1e-40 or less
with localcontext(CONTEXT):
    ROOT_2_PI = (
        2 * Decimal("3.14159265358979323846264338327950288419716939937510582097494459")
    ).sqrt()


def mills(x: Decimal) -> Decimal:
    """(1 - Phi(x)) / phi(x) for x >= 0, to 30 digits.

    Below 4 from Phi(x) = 1/2 + phi(x) (x + x**3/3 + x**5/(3*5) + ...), beyond by the continued
    fraction 1/(x + 1/(x + 2/(x + 3/(x + ...)))): Abramowitz and Stegun, 26.2.11 and 26.2.14.
    """
    with localcontext(CONTEXT):
        if x >= FRACTION_FROM:
            value = x
            for n in range(min(TERMS, 40_000 // int(x * x) + 20), 0, -1):
                value = x + n / value
            return 1 / value
        term, total, n = x, x, 1
        while term > total.scaleb(-DIGITS):
            n += 2
            term = term * x * x / n
            total += term
        return ROOT_2_PI * (x * x / 2).exp() / 2 - total


def upper_tail(x: Decimal) -> Decimal:
    """1 - Phi(x) for any x, infinite ones included, to 30 digits."""
    with localcontext(CONTEXT):
        if x < 0:
            return 1 - upper_tail(-x)
        if x > 1000:  # 1 - Phi(1000) is 1e-217150
            return Decimal(0)
        return mills(x) * (-x * x / 2).exp() / ROOT_2_PI
