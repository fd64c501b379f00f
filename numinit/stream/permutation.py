"""A random permutation evaluated at one position, without the others.

A Feistel network over any number of positions, after Black and Rogaway, "Ciphers with arbitrary
finite domains", CT-RSA 2002, section 5: position x of n is the pair (x // b, x % b) of digits below
a and b, a * b >= n. Each half of a round adds a pseudo-random function of one digit to the other.
Where the result is not below n, the network is applied again ("cycle walking"). That is rare,
because a * b < n + a.

Half a round moves two positions that share a digit by the same amount, so that few positions need
more rounds. With the rounds of `network`, all subsets of n positions are equally likely to within
1e-8. The worst case is n = 5.
"""

import math

import numpy as np

from numinit.compiler.inline import inline
from numinit.compiler.intrinsics import product_of_words
from numinit.stream.philox import M0, M1, SHIFT, W0, W1


def network(n: int) -> tuple[int, int, int]:
    """The sizes a and b of the two digits, and the number of rounds, for n >= 1 positions."""
    a = math.isqrt(n - 1) + 1
    return a, -(-n // a), max(5, math.ceil(64 / math.log2(max(n, 2))))


@inline
def shifted(digit, size, other, key0, key1, number):
    """`digit` plus a pseudo-random function of `other`, modulo `size` <= 2**16; all uint64."""
    step = np.uint64(number)
    mixed = product_of_words(other ^ (key0 + step * W0), M0)
    mixed = product_of_words((mixed >> SHIFT) ^ mixed ^ (key1 + step * W1), M1)
    moved = digit + (product_of_words(mixed >> SHIFT, size) >> SHIFT)
    return moved - size if moved >= size else moved


@inline
def permuted(place, a, b, rounds, key0, key1, key2, key3):
    """The position, uint64, to which one pass of the network moves `place`; no cycle walking."""
    x, y = place // b, place % b
    for number in range(rounds):
        x = shifted(x, a, y, key0, key1, number)
        y = shifted(y, b, x, key2, key3, number)
    return x * b + y
