"""The tensors of a file: checked, planned, and filled a piece at a time."""

import functools
import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from numinit.engines.spec import Plan, Sampled, Whole
from numinit.engines.zeros import Zeros
from numinit.initializers.base import Planned
from numinit.initializers.kept import Exactly
from numinit.models.formats.format import Tensors
from numinit.models.integers import INTEGERS, Integer, check_integers, fill_integers
from numinit.models.recipe import Made, Recipe
from numinit.models.sources import TensorSpec
from numinit.models.untrusted import InputError, check_name, check_shape
from numinit.show import show
from numinit.stream.dtypes import DTYPES, DType, as_dtype
from numinit.weights.keys import Key

KEPT = 4096  # kinds of tensors whose fills are kept, some kilobytes each

GIVEN = "given"  # stands for an initializer's name in a `Summary`

Specs = Mapping[str, TensorSpec | Sequence[int]]


class Summary(NamedTuple):
    """How much was written or verified."""

    tensors: int
    nbytes: int
    within: tuple[tuple[str, float, int], ...] = ()
    """What `verify` compared to rounding: an initializer's name, its tolerance and how many tensors.
    All other tensors are the same bit for bit."""

    @property
    def given(self) -> int:
        """How many tensors no recipe makes, compared by their digests: `within` counts them, too."""
        return sum(count for name, _, count in self.within if name == GIVEN)


class Piece(NamedTuple):
    """A run of one tensor's elements."""

    tensor: str
    dtype: DType | Integer
    shape: tuple[int, ...]
    """Of the whole tensor."""
    first: int
    """The index of its first element."""
    begin: int
    """Its first byte in the data."""
    nbytes: int


def checked(specs: Specs) -> dict[str, TensorSpec]:
    """Names, shapes and dtypes, the first two checked."""
    if not isinstance(specs, Mapping):
        raise InputError(f"names must be mapped to shapes, got {show(specs)}")
    if not specs:
        raise InputError("no tensors: at least one name and shape is needed")
    made = {}
    for name, given in specs.items():
        if not isinstance(name, str):
            raise InputError(f"tensor names must be strings, got {show(name)}")
        check_name(name, "specs")
        shape, dtype = given if isinstance(given, TensorSpec) else (given, None)
        if isinstance(shape, list | tuple):  # sizes by NumPy are integers, too
            shape = tuple(int(x) if isinstance(x, np.integer) else x for x in shape)
        made[name] = TensorSpec(check_shape(shape, f"tensor {show(name)}"), dtype)
    return made


def resolved(
    specs: Mapping[str, TensorSpec], dtype: Any, recipe: Recipe, only: Container[str] | None = None
) -> Tensors:
    """Every tensor's shape and the element type to write.

    Those that are not in `only`, if that is given, are left out if their type cannot be written.
    """
    override = None if dtype is None else as_dtype(dtype)
    tensors: dict[str, tuple[tuple[int, ...], DType | Integer]] = {}
    said = recipe.dtypes(specs)
    for name, (shape, own) in specs.items():
        if (rule := said.get(name)) is not None:
            own = (own or "float32") if rule == "keep" else rule
        if own in INTEGERS:  # it counts, whatever `dtype` says of the weights
            tensors[name] = (shape, INTEGERS[own])
            continue
        try:
            known = as_dtype(own or "float32")  # even where `dtype` is given: it may be packed
        except TypeError as error:
            if only is not None and name not in only:
                continue
            accepted = ", ".join([*DTYPES, *INTEGERS])
            raise InputError(
                f"tensor {show(name)} is {own}; only {accepted} can be initialized"
            ) from error
        asked = override or known
        tensors[name] = (shape, known if rule is not None or keeps_parts(known, asked) else asked)
    return tensors


def keeps_parts(own: DType, asked: DType) -> bool:
    """Whether a tensor keeps its type: a complex one, where one for real numbers is asked for."""
    return own.complex and not asked.complex


