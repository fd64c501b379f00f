"""Sparse matrices: normal values, and an exact number of zeros in each column."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from numinit.dtypes import DType
from numinit.engines.cpu import Formula
from numinit.initializers.base import Initializer, Law
from numinit.initializers.laws import Normal, divided, set_real, set_scale

MAX_ROWS = 1 << 32


@dataclass(frozen=True)
class Sparse(Initializer):
    """Normal around 0, with ``ceil(sparsity * rows)`` zeros in each column of a matrix.

    Martens, "Deep learning via Hessian-free optimization", ICML 2010, section 5. As in torch, axis
    0 has the rows. Which elements of a column are zero depends on the key and the column alone:
    those that a random permutation of the rows (`numinit.transforms.permutation`) moves to the
    front. So any row or block can be made without the rest.

    Parameters
    ----------
    sparsity : float
        The fraction of zeros, from 0 to 1.
    std : float
        Of the other elements.
    """

    sparsity: float
    std: float = 0.01

    def __post_init__(self) -> None:
        if not 0 <= set_real(self, "sparsity") <= 1:
            raise ValueError(f"sparsity: {self.sparsity} was given; 0 to 1 is accepted")
        set_scale(self, "std")

    def law(self, shape: Sequence[int]) -> Law:
        if len(shape) != 2:
            raise ValueError(
                f"Only tensors with 2 dimensions are supported: shape {tuple(shape)} was given"
            )
        rows, columns = shape
        if rows > MAX_ROWS:
            raise ValueError(f"shape: {rows} rows were given; up to 2**32 are accepted")
        from numinit.transforms.permutation import network  # here, for it makes Numba work

        zeros = math.ceil(self.sparsity * rows)
        return _SparseLaw(self.std, (rows, columns, zeros, *network(max(rows, 1))))


@dataclass(frozen=True)
class _SparseLaw(Law):
    """`Sparse` for one shape; `masked` is what the mask takes."""

    std: float
    masked: tuple[int, ...]

    one_shape: ClassVar[bool] = True

    def formula(self, dtype: DType) -> Formula:
        return Normal(0.0, self.std).formula(dtype)._replace(mask="sparse", masked=self.masked)

    def narrowed(self, divisor: float) -> Law:
        return replace(self, std=divided("std", self.std, divisor))
