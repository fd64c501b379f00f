"""Wrappers: initializers that change another one's plan.

They nest: ``Padded(DepthScaled(Normal(std=0.02), layers=12), padding_idx=0)``.
"""

import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from numinit.engines.spec import Joined, Part, Plan, Sampled
from numinit.engines.zeros import RANGE, Zeros
from numinit.initializers.base import Initializer
from numinit.initializers.distributions import Constant, real
from numinit.show import show
from numinit.stream.dtypes import DType
from numinit.weights.shapes import Axes, as_axes, as_shape

MAX_PARTS = 1024  # of one weight, along one axis

Role = Literal["input", "bias", "hidden", "output", "plain_output"]

#: For each role in muP: the power of the width multiplier that divides the standard deviation.
ROLES: dict[str, float] = {
    "input": 0.0,
    "bias": 0.0,
    "hidden": 0.5,
    "output": 0.0,
    "plain_output": 1.0,
}


@dataclass(frozen=True)
class Wrapper(Initializer):
    """The base of initializers that change the plan of another one, `init`."""

    init: Initializer

    def __post_init__(self) -> None:
        if not isinstance(self.init, Initializer):
            raise TypeError(
                f"init: {show(self.init)} was given; an initializer such as Normal(std=0.02) is accepted"
            )


@dataclass(frozen=True)
class DepthScaled(Wrapper):
    """Another initializer with its standard deviation divided by ``sqrt(2 layers)``.

    It is for weights whose outputs are added to the residual stream. Each layer has two of them, in
    attention and in the MLP. The division keeps the stream's variance from growing with depth.
    Radford et al., "Language models are unsupervised multitask learners", 2019, section 2.3;
    Shoeybi et al., "Megatron-LM", arXiv:1909.08053, section 4 ("scaled_init_method_normal").

    Parameters
    ----------
    init : Initializer
        The initializer of a layer that is not scaled. Its mean is kept.
    layers : int
        The number of residual layers of the model.

    Raises
    ------
    TypeError
        If `init` is no initializer, or `layers` is no integer.
    ValueError
        If `layers` is below 1, or `init` has no standard deviation, such as a constant.

    Examples
    --------
    >>> from numinit.stream.dtypes import DTYPES
    >>> ni.DepthScaled(ni.Normal(std=0.02), layers=8).plan((4, 4), DTYPES["float32"])
    Sampled(distribution=Normal(mean=0.0, std=0.005), zeros=None)
    """

    layers: int

    def __post_init__(self) -> None:
        super().__post_init__()
        _needs_spread(self.init)
        if _set_integer(self, "layers") < 1:
            raise ValueError(f"layers: {show(self.layers)} was given; at least 1 is accepted")
        real("layers", 2 * self.layers)

    def plan(self, shape: tuple[int, ...], dtype: DType) -> Plan:
        return self.init.plan(shape, dtype).divided(math.sqrt(2 * self.layers))


