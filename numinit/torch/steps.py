"""What was done to the memory of tensors, step by step, and how to do it again on real memory.

A recorded tensor has no memory. Its storage has a `Memory` here, with the steps that wrote into it: a
fill by an initializer, or an operation of torch. An operation that makes a new tensor is the first
step of that tensor's memory. Views are not recorded: every step says which elements it reads and
writes, by size, strides and offset.
"""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch

from numinit.arrays.torch import FRAMEWORK
from numinit.engines.layout import c_steps
from numinit.engines.spec import Plan, Sampled
from numinit.initializers import Assign, Constant, Initializer, Ones, Zeros
from numinit.initializers.base import Planned
from numinit.stream.dtypes import DTYPES, DType
from numinit.weights.keys import Key

#: torch's element types that initializers fill.
FILLED: dict[torch.dtype, DType] = {
    getattr(torch, name): dtype for name, dtype in DTYPES.items() if hasattr(torch, name)
}

LARGEST_INTEGER = 1 << 53  # a `Constant` holds every integer up to this one
#: Operations that write without reading what was there.
ANEW = {
    *("copy_", "zero_", "fill_", "uniform_", "normal_", "random_", "exponential_", "bernoulli_"),
    *("cauchy_", "geometric_", "log_normal_"),
}


class View(NamedTuple):
    """Some elements of a memory."""

    dtype: torch.dtype
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    @property
    def numel(self) -> int:
        return math.prod(self.size)

    def of(self, storage: torch.UntypedStorage) -> torch.Tensor:
        """The tensor that has these elements of a storage."""
        empty = torch.empty(0, dtype=self.dtype, device=storage.device)
        return empty.set_(storage, self.offset, self.size, self.stride)

    def is_dense(self) -> bool:
        """Whether it has every element from its first to its last once."""
        expected = 1
        for stride, size in sorted(zip(self.stride, self.size, strict=True)):
            if size != 1:
                if stride != expected:
                    return False
                expected *= size
        return True

    def in_order(self) -> bool:
        """Whether it is dense, with its elements in C order."""
        pairs = zip(self.size, self.stride, c_steps(self.size), strict=True)
        return all(size == 1 or stride == step for size, stride, step in pairs)

    def runs(self) -> tuple[np.ndarray, np.ndarray]:
        """Where runs of its bytes begin and end, in the order of memory."""
        if not self.numel:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        starts, length = np.array([self.offset]), 1
        for stride, size in sorted(zip(self.stride, self.size, strict=True)):
            if size == 1 or stride == 0:
                continue
            if stride == length and len(starts) == 1:
                length *= size
            else:
                starts = (stride * np.arange(size)[:, None] + starts).reshape(-1)
        starts = np.sort(starts) * self.dtype.itemsize
        return starts, starts + length * self.dtype.itemsize

    def is_within(self, views: "list[View]") -> bool:
        """Whether each of its elements is an element of one of these views."""
        if not self.numel or self in views:
            return True
        if not views:
            return False
        starts, ends = (
            np.concatenate(each) for each in zip(*(v.runs() for v in views), strict=True)
        )
        order = np.argsort(starts, kind="stable")
        starts, ends = starts[order], np.maximum.accumulate(ends[order])
        if not len(starts):
            return False
        apart = np.flatnonzero(starts[1:] > ends[:-1])  # the runs before a gap
        begins, stops = starts[np.r_[0, apart + 1]], ends[np.r_[apart, len(ends) - 1]]
        first, last = self.runs()
        found = np.searchsorted(begins, first, "right") - 1
        return bool(((found >= 0) & (stops[found] >= last)).all())


def view_of(tensor: torch.Tensor) -> View:
    """Where a tensor's elements are in its storage."""
    return View(tensor.dtype, tuple(tensor.shape), tuple(tensor.stride()), tensor.storage_offset())


def leaves(tree: Any) -> Iterator[Any]:
    """What is in nested lists, tuples and dicts; torch's pytrees take several times as long."""
    if isinstance(tree, list | tuple):
        for one in tree:
            yield from leaves(one)
    elif isinstance(tree, dict):
        for one in tree.values():
            yield from leaves(one)
    else:
        yield tree


