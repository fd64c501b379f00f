"""The steps of named tensors: made fewer where several amount to one, and given their words."""

import math
from collections.abc import Mapping
from typing import Any

import torch

from numinit.engines.spec import Sampled
from numinit.initializers import Initializer, Normal, TruncNormal, Uniform
from numinit.initializers.base import Distribution
from numinit.initializers.variance_scaling import TRUNCATED_STD, Spread
from numinit.torch.steps import (
    FILLED,
    Draw,
    Memory,
    Read,
    Replay,
    Step,
    Target,
    View,
    constant_step,
    initialized,
    walk,
)
from numinit.weights.keys import Key

SMALL = 1 << 16  # elements of a tensor whose values are looked at


def assigned(found: Mapping[str, tuple[Memory, View]]) -> dict[int, list[Step]]:
    """The steps of each memory that has a name, by its id; every step that draws has its `draw`."""
    owners: dict[int, str] = {}
    steps: dict[int, list[Step]] = {}
    draws: dict[str, int] = {}
    named = {id(memory) for memory, _ in found.values()}
    for name, (memory, view) in found.items():
        if id(memory) in owners:
            continue
        owners[id(memory)] = name
        own = memory.steps
        if (constant := _constant(own, memory, view)) is not None:
            own = [constant]
        elif id(own) not in memory.read_lists:  # else what read it must find the same steps
            own, shared = _inlined(memory, named)
            if not shared:
                own = _folded(own)
        steps[id(memory)] = own
        draws[name] = _number_fills(name, own, memory, view)
    for name, (memory, _) in found.items():
        own = steps[id(memory)]
        for step in walk(own, len(own)):
            if step.draws and step.draw is None:
                step.draw = Draw(name, draws[name])
                draws[name] += 1
    return steps


def _constant(steps: list[Step], memory: Memory, view: View) -> Step | None:
    """One fill that stands for the steps of a small tensor, if they make all elements equal."""
    if not steps or (len(steps) == 1 and steps[0].init is not None):
        return None
    if not 0 < view.numel <= SMALL or not memory.covers(view) or not steps[0].anew:
        return None
    if any(step.draws for step in walk(steps, len(steps))):
        return None
    if not initialized(steps, len(steps), view):
        return None
    values = Replay(Key(0)).value(Read(memory, steps, len(steps), view)).reshape(-1)
    same = values.view(torch.uint8).reshape(len(values), -1)
    return constant_step(view, values[0].item()) if bool((same == same[0]).all()) else None


def _number_fills(name: str, steps: list[Step], memory: Memory, view: View) -> int:
    """Give a tensor's own fills its words; returns the number of the next draw.

    Fills of different elements share a draw, because every element has words of its own. One that
    writes over others takes new words if the values before were read.
    """
    number = 0
    used: list[tuple[int, int, int]] = []  # of this draw: first and last element, and when
    read = sorted(count for known, count in memory.seen if known == id(memory.steps))
    for at, step in enumerate(steps):
        if not step.draws or step.draw is not None:
            continue
        place = step.view
        first = place.offset
        last = first + sum(s * (n - 1) for s, n in zip(place.stride, place.size, strict=True))
        start = first - view.offset if _addressed(step, view) else None
        own_words = start is None and place != view
        seen = any(first <= b and a <= last and any(i < r <= at for r in read) for a, b, i in used)
        if used and (own_words or seen):
            number, used = number + 1, []
        step.draw = Draw(name, number, start)
        used.append((first, last, at))
        if own_words:
            number, used = number + 1, []
    return number + bool(used)


def _addressed(step: Step, view: View) -> bool:
    """Whether a fill of some elements of a tensor takes the words that these have in the tensor."""
    place = step.view
    if step.init is None or place == view or place.offset < view.offset or not view.in_order():
        return False
    plan = step.init.plan(place.size, FILLED[place.dtype])
    return isinstance(plan, Sampled) and plan.zeros is None


def _inlined(memory: Memory, named: set[int]) -> tuple[list[Step], bool]:
    """The steps of a memory; if they begin with a copy of an unnamed one, that one's steps instead.

    Also returns whether something else has these steps too, and so the same words.
    """
    steps, shared = memory.steps, False
    while steps:
        head = steps[0]
        taken = _source(head, memory, named)
        if taken is None:
            break
        source, more = taken
        same = source.view.dtype == head.view.dtype
        alone = source.memory.readers == 1
        fills = source.steps[: source.count]
        if not same and not all(
            step.init is not None and step.view.dtype in FILLED for step in fills
        ):
            break
        if not alone and any(step.draws for step in fills):
            if not same or more:
                break
            shared = True
        if not same:
            fills = [Step(step.view._replace(dtype=head.view.dtype), step.init) for step in fills]
        steps = [*fills, *more, *steps[1:]]
    return steps, shared


