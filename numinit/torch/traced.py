"""What a trace found: for each tensor of a module, what fills it."""

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch

from numinit.engines.layout import c_steps
from numinit.engines.spec import Plan, Sampled, Whole
from numinit.initializers import (
    Assign,
    Initializer,
    Padded,
    Zeros,
)
from numinit.models.integers import INTEGERS
from numinit.models.recipe import Recipe
from numinit.models.recipes import dump
from numinit.models.sources import TensorSpec
from numinit.stream.dtypes import DType
from numinit.torch.devices import filled
from numinit.torch.named import Named, is_dense
from numinit.torch.rules import describable, recipe_of
from numinit.torch.simplified import assigned
from numinit.torch.steps import (
    FILLED,
    Memory,
    Read,
    Replay,
    Step,
    View,
    fill,
    initialized,
    view_of,
    walk,
)
from numinit.weights.keys import Key, as_key
from numinit.weights.shapes import window_start

LARGEST_ASSIGNED = 1 << 20  # elements of a tensor that a recipe holds by value


@dataclass(frozen=True)
class Operation:
    """An operation that torch itself carries out on a tensor's memory.

    Attributes
    ----------
    name : str
        Its name in torch's ATen.
    """

    name: str


class Part(NamedTuple):
    """Some elements of a tensor, and what is done to them."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    what: Initializer | Operation


@dataclass(frozen=True, eq=False)
class Traced:
    """One tensor of a module: a parameter or a buffer, and what fills it.

    Attributes
    ----------
    name : str
        Its qualified name; of several, the first.
    shape : tuple of int
    dtype : torch.dtype
    buffer, persistent : bool
        Whether it is a buffer, and whether the module's ``state_dict`` has it.
    initializer : Initializer or None
        The whole tensor as one initializer. None if there is no such one; then `parts` tell more.
    parts : tuple of Part
        In the order in which they are done.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    buffer: bool
    persistent: bool
    initializer: Initializer | None
    parts: tuple[Part, ...]
    _steps: list[Step] = field(repr=False)
    _nbytes: int = field(repr=False)
    _view: View = field(repr=False)
    _stream: str | None = field(default=None, repr=False)

    @property
    def stream(self) -> str:
        """The name that the key is folded with: its own, or that of the tensor it is the same as."""
        return self.name if self._stream is None else self._stream

    @property
    def initialized(self) -> bool:
        """Whether every element is given a value."""
        if self.initializer is not None:
            return True
        return initialized(self._steps, len(self._steps), self._view)

    @property
    def random(self) -> bool:
        """Whether the values depend on the seed."""
        if self.initializer is not None:
            return self.initializer.has_spread
        return any(step.draws for step in walk(self._steps, len(self._steps)))

    def fill_(self, tensor: torch.Tensor, *, offset: Any = None, seed: Any) -> torch.Tensor:
        """Fill a tensor: the whole one, or a window of it.

        Parameters
        ----------
        tensor : torch.Tensor
            Of any layout and device, and of any type that holds the values.
        offset : sequence of int, optional
            Where the tensor begins in the whole one. If left out, it is the whole.
        seed : int or Key
            The module's; the values are drawn from ``as_key(seed).fold_in(name)``.

        Returns
        -------
        torch.Tensor
            The same object.

        Raises
        ------
        ValueError
            If the tensor is no window of the whole at `offset`. Nothing was touched.

        Examples
        --------
        >>> import torch
        >>> from numinit.torch import trace
        >>> traced = trace(lambda: torch.nn.Linear(3, 2)).tensors["weight"]
        >>> row = traced.fill_(torch.empty(1, 3), offset=(1, 0), seed=0)
        >>> bool((row == traced.fill_(torch.empty(2, 3), seed=0)[1:]).all())
        True
        """
        window_start(tuple(tensor.shape), self.shape, offset)  # refuses what is no window
        return self.replayed(tensor, Replay(key := as_key(seed)), key, offset)

    def replayed(
        self, tensor: torch.Tensor, replay: Replay, key: Key, offset: Any = None
    ) -> torch.Tensor:
        """Do the same with a `Replay` of the whole module, which keeps what it has made."""
        if self.initializer is not None and tensor.dtype in FILLED and self.dtype in FILLED:
            init, own = self.initializer, key.fold_in(self.stream)
            filled(
                tensor,
                (0,) * len(self.shape) if offset is None else tuple(offset),
                lambda part, at: init.fill_(part, shape=self.shape, offset=at, seed=own),
                init,
                self.shape,
            )
            if self._is_memory_of(tensor):
                replay.keep(self._steps, tensor.untyped_storage())
            return tensor
        if self._is_memory_of(tensor):
            storage = tensor.untyped_storage()
            replay.run(self._steps, len(self._steps), storage)
            replay.keep(self._steps, storage)
            return tensor
        return self._copied(tensor, replay, key, offset)

    def _is_memory_of(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor's memory is laid out as the recorded one."""
        return (
            tensor.device.type == "cpu"
            and view_of(tensor) == self._view
            and tensor.untyped_storage().nbytes() == self._nbytes
        )

    def _copied(self, tensor: torch.Tensor, replay: Replay, key: Key, offset: Any) -> torch.Tensor:
        """Fill by way of the whole tensor on the CPU."""
        values = self._whole(replay, key, tensor.dtype)
        if offset is not None or tuple(tensor.shape) != self.shape:
            start = (0,) * len(self.shape) if offset is None else tuple(offset)
            values = values[
                tuple(slice(o, o + n) for o, n in zip(start, tensor.shape, strict=True))
            ]
        with torch.no_grad():
            tensor.copy_(values)
        return tensor

    def _whole(self, replay: Replay, key: Key, dtype: torch.dtype) -> torch.Tensor:
        if self.initializer is not None:
            kind = dtype if dtype in FILLED else self.dtype
            values = torch.empty(self.shape, dtype=kind, device="cpu")
            fill(values, self.initializer, key.fold_in(self.stream))
            return values
        memory = Memory(None, self._nbytes)
        return replay.value(Read(memory, self._steps, len(self._steps), self._view))

    def as_initializer(self) -> Initializer | None:
        """The whole tensor as one initializer, whatever it takes; None if there is none.

        Constant values are an `Assign`; values that several operations make, an initializer that
        does them all for the whole tensor.
        """
        if self.initializer is not None or self.dtype not in FILLED or not self.initialized:
            return self.initializer
        steps = [*walk(self._steps, len(self._steps))]
        if not any(step.draws for step in steps):
            if math.prod(self.shape) > LARGEST_ASSIGNED:
                return None
            return Assign(self._whole(Replay(Key(0)), Key(0), self.dtype))
        if any(step.draws and (step.draw is None or step.draw.name != self.name) for step in steps):
            return None
        return Replayed(self)


@dataclass(frozen=True, eq=False, repr=False)
class Replayed(Initializer):
    """An initializer that replays what a module's code does to one tensor.

    Parameters
    ----------
    traced : Traced
    """

    traced: Traced

    def plan(self, shape: tuple[int, ...], dtype: DType) -> Plan:
        traced = self.traced
        if shape != traced.shape:
            raise ValueError(
                f"shape: {shape} was given; that of the tensor, {traced.shape}, is accepted"
            )
        return Whole("Replayed", self._make)

    def _make(
        self, dtype: str, seed: int, stream: int, place: np.ndarray | None, gain: float
    ) -> np.ndarray:
        traced, root = self.traced, Key(seed, stream)
        values = traced._whole(Replay(None, root, traced.name), root, traced.dtype)
        made: np.ndarray = values.to(getattr(torch, dtype)).numpy()
        return gain * made if gain != 1 else made

    def __repr__(self) -> str:
        return f"Replayed({self.traced.name!r})"


class Trace:
    """How a module initializes its tensors.

    Attributes
    ----------
    module : torch.nn.Module
        The module itself.
    tensors : dict of str to Traced
        By qualified name, in the order of ``state_dict``; a tensor of several names has the first.
    names : dict of str to str
        Every qualified name, and the first name of the same tensor.
    """

    def __init__(
        self, module: torch.nn.Module, named: Iterable[Named], memories: Mapping[int, Memory]
    ) -> None:
        self.module = module
        self.tensors: dict[str, Traced] = {}
        self.names: dict[str, str] = {}
        first: dict[Any, str] = {}
        found: dict[str, tuple[Named, Memory, View]] = {}
        for one in named:
            if not is_dense(one.tensor):  # it stays as the constructor made it
                self.names[one.name] = one.name
                continue
            storage, view = one.tensor.untyped_storage(), view_of(one.tensor)
            memory = memories.get(storage._cdata)
            if memory is None:
                memory = Memory(storage, storage.nbytes())
            same = id(one.tensor) if not view.numel else (id(memory.storage), view)
            self.names[one.name] = name = first.setdefault(same, one.name)
            if name == one.name:
                found[name] = one, memory, view
        owned = assigned({name: (memory, view) for name, (_, memory, view) in found.items()})
        for name, (one, memory, view) in found.items():
            steps = owned[id(memory)]
            self.tensors[name] = Traced(
                name, view.size, view.dtype, one.buffer, one.persistent,
                _single(name, steps, view), _parts(steps), steps, memory.nbytes, view,
            )  # fmt: skip

    @classmethod
    def of_recipe(
        cls,
        module: torch.nn.Module,
        initializers: Mapping[str, Initializer],
        named: Iterable[Named],
    ) -> "Trace":
        """A trace whose tensors have given initializers."""
        self = cls.__new__(cls)
        self.module, self.tensors, self.names = module, {}, {}
        first: dict[int, str] = {}
        for one in named:
            self.names[one.name] = name = first.setdefault(id(one.tensor), one.name)
            if name == one.name and name in initializers:
                shape = tuple(one.tensor.shape)
                view = View(one.tensor.dtype, shape, c_steps(shape), 0)
                init = initializers[name]
                part = Part(shape, view.stride, 0, init)
                self.tensors[name] = Traced(
                    name, shape, view.dtype, one.buffer, one.persistent, init, (part,),
                    [Step(view, init)], view.numel * view.dtype.itemsize, view,
                )  # fmt: skip
        return self

    @functools.cached_property
    def uninitialized(self) -> list[str]:
        """The names of tensors that the module's code leaves without values."""
        return [name for name, traced in self.tensors.items() if not traced.initialized]

    def specs(self) -> dict[str, TensorSpec]:
        """The names, shapes and types of the tensors that a file has, as `numinit.models` takes them.

        Buffers that the module's ``state_dict`` lacks, and further names of a tensor, are left out.

        Examples
        --------
        >>> import torch
        >>> from numinit.torch import trace
        >>> trace(lambda: torch.nn.Linear(3, 2, bias=False)).specs()
        {'weight': TensorSpec(shape=(2, 3), dtype='float32')}
        """
        return {
            name: TensorSpec(traced.shape, str(traced.dtype).removeprefix("torch."))
            for name, traced in self.tensors.items()
            if traced.persistent
        }

    def recipe(self) -> Recipe:
        """Return the recipe, for `numinit.init_params` and files.

        Returns
        -------
        Recipe
            With the `specs` and a seed it makes the values of `init_module`.

        Raises
        ------
        ValueError
            Listing the tensors that no initializer makes.

        Examples
        --------
        >>> import torch
        >>> from numinit.torch import init_module, trace
        >>> traced = trace(lambda: torch.nn.Linear(3, 2))
        >>> params = ni.init_params({"weight": (2, 3), "bias": (2,)}, traced.recipe(), seed=0)
        >>> module = init_module(torch.nn.Linear(3, 2), traced, seed=0)
        >>> bool((module.weight.detach().numpy() == params["weight"]).all())
        True
        """
        return recipe_of(type(self.module).__name__, self._said(True))

    def toml(self) -> str:
        """Return the recipe as TOML, for ``numinit init``.

        Returns
        -------
        str

        Raises
        ------
        ValueError
            Listing the tensors that TOML cannot describe, such as those that several operations
            make.

        Examples
        --------
        >>> import torch
        >>> from numinit.torch import trace
        >>> print(trace(lambda: torch.nn.Embedding(5, 3, padding_idx=0)).toml())
        name = "traced"
        source = "Embedding"
        <BLANKLINE>
        [[rules]]
        match = "weight"
        init = "Normal"
        padding_idx = 0
        <BLANKLINE>
        """
        return dump(recipe_of(type(self.module).__name__, self._said(False)))

    def _said(self, by_value: bool) -> dict[str, Initializer]:
        """The initializer of every tensor that a file has."""
        said: dict[str, Initializer] = {}
        lacking = []
        for name, traced in self.tensors.items():
            if traced.persistent:
                init = traced.as_initializer() if by_value else traced.initializer
                if init is not None and not (by_value or describable(init)):
                    init = None
                known = traced.dtype in FILLED or str(traced.dtype)[6:] in INTEGERS
                if init is None or not known:
                    lacking.append(name)
                else:
                    said[name] = init
        if lacking:
            what = "initializer makes" if by_value else "rule of TOML describes"
            raise ValueError(f"recipe: no {what} {len(lacking)} tensors: {', '.join(lacking)}")
        return said


def _parts(steps: list[Step]) -> tuple[Part, ...]:
    return tuple(
        Part(
            step.view.size, step.view.stride, step.view.offset,
            Operation(step.name) if step.init is None else step.init,
        )
        for step in steps
    )  # fmt: skip


def _single(name: str, steps: list[Step], view: View) -> Initializer | None:
    """The one initializer of a tensor, if its steps amount to one."""
    if not steps or steps[0].view != view or steps[0].init is None:
        return None
    init, draw = steps[0].init, steps[0].draw
    if draw is not None and (draw.name, draw.number) != (name, 0):
        return None  # the values of another tensor
    if len(steps) == 1:
        return init
    row = steps[1].view
    if len(steps) > 2 or not view.size or not isinstance(steps[1].init, Zeros):
        return None
    number, rest = divmod(row.offset - view.offset, view.stride[0] or 1)
    dtype = FILLED.get(view.dtype)
    if rest or dtype is None or (row.size, row.stride) != (view.size[1:], view.stride[1:]):
        return None
    plan = init.plan(view.size, dtype)
    if not isinstance(plan, Sampled) or plan.zeros is not None:
        return None
    return Padded(init, number)
