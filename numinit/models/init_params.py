"""Whole models: names and shapes in, arrays out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from numinit.engines.layout import c_steps
from numinit.initializers import Initializer
from numinit.show import show
from numinit.stream.dtypes import DTYPES, as_dtype
from numinit.weights.keys import as_key
from numinit.weights.shapes import as_shape

if TYPE_CHECKING:
    from numinit.models.recipes import Recipe
    from numinit.models.sources import TensorSpec

__all__ = ["init_params"]


def init_params(
    shapes: "Mapping[str, TensorSpec | Sequence[int]] | str | Path",
    recipe: "Recipe | str | Path | Mapping[str, Initializer] | None" = None,
    seed: Any = 0,
    dtype: Any = "float32",
) -> dict[str, np.ndarray]:
    """Initialize every tensor of a model.

    The values of a tensor depend on its name, its shape, its initializer and `seed` alone: neither
    the order of `shapes` nor the other tensors in it change them.

    Parameters
    ----------
    shapes : mapping of str to sequence of int or TensorSpec, str or Path
        Every tensor's name and shape, such as a trace's `specs`; or the name of a shipped model, or
        the path of a model's JSON or ``.safetensors`` file. Integer and boolean tensors of a file or
        a TensorSpec keep their dtypes, and the recipe must make them constants, or integers by their
        indices.
    recipe : Recipe, str, Path or mapping of str to Initializer
        A recipe, the name of a shipped one, the path of a TOML file; or globs and their
        initializers, of which the first glob that matches a name wins. If left out, it is the
        source's own: a shipped model names one, and a JSON file may.
    seed : int, Key or any other seed, default 0
        The tensor `name` is drawn from ``as_key(seed).fold_in(name)``; one that follows from
        another, as the recipe says, from that one's key.
    dtype : dtype or mapping of str to dtype, default "float32"
        One for all floating-point tensors, whatever a file's dtypes, but those whose rule has a
        `dtype` and complex ones, of which a type without parts says nothing; or one for each name.

    Returns
    -------
    dict of str to ndarray
        In the order of `shapes`.

    Raises
    ------
    RecipeError
        If there is no recipe, or it cannot be read, leaves a tensor without a rule, does not fit a shape, or has a
        rule or a glob that matches nothing and is not optional.

    Examples
    --------
    >>> import numinit as ni
    >>> recipe = {"*.bias": ni.Zeros(), "*": ni.KaimingNormal(nonlinearity="relu")}
    >>> params = ni.init_params({"fc.weight": (10, 64), "fc.bias": (10,)}, recipe, seed=0)
    >>> {name: array.shape for name, array in params.items()}
    {'fc.weight': (10, 64), 'fc.bias': (10,)}
    """
    # Imported late: most processes initialize no whole model.
    from numinit.models.integers import INTEGERS, check_integers, integers
    from numinit.models.recipe import RecipeError
    from numinit.models.recipes import as_recipe
    from numinit.models.sources import TensorSpec, load_model
    from numinit.models.tensors import Plans, keeps_parts

    owns: dict[str, str | None] = {}
    if isinstance(shapes, str | Path):
        model = load_model(shapes)
        recipe, specs = model.recipe if recipe is None else recipe, model.tensors
        shapes = {name: spec.shape for name, spec in specs.items()}
        owns = {name: spec.dtype for name, spec in specs.items()}
    elif not isinstance(shapes, Mapping):
        raise TypeError(
            f"shapes: {show(shapes)} was given; a mapping of names to shapes, or the name or path of "
            "a model, is accepted"
        )
    else:
        given = {name: one for name, one in shapes.items() if isinstance(one, TensorSpec)}
        shapes = {**shapes, **{name: spec.shape for name, spec in given.items()}}
        owns = {name: spec.dtype for name, spec in given.items()}
    for name in shapes:
        if not isinstance(name, str):
            raise TypeError(f"shapes: the name {show(name)} was given; a string is accepted")
    sizes = {name: as_shape(given, f"shapes[{show(name)}]") for name, given in shapes.items()}
    # Everything that can be refused is refused before the first tensor is drawn.
    if recipe is None:
        raise RecipeError(
            "recipe: none was given, and the shapes name none; a Recipe, the name of a shipped one, the "
            "path of a TOML file, or a mapping of globs to initializers is accepted"
        )
    rules = as_recipe(recipe)
    said = dict(rules.dtypes(sizes))
    for name, own in owns.items():
        if (own in INTEGERS and said.get(name, "keep") == "keep") or (
            said.get(name) == "keep" and own is not None
        ):  # it counts, whatever `dtype`
            said[name] = own
    kept = {name: INTEGERS[kind] for name, kind in said.items() if kind in INTEGERS}
    drawn = [name for name in sizes if name not in kept]
    if isinstance(dtype, Mapping):
        for name in drawn:
            if name not in dtype:
                raise ValueError(
                    f"dtype has no entry for tensor {name!r}; a mapping must name every tensor"
                )
        dtypes = {name: as_dtype(dtype[name]) for name in drawn}
    else:
        asked = as_dtype(dtype)
        dtypes = {}
        for name in drawn:
            known = DTYPES.get(owns.get(name) or "", asked)
            kind = known if keeps_parts(known, asked) else asked
            dtypes[name] = kind if said.get(name, "keep") == "keep" else as_dtype(said[name])
    plans = rules.made(sizes, dtypes)
    key = as_key(seed)
    made = Plans(plans)  # alike tensors share what is prepared
    for name, integer in kept.items():
        check_integers(name, made[name], sizes[name], integer)
    for name, kind in dtypes.items():
        shape = sizes[name]
        strides = tuple(step * kind.itemsize for step in c_steps(shape))
        try:  # as the call below asks for it
            made.ready(name, shape, kind)._ready(shape, kind, shape, strides, None, False, False)
        except ValueError as error:
            raise RecipeError(f"tensor {show(name)}: {error}") from error
    return {
        name: integers(name, made[name], sizes[name], kept[name])
        if name in kept
        else made.ready(name, sizes[name], dtypes[name])(
            sizes[name], dtypes[name], seed=made.key(name, key)
        )
        for name in plans
    }
