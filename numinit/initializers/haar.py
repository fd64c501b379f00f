"""Orthogonal and unitary matrices with the Haar distribution, without a factorization.

The Q of a Gaussian matrix's QR decomposition, with R's diagonal positive, has the Haar distribution
(Mezzadri, "How to generate random matrices from the classical compact groups", Notices AMS 54,
2007). Its Householder vectors are independent: the k-th follows from a Gaussian vector of m - k
numbers (Stewart, "The efficient generation of random orthogonal matrices", SIAM J. Numer. Anal. 17,
1980). So the vectors are drawn, and nothing is factorized. That takes half of the work of QR, and
all of it is matrix products. Vectors are applied in blocks: H_1 H_2 ... H_b = I - V S^-1 V^H, where
S is the upper triangle of V^H V with its diagonal halved (Puglisi, "Modification of the Householder
method based on the compact WY representation", SIAM J. Sci. Stat. Comput. 13, 1992).
"""

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

BLOCK = 128  # columns whose reflections are applied together
LARGE = 1536  # columns of a matrix for which twice as many save more passes than they cost work
SUM = 1 << 12  # rows that are summed in the precision of the matrix
CHUNK = 1 << 20  # elements that are made at a time, so that no copy of the matrix is needed


def haar(q: np.ndarray) -> np.ndarray:
    """Turn a Gaussian matrix into a random one with orthonormal columns, in place.

    Parameters
    ----------
    q : ndarray
        IN independent standard normal numbers, of shape (m, n), m >= n, and of float32, float64,
        complex64 or complex128; OUT the matrix. Column k has the k-th vector, from row k down.

    Returns
    -------
    ndarray
        The same; max abs(Q^H Q - I) is about 1e-6 in single and 1e-15 in double precision.
    """
    n = q.shape[1]
    block = BLOCK if n < LARGE else 2 * BLOCK
    for begin in range((n - 1) // block * block, -1, -block):
        _reflect(q, begin, min(begin + block, n))
    return q


def _reflect(q: np.ndarray, begin: int, end: int) -> None:
    """Apply the reflections of columns `begin` to `end` - 1 to all columns from `begin` on.

    Z is the columns from `end` on, which the later reflections have made. It is zero in the rows
    before `end`, which were not written yet. E is the identity's columns `begin` to `end` - 1.
    [E Z] becomes [E Z] - V S^-1 V^H [E Z]. Finally the columns of E are multiplied by the phase
    that makes R's diagonal positive.
    """
    m, n = q.shape
    width = end - begin
    wide = np.promote_types(q.dtype, np.float64)  # the type of sums over many rows
    x, z = q[end:, begin:end], q[end:, end:]
    top = q[begin:end, begin:end] * _lower(width, q.dtype)
    gram = (top.conj().T @ top).astype(wide)
    product: Any = 0  # X^H Z
    for rows in _runs(m - end, SUM):
        adjoint = x[rows].conj().T
        gram += adjoint @ x[rows]
        if end < n:
            part = adjoint @ z[rows]
            product = np.add(product, part, out=part) if rows.start else part
    # x becomes v = x - target, and is reflected to target = -phase |x| e_k.
    first = top.diagonal().astype(wide)
    size = np.abs(first)
    none = size == 0
    phase = (first + none) / (size + none)
    norm = np.sqrt(gram.diagonal().real)
    half = norm * (norm + size)  # of |v|**2
    half += half == 0  # for a vector of zeros, which no stream has
    lift = phase * norm  # v - x in row k
    turn = phase.astype(q.dtype)
    top.reshape(-1)[:: width + 1] += lift.astype(q.dtype)
    adjoint = top.conj().T
    # S^H: in row k, all vectors before k are those of x.
    np.subtract(top * -lift.conj()[:, None], gram, out=gram)
    inverse = _inverse(gram, half).astype(q.dtype).conj().T
    made = inverse @ adjoint * turn
    np.matmul(top, made, out=q[begin:end, begin:end])
    np.einsum("ii->i", q[begin:end, begin:end])[:] -= turn
    if end < n:
        factor = -inverse @ product
        np.matmul(top, factor, out=q[begin:end, end:])
    if end < m:
        step = min(max(CHUNK // (n - begin), 2 * width), m - end)
        vectors, change = np.empty((step, width), q.dtype), np.empty((step, n - end), q.dtype)
        for rows in _runs(m - end, step):
            count = rows.stop - rows.start
            v = vectors[:count]
            np.copyto(v, x[rows])
            np.matmul(v, made, out=x[rows])
            if end < n:
                z[rows] += np.matmul(v, factor, out=change[:count])


def _inverse(minus: np.ndarray, diagonal: np.ndarray) -> np.ndarray:
    """Return the inverse of a lower triangle, of its diagonal and of minus what lies below it.

    [A 0; C D]^-1 = [A^-1 0; -D^-1 C A^-1 D^-1], for all blocks of a size at once. `minus` is in C
    order.
    """
    width = len(minus)
    size = 1 << (width - 1).bit_length()
    if size > width:  # more columns, of the identity
        more = 0, size - width
        minus, diagonal = np.pad(minus, more), np.pad(diagonal, more, constant_values=1)
    made = np.zeros((size, size), minus.dtype)
    made.reshape(-1)[:: size + 1] = 1 / diagonal
    kind, item = made.dtype, made.itemsize
    half = 1
    while half < size:
        # Views of the quarters of all blocks on the diagonal.
        shape, right, down = (size // (2 * half), half, half), half * item, half * size * item
        steps = 2 * (right + down), size * item, item
        a = np.ndarray(shape, kind, made, 0, steps)
        d = np.ndarray(shape, kind, made, right + down, steps)
        c = np.ndarray(shape, kind, minus, down, steps)
        np.matmul(d, c @ a, out=np.ndarray(shape, kind, made, down, steps))
        half *= 2
    return made[:width, :width]


@functools.lru_cache(8)
def _lower(width: int, dtype: Any) -> np.ndarray:
    """Return ones in the lower triangle and its diagonal, and zeros elsewhere."""
    return np.tri(width, dtype=dtype)


def _runs(count: int, most: int) -> Iterator[slice]:
    """Cut rows into runs."""
    return (slice(row, min(row + most, count)) for row in range(0, count, most))
