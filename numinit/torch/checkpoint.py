"""A checkpoint that was never stored: torch.distributed.checkpoint loads what it makes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch.distributed.checkpoint import LoadPlan, LoadPlanner, Metadata, StorageReader
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadItemType
from torch.futures import Future

from numinit.models.recipe import Recipe
from numinit.models.recipes import as_recipe
from numinit.models.sources import TensorSpec, load_shapes
from numinit.models.tensors import checked, resolved
from numinit.torch.module import AnyRecipe, described
from numinit.torch.traced import Trace
from numinit.weights.keys import as_key

__all__ = ["SeedCheckpoint", "as_trace"]

#: What has names and shapes of tensors.
Source: TypeAlias = torch.nn.Module | Trace | Mapping[str, TensorSpec | Sequence[int]] | str | Path


def as_trace(source: Source, recipe: AnyRecipe | None = None) -> Trace:
    """What fills each tensor of a module, or of names and shapes.

    Parameters
    ----------
    source : torch.nn.Module, Trace, mapping of str to sequence of int, str or Path
        A module, whose own code is traced if there is no recipe; what `numinit.torch.trace`
        returned; or names and shapes as `numinit.init_params` takes them, with a recipe.
    recipe : optional
        As in `numinit.torch.init_module`.

    Raises
    ------
    TypeError
        If there are names and shapes and no recipe, or a trace as well; or a trace and a recipe.
    RecipeError
        If the recipe does not fit.
    """
    if isinstance(source, Trace):
        if recipe is not None:
            raise TypeError("recipe: a trace needs none; it was given with one")
        return source
    if isinstance(source, torch.nn.Module):
        return described(source, recipe)
    if recipe is None:
        raise TypeError("recipe: names and shapes were given without one; a module needs none")
    if isinstance(recipe, Trace):
        raise TypeError("recipe: a trace has names and shapes of its own; it is accepted alone")
    specs = load_shapes(source) if isinstance(source, str | Path) else source
    rules = as_recipe(recipe)
    return described(_module_of(specs, rules), rules)


def _module_of(specs: Mapping[str, TensorSpec | Sequence[int]], recipe: Recipe) -> torch.nn.Module:
    """A module on the meta device that has tensors of given names and shapes."""
    top = torch.nn.Module()
    for name, (shape, dtype) in resolved(checked(specs), None, recipe).items():
        *path, leaf = name.split(".")
        inner = top
        for part in path:
            if part not in inner._modules:
                inner._modules[part] = torch.nn.Module()
            inner = inner._modules[part]
        meta = torch.empty(shape, dtype=getattr(torch, dtype.name), device="meta")
        inner._parameters[leaf] = torch.nn.Parameter(meta, requires_grad=False)
    return top


class SeedCheckpoint(StorageReader):
    """A storage of `torch.distributed.checkpoint` whose tensors are made while they are read.

    It takes the place of a checkpoint of initial weights: no file, no process that needs the
    memory of the whole model. Each process makes the windows that its tensors hold, in the types
    of its tensors, whatever the sharding. The values are those of `numinit.torch.init_module`.

    Parameters
    ----------
    source : torch.nn.Module, Trace, mapping of str to sequence of int, str or Path
        A module, on the meta device or not, sharded or not, of which only names, shapes and types
        are used, and its own code if there is no recipe; what `numinit.torch.trace` returned; or
        names and shapes as `numinit.init_params` takes them.
    recipe : Recipe, str, Path or mapping of str to Initializer, optional
        As in `numinit.torch.init_module`; needed for names and shapes.
    seed : int, Key or any other seed
        The tensor `name` is drawn from ``as_key(seed).fold_in(name)``. All processes need the same.
    prefix : str
        What comes before the names in the checkpoint, such as ``"model."`` where the state dict
        that is loaded is ``{"model": model.state_dict()}``. Streams have the names without it.

    Examples
    --------
    >>> import torch
    >>> from numinit.torch import SeedCheckpoint
    >>> with torch.device("meta"):
    ...     source = torch.nn.Linear(64, 10)
    >>> reader = SeedCheckpoint(source, seed=0)
    >>> reader.read_metadata().state_dict_metadata["weight"].size
    torch.Size([10, 64])

    On every process, for a model of which this one holds a part::

        state = model.state_dict()
        torch.distributed.checkpoint.load(state, storage_reader=reader)
        model.load_state_dict(state)
    """

    def __init__(
        self, source: Source, recipe: AnyRecipe | None = None, *, seed: Any, prefix: str = ""
    ) -> None:
        self._trace = as_trace(source, recipe)
        self._key = as_key(seed)
        self._names = {
            prefix + name: first
            for name, first in self._trace.names.items()
            if first in self._trace.tensors and self._trace.tensors[first].persistent
        }
        self._path = (prefix.rstrip("."),) if prefix else ()
        self._prefix = prefix

    def reset(self, checkpoint_id: Any = None) -> None:
        """Do nothing: there is no place to go to."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Return every tensor's shape and type, as one chunk."""
        described, paths = {}, {}
        for name, first in self._names.items():
            tensor = self._trace.tensors[first]
            size = torch.Size(tensor.shape)
            whole = ChunkStorageMetadata(torch.Size([0] * len(size)), size)
            described[name] = TensorStorageMetadata(TensorProperties(tensor.dtype), size, [whole])
            paths[name] = (*self._path, name.removeprefix(self._prefix))
        return Metadata(described, planner_data=paths)

    def set_up_storage_reader(
        self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any
    ) -> None:
        """Do nothing: there is nothing to open."""

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """Return the plan as it is."""
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """Return the plans as they are: no process needs another's."""
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> "Future[None]":
        """Fill the windows of a plan."""
        with torch.no_grad():
            for item in plan.items:
                name = item.storage_index.fqn
                if item.type is LoadItemType.BYTE_IO:
                    raise ValueError(f"state_dict: {name!r} is no tensor, and only those are made")
                traced = self._trace.tensors[self._names[name]]
                tensor = planner.resolve_tensor(item).detach()
                traced.fill_(tensor, offset=tuple(item.storage_offsets), seed=self._key)
                planner.commit_tensor(item, tensor)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        """Return False: no path or name stands for it."""
        return False