def planned(
    recipe: Recipe,
    shapes: Mapping[str, Sequence[int]],
    tensors: Tensors,
    size: int,
    known: Tensors | None = None,
) -> "Plans":
    """What fills each of `tensors`, checked, and compiled for pieces of at most `size` bytes.

    Parameters
    ----------
    recipe : Recipe
    shapes : mapping of str to sequence of int
        Of all tensors of the model, of which `tensors` may be some.
    tensors : mapping of str to (shape, DType or Integer)
    size : int
        As `pieces` takes it.
    known : mapping of str to (shape, DType or Integer), optional
        The same of all tensors of the model, if `tensors` are some: values may follow from others.

    Raises
    ------
    ValueError
        Naming the tensor, if the recipe does not fit, or a type cannot hold the values.
    """
    kinds = {
        name: kind for name, (_, kind) in (known or tensors).items() if isinstance(kind, DType)
    }
    plans = Plans(recipe.made(shapes, kinds))
    for name, (shape, dtype) in tensors.items():
        if isinstance(dtype, Integer):
            check_integers(name, plans[name], shape, dtype)
            continue
        init = plans.ready(name, shape, dtype)
        step = min(_step(plans[name], shape, dtype, size), total := nbytes_of(shape, dtype))
        try:
            for nbytes in {step, total % step or step if total else 0}:
                init.prepare_flat(nbytes, shape, dtype)
        except (TypeError, ValueError, ArithmeticError) as error:
            raise InputError(f"tensor {show(name)}: {error}") from error
    return plans


class Plans:
    """The plans of a model's tensors by name, and what fills those that were asked for last."""

    def __init__(self, made: Mapping[str, Made]) -> None:
        self._made = made
        self._ready: dict[Any, Planned] = {}

    def __getitem__(self, name: str) -> Plan:
        return self._made[name].plan

    def key(self, name: str, key: Key) -> Key:
        """The key of a tensor, which is another one's if it follows from that."""
        return key.fold_in(self._made[name].source)

    def needs(self, names: Iterable[str], of_each_layer: Iterable[str]) -> set[str]:
        """The tensors that have to be known in order to plan some, besides these.

        Parameters
        ----------
        names : iterable of str
        of_each_layer : iterable of str
            See `Recipe.of_each_layer`.
        """
        known = dict.fromkeys(names)
        own, left, layered = {*known}, [*known], False
        while left:
            made = self._made[left.pop()]
            others = list(made.others)
            if made.layered and not layered:
                layered = True
                others += of_each_layer
            left += [other for other in others if other not in known]
            known.update(dict.fromkeys(others))
        return known.keys() - own

    def ready(self, name: str, shape: tuple[int, ...], dtype: DType) -> Planned:
        """What fills a tensor; it keeps what it prepares. Alike ones, as in a model's layers, share it."""
        plan = self[name]
        if isinstance(plan, Sampled):
            try:
                return _planned(Exactly(plan.distribution), plan.zeros, shape, dtype)
            except LookupError:
                pass
        what = id(plan), shape, dtype
        if what not in self._ready:
            if len(self._ready) >= KEPT:
                self._ready.clear()
            self._ready[what] = Planned(plan)
        return self._ready[what]


@functools.lru_cache(1024)  # also for the next model
def _planned(
    exactly: Exactly, zeros: Zeros | None, shape: tuple[int, ...], dtype: DType
) -> Planned:
    return Planned(Sampled(exactly.init, zeros))


def nbytes_of(shape: tuple[int, ...], dtype: DType | Integer) -> int:
    """How many bytes a tensor takes."""
    return math.prod(shape) * dtype.itemsize


def _step(plan: Plan | None, shape: tuple[int, ...], dtype: DType | Integer, size: int) -> int:
    """How many bytes of a tensor are made at a time: at most `size` if they can."""
    step = size // dtype.itemsize * dtype.itemsize
    return max(step, nbytes_of(shape, dtype)) if isinstance(plan, Whole) else step


def pieces(
    tensors: Tensors,
    starts: Mapping[str, int],
    plans: Plans,
    size: int,
    cut: bool = False,
) -> Iterator[Piece]:
    """All tensors in the order of their bytes, in pieces of at most `size` bytes.

    Unless they are to be `cut`, those that are made as a whole are one piece.
    """
    for name, start in starts.items():
        shape, dtype = tensors[name]
        total = nbytes_of(shape, dtype)
        step = _step(None if cut else plans[name], shape, dtype, size)
        for begin in range(0, total, step):
            nbytes = min(step, total - begin)
            yield Piece(name, dtype, shape, begin // dtype.itemsize, start + begin, nbytes)


def fill(out: np.ndarray, piece: Piece, plans: Plans, key: Key) -> None:
    """Write a piece's elements."""
    name, dtype = piece.tensor, piece.dtype
    if isinstance(dtype, Integer):
        fill_integers(out, piece.first, name, plans[name], piece.shape, dtype)
    else:
        filler = plans.ready(name, piece.shape, dtype)
        filler.fill_flat(out, piece.first, piece.shape, dtype, plans.key(name, key))
