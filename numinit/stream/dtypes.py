"""The element types: their names, sizes and limits."""

import contextlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from numinit.compiler.inline import Inline
from numinit.show import show
from numinit.stream.rounding import (
    bfloat16_bits,
    float8_e4m3fn_bits,
    float8_e5m2_bits,
    float16_bits,
)


class RangeError(ValueError):
    """A parameter is out of its range, in itself or for the element type of an array."""


@dataclass(frozen=True, slots=True, eq=False)  # one object a type: equality is identity
class DType:
    """A floating-point or complex element type.

    Attributes
    ----------
    name : str
        As NumPy, torch and JAX spell it.
    itemsize : int
        Bytes.
    safetensors : str or None
        The name in a safetensors header; None if the format lacks the type.
    precision : int
        Bits of the significand, the hidden one included. This and the limits below are those of one
        part of a complex type.
    min_exponent : int
        The smallest normal number is 2**min_exponent.
    max : float
        The largest finite number.
    rounding : Inline or None
        A function of a float32 that rounds it once to the type and returns the bits, an unsigned
        integer of `itemsize` bytes. None where values are made in the type itself.
    infinite : bool
        Whether the type has infinities. In a type without them, NaN is the pattern of all ones.
    complex : bool
        Whether an element has two parts, which share `itemsize`.
    """

    name: str
    itemsize: int
    safetensors: str | None
    precision: int
    min_exponent: int
    max: float
    rounding: Inline | None = None
    infinite: bool = True
    complex: bool = False

    def __reduce__(self) -> tuple[Any, ...]:
        return as_dtype, (self.name,)  # a copy is the same object

    @property
    def wide(self) -> bool:
        """Whether values are float64 from uint64 words, before rounding; else float32 from uint32."""
        return self.precision == 53

    @property
    def parts(self) -> int:
        """Numbers in an element: 2 if it is complex."""
        return 1 + self.complex

    @property
    def real(self) -> str:
        """The type in which values are made, before they are rounded: "float64" or "float32"."""
        return "float64" if self.wide else "float32"

    def floor(self, x: float) -> float:
        """The largest finite number of this type that is not above the finite real `x`.

        -infinity if there is none. Zero is 0.0, as it is for `ceil` and `below`.
        """
        if x < -self.max:
            return -math.inf
        unit = self._unit(x)
        return min(math.floor(x / unit) * unit, self.max)

    def ceil(self, x: float) -> float:
        """The smallest finite number of this type that is not below `x`; infinity if none is."""
        return 0.0 - self.floor(-x)

    def below(self, x: float) -> float:
        """The largest finite number of this type that is below `x`; -infinity if none is."""
        if x <= -self.max:
            return -math.inf
        low = self.floor(x)
        return low if low < x else self.floor(x - self._unit(math.nextafter(x, -math.inf)))

    def refuse_beyond(self, name: str, value: float, bound: float | None = None) -> None:
        """Refuse a parameter that is finite, but not in this type.

        Parameters
        ----------
        name : str
            The parameter's name.
        value : float
            Its value, as it was given.
        bound : float, optional
            The largest value that follows from the parameter. It is checked instead of `value`.

        Raises
        ------
        RangeError
            If the value or the bound is beyond the largest number of the type.
        """
        largest = abs(value if bound is None else bound)
        if largest > self.max and math.isfinite(value):
            made = "" if bound is None else f" and makes values up to {largest:.6g}"
            raise RangeError(
                f"{name}: {value!r} was given{made}; {self.name} holds numbers up to {self.max:.6g}"
            )

    def _unit(self, x: float) -> float:
        """The distance between neighbouring numbers near `x`: a power of two, so it is exact."""
        exponent = max(math.frexp(x)[1] - 1 if x else self.min_exponent, self.min_exponent)
        return math.ldexp(1.0, exponent - self.precision + 1)


#: The table of element types: one row each.
DTYPES: dict[str, DType] = {
    d.name: d
    for d in (
        DType("float32", 4, "F32", 24, -126, (2 - 2**-23) * 2.0**127),
        DType("float64", 8, "F64", 53, -1022, (2 - 2**-52) * 2.0**1023),
        DType("float16", 2, "F16", 11, -14, 65504.0, float16_bits),
        DType("bfloat16", 2, "BF16", 8, -126, (2 - 2**-7) * 2.0**127, bfloat16_bits),
        DType("float8_e4m3fn", 1, "F8_E4M3", 4, -6, 448.0, float8_e4m3fn_bits, infinite=False),
        DType("float8_e5m2", 1, "F8_E5M2", 3, -14, 57344.0, float8_e5m2_bits),
        DType("complex64", 8, "C64", 24, -126, (2 - 2**-23) * 2.0**127, complex=True),
        DType("complex128", 16, None, 53, -1022, (2 - 2**-52) * 2.0**1023, complex=True),
    )
}


def as_dtype(dtype: Any) -> DType:
    """Look up the `DType` of a name, a NumPy or torch dtype, or a scalar type.

    Raises
    ------
    TypeError
        If the type is not in `DTYPES`, or its byte order is not the machine's.

    Examples
    --------
    >>> as_dtype("bfloat16").itemsize
    2
    """
    if isinstance(dtype, DType):
        return dtype
    known = dtype
    if isinstance(dtype, str | type) and dtype not in DTYPES:
        with contextlib.suppress(TypeError):
            known = np.dtype(dtype)  # by another name of NumPy's or Python's, such as "f4" or float
    if getattr(known, "isnative", True) is False:
        raise TypeError(
            f"dtype: {show(dtype)} is byte-swapped; only the machine's own byte order is accepted"
        )
    name = getattr(known, "name", None) or getattr(known, "__name__", None) or str(known)
    try:
        return DTYPES[name.removeprefix("torch.")]
    except KeyError:
        raise TypeError(
            f"dtype: {show(dtype)} is not accepted; one of {', '.join(DTYPES)} is"
        ) from None


def quotient(name: str, value: float, divisor: float) -> float:
    """Divide a parameter, called `name` in the error.

    Raises
    ------
    RangeError
        If the value is finite and the quotient is not.
    """
    divided = value / divisor
    if math.isinf(divided) and math.isfinite(value):
        raise RangeError(f"{name}: {value!r} divided by {divisor!r} is beyond the largest float64")
    return divided