@dataclass(frozen=True)
class MuP(Wrapper):
    """The maximal update parametrization: a base model's initializer, scaled to another width.

    `init` is evaluated at the shape that the weight has in the base model; s is the standard
    deviation there. m is the width multiplier, fan_in / (fan_in in the base model).

    ============== ===================================== ============================
    role           weights                               standard deviation
    ============== ===================================== ============================
    "input"        from a fixed size to a width          s
    "bias"         biases, and gains of norms            s
    "hidden"       from a width to a width               s / sqrt(m)
    "output"       from a width to a fixed size, where   s
                   the network multiplies outputs by 1/m
    "plain_output" the same without that multiplier      s / m
    ============== ===================================== ============================

    Yang et al., "Tensor Programs V: tuning large neural networks via zero-shot hyperparameter
    transfer", arXiv:2203.03466: Table 8 (init. var. 1/fan_in, 1/fan_in and 1 of input, hidden and
    output weights, the last with multiplier 1/fan_in), and Table 3 for "plain_output" (1/fan_in**2,
    no multiplier). The same tables have the learning rates. The package mup has the same standard
    deviations in `mup.init`, and the multiplier of "output" in its layer MuReadout.

    An initializer that uses fans is not scaled twice, because `init` only sees the base shape:
    ``MuP(KaimingNormal(), "hidden", base)`` has the standard deviation of ``KaimingNormal()`` at
    every width.

    Parameters
    ----------
    init : Initializer
        The base model's initializer. A mean other than 0 is kept; mup refuses one for "hidden".
    role : {"input", "bias", "hidden", "output", "plain_output"}
        The kind of weight, from the table.
    base_shape : sequence of int
        The weight's shape in the base model. The axes whose sizes differ are widths.
    in_axis : int or sequence of int, optional
        The axes of inputs, whose sizes give m in the role "hidden". If left out, they are those of
        `init`; if `init` has none, all widths must differ by the same factor.

    Raises
    ------
    TypeError
        If `init` is no initializer, or a shape or an axis is no integer.
    ValueError
        If `base_shape` and the weight's shape do not fit each other or the role, or `init` has no
        standard deviation, or has zeros whose places depend on the shape.

    Examples
    --------
    >>> hidden = ni.MuP(ni.Normal(std=0.02), "hidden", base_shape=(256, 256))
    >>> from numinit.stream.dtypes import DTYPES
    >>> [hidden.plan((n, n), DTYPES["float32"]).distribution for n in (256, 1024)]
    [Normal(mean=0.0, std=0.02), Normal(mean=0.0, std=0.01)]
    """

    role: Role
    base_shape: Sequence[int]
    in_axis: Axes | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.role, str) or self.role not in ROLES:
            raise ValueError(
                f"role: {show(self.role)} was given; one of {', '.join(ROLES)} is accepted"
            )
        if ROLES[self.role]:
            _needs_spread(self.init)
        base = as_shape(self.base_shape, "base_shape")
        if 0 in base:
            raise ValueError(f"base_shape: {base} was given; sizes of at least 1 are accepted")
        object.__setattr__(self, "base_shape", base)
        if self.in_axis is not None:
            axes = as_axes("in_axis", given := self.in_axis)
            if isinstance(given, Iterable):  # a list, as from TOML, has no hash
                object.__setattr__(self, "in_axis", axes)

    def plan(self, shape: tuple[int, ...], dtype: DType) -> Plan:
        plan = self.init.plan(tuple(self.base_shape), dtype)
        if hasattr(plan, "parts"):
            raise ValueError(
                f"init: {show(self.init)} was given, whose parts have fans of their own; it is accepted "
                "around MuP, not in it"
            )
        if not isinstance(plan, Sampled):
            plan = self.init.plan(shape, dtype)  # such values follow from this shape
        elif plan.zeros is not None:
            raise ValueError(
                f"init: {show(self.init)} was given; its zeros have their places in the base shape. "
                "Padded(MuP(...)) is accepted, and what has no zeros of its own"
            )
        multiplier = self._multiplier(shape)
        power = ROLES[self.role]
        if power == 0 or multiplier == 0:  # 0 for a weight without elements
            return plan
        return plan.divided(multiplier if power == 1 else math.sqrt(multiplier))

    def _multiplier(self, shape: tuple[int, ...]) -> float:
        """Return the width divided by that in the base model, or 1 for a role that ignores it."""
        base = self.base_shape
        if len(shape) != len(base):
            raise ValueError(
                f"base_shape: {base} was given for shape {shape}; as many axes are accepted"
            )
        if self.role == "bias":
            return 1.0
        ratios = [size / size0 for size, size0 in zip(shape, base, strict=True) if size != size0]
        if self.role != "hidden":
            if len(ratios) > 1:
                raise ValueError(
                    f"base_shape: {base} and shape {shape} differ along {len(ratios)} axes; "
                    f'the role "{self.role}" has one width, and "hidden" has two'
                )
            return ratios[0] if ratios else 1.0
        in_axis = self._inputs()
        if in_axis is None:
            if ratios and (len(ratios) == 1 or len(set(ratios)) > 1):
                raise ValueError(
                    f"in_axis: needed to tell inputs from outputs, for base_shape {base} and "
                    f"shape {shape} do not differ by one factor along both"
                )
            return ratios[0] if ratios else 1.0
        axes = as_axes("in_axis", in_axis)
        for axis in axes:
            if not -len(shape) <= axis < len(shape):
                raise ValueError(f"in_axis: axis {show(axis)} is out of range for shape {shape}")
        return math.prod(shape[axis] for axis in axes) / math.prod(base[axis] for axis in axes)

    def _inputs(self) -> Axes | None:
        init = self.init
        while isinstance(init, Wrapper):
            init = init.init
        return getattr(init, "in_axis", None) if self.in_axis is None else self.in_axis


