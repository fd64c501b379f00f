"""Values that are compared to rounding: those of laws whose sums are another library's.

What may be found in place of a value v that is known within t: every rounding of a number in
[v - t, v + t] to the element type, and nothing else. For a wide type that is the interval itself;
for a narrow one it is v's own rounding, but where the interval holds the middle of two neighbours.
"""

import numpy as np

from numinit.engines.by_index import stored
from numinit.stream.dtypes import DType

__all__ = ["outside", "rounded"]


def outside(found: np.ndarray, values: np.ndarray, dtype: DType, tolerance: float) -> np.ndarray:
    """Which elements are no rounding of a number near their value.

    Parameters
    ----------
    found : numpy.ndarray of uint8
        Elements of `dtype` as raw bytes.
    values : numpy.ndarray
        Their values in ``dtype.real``, or the complex type of it; one axis, contiguous.
    dtype : DType
        The element type.
    tolerance : float
        How far a value, or each part of a complex one, may be from those that others compute.

    Returns
    -------
    numpy.ndarray of bool
        For each element.
    """
    parts = 2 if dtype.complex else 1
    real = values.view(values.real.dtype).astype(np.float64)
    low, high = (np.clip(real + t, -dtype.max, dtype.max) for t in (-tolerance, tolerance))
    least, most = (_ordered(_bits(bound, dtype), dtype) for bound in (low, high))
    given = _ordered(found.view(f"<u{dtype.itemsize // parts}"), dtype)
    wrong = np.any([given < least, given > most], axis=0)
    answer: np.ndarray = np.any(wrong.reshape(-1, parts), axis=1)
    return answer


def rounded(values: np.ndarray, dtype: DType) -> np.ndarray:
    """Values in ``dtype.real``, or the complex type of it, as the raw bytes of `dtype`."""
    return _bits(values.view(values.real.dtype), dtype).view(np.uint8)


def _bits(values: np.ndarray, dtype: DType) -> np.ndarray:
    """Real values as the bits of an element type, or of a complex one's parts."""
    kind = dtype.real if dtype.rounding is None else dtype.name
    made = np.ascontiguousarray(stored(values, dtype))
    if made.dtype.kind == "f":
        made = made.astype(kind)
    return made.view(f"<u{made.itemsize}")


def _ordered(bits: np.ndarray, dtype: DType) -> np.ndarray:
    """Bits as integers in the order of the numbers, -0.0 below +0.0 and NaN beyond the infinities."""
    sign = 1 << (8 * bits.itemsize - 1)
    magnitude = (bits & (sign - 1)).astype(np.int64)
    ordered: np.ndarray = np.where(bits >= sign, -1 - magnitude, magnitude)
    return ordered
