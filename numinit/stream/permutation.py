"""Where a position goes in a random permutation, without making the rest of the permutation.

A Feistel network over any number of positions, after Black and Rogaway, "Ciphers with arbitrary
finite domains", CT-RSA 2002, section 5: position x of n is the pair (x // b, x % b) of digits below
a and b, a * b >= n. Each half of a round adds a pseudo-random function of one digit to the other.
Where the result is not below n, the network is applied again ("cycle walking"), which is rare, as
a * b < n + a.

Two positions that share a digit are moved alike, hence more rounds for fewer positions: with
those of `network` the chances of all subsets of n positions are even to 1e-8 (n = 5, the worst).
"""

import math

import numpy as np

from numinit.compiler.inline import inline
from numinit.stream.philox import LOW, M0, M1, SHIFT, W0, W1


def network(n: int) -> tuple[int, int, int]:
    """The sizes a, b of the two digits of n >= 1 positions, and the number of rounds."""
    a = math.isqrt(n - 1) + 1
    return a, -(-n // a), max(5, math.ceil(64 / math.log2(max(n, 2))))


@inline
def shifted(digit, size, other, key0, key1, number):
    """`digit` plus a pseudo-random function of the `other` digit, modulo `size` <= 2**16."""
    step = np.uint64(number)
    mixed = ((other ^ (key0 + step * W0)) & LOW) * M0
    mixed = (((mixed >> SHIFT) ^ mixed ^ (key1 + step * W1)) & LOW) * M1
    moved = digit + (((mixed >> SHIFT) * size) >> SHIFT)
    return moved - size if moved >= size else moved


@inline
def permuted(place, a, b, rounds, key0, key1, key2, key3):
    """Where the network of digits below `a` and `b` takes a position: once, without walking on."""
    x, y = place // b, place % b
    for number in range(rounds):
        x = shifted(x, a, y, key0, key1, number)
        y = shifted(y, b, x, key2, key3, number)
    return x * b + y
