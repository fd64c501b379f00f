"""A whole module: every parameter and buffer initialized under its own name, in its final memory."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from numinit.arrays.frameworks import framework_of
from numinit.engines.spec import Sampled
from numinit.initializers import Assign, Constant, Initializer
from numinit.initializers.base import Planned
from numinit.models.globs import Globs
from numinit.models.integers import INTEGERS, check_integers, integers
from numinit.models.recipe import Recipe, RecipeError
from numinit.models.recipes import as_recipe
from numinit.show import cut
from numinit.stream.dtypes import as_dtype
from numinit.torch.memory import final_memory, use_huge_pages
from numinit.torch.named import Named, alike, named_tensors, refuse_flat
from numinit.torch.steps import FILLED, Replay
from numinit.torch.traced import Trace, Traced
from numinit.torch.tracing import trace
from numinit.weights.keys import Key, as_key

__all__ = ["described", "init_module"]

AnyRecipe = Trace | Recipe | str | Path | Mapping[str, Initializer]


def init_module(
    module: torch.nn.Module,
    recipe: AnyRecipe | None = None,
    *,
    seed: Any,
    dtype: Any = None,
    device: Any = None,
) -> torch.nn.Module:
    """Initialize a module: each tensor from the stream of its qualified name.

    The values are those of `numinit.init_params` and of a file of ``numinit init`` with the same
    recipe and seed. They depend neither on the module's other tensors nor on torch's generators.

    A module on the meta device gets its memory here, once, and is filled there. Tied tensors stay
    tied; their values are those of the first name in the order of ``state_dict``.

    CPU and CUDA tensors are filled in place. For other devices (mps, xpu, hpu, ROCm's) the values are
    made on the host, in pieces of 64 MiB, and copied.

    Parameters
    ----------
    module : torch.nn.Module
        On any device. It is changed in place.
    recipe : Trace, Recipe, str, Path or mapping of str to Initializer, optional
        As `numinit.init_params` takes it, or what `numinit.torch.trace` returned. Every parameter
        needs a rule; buffers without one get the values of the module's own code. If left out, the
        module's own code is traced: ``initialize_weights`` of transformers, or ``reset_parameters``
        of its parts. Where that is not all, as for buffers that a constructor computes, trace the
        constructor: ``traced = trace(make); init_module(traced.module, traced, seed=0)``.
    seed : int, Key or any other seed
        The tensor `name` is drawn from ``as_key(seed).fold_in(name)``.
    dtype : torch.dtype or str, optional
        The floating-point type of all floating-point tensors, as in ``module.to(dtype)``, but of
        those whose rule has a `dtype`.
    device : torch.device or str, optional
        Where all tensors are put. If left out, those on the meta device come to the CPU, and
        others stay.

    Returns
    -------
    torch.nn.Module
        The same object.

    Raises
    ------
    RecipeError
        If the recipe cannot be read, or does not fit a tensor.
    ValueError
        Listing the tensors that nothing initializes, or naming what has flattened the module; see
        `numinit.torch.distributed`. No tensor was touched.

    Examples
    --------
    >>> import torch
    >>> from numinit.torch import init_module
    >>> with torch.device("meta"):
    ...     module = torch.nn.Linear(64, 10)
    >>> module = init_module(module, {"bias": ni.Zeros(), "*": ni.Normal()}, seed=0)
    >>> key = ni.Key(0).fold_in("weight")
    >>> bool((module.weight.detach().numpy() == ni.Normal()((10, 64), seed=key)).all())
    True
    """
    key = as_key(seed)
    kind = None if dtype is None else getattr(torch, as_dtype(dtype).name)
    place = None if device is None else torch.device(device)
    if place is not None and place.type == "meta":
        raise ValueError("device: meta was given, which has no memory; any other is accepted")
    if recipe is not None and not isinstance(recipe, Trace):
        recipe = as_recipe(recipe)
    traced = described(module, recipe, dtype=kind)
    named = named_tensors(module)
    kinds = _kinds(named, recipe, kind)
    todo = _checked(named, traced, kinds)
    filled = {*todo}
    _give_memory(module, named, kinds, place, filled)
    made = {one.name: one.tensor for one in named_tensors(module)}
    replay = Replay(key)
    with torch.no_grad():
        for name in todo:
            _fill(made[name], traced.tensors[name], replay, key)
        for name, tensor in made.items():
            first = traced.names[name]
            # Views of one memory in the trace, which are apart here: a copy of the module has such.
            if first in filled and not _same_memory(tensor, made[first]):
                tensor.copy_(made[first])
    return module


def _same_memory(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors are one, or views of one memory."""
    return a is b or a.untyped_storage()._cdata == b.untyped_storage()._cdata


def described(
    module: torch.nn.Module, recipe: AnyRecipe | None = None, *, dtype: torch.dtype | None = None
) -> Trace:
    """What fills each tensor of a module, by a recipe or by the module's own code.

    Parameters
    ----------
    module : torch.nn.Module
        Only its code, and its tensors' names, shapes and types are used.
    recipe : optional
        As in `init_module`.
    dtype : torch.dtype, optional
        The type that floating-point tensors will have.

    Returns
    -------
    Trace

    Raises
    ------
    RecipeError
        Listing the parameters that no rule matches.
    """
    if not isinstance(module, torch.nn.Module):
        raise TypeError(
            f"module: a {type(module).__name__} was given; a torch.nn.Module is accepted"
        )
    refuse_flat(module)
    if recipe is None:
        return trace(module)
    if isinstance(recipe, Trace):
        return recipe
    rules = as_recipe(recipe)
    first: dict[int, str] = {}
    named = named_tensors(module)
    wanted = {
        one.name: one for one in named if first.setdefault(id(one.tensor), one.name) == one.name
    }
    matching = Globs(glob for rule in rules.rules for glob in rule.match)
    lacking = [name for name in wanted if matching.first(name) is None]
    parameters = [name for name in lacking if not wanted[name].buffer]
    if parameters:
        raise RecipeError(
            f"recipe {rules.name!r} has no rule for {len(parameters)} parameters: "
            f"{', '.join(parameters)}"
        )
    fitted = {name: one for name, one in wanted.items() if name not in lacking}
    asked = _kinds(named, rules, dtype)
    kinds = {
        name: FILLED[asked[id(one.tensor)]]
        for name, one in fitted.items()
        if asked[id(one.tensor)] in FILLED
    }
    shapes = {name: tuple(one.tensor.shape) for name, one in fitted.items()}
    plans = rules.made(shapes, kinds)
    initializers: dict[str, Initializer] = {}
    for name, made_of in plans.items():
        plan = made_of.plan
        if name in kinds:
            initializers[name] = Planned(plan)
            continue
        integer = INTEGERS.get(str(fitted[name].tensor.dtype).removeprefix("torch."))
        if integer is None:
            raise RecipeError(
                f"tensor {name!r} is {fitted[name].tensor.dtype}, which no recipe fills"
            )
        check_integers(name, plan, shapes[name], integer)
        values = integers(name, plan, shapes[name], integer)
        if isinstance(plan, Sampled):
            initializers[name] = Constant(float(values.flat[0]) if values.size else 0.0)
        else:
            initializers[name] = Assign(values.astype(np.float64))
    made = Trace.of_recipe(module, initializers, named)
    for name, made_of in plans.items():
        made.tensors[name] = replace(made.tensors[name], _stream=made_of.source)
    if lacking:
        own = trace(module)
        made.tensors |= {name: own.tensors[name] for name in lacking if name in own.tensors}
    return made


def _kinds(
    named: list[Named], recipe: Recipe | Trace | None, dtype: torch.dtype | None
) -> dict[int, torch.dtype]:
    """The type that each tensor will have, by the tensor's id."""
    kinds: dict[int, torch.dtype] = {}
    said = recipe.dtypes([one.name for one in named]) if isinstance(recipe, Recipe) else {}
    for name, tensor, *_ in named:
        if dtype is None or not tensor.is_floating_point() or said.get(name) == "keep":
            kinds.setdefault(id(tensor), tensor.dtype)
        else:
            kinds.setdefault(id(tensor), getattr(torch, said[name]) if name in said else dtype)
    return kinds


def _checked(named: list[Named], traced: Trace, kinds: dict[int, torch.dtype]) -> list[str]:
    """The names of tensors to fill, once everything that can be refused was refused."""
    lacking, todo = [], []
    for one in named:
        name = traced.names.get(one.name)
        if name is None or name != one.name:
            if name is None:
                raise ValueError(
                    f"recipe: the trace has no tensor {one.name!r}; it is of another module"
                )
            continue
        found = traced.tensors.get(name)
        if found is not None and found.shape != tuple(one.tensor.shape):
            raise ValueError(
                f"recipe: tensor {name!r} has shape {found.shape} in the trace, and "
                f"{tuple(one.tensor.shape)} in the module"
            )
        if found is None or not found.initialized:
            if not one.buffer or one.tensor.is_meta:
                lacking.append(name)
            continue
        kind = kinds[id(one.tensor)]
        if found.initializer is not None and kind in FILLED:
            try:
                found.initializer.fill_(torch.empty(found.shape, dtype=kind, device="meta"), seed=0)
            except (TypeError, ValueError, ArithmeticError) as error:
                raise ValueError(f"tensor {name!r}: {cut(error)}") from error
        todo.append(name)
    if lacking:
        raise ValueError(
            f"module: nothing initializes {len(lacking)} tensors: {', '.join(lacking)}. Give a recipe "
            "that has rules for them, or the trace of the function that makes the module"
        )
    return todo


def _give_memory(
    module: torch.nn.Module,
    named: list[Named],
    kinds: dict[int, torch.dtype],
    device: torch.device | None,
    todo: set[str],
) -> None:
    """Replace tensors that are on the meta device, or of another type or device, by empty ones.

    Those that nothing fills are moved with their values; `todo` has the names of the others.
    """

    def stays(tensor: torch.Tensor) -> bool:
        here = device is None or (not tensor.is_meta and _same_device(tensor.device, device))
        return not tensor.is_meta and here and tensor.dtype == kinds[id(tensor)]

    if all(stays(one.tensor) for one in named):
        return
    made: dict[int, torch.Tensor] = {}
    storages: dict[int, dict[int, torch.Tensor]] = {}
    grads = [(one.tensor.grad, kinds[id(one.tensor)]) for one in named if one.tensor.is_leaf]
    types = {id(grad): kind for grad, kind in grads}
    filled = {id(one.tensor) for one in named if one.name in todo}
    kept = {id(one.tensor) for one in named if not one.tensor.is_meta} - filled
    for one in named:
        if one.tensor.is_meta:
            group = storages.setdefault(one.tensor.untyped_storage()._cdata, {})
            group[id(one.tensor)] = one.tensor
    for group in storages.values():
        if len(group) > 1:  # several views of one memory
            made |= _views(list(group.values()), kinds, device)

    def move(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in kinds:  # a gradient
            return tensor.to(device=device, dtype=types.get(id(tensor)))
        if stays(tensor):
            return tensor
        if id(tensor) not in made:
            here = tensor.device if device is None else device
            if here.type == "meta":
                here = torch.device("cpu")
            if id(tensor) in kept:
                made[id(tensor)] = tensor.to(device=here, dtype=kinds[id(tensor)])
            else:
                made[id(tensor)] = _new(tensor, kinds[id(tensor)], here)
        return made[id(tensor)]

    module._apply(move)  # through it, FSDP and RNNs hear of the new tensors
    _tie(module, named)


def _same_device(a: torch.device, b: torch.device) -> bool:
    return a.type == b.type and (b.index is None or a.index == b.index)


def _new(tensor: torch.Tensor, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        made = torch.empty_like(tensor, dtype=dtype, device=device)
        return made.detach()
    stride = None if tensor.is_contiguous() else tensor.stride()
    return final_memory(tensor.shape, dtype, device, stride)


def _views(
    tensors: list[torch.Tensor], kinds: dict[int, torch.dtype], device: torch.device | None
) -> dict[int, torch.Tensor]:
    """New memory for several tensors that are views of one, by their ids."""
    for types in ({t.dtype for t in tensors}, {kinds[id(t)] for t in tensors}):
        if len(types) > 1:
            raise ValueError(
                f"module: tensors of the types {', '.join(map(str, types))} share one memory; "
                "tensors of one type are accepted"
            )
    first = tensors[0]
    count = first.untyped_storage().nbytes() // first.dtype.itemsize
    memory = torch.empty(count, dtype=kinds[id(first)], device=device or "cpu")
    use_huge_pages(memory)
    return {
        id(t): memory.as_strided(t.size(), t.stride(), t.storage_offset()).detach() for t in tensors
    }


def _tie(module: torch.nn.Module, named: list[Named]) -> None:
    """Make one parameter of those that were one, with the attributes it had."""
    first: dict[int, torch.Tensor] = {}
    for one, new in zip(named, named_tensors(module), strict=True):
        if id(one.tensor) not in first:
            first[id(one.tensor)] = new.tensor
            if new.tensor is not one.tensor:
                alike(new.tensor, one.tensor)
        elif new.tensor is not first[id(one.tensor)]:
            setattr(new.owner, new.name.rpartition(".")[2], first[id(one.tensor)])


def _fill(tensor: torch.Tensor, traced: Traced, replay: Replay, key: Key) -> None:
    """Fill one tensor of a module, or the parts of it that this process holds."""
    framework = framework_of(tensor)
    if framework.parts is None:
        traced.replayed(tensor, replay, key)
        return
    for part, low in framework.parts(tensor)[1]:
        traced.replayed(part, replay, key, low)