def mapped(kinds: Any, function: Callable[[Any], Any], tree: Any) -> Any:
    """The same nested lists, tuples and dicts, with each object of some types replaced."""
    if isinstance(tree, kinds):
        return function(tree)
    if isinstance(tree, list | tuple):
        return type(tree)([mapped(kinds, function, one) for one in tree])
    if isinstance(tree, dict):
        return {key: mapped(kinds, function, one) for key, one in tree.items()}
    return tree


@dataclass(eq=False, slots=True)
class Memory:
    """A storage: its size, and what was written into it.

    `steps` is replaced, not emptied, when all elements are written anew: what read the memory
    before then keeps the list that it saw.
    """

    storage: Any  # keeps the storage alive, and so its address its own
    nbytes: int
    steps: "list[Step]" = field(default_factory=list)
    seen: set[tuple[int, int]] = field(default_factory=set)
    """The states that were read: the list of steps, by its id, and how many of them were done."""
    readers: int = 0
    read_lists: set[int] = field(default_factory=set)
    """The lists of steps, by their ids, that something else read."""

    def covers(self, view: View) -> bool:
        """Whether a view has all elements."""
        return view.numel * view.dtype.itemsize == self.nbytes and view.is_dense()

    def read(self, view: View) -> "Read":
        """Note that the elements of a view are read now."""
        self.seen.add((id(self.steps), len(self.steps)))
        self.readers += 1
        self.read_lists.add(id(self.steps))
        return Read(self, self.steps, len(self.steps), view)

    def write(self, step: "Step", anew: bool) -> None:
        """Add a step. `anew`: it does not read what it overwrites."""
        if anew and self.covers(step.view):
            self.steps = []
        elif not anew:
            self.seen.add((id(self.steps), len(self.steps)))
        self.steps.append(step)


@dataclass(frozen=True, eq=False, slots=True)
class Read:
    """Elements that a step reads, in the state that their memory had then."""

    memory: Memory
    steps: "list[Step]"
    count: int
    view: View

    @property
    def state(self) -> tuple[int, int]:
        """What tells this state of the memory from others."""
        return id(self.steps), self.count


@dataclass(frozen=True, eq=False, slots=True)
class Target:
    """The elements that a step writes in place, among its arguments."""

    view: View


class Draw(NamedTuple):
    """Which words a random step takes: those of a tensor's name, and which of its draws."""

    name: str
    number: int
    start: int | None = None
    """The index of the first element in the tensor `name`; None for a draw of another shape."""


@dataclass(eq=False, slots=True)
class Step:
    """One write: a fill by an initializer, or an operation of torch."""

    view: View
    init: Initializer | None = None
    op: Callable[..., Any] | None = None
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    output: int | None = None
    """Which output of the operation is the value; None for one that writes its `Target`."""
    random: bool = False
    """Whether torch itself draws."""
    draw: Draw | None = None

    @property
    def name(self) -> str:
        """The operation's name."""
        name = getattr(self.op, "__name__", None)
        return str(getattr(self.op, "_overloadpacket", None) or name).removeprefix("aten.")

    @property
    def anew(self) -> bool:
        """Whether it does not read what it overwrites."""
        fresh = self.init is not None or self.output is not None
        return fresh or self.name in ANEW or "out" in self.kwargs

    @property
    def draws(self) -> bool:
        """Whether its values are random."""
        if self.init is None:
            return self.random
        return self.init.has_spread

    def needs(self) -> Iterator[Read]:
        """What its values depend on: no output, and no tensor of which it takes the shape."""
        args = self.args[1:] if self.name.removeprefix("_foreach_") in ANEW else self.args
        if not self.name.endswith("_like"):
            yield from (leaf for leaf in leaves(args) if isinstance(leaf, Read))

    def reads(self) -> Iterator[Read]:
        """What it reads."""
        for leaf in leaves((self.args, self.kwargs)):
            if isinstance(leaf, Read):
                yield leaf


