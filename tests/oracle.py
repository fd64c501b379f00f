"""An independent reference: the stream in plain Python integers and mpmath, straight from its
definition, sharing no code with the package."""

import mpmath

MASK = 0xFFFFFFFF
EDGE_WORDS = (
    0,
    1,
    2,
    2**29,
    2**30 - 1,
    2**30,
    2**31 - 1,
    2**31,
    0xB504F333,
    0xB504F334,
    2**32 - 2,
    2**32 - 1,
)


def philox(counter, key, rounds=10):
    """Philox4x32 as in Random123: four words of `counter` under the two words of `key`."""
    c, (k0, k1) = list(counter), key
    for _ in range(rounds):
        p0, p1 = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [(p1 >> 32) ^ c[1] ^ k0, p1 & MASK, (p0 >> 32) ^ c[3] ^ k1, p0 & MASK]
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return c


def word(index, plane, seed, stream):
    """The word that element `index` owns in a plane."""
    block = index // 4
    counter = (block & MASK, block >> 32 | plane << 30, stream & MASK, stream >> 32)
    return philox(counter, (seed & MASK, seed >> 32))[index % 4]


def words(index, bits, seed, stream):
    """The 32 or 64 bits that element `index` owns."""
    high = word(index, 0, seed, stream)
    return high if bits == 32 else high << 32 | word(index, 1, seed, stream)


def uniform(w, bits):
    """The exact uniform of a word, in [0, 1)."""
    return mpmath.mpf(w >> 8) / 2**24 if bits == 32 else mpmath.mpf(w >> 11) / 2**53


def normal_pair(w0, w1, bits):
    """The exact Box-Muller pair of two words."""
    u, v = ((mpmath.mpf(w) + mpmath.mpf(1) / 2) / 2**bits for w in (w0, w1))
    radius = mpmath.sqrt(-2 * mpmath.log(u))
    return radius * mpmath.cospi(2 * v), radius * mpmath.sinpi(2 * v)


def normal(index, bits, seed, stream):
    """The exact standard normal of an element."""
    first = index - index % 2
    pair = normal_pair(*(words(i, bits, seed, stream) for i in (first, first + 1)), bits)
    return pair[index % 2]


def upper_tail(x):
    """1 - Phi(x) of the normal distribution."""
    return mpmath.erfc(mpmath.mpf(x) / mpmath.sqrt(2)) / 2


def truncated(w, a, b, bits):
    """The exact value of a word of a standard normal truncated to [a, b], by Newton's method."""
    a, b, u = mpmath.mpf(a), mpmath.mpf(b), (w + mpmath.mpf(1) / 2) / mpmath.mpf(2) ** bits
    if a + b < 0:
        return -truncated((1 << bits) - 1 - w, -b, -a, bits)
    upper = upper_tail(a) - u * (upper_tail(a) - upper_tail(b))
    z = mpmath.sqrt(-2 * mpmath.log(upper)) if upper < 0.05 else mpmath.mpf(0)
    for _ in range(100):  # on the logarithm, which is concave: no step goes astray
        found = upper_tail(z)
        step = mpmath.log(found / upper) * found / mpmath.npdf(z)
        z += step
        if abs(step) < mpmath.mpf(10) ** -(mpmath.mp.dps // 2):
            return z
    raise ArithmeticError(f"no convergence for word {w} of [{a}, {b}]")


def network(n):
    """The sizes of the two digits and the rounds of a permutation of n positions."""
    a = 1
    while a * a < n:
        a += 1
    b = (n + a - 1) // a
    rounds = 5
    while rounds < 64 and n**rounds < 2**64:  # the least r >= 5 with n**r >= 2**64
        rounds += 1
    return a, b, rounds


def place(x, n, keys):
    """Where position x of n goes under four key words."""
    a, b, rounds = network(n)

    def moved(digit, size, other, key0, key1, number):
        mixed = ((other ^ (key0 + number * 0x9E3779B9)) & MASK) * 0xD2511F53
        mixed = (((mixed >> 32) ^ mixed ^ (key1 + number * 0xBB67AE85)) & MASK) * 0xCD9E8D57
        return (digit + ((mixed >> 32) * size >> 32)) % size

    while True:
        left, right = divmod(x, b)
        for number in range(rounds):
            left = moved(left, a, right, *keys[:2], number)
            right = moved(right, b, left, *keys[2:], number)
        x = left * b + right
        if x < n:
            return x


def block_words(block, plane, seed, stream):
    """The four words of a block of a plane."""
    return [word(4 * block + i, plane, seed, stream) for i in range(4)]
