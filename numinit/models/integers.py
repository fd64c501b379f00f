"""Integer tensors of a checkpoint: constants and values by index, such as a counter and position ids."""

from typing import Any, NamedTuple

import numpy as np

from numinit.engines.by_index import CHUNK, fill_of
from numinit.engines.floats import default_mode
from numinit.engines.layout import View
from numinit.engines.spec import ByIndex, Index, Plan, Sampled
from numinit.initializers import Constant
from numinit.models.untrusted import InputError, show

__all__ = ["INTEGERS", "Integer", "check_integers", "fill_integers", "integers"]


class Integer(NamedTuple):
    """An integer or boolean element type.

    Attributes
    ----------
    name : str
        As NumPy spells it.
    itemsize : int
        Bytes.
    safetensors : str
        The name in a safetensors header.
    """

    name: str
    itemsize: int
    safetensors: str

    @property
    def rounding(self) -> None:
        """None, as for a `DType` that NumPy has."""
        return

    @property
    def limits(self) -> tuple[int, int]:
        """The least and the largest value."""
        if self.name == "bool":
            return 0, 1
        limits = np.iinfo(self.name)
        return int(limits.min), int(limits.max)


INTEGERS = {
    integer.name: integer
    for integer in (
        *(Integer(f"int{bits}", bits // 8, f"I{bits}") for bits in (8, 16, 32, 64)),
        *(Integer(f"uint{bits}", bits // 8, f"U{bits}") for bits in (8, 16, 32, 64)),
        Integer("bool", 1, "BOOL"),
    )
}


def check_integers(name: str, plan: Plan, shape: tuple[int, ...], dtype: Integer) -> None:
    """Refuse a plan of an integer tensor that is no constant integer and no values by index.

    Raises
    ------
    InputError
        Naming the tensor, also if its type does not hold the value, or one of up to 65,536.
    """
    low, high = dtype.limits
    given = plan.distribution if isinstance(plan, Sampled) and plan.zeros is None else plan
    if isinstance(given, Constant):
        value = given.value
        # A float compares exactly with an integer, and with an infinity and a NaN too.
        if isinstance(value, float) and low <= value <= high and value == int(value):
            return
    elif isinstance(given, ByIndex) and not given.complex:
        count = int(np.prod(shape))
        if count <= CHUNK:
            fill_integers(np.empty(count * dtype.itemsize, np.uint8), 0, name, plan, shape, dtype)
        return
    raise InputError(
        f"tensor {show(name)} is {dtype.name}, which is kept: its initializer must be a constant "
        f"integer from {low} to {high}, such as Zeros or Ones, or make integers by their indices; "
        f"got {show(given)}"
    )


def fill_integers(
    out: np.ndarray, first: int, name: str, plan: Plan, shape: tuple[int, ...], dtype: Integer
) -> None:
    """Write elements `first`, `first` + 1, ... of a checked plan, in C order, as raw bytes."""
    if isinstance(plan, Sampled):
        value: Any = plan.distribution
        out.view(np.dtype(dtype.name).newbyteorder("<"))[:] = int(value.value)
        return
    assert isinstance(plan, ByIndex)
    low, high = dtype.limits
    made = plan.values

    def values(index: Index) -> np.ndarray:
        numbers = np.asarray(made(index))
        wrong = ~((numbers >= low) & (numbers <= high) & (numbers == np.rint(numbers)))
        if wrong.any():
            raise InputError(
                f"tensor {show(name)} is {dtype.name}, which is kept: integers from {low} to {high} "
                f"are accepted; {plan.name} gives {numbers[wrong].flat[0]}"
            )
        return numbers

    count = out.size // dtype.itemsize
    if not count:
        return
    view = View((count,), (dtype.itemsize,), (1,))
    fill: Any = fill_of(ByIndex(plan.name, values), shape, dtype, view)  # type: ignore[arg-type]
    with default_mode(), np.errstate(all="ignore"):
        fill(out.ctypes.data, first, 0, 0, 0)


def integers(name: str, plan: Plan, shape: tuple[int, ...], dtype: Integer) -> np.ndarray:
    """An integer tensor as an array."""
    made = np.empty(shape, np.dtype(dtype.name))
    fill_integers(made.reshape(-1).view(np.uint8), 0, name, plan, shape, dtype)
    return made