def constant_step(view: View, value: Any) -> Step | None:
    """A fill with a number that the tensor's type holds, as torch rounds it."""
    if isinstance(value, complex) or (isinstance(value, int) and abs(value) > LARGEST_INTEGER):
        return None
    held = torch.full((), value, dtype=view.dtype, device="cpu").item()
    if isinstance(held, complex):
        return None
    zero = held == 0 and not str(held).startswith("-")
    init = Zeros() if zero else Ones() if held == 1 else Constant(held)
    return Step(view, init)


#: A state of a memory: its list of steps by id, and how many of them were done.
_State = tuple[int, int]


def states(
    steps: list[Step], count: int, made: Collection[_State] = ()
) -> tuple[list[Read], Counter[_State]]:
    """What must be known before the first `count` steps can be done, in an order that allows it.

    Parameters
    ----------
    steps, count : list of Step, int
    made : collection of _State
        The states that are known.

    Returns
    -------
    list of Read
        One of each state.
    Counter
        How often each is read.
    """
    order: list[Read] = []
    uses: Counter[_State] = Counter()
    done: set[_State] = set(made)
    top = Read(Memory(None, 0), steps, count, View(torch.uint8, (), (), 0))
    stack = [(top, False)]  # no recursion: a chain of operations may be long
    while stack:
        read, expanded = stack.pop()
        if read.state in done:
            continue
        if expanded:
            done.add(read.state)
            order.append(read)
            continue
        stack.append((read, True))
        for number, step in enumerate(read.steps[: read.count]):
            for other in step.reads():
                if other.steps is read.steps and other.count == number:
                    continue  # the memory itself, as it is then
                uses[other.state] += 1
                if other.state not in done:
                    stack.append((other, False))
    return order[:-1], uses


def walk(steps: list[Step], count: int) -> Iterator[Step]:
    """The first `count` steps, and before them those that they depend on; each once."""
    order, _ = states(steps, count)
    seen: set[int] = set()
    for some, number in [*((read.steps, read.count) for read in order), (steps, count)]:
        for step in some[:number]:
            if id(step) not in seen:
                seen.add(id(step))
                yield step


def initialized(steps: list[Step], count: int, view: View) -> bool:
    """Whether the first `count` steps give values to a view's elements, and not of memory without."""
    without: set[int] = set()  # steps that take values from elements that have none

    def known(steps: list[Step], count: int, view: View) -> bool:
        written = [step.view for step in steps[:count] if step.anew and id(step) not in without]
        return view.is_within(written)

    for step in walk(steps, count):
        if not all(known(read.steps, read.count, read.view) for read in step.needs()):
            without.add(id(step))
    return known(steps, count, view)


