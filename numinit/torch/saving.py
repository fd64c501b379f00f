"""A module's initial weights as a file, without the memory of the module."""

import functools
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from numinit.initializers import Zeros
from numinit.models.globs import Globs
from numinit.models.integers import Integer
from numinit.models.recipe import Recipe
from numinit.models.recipes import as_recipe
from numinit.models.sources import Model, TensorSpec, config_of
from numinit.models.untrusted import InputError
from numinit.models.write import Given, Progress, Summary, write
from numinit.stream.dtypes import DType
from numinit.torch.module import AnyRecipe, described
from numinit.torch.rules import describable, recipe_of
from numinit.torch.traced import Trace, Traced
from numinit.torch.tracing import trace
from numinit.weights.keys import Key, as_key

__all__ = ["model_of", "save"]


def save(
    module: torch.nn.Module | Trace,
    path: str | Path,
    seed: Any = 0,
    recipe: AnyRecipe | None = None,
    *,
    dtype: Any = None,
    progress: Progress | None = None,
    overwrite: bool = False,
    max_shard_size: int | str | None = None,
    shard: tuple[int, int] | None = None,
) -> Summary:
    """Write the values of `numinit.torch.init_module` to a ``.safetensors`` file, or to several.

    Each value is made where it belongs in the mapped file, so the module may be on the meta device
    and larger than the memory. The file says how it was made; ``numinit verify`` derives it again.
    Of tensors that no recipe in TOML describes, such as those that several operations of torch make,
    the file has the digests, and ``verify`` compares these; each is made whole, in memory.

    Parameters
    ----------
    module : torch.nn.Module or Trace
        A module, of which only its code and its tensors' names, shapes and types are used; or what
        `numinit.torch.trace` returned. Of tied tensors the file has the first name; it has no sparse
        buffers.
    path : str or Path
        Ends in ``.safetensors``; or, with `max_shard_size`, a directory.
    seed : int, Key or any other seed, default 0
        The tensor `name` is drawn from ``as_key(seed).fold_in(name)``.
    recipe : Recipe, str, Path or mapping of str to Initializer, optional
        As in `numinit.torch.init_module`; if left out, the module's own code is traced.
    dtype : dtype, optional
        Of all floating-point tensors; by default each tensor's own.
    progress : callable, optional
        Called as ``progress(bytes_done, bytes_in_all)``.
    overwrite : bool, default False
        Replace a file that exists.
    max_shard_size : int or str, optional
        Write several files, of at most so many bytes, such as "5GB", as `numinit.models.write.write`.
    shard : (int, int), optional
        Write a part of the files alone: (3, 16) is the third of 16 parts.

    Returns
    -------
    Summary
        How many tensors and bytes were written.

    Raises
    ------
    ValueError
        If the recipe does not fit, or listing the tensors that nothing initializes. Nothing was
        created.
    OSError
        If the disk is full or fails; nothing is left behind.

    Examples
    --------
    >>> import tempfile, torch
    >>> from numinit.torch import save
    >>> with torch.device("meta"):
    ...     module = torch.nn.Linear(64, 10)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(module, f"{folder}/linear.safetensors", seed=0)
    Summary(tensors=2, nbytes=2600, within=())
    """
    key = as_key(seed)  # once, because a generator advances
    specs, rules, given = _written(module, recipe, key)
    return write(
        path,
        specs,
        rules,
        key,
        dtype,
        progress,
        overwrite,
        given=given,
        max_shard_size=max_shard_size,
        shard=shard,
    )


def model_of(
    source: str, recipe: AnyRecipe | None = None, seed: Any = 0
) -> tuple[Model, dict[str, Given]]:
    """What a factory of modules makes, and what its recipe lacks, for the command line.

    Parameters
    ----------
    source : str
        ``package.module:factory``, of which the factory takes no arguments and is called on the meta
        device; or the configuration of a model of transformers, see `numinit.models.sources.config_of`.
    recipe, seed : optional
        As in `save`.

    Raises
    ------
    InputError
        If there is no such factory, or it makes no module.
    """
    if (config := config_of(source)) is not None:
        named = config.resolve()
        name = named.parent.name if named.name == "config.json" else named.stem
        made = trace(config)
    else:
        name = source.partition(":")[2]
        made = trace(_factory(source))
    specs, rules, given = _written(made if recipe is None else made.module, recipe, as_key(seed))
    return Model(name, rules, specs), given


def _factory(source: str) -> Callable[[], torch.nn.Module]:
    where, _, name = source.partition(":")
    try:
        factory: Any = importlib.import_module(where)
        for part in name.split("."):
            factory = getattr(factory, part)
    except (ImportError, AttributeError) as error:
        raise InputError(f"{source}: {error}") from error

    def make() -> torch.nn.Module:
        try:
            made: torch.nn.Module = factory()
        except Exception as error:  # the code is the user's
            raise InputError(f"{source}: it raised {type(error).__name__}: {error}") from error
        return made

    return make


def _written(
    module: torch.nn.Module | Trace, recipe: AnyRecipe | None, key: Key
) -> tuple[dict[str, TensorSpec], Recipe, dict[str, Given]]:
    """The tensors of a module's file, the recipe that it will have, and what the recipe lacks."""
    if isinstance(module, Trace) and recipe is None:
        traced = module
    else:
        traced = described(module.module if isinstance(module, Trace) else module, recipe)
    if lacking := [name for name in traced.uninitialized if traced.tensors[name].persistent]:
        raise InputError(
            f"module: nothing initializes {len(lacking)} tensors: {', '.join(lacking)}"
        )
    specs = traced.specs()
    if recipe is None or isinstance(recipe, Trace):
        said = {
            name: init
            for name in specs
            if (init := traced.tensors[name].initializer) is not None and describable(init)
        }
        made = set(said)
        rules = recipe_of(type(traced.module).__name__, said or {"*": Zeros()})
    else:
        rules = as_recipe(recipe)
        matching = Globs(glob for rule in rules.rules for glob in rule.match)
        made = {name for name in specs if matching.first(name) is not None}  # not some buffers
    given: dict[str, Given] = {
        name: functools.partial(_bytes, traced.tensors[name], key)
        for name in specs
        if name not in made
    }
    return specs, rules, given


def _bytes(traced: Traced, key: Key, dtype: DType | Integer) -> np.ndarray:
    """The bytes of a tensor that only torch makes, in an element type."""
    tensor = torch.empty(traced.shape, dtype=getattr(torch, dtype.name))
    traced.fill_(tensor, seed=key)
    made: np.ndarray = tensor.reshape(-1).view(torch.uint8).numpy()
    return made
