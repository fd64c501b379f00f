"""Wrappers: initializers that scale another one's spread, or keep a row at zero.

They nest: ``Padded(DepthScaled(Normal(std=0.02), layers=12), padding_idx=0)``.
"""

import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from numinit.engines.spec import Plan, Sampled
from numinit.engines.zeros import RANGE, Zeros
from numinit.initializers.base import Initializer
from numinit.initializers.distributions import Constant, real
from numinit.show import show
from numinit.stream.dtypes import DType
from numinit.weights.shapes import Axes, as_axes, as_shape

Role = Literal["input", "bias", "hidden", "output", "plain_output"]

#: role in muP: the power of the width multiplier that divides the standard deviation
ROLES: dict[str, float] = {
    "input": 0.0,
    "bias": 0.0,
    "hidden": 0.5,
    "output": 0.0,
    "plain_output": 1.0,
}


@dataclass(frozen=True)
class Wrapper(Initializer):
    """An initializer made from another one, `init`."""

    init: Initializer

    def __post_init__(self) -> None:
        if not isinstance(self.init, Initializer):
            raise TypeError(
                f"init: {show(self.init)} was given; an initializer such as Normal(std=0.02) is accepted"
            )


@dataclass(frozen=True)
class DepthScaled(Wrapper):
    """Standard deviation divided by ``sqrt(2 layers)``, the mean kept.

    For the weights whose outputs are added to the residual stream, of which each layer has two
    (attention and MLP), so that the stream's variance does not grow with depth: Radford et al.,
    "Language models are unsupervised multitask learners", 2019, section 2.3; Shoeybi et al.,
    "Megatron-LM", arXiv:1909.08053, section 4 ("scaled_init_method_normal").

    Parameters
    ----------
    init : Initializer
        Of a layer that is not scaled.
    layers : int
        How many residual layers the model has.

    Raises
    ------
    ValueError
        If `layers` is below 1, or `init` has no spread, as constants have none.

    Examples
    --------
    >>> import numinit as ni
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
    """The maximal update parametrization: a base model's initializer, carried to another width.

    `init` is evaluated at the shape that the weight has in the base model. With s the standard
    deviation found there and m the width multiplier, fan_in / (fan_in in the base model):

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
    no multiplier). The learning rates go with the table. These are the numbers of `mup.init` of
    the package mup, whose layer MuReadout has the multiplier of "output".

    Because `init` only ever sees the base shape, an initializer that looks at fans is not scaled
    twice: ``MuP(KaimingNormal(), "hidden", base)`` has the standard deviation of
    ``KaimingNormal()`` at every width.

    Parameters
    ----------
    init : Initializer
        What the base model uses. A mean other than 0 is kept; mup refuses one for "hidden".
    role : {"input", "bias", "hidden", "output", "plain_output"}
        What the weight connects.
    base_shape : sequence of int
        The weight's shape in the base model. Its axes that differ are widths.
    in_axis : int or sequence of int, optional
        The axes of inputs, whose sizes make m in the role "hidden"; those of `init` if left out.
        Where `init` has none either, all widths must have grown alike.

    Raises
    ------
    ValueError
        If `base_shape` and the weight's shape do not fit each other or the role, or `init` has no
        spread to scale, or zeros whose places depend on the shape.

    Examples
    --------
    >>> import numinit as ni
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
            if isinstance(given, Iterable):  # a list, as in TOML: fields are hashable
                object.__setattr__(self, "in_axis", axes)

    def plan(self, shape: tuple[int, ...], dtype: DType) -> Plan:
        plan = self.init.plan(tuple(self.base_shape), dtype)
        if not isinstance(plan, Sampled):
            plan = self.init.plan(shape, dtype)  # what it makes, it makes of this shape
        elif plan.zeros is not None:
            raise ValueError(
                f"init: {show(self.init)} was given; its zeros have their places in the base shape. "
                "Padded(MuP(...)) is accepted, and what has no zeros of its own"
            )
        multiplier = self._multiplier(shape)
        power = ROLES[self.role]
        if power == 0 or multiplier == 0:  # of a weight without elements
            return plan
        return plan.divided(multiplier if power == 1 else math.sqrt(multiplier))

    def _multiplier(self, shape: tuple[int, ...]) -> float:
        """How many times wider the weight is than in the base model; 1 where the role ignores it."""
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
    """One row kept at zero: the padding row of an embedding.

    Of ``torch.nn.Embedding(num_embeddings, embedding_dim, padding_idx)``, for example. All other
    rows have the values, to the bit, that they have without padding.

    Parameters
    ----------
    init : Initializer
        Of the other rows. It must make each element alone and clear none itself, as `Sparse` does.
    padding_idx : int
        The row (index of axis 0); a negative one counts from the end.

    Raises
    ------
    ValueError
        If the weight has no such row, or `init` cannot be padded.

    Examples
    --------
    >>> import numinit as ni
    >>> ni.Padded(ni.Ones(), padding_idx=-1)((3, 2), seed=0)
    array([[1., 1.],
           [1., 1.],
           [0., 0.]], dtype=float32)
    """

    padding_idx: int

    def __post_init__(self) -> None:
        super().__post_init__()
        _set_integer(self, "padding_idx")

    def plan(self, shape: tuple[int, ...], dtype: DType) -> Plan:
        row = self.padding_idx
        if not shape or not -shape[0] <= row < shape[0]:
            rows = f"{shape[0]} rows" if shape else "no rows"
            raise ValueError(f"padding_idx: {show(row)} was given; shape {shape} has {rows}")
        plan = self.init.plan(shape, dtype)
        if not isinstance(plan, Sampled) or plan.zeros is not None:
            raise ValueError(
                f"init: {show(self.init)} was given; an initializer that makes each element alone and "
                "has no zeros of its own is accepted for a padded weight"
            )
        size = math.prod(shape[1:])
        first = row % shape[0] * size
        return replace(plan, zeros=Zeros(RANGE, RANGE.Parameters(first, first + size)))


@dataclass(frozen=True)
class AtShape(Wrapper):
    """Another initializer's distribution, for the fans of another shape.

    Of a bias whose spread follows from the fans of the weight beside it, for example.

    Parameters
    ----------
    init : Initializer
    shape : sequence of int
        The shape that `init` sees.

    Raises
    ------
    ValueError
        If `init` has values that belong to one shape.
    """

    shape: Sequence[int]

    def plan(self, shape: tuple[int, ...], dtype: DType) -> Plan:
        plan = self.init.plan(tuple(self.shape), dtype)
        if not isinstance(plan, Sampled):
            return self.init.plan(shape, dtype)
        if plan.zeros is not None:
            raise ValueError("fans_of: the zeros would have their places in another shape")
        return plan


def _needs_spread(init: Initializer) -> None:
    """Refuse a constant at once, not when a shape is known."""
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
