"""Fans: the numbers of inputs and outputs of one unit of a layer, from the shape of its weight."""

import math
from collections.abc import Sequence
from typing import Any

from numinit.show import show
from numinit.weights.shapes import Axes, as_axes, as_shape, check_count

MODES = ("fan_in", "fan_out", "fan_avg", "fan_geo_avg")


def fans(
    shape: Sequence[int],
    in_axis: Axes = 1,
    out_axis: Axes = 0,
    batch_axis: Axes = (),
    groups: int = 1,
    packed: int = 1,
    transposed: bool = False,
) -> tuple[float, float]:
    """Return the fans of a weight.

    fan_in is the number of inputs that one output sums; fan_out is the number of outputs that one
    input is added to.

    Parameters
    ----------
    shape : sequence of int
        The logical shape of the whole weight, not of a shard.
    in_axis, out_axis, batch_axis : int or sequence of int, optional
        The axes of inputs, of outputs, and of independent weights stacked in one array. All other
        axes are the receptive field, whose size is a factor of both fans. The default is torch's
        layout (out, in, *kernel); JAX and Keras have ``in_axis=-2, out_axis=-1``.
    groups : int, optional
        The groups of a grouped convolution. Its output axis has the outputs of all groups, and
        fan_out counts those of one. Its input axis has the inputs of one group.
    packed : int, optional
        The number of weights packed along the output axis, such as 3 for query, key and value.
        fan_out counts the outputs of one.
    transposed : bool, optional
        True for a transposed convolution in torch's layout, (in, out / groups, *kernel). The two
        default axes are exchanged. The input axis has the inputs of all groups, and fan_in counts
        those of one.

    Returns
    -------
    fan_in, fan_out : float

    Raises
    ------
    TypeError
        If an argument is no integer or sequence of integers.
    ValueError
        If the shape lacks an axis, an axis is named twice, or `groups` or `packed` does not divide
        the number that it should divide.

    Notes
    -----
    The arguments for each kind of weight, torch's if no other framework is named:

    ====================================== ==========================================
    ``nn.Linear``, ``nn.Conv*d``           nothing
    grouped, depthwise (out, in / g, *k)   ``groups=g``
    ``nn.ConvTranspose*d``                 ``transposed=True, groups=g``
    packed QKV (3 d, d)                    ``packed=3``
    stacked experts (e, out, in)           ``batch_axis=0, in_axis=2, out_axis=1``
    JAX and Keras (*k, in / g, out)        ``in_axis=-2, out_axis=-1, groups=g``
    Keras depthwise (*k, in, multiplier)   ``in_axis=(), out_axis=-1, batch_axis=-2``
    Keras transposed (*k, out, in)         ``in_axis=-1, out_axis=-2``
    heads (d, h, d / h), JAX               ``in_axis=0, out_axis=(1, 2)``
    embedding (rows, d): one row a look-up ``in_axis=(), out_axis=1, batch_axis=0``
    ====================================== ==========================================

    Examples
    --------
    >>> ni.fans((64, 32, 3, 3))
    (288, 576)
    >>> ni.fans((3, 3, 32, 64), in_axis=-2, out_axis=-1)
    (288, 576)
    """
    shape = as_shape(shape)
    rank = len(shape)
    if in_axis == 1 and out_axis == 0:
        if rank < 2:
            refused = ValueError(
                "Fan in and fan out can not be computed for tensor with fewer than 2 dimensions: "
                f"shape {shape} was given"
            )
            refused.add_note("in_axis and out_axis say what the axes of another weight are")
            raise refused
        if transposed:
            in_axis, out_axis = 0, 1
    given = {"in_axis": in_axis, "out_axis": out_axis, "batch_axis": batch_axis}
    owner: dict[int, str] = {}
    for name, axes in given.items():
        for axis in as_axes(name, axes):
            if not -rank <= axis < rank:
                raise ValueError(f"{name}: axis {show(axis)} is out of range for shape {shape}")
            if axis % rank in owner:
                raise ValueError(
                    f"{name}: axis {axis} of shape {shape} is also in {owner[axis % rank]}"
                )
            owner[axis % rank] = name
    check_count("groups", groups)
    check_count("packed", packed)
    inputs = math.prod(shape[a] for a, name in owner.items() if name == "in_axis")
    outputs = math.prod(shape[a] for a, name in owner.items() if name == "out_axis")
    field = math.prod(size for axis, size in enumerate(shape) if axis not in owner)
    if transposed:
        inputs = _divided(inputs, "groups", groups, f"{inputs} inputs of shape {shape}")
    else:
        outputs = _divided(outputs, "groups", groups, f"{outputs} outputs of shape {shape}")
    outputs = _divided(outputs, "packed", packed, f"{outputs} outputs of shape {shape}")
    return field * inputs, field * outputs


def _divided(count: int, name: str, divisor: int, what: str) -> int:
    if count % divisor:
        raise ValueError(f"{name}: {show(divisor)} does not divide the {what}")
    return count // divisor


def fan(mode: str, fan_in: float, fan_out: float) -> float:
    """Return the fan that `mode` (one of `MODES`) selects; fan_geo_avg is the geometric mean."""
    if mode == "fan_in":
        return fan_in
    if mode == "fan_out":
        return fan_out
    if mode == "fan_avg":
        return (fan_in + fan_out) / 2
    if mode == "fan_geo_avg":
        return math.sqrt(fan_in * fan_out)
    raise ValueError(f"mode: {show(mode)} is not supported, please use one of {list(MODES)}")


def _calculate_fan_in_and_fan_out(tensor: Any) -> tuple[int, int]:
    """Return the fans of a tensor in torch's layout; programs for torch use this name."""
    fan_in, fan_out = fans(tensor.shape)
    return int(fan_in), int(fan_out)


def _calculate_correct_fan(tensor: Any, mode: str) -> int:
    """Return the fan that `mode` names, fan_in or fan_out in upper or lower case, as in torch."""
    mode = mode.lower()
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"Mode {mode} not supported, please use one of ['fan_in', 'fan_out']")
    return _calculate_fan_in_and_fan_out(tensor)[mode == "fan_out"]
