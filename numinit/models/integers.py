"""Integer tensors of a checkpoint, such as a batch norm's counter: constant, in a dtype of their own."""

from typing import NamedTuple

import numpy as np

from numinit.engines.spec import Plan, Sampled
from numinit.initializers import Constant
from numinit.models.untrusted import InputError, show

__all__ = ["INTEGERS", "Integer", "constant"]


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


INTEGERS = {
    integer.name: integer
    for integer in (
        *(Integer(f"int{bits}", bits // 8, f"I{bits}") for bits in (8, 16, 32, 64)),
        *(Integer(f"uint{bits}", bits // 8, f"U{bits}") for bits in (8, 16, 32, 64)),
        Integer("bool", 1, "BOOL"),
    )
}


def constant(name: str, plan: Plan, dtype: Integer) -> np.ndarray:
    """The value of every element of an integer tensor, as an array without axes.

    Raises
    ------
    InputError
        Naming the tensor, unless its plan is a constant that the type holds exactly.
    """
    kind = np.dtype(dtype.name).newbyteorder("<")
    low, high = (0, 1) if kind.kind == "b" else (np.iinfo(kind).min, np.iinfo(kind).max)
    given = plan.distribution if isinstance(plan, Sampled) and plan.zeros is None else plan
    if isinstance(given, Constant):
        value = given.value
        # A float compares exactly with an integer, and with an infinity and a NaN too.
        if isinstance(value, float) and low <= value <= high and value == int(value):
            return np.array(int(value), kind)
    raise InputError(
        f"tensor {show(name)} is {dtype.name}, which is kept: its initializer must be a constant "
        f"integer from {low} to {high}, such as Zeros or Ones; got {show(given)}"
    )
