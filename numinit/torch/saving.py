"""A module's initial weights as a file, without the memory of the module."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from numinit.initializers import Initializer
from numinit.models.globs import Globs
from numinit.models.recipe import Recipe
from numinit.models.recipes import as_recipe, parse
from numinit.models.sources import Model, TensorSpec
from numinit.models.untrusted import InputError
from numinit.models.write import Progress, Summary, write
from numinit.show import show
from numinit.torch.module import AnyRecipe, described
from numinit.torch.rules import toml_of
from numinit.torch.traced import Trace
from numinit.torch.tracing import trace

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
) -> Summary:
    """Write the values of `numinit.torch.init_module` to a ``.safetensors`` file.

    Each value is made where it belongs in the mapped file, so the module may be on the meta device
    and larger than the memory. The file says how it was made; ``numinit verify`` derives it again.

    Parameters
    ----------
    module : torch.nn.Module or Trace
        A module, of which only its code and its tensors' names, shapes and types are used; or what
        `numinit.torch.trace` returned. Of tied tensors the file has the first name.
    path : str or Path
        Ends in ``.safetensors``.
    seed : int or Key, default 0
        The tensor `name` is drawn from ``as_key(seed).fold_in(name)``.
    recipe : Recipe, str, Path or mapping of str to Initializer, optional
        As in `numinit.torch.init_module`; if left out, the module's own code is traced.
    dtype : dtype, optional
        Of all floating-point tensors; by default each tensor's own.
    progress : callable, optional
        Called as ``progress(bytes_done, bytes_in_all)``.
    overwrite : bool, default False
        Replace a file that exists.

    Returns
    -------
    Summary
        How many tensors and bytes were written.

    Raises
    ------
    ValueError
        Listing the tensors that no recipe in TOML describes, such as those that several operations
        make. Nothing was created.
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
    specs, rules = _written(module, recipe)
    return write(path, specs, rules, seed, dtype, progress, overwrite)


def model_of(source: str, recipe: AnyRecipe | None = None) -> Model:
    """What a factory of modules makes, for the command line.

    Parameters
    ----------
    source : str
        ``package.module:factory``. The factory takes no arguments; it is called on the meta device.
    recipe : optional
        As in `save`.

    Raises
    ------
    InputError
        If there is no such factory, or it makes no module.
    """
    where, _, name = source.partition(":")
    try:
        factory: Any = importlib.import_module(where)
        for part in name.split("."):
            factory = getattr(factory, part)
    except (ImportError, AttributeError) as error:
        raise InputError(f"{source}: {error}") from error
    made = trace(factory)
    specs, rules = _written(made if recipe is None else made.module, recipe)
    return Model(name, rules, specs)


def _written(
    module: torch.nn.Module | Trace, recipe: AnyRecipe | None
) -> tuple[dict[str, TensorSpec], Recipe]:
    """The tensors of a module's file, and the recipe that the file will have."""
    if isinstance(module, Trace) and recipe is None:
        traced = module
    else:
        traced = described(module.module if isinstance(module, Trace) else module, recipe)
    specs = traced.specs()
    if recipe is None or isinstance(recipe, Trace):
        return specs, parse(traced.toml(), "the traced recipe")
    rules = as_recipe(recipe)
    if isinstance(recipe, Mapping):
        globs = Globs(glob for rule in rules.rules for glob in rule.match)
        inits = [rule.init for rule in rules.rules]  # one glob a rule
        said: dict[str, Initializer] = {}
        for name in specs:
            first = globs.first(name)
            if first is None:
                raise InputError(f"recipe: it has no rule for tensor {show(name)}")
            said[name] = inits[first]
        rules = parse(toml_of(type(traced.module).__name__, said), "the mapping's recipe")
    return specs, rules
