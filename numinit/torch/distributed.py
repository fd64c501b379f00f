"""Tensors that several processes share.

**DTensor**, and so FSDP2's ``fully_shard``, HSDP, tensor parallelism and any mesh of them; torchrec's
**ShardedTensor**. `numinit.torch.init_module` of a sharded module, `fill_` and every function of
torch.nn.init fill what this process holds, in place, with the values of one device. Nothing is
sent, and no process needs more memory than it holds. ::

    with torch.device("meta"):
        model = Transformer(config)
    for layer in model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    numinit.torch.init_module(model, seed=0)       # on every process, with the same seed

Without ``seed=`` every process draws the seed from its own generator of torch: call
``torch.manual_seed`` with one number on all of them, as torch's own DTensors need it. A DTensor
with a Partial placement is refused, because its values are a sum over processes.

**Flat shards**, of FSDP1 (``FullyShardedDataParallel``) and of DeepSpeed's ZeRO-3, are runs of flattened weights:
`flat_shards` and `init_flat` for FSDP1, and ``initializer.fill_flat`` for any. A partition of ZeRO-3 ::

    own = parameter.ds_tensor
    start = rank * own.ds_numel
    count = max(0, min(own.ds_numel, parameter.ds_numel - start))   # the rest is padding
    init.fill_flat(own.data[:count], start=start, shape=parameter.ds_shape, seed=key)

**Weights that are made whole.** Each element of an orthogonal weight depends on all others. A process that
holds a part of one makes the whole, in its own memory, one weight at a time, and keeps its part. So
do weights that a module's own code makes by several operations that no initializer stands for.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from numinit.initializers import Initializer
from numinit.initializers.base import Planned
from numinit.models.recipe import Recipe, RecipeError
from numinit.models.recipes import as_recipe
from numinit.show import show
from numinit.torch.devices import filled
from numinit.torch.named import WRAPPED, is_wrapper
from numinit.torch.steps import FILLED
from numinit.torch.traced import Trace
from numinit.weights.keys import Key, as_key
from numinit.weights.shapes import as_shape

__all__ = ["FlatShard", "flat_shards", "init_flat", "table_init"]


class FlatShard(NamedTuple):
    """The run of a parameter that this process holds.

    Attributes
    ----------
    name : str
        The parameter's name in the module before it was wrapped.
    tensor : torch.Tensor
        The memory, of one axis.
    start : int
        The index of its first element in the flattened parameter.
    shape : tuple of int
        The whole parameter's shape.
    """

    name: str
    tensor: torch.Tensor
    start: int
    shape: tuple[int, ...]


def flat_shards(module: torch.nn.Module) -> Iterator[FlatShard]:
    """The runs of parameters that this process holds of a module wrapped by FSDP1.

    Parameters
    ----------
    module : torch.nn.Module
        Wrapped by ``FullyShardedDataParallel``, with ``use_orig_params`` or not, nested or not.

    Yields
    ------
    FlatShard
        One for each parameter of which this process holds any element.
    """
    for name, inner in module.named_modules():
        flat = inner._flat_param if is_wrapper(inner) else None
        if flat is None:  # also of a wrapper whose parameters are all in others
            continue
        prefix = "".join(f"{part}." for part in name.split(".") if part and part not in WRAPPED)
        places = zip(flat._fqns, flat._shapes, flat._shard_param_infos, strict=True)
        for own, shape, place in places:
            if place.in_shard:
                first, count = place.offset_in_shard, place.numel_in_shard
                held = flat.data[first : first + count]
                full = ".".join(part for part in own.split(".") if part not in WRAPPED)
                yield FlatShard(prefix + full, held, place.intra_param_start_idx, tuple(shape))


def init_flat(
    module: torch.nn.Module,
    recipe: Trace | Recipe | str | Path | Mapping[str, Initializer],
    *,
    seed: Any,
) -> torch.nn.Module:
    """Initialize the parameters of a module that FSDP1 has wrapped.

    Parameters
    ----------
    module : torch.nn.Module
        See `flat_shards`. Its buffers, which are not sharded, stay as they are.
    recipe : Trace, Recipe, str, Path or mapping of str to Initializer
        As in `numinit.torch.init_module`; a `numinit.torch.trace` of what makes the module before
        it is wrapped.
    seed : int, Key or any other seed
        The parameter `name` is drawn from ``as_key(seed).fold_in(name)``. All processes need the
        same.

    Returns
    -------
    torch.nn.Module
        The same object.

    Raises
    ------
    ValueError
        If no part of the module is wrapped.
    RecipeError
        If the recipe does not fit a parameter, or a trace has no initializer for one. Nothing was
        touched.
    """
    key = as_key(seed)
    if not any(map(is_wrapper, module.modules())):
        raise ValueError(
            "module: no part of it is a FullyShardedDataParallel; init_module fills other modules"
        )
    shards = list(flat_shards(module))
    inits: dict[str, Initializer] = {}
    if isinstance(recipe, Trace):
        for shard in shards:
            first = recipe.names.get(shard.name)
            init = None if first is None else recipe.tensors[first].as_initializer()
            if init is None:
                raise RecipeError(f"recipe: the trace has no initializer of {show(shard.name)}")
            inits[shard.name] = init
        names = {shard.name: recipe.names[shard.name] for shard in shards}
    else:
        shapes = {shard.name: shard.shape for shard in shards}
        kinds = {shard.name: FILLED[shard.tensor.dtype] for shard in shards}
        made = as_recipe(recipe).made(shapes, kinds)
        inits = {name: Planned(one.plan) for name, one in made.items()}
        names = {name: one.source for name, one in made.items()}
    for shard in shards:
        _fill_flat(shard, inits[shard.name], key.fold_in(names[shard.name]))
    return module


def _fill_flat(shard: FlatShard, init: Initializer, key: Key) -> None:
    def fill(part: torch.Tensor, at: tuple[int, ...]) -> None:
        init.fill_flat(part, at[0], shard.shape, seed=key)

    filled(shard.tensor, (shard.start,), fill, init, shard.shape)


def table_init(init: Initializer, shape: tuple[int, int], *, seed: Any, group: Any = None) -> Any:
    """Return an ``init_fn`` for the configuration of a table of torchrec, which knows its rows.

    torchrec calls it with the part of the table that this process holds: the whole, or its block
    of rows if the table is sharded by rows. Of a table that is sharded in another way, fill the
    ShardedTensors of the sharded module's ``state_dict()`` instead; they say where they begin.

    Parameters
    ----------
    init : Initializer
    shape : (int, int)
        The table's ``num_embeddings`` and ``embedding_dim``.
    seed : int or Key
        Of the table itself: ``Key(0).fold_in(name)``, for one.
    group : ProcessGroup, optional
        The processes that share the table; all of them if left out.

    Returns
    -------
    callable
        A function of a tensor that fills and returns it.

    Raises
    ------
    ValueError
        If the shape has not two axes; by the function, if the tensor is no such part.

    Examples
    --------
    >>> import torch
    >>> from numinit.torch import table_init
    >>> fill = table_init(ni.EmbeddingUniform(), (1000, 8), seed=ni.Key(0).fold_in("t"))
    >>> float(fill(torch.empty(1000, 8)).abs().max()) <= 1000**-0.5
    True
    """
    whole = as_shape(shape)
    if len(whole) != 2:
        raise ValueError(f"shape: {whole} was given; rows and columns are accepted")
    rows, columns = whole
    key = as_key(seed)

    def fill(part: torch.Tensor, at: tuple[int, ...]) -> None:
        init.fill_(part, shape=(rows, columns), offset=at, seed=key)

    def init_fn(tensor: torch.Tensor) -> torch.Tensor:
        part = tuple(tensor.shape)
        start = 0
        if 0 in part:  # a table of which this process holds nothing
            return tensor
        if part != (rows, columns):
            dist = torch.distributed
            shared = dist.is_available() and dist.is_initialized()
            size = dist.get_world_size(group) if shared else 1
            block = math.ceil(rows / size)
            start = min(rows, block * (dist.get_rank(group) if shared else 0))
            if part != (min(block, rows - start), columns):
                raise ValueError(
                    f"tensor: shape {part} was given; the whole table {shape} and its block of rows "
                    f"in {size} processes, {(min(block, rows - start), columns)}, are accepted. Fill "
                    "the ShardedTensors of the state dict of a table that is sharded in another way"
                )
        with torch.no_grad():
            filled(tensor.detach(), (start, 0), fill, init, (rows, columns))
        return tensor

    return init_fn
