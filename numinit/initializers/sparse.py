"""Sparse matrices: normal values and an exact number of zeros in each column."""

import math
from dataclasses import dataclass

from numinit.engines.spec import Plan, Sampled
from numinit.engines.zeros import SPARSE, Zeros
from numinit.initializers.base import Initializer
from numinit.initializers.distributions import Normal, set_real, set_scale
from numinit.stream.dtypes import DType
from numinit.stream.permutation import network

MAX_ROWS = 1 << 32


@dataclass(frozen=True)
class Sparse(Initializer):
    """Normal around 0, with ``ceil(sparsity * rows)`` zeros in each column of a matrix.

    Martens, "Deep learning via Hessian-free optimization", ICML 2010, section 5. As in torch, axis
    0 has the rows. The key and the column's number give a random permutation of the rows
    (`numinit.stream.permutation`); the rows that it moves to the front are zero. So any row or
    block can be made without the rest.

    Parameters
    ----------
    sparsity : float
        The fraction of zeros, from 0 to 1.
    std : float
        The standard deviation of the other elements.

    Raises
    ------
    ValueError
        If `sparsity` is not from 0 to 1, `std` is negative, or the weight is no matrix of up to
        2**32 rows.

    Examples
    --------
    >>> (ni.Sparse(sparsity=0.25)((10, 3), seed=0) == 0).sum(axis=0).tolist()
    [3, 3, 3]
    """

    sparsity: float
    std: float = 0.01

    def __post_init__(self) -> None:
        if not 0 <= set_real(self, "sparsity") <= 1:
            raise ValueError(f"sparsity: {self.sparsity} was given; 0 to 1 is accepted")
        set_scale(self, "std")

    def plan(self, shape: tuple[int, ...], dtype: DType) -> Plan:
        if len(shape) != 2:
            raise ValueError(
                f"Only tensors with 2 dimensions are supported: shape {tuple(shape)} was given"
            )
        rows, columns = shape
        if rows > MAX_ROWS:
            raise ValueError(f"shape: {rows} rows were given; up to 2**32 are accepted")
        zeros = math.ceil(self.sparsity * rows)
        places = SPARSE.Parameters(rows, columns, zeros, *network(max(rows, 1)))
        return Sampled(Normal(0.0, self.std), Zeros(SPARSE, places))
