"""Fans: how many inputs and outputs one unit of a layer has, from the shape of its weight."""

import math
import numbers
import operator
from collections.abc import Iterable, Sequence
from typing import Any

Axes = int | Sequence[int]

MODES = ("fan_in", "fan_out", "fan_avg", "fan_geo_avg")


def as_shape(shape: Any, name: str = "shape") -> tuple[int, ...]:
    """A shape as a tuple of non-negative integers whose product is below 2**63.

    Raises
    ------
    TypeError, ValueError
        Naming the argument `name`.
    """
    try:
        dims = shape if isinstance(shape, Iterable) else (shape,)
        result = tuple(operator.index(d) for d in dims)
    except TypeError:
        raise TypeError(
            f"{name}: {shape!r} was given; a sequence of integers is accepted"
        ) from None
    if any(d < 0 for d in result):
        raise ValueError(f"{name}: {shape!r} has a negative number")
    if math.prod(d for d in result if d) >= 1 << 63:
        raise ValueError(f"{name}: {shape!r} has 2**63 elements or more")
    return result


def fans(
    shape: Sequence[int],
    in_axis: Axes = 1,
    out_axis: Axes = 0,
    batch_axis: Axes = (),
    groups: int = 1,
) -> tuple[float, float]:
    """(fan_in, fan_out) of a weight.

    Parameters
    ----------
    shape : sequence of int
        The logical shape of the whole weight, never of a shard.
    in_axis, out_axis, batch_axis : int or sequence of int, optional
        Axes of inputs, of outputs, and of independent weights stacked in one array. All others
        are the receptive field, which multiplies both. The default is torch's layout
        (out, in, *kernel); JAX and Keras have ``in_axis=-2, out_axis=-1``.
    groups : int, optional
        Groups of a grouped convolution whose output axis holds all groups: fan_out counts the
        outputs of one. (Its input axis holds one group's inputs already.)

    Raises
    ------
    ValueError
        If the shape lacks an axis, an axis is named twice, or `groups` does not divide fan_out.
    """
    shape = as_shape(shape)
    rank = len(shape)
    given = {"in_axis": in_axis, "out_axis": out_axis, "batch_axis": batch_axis}
    if rank < 2 and in_axis == 1 and out_axis == 0:
        raise ValueError(
            "Fan in and fan out can not be computed for tensor with fewer than 2 dimensions: "
            f"shape {shape} was given; pass in_axis and out_axis to say what its axes are"
        )
    owner: dict[int, str] = {}
    for name, axes in given.items():
        for axis in as_axes(name, axes):
            if not -rank <= axis < rank:
                raise ValueError(f"{name}: axis {axis} is out of range for shape {shape}")
            if axis % rank in owner:
                raise ValueError(
                    f"{name}: axis {axis} of shape {shape} is also in {owner[axis % rank]}"
                )
            owner[axis % rank] = name
    check_groups(groups)
    field = math.prod(size for axis, size in enumerate(shape) if axis not in owner)
    fan_in = field * math.prod(shape[a] for a, name in owner.items() if name == "in_axis")
    fan_out = field * math.prod(shape[a] for a, name in owner.items() if name == "out_axis")
    if fan_out % groups:
        raise ValueError(f"groups: {groups} does not divide the fan_out {fan_out} of shape {shape}")
    return fan_in, fan_out // groups


def as_axes(name: str, axes: Any) -> tuple[int, ...]:
    """Axes as a tuple of integers; a TypeError names the argument `name`."""
    try:
        return tuple(map(operator.index, axes if isinstance(axes, Iterable) else (axes,)))
    except TypeError:
        raise TypeError(
            f"{name}: {axes!r} was given; an integer or a sequence of them is accepted"
        ) from None


def check_groups(groups: Any) -> None:
    """Refuse what is not a number of groups."""
    integral = isinstance(groups, numbers.Integral)
    if not integral or groups < 1:
        kind = ValueError if integral else TypeError
        raise kind(f"groups: {groups!r} was given; an integer of at least 1 is accepted")


def fan(mode: str, fan_in: float, fan_out: float) -> float:
    """The fan that `mode` (one of `MODES`) selects; fan_geo_avg is the geometric mean."""
    if mode == "fan_in":
        return fan_in
    if mode == "fan_out":
        return fan_out
    if mode == "fan_avg":
        return (fan_in + fan_out) / 2
    if mode == "fan_geo_avg":
        return math.sqrt(fan_in * fan_out)
    raise ValueError(f"mode: {mode!r} is not supported, please use one of {list(MODES)}")