@dataclass(frozen=True)
class Padded(Wrapper):
    """Another initializer with rows of zeros, such as the padding row of an embedding.

    ``torch.nn.Embedding(num_embeddings, embedding_dim, padding_idx)`` has such a row. All other
    rows have the values, to the bit, that they have without padding.

    Parameters
    ----------
    init : Initializer
        The initializer of the other rows. Its plans must be `Sampled`, without zeros of its own
        (`Sparse` has some).
    padding_idx : int or sequence of int
        The rows. A negative number counts from the end.
    axis : int
        The axis of the rows: 1 in a stack of tables, each of which then has these rows of zeros.

    Raises
    ------
    TypeError
        If `init` is no initializer, or `padding_idx` or `axis` is no integer.
    ValueError
        If the weight has no such row, or `init` cannot be padded.

    Examples
    --------
    >>> ni.Padded(ni.Ones(), padding_idx=-1)((3, 2), seed=0)
    array([[1., 1.],
           [1., 1.],
           [0., 0.]], dtype=float32)
    """

    padding_idx: int | Sequence[int]
    axis: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.padding_idx, Iterable) and not isinstance(self.padding_idx, str):
            object.__setattr__(self, "padding_idx", as_axes("padding_idx", self.padding_idx))
            if not 0 < len(self._rows()) <= MAX_PARTS:
                raise ValueError(
                    f"padding_idx: {len(self._rows())} rows were given; 1 to {MAX_PARTS} are accepted"
                )
        else:
            _set_integer(self, "padding_idx")
        _set_integer(self, "axis")

    def _rows(self) -> tuple[int, ...]:
        rows = self.padding_idx
        return (rows,) if isinstance(rows, int) else tuple(rows)

    def plan(self, shape: tuple[int, ...], dtype: DType) -> Plan:
        axis, rank = self.axis, len(shape)
        if not -rank <= axis < rank and (axis or shape):
            raise ValueError(f"axis: {show(axis)} was given; shape {shape} has {rank} axes")
        count = shape[axis] if shape else 0
        for row in self._rows():
            if not -count <= row < count:
                rows = f"{count} rows" if shape else "no rows"
                raise ValueError(f"padding_idx: {show(row)} was given; shape {shape} has {rows}")
        plan = self.init.plan(shape, dtype)
        if not isinstance(plan, Sampled) or plan.zeros is not None:
            raise ValueError(
                f"init: {show(self.init)} was given; an initializer that makes each element alone and "
                "has no zeros of its own is accepted for a padded weight"
            )
        padding = sorted({row % count for row in self._rows()})
        if len(padding) == 1 and axis % rank == 0:
            size = math.prod(shape[1:])
            first = padding[0] * size
            return replace(plan, zeros=Zeros(RANGE, RANGE.Parameters(first, first + size)))
        cleared = replace(plan, zeros=Zeros(RANGE, RANGE.Parameters(0, math.prod(shape))))
        parts, done = [], 0
        for row in [*padding, count]:
            if row > done:
                parts.append(Part(done, 1, row - done, plan, shape, done, None))
            if row < count:
                parts.append(Part(row, 1, 1, cleared, shape, row, None))
            done = row + 1
        return Joined("Padded", axis % rank, tuple(parts))


@dataclass(frozen=True)
class AtShape(Wrapper):
    """Another initializer's distribution, with the fans of a fixed shape.

    An example is a bias whose standard deviation follows from the fans of its layer's weight.

    Parameters
    ----------
    init : Initializer
    shape : sequence of int
        The shape that `init` sees.

    Raises
    ------
    ValueError
        If `init` has zeros, because their places depend on the shape.
    """

    shape: Sequence[int]

    def plan(self, shape: tuple[int, ...], dtype: DType) -> Plan:
        plan = self.init.plan(tuple(self.shape), dtype)
        if hasattr(plan, "parts"):
            raise ValueError("fans_of: the parts have fans of their own")
        if not isinstance(plan, Sampled):
            return self.init.plan(shape, dtype)
        if plan.zeros is not None:
            raise ValueError("fans_of: the zeros would have their places in another shape")
        return plan


def _needs_spread(init: Initializer) -> None:
    """Refuse a constant here, before a shape is known."""
    if isinstance(init, Constant):
        init.divided(1.0)


def _set_integer(initializer: Any, name: str) -> int:
    """Make a field of a frozen dataclass an int, whatever kind of integer was given."""
    value = getattr(initializer, name)
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: {show(value)} was given; an integer is accepted") from None
    object.__setattr__(initializer, name, number)
    return number
