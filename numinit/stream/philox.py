"""Random bits: Philox4x32-10, a pure function of a counter and a key.

Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. The names
of the constants are the paper's.

Words are 32 bits wide and held in 64-bit integers: a product of two is then one 64-bit multiply,
whose halves are the paper's mulhi and mullo.
"""

import numpy as np

from numinit.compiler.inline import inline, product_of_words

M0 = np.uint64(0xD2511F53)
M1 = np.uint64(0xCD9E8D57)
W0 = np.uint64(0x9E3779B9)  # golden ratio
W1 = np.uint64(0xBB67AE85)  # sqrt(3) - 1
ROUNDS = 10

LOW = np.uint64(0xFFFFFFFF)
SHIFT = np.uint64(32)


@inline
def philox(c0, c1, c2, c3, k0, k1):
    """Four random words for the counter words `c0` to `c3` under the key words `k0`, `k1`."""
    for _ in range(ROUNDS):
        p0 = product_of_words(c0, M0)
        p1 = product_of_words(c2, M1)
        # A word's upper half may hold rubbish between rounds: every use looks at the lower one.
        c0, c1, c2, c3 = (p1 >> SHIFT) ^ c1 ^ k0, p1, (p0 >> SHIFT) ^ c3 ^ k1, p0
        k0 = (k0 + W0) & LOW
        k1 = (k1 + W1) & LOW
    return c0 & LOW, c1 & LOW, c2 & LOW, c3 & LOW


@inline
def block_words(low, high, seed, stream):
    """The four words of a block of a stream.

    The block's index is below 2**62 and there are four planes: `low` is the index's lower 32
    bits, `high` its upper 30 bits + plane * 2**30 (see `counter_high`). The order of seed,
    stream and index in the key and the counter is written down here only:
    counter = (low, high, stream low, stream high), key = (seed low, seed high).
    """
    return philox(low, high, stream & LOW, stream >> SHIFT, seed & LOW, seed >> SHIFT)


@inline
def counter_high(block, plane):
    """The second counter word of `block` in `plane` (0 to 3)."""
    return (block >> SHIFT) | (plane << np.uint64(30))