def _source(head: Step, memory: Memory, named: set[int]) -> tuple[Read, list[Step]] | None:
    """What a first step copies or scales, if nothing else needs it, and what it does to that."""
    if head.op is None or not memory.covers(head.view) or not head.view.in_order():
        return None
    numbers: list[Any] = []
    if head.name == "copy_" and len(head.args) > 1:
        source = head.args[1]
    elif head.name in ("clone", "_to_copy") and head.output == 0:
        source = head.args[0]
    elif head.name in _AFFINE and head.output == 0 and not head.kwargs:
        source, *numbers = head.args
        if not all(isinstance(number, int | float) for number in numbers):
            return None
    else:
        return None
    if (
        not isinstance(source, Read)
        or id(source.memory) in named
        or source.steps is not source.memory.steps
        or source.count != len(source.steps)
        or source.view.size != head.view.size
        or not source.memory.covers(source.view)
        or not source.view.in_order()
        or not source.steps
        or source.view.dtype not in FILLED
        or head.view.dtype not in FILLED
    ):
        return None
    if head.name not in _AFFINE:
        return source, []
    if source.view.dtype != head.view.dtype:
        return None
    in_place = getattr(torch.ops.aten, head.name + "_", None)
    if in_place is None:
        return None
    op = getattr(in_place, head.op._overloadname)  # type: ignore[attr-defined]
    return source, [Step(head.view, None, op, (Target(head.view), *numbers))]


#: Operations by a number: the factor and the summand that they mean.
_AFFINE: dict[str, Any] = {
    "mul": lambda number: (number, 0.0),
    "div": lambda number: (1.0 / number, 0.0),
    "add": lambda number: (1.0, number),
    "sub": lambda number: (1.0, -number),
    "neg": lambda: (-1.0, 0.0),
}


def _folded(steps: list[Step]) -> list[Step]:
    """The steps, with numbers that scale or shift a random fill made a part of it."""
    made: list[Step] = []
    for step in steps:
        before = made[-1] if made else None
        init = None
        if before is not None and before.init is not None and before.view == step.view:
            init = _scaled(before, step)
        if init is None:
            made.append(step)
        else:
            made[-1] = Step(step.view, init)
    return made if len(made) < len(steps) else steps


def _scaled(before: Step, step: Step) -> Initializer | None:
    """The initializer of a fill that a number then scales or shifts, if there is one."""
    name = step.name.removesuffix("_")
    if name not in _AFFINE or step.kwargs or not before.draws or step.init is not None:
        return None
    place, *numbers = step.args
    if not isinstance(place, Target) or not all(isinstance(n, int | float) for n in numbers):
        return None
    assert before.init is not None
    plan = before.init.plan(before.view.size, FILLED[before.view.dtype])
    if not isinstance(plan, Sampled) or plan.zeros is not None:
        return None
    try:
        return _affine(plan.distribution, *_AFFINE[name](*numbers))
    except (ArithmeticError, TypeError, ValueError):
        return None


def _affine(distribution: Any, factor: float, shift: float) -> Distribution | None:
    """The distribution of ``factor * x + shift``."""
    if isinstance(distribution, Spread):
        std = distribution.std
        if distribution.distribution == "uniform":
            distribution = Uniform(-math.sqrt(3.0) * std, math.sqrt(3.0) * std)
        else:
            std /= TRUNCATED_STD
            distribution = TruncNormal(0.0, std, -2.0 * std, 2.0 * std)
    if not (math.isfinite(factor) and math.isfinite(shift) and factor):
        return None
    if isinstance(distribution, Normal):
        return Normal(distribution.mean * factor + shift, distribution.std * abs(factor))
    if isinstance(distribution, Uniform | TruncNormal):
        low, high = (
            (distribution.low, distribution.high)
            if isinstance(distribution, Uniform)
            else (distribution.a, distribution.b)
        )
        bounds = sorted((low * factor + shift, high * factor + shift))
        if isinstance(distribution, Uniform):
            return Uniform(*bounds)
        mean = distribution.mean * factor + shift
        return TruncNormal(mean, distribution.std * abs(factor), *bounds)
    return None