class Replay:
    """Does recorded steps again, on the CPU.

    Parameters
    ----------
    key : Key or None
        The model's. None draws all keys from torch's own generator.
    root : Key, optional
        The key of the tensor `name`, if it is known instead of the model's.
    name : str, optional
    """

    def __init__(self, key: Key | None, root: Key | None = None, name: str | None = None) -> None:
        self._key, self._root, self._name = key, root, name
        self._made: dict[tuple[int, int], torch.UntypedStorage] = {}

    def keep(self, steps: list[Step], storage: torch.UntypedStorage) -> None:
        """Remember that a storage has the values after all of these steps."""
        self._made[id(steps), len(steps)] = storage

    def value(self, read: Read) -> torch.Tensor:
        """What was read; it may share memory with what is kept."""
        storage = self._made.get(read.state)
        if storage is None:
            storage = torch.UntypedStorage(read.memory.nbytes, device="cpu")
            self.run(read.steps, read.count, storage)
        return read.view.of(storage)

    def run(self, steps: list[Step], count: int, storage: torch.UntypedStorage) -> None:
        """Do the first `count` steps on a storage."""
        order, uses = states(steps, count, self._made)
        known = dict(self._made)
        with torch.no_grad():
            for read in order:
                made = torch.UntypedStorage(read.memory.nbytes, device="cpu")
                self._run(read.steps, read.count, made, known, uses)
                known[read.state] = made
            self._run(steps, count, storage, known, uses)

    def _run(
        self,
        steps: list[Step],
        count: int,
        storage: torch.UntypedStorage,
        known: dict[_State, torch.UntypedStorage],
        uses: Counter[_State],
    ) -> None:
        for number, step in enumerate(steps[:count]):

            def real(place: Read | Target, number: int = number) -> torch.Tensor:
                if isinstance(place, Target) or (place.steps is steps and place.count == number):
                    return place.view.of(storage)
                return place.view.of(known[place.state])

            if step.view.numel:
                self._do(step, step.view.of(storage), real)
            for read in step.reads():
                uses[read.state] -= 1
                if not uses[read.state] and read.state not in self._made:
                    known.pop(read.state, None)  # nothing else reads it

    def _do(
        self,
        step: Step,
        target: torch.Tensor,
        real: Callable[[Read | Target], torch.Tensor],
    ) -> None:
        if step.init is not None:
            fill(target, step.init, self._key_of(step), step.draw)
            return
        args, kwargs = mapped((Read, Target), real, (step.args, step.kwargs))
        if step.random:
            out = _seeded(step.op, args, kwargs, self._key_of(step))
        else:
            assert step.op is not None
            out = step.op(*args, **kwargs)
        if step.output is not None:
            made = out if isinstance(out, torch.Tensor) else [*leaves(out)][step.output]
            target.copy_(made)

    def _key_of(self, step: Step) -> Key:
        if not step.draws:
            return Key(0)
        draw = step.draw
        if draw is None or (self._key is None and draw.name != self._name):
            seed = FRAMEWORK.default_seed
            assert seed is not None
            return Key(seed(None))
        if self._key is not None:
            key = self._key.fold_in(draw.name)
        else:
            assert self._root is not None
            key = self._root
        return key.fold_in(draw.number) if draw.number else key


def _seeded(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], key: Key) -> Any:
    """Let torch draw, from a seed."""
    seed = (key.seed ^ key.stream) & 0x7FFFFFFFFFFFFFFF
    if any(argument.name == "generator" for argument in op._schema.arguments):
        return op(*args, **{**kwargs, "generator": torch.Generator().manual_seed(seed)})
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # not by torch.manual_seed, which seeds GPUs, too
        return op(*args, **kwargs)


def fill(tensor: torch.Tensor, init: Initializer, key: Key, draw: Draw | None = None) -> None:
    """Fill a tensor, or elements of one.

    Parameters
    ----------
    tensor : torch.Tensor
        The elements to fill.
    init : Initializer
        One that makes a weight of the tensor's shape.
    key : Key
    draw : Draw, optional
        With `start`: the elements' indices are those of a larger tensor, whose elements are in
        memory in C order. Initializers that sample each element use it.
    """
    if tensor.dtype not in FILLED:
        if isinstance(init, Constant):
            tensor.fill_(init.value)
        elif isinstance(init, Assign):
            tensor.copy_(torch.from_numpy(init.value.copy()))
        else:
            raise TypeError(f"dtype: {tensor.dtype} was given for {init}; its values are all given")
        return
    kind, size = FILLED[tensor.dtype], tuple(tensor.shape)
    if draw is None or draw.start is None:
        init.fill_(tensor, seed=key)
        return
    plan: Plan = init.plan(size, kind)
    if not isinstance(plan, Sampled) or plan.zeros is not None:
        init.fill_(tensor, seed=key)
        return
    # In the order of memory, which is the order of indices: such elements may be made in any order.
    order = sorted(range(len(size)), key=lambda axis: -tensor.stride(axis))
    address, _, part, strides, where = FRAMEWORK.memory(ordered := tensor.permute(order))
    steps = tuple(ordered.stride())
    # The whole has as many elements as are needed; its shape means nothing to such a plan.
    whole = (draw.start + sum(s * (n - 1) for s, n in zip(steps, part, strict=True)) + 1,)
    filler, _ = Planned(plan)._prepare(whole, kind, part, strides, steps, False, bool(where))
    if filler is not None:
        filler(address, draw.start, 0, key.seed, key.stream, *where)
        FRAMEWORK.written(tensor)
