"""Random words: Philox4x32-10, a pure function of a counter and a key.

Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. The names
of the constants are the paper's.

Words have 32 bits and are held in uint64, so that one 64-bit product of two words has the paper's
mulhi and mullo as its halves.
"""

import numpy as np

from numinit.compiler.inline import inline
from numinit.compiler.intrinsics import product_of_words

M0 = np.uint64(0xD2511F53)
M1 = np.uint64(0xCD9E8D57)
W0 = np.uint64(0x9E3779B9)  # golden ratio
W1 = np.uint64(0xBB67AE85)  # sqrt(3) - 1
ROUNDS = 10

LOW = np.uint64(0xFFFFFFFF)
SHIFT = np.uint64(32)


@inline
def philox(c0, c1, c2, c3, k0, k1):
    """Four random words for counter words `c0` to `c3` and key words `k0`, `k1`; all uint64."""
    for _ in range(ROUNDS):
        p0 = product_of_words(c0, M0)
        p1 = product_of_words(c2, M1)
        # The upper half of a word is left as it is between rounds, because no use reads it.
        c0, c1, c2, c3 = (p1 >> SHIFT) ^ c1 ^ k0, p1, (p0 >> SHIFT) ^ c3 ^ k1, p0
        k0 = (k0 + W0) & LOW
        k1 = (k1 + W1) & LOW
    return c0 & LOW, c1 & LOW, c2 & LOW, c3 & LOW


@inline
def block_words(low, high, seed, stream):
    """The four words of a block of a stream; all arguments and results are uint64.

    A block's index is below 2**62, and there are four planes. `low` has the lower 32 bits of the
    index. `high` has its upper 30 bits and the plane (see `counter_high`). Only this function knows
    the order: counter = (low, high, stream low, stream high), key = (seed low, seed high).
    """
    return philox(low, high, stream & LOW, stream >> SHIFT, seed & LOW, seed >> SHIFT)


@inline
def counter_high(block, plane):
    """The second counter word of `block` in `plane` (0 to 3); all uint64."""
    return (block >> SHIFT) | (plane << np.uint64(30))
