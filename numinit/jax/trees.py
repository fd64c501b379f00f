"""Whole models as pytrees: one array for each leaf, keyed by the leaf's path."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from numinit.jax.arrays import alone, as_initializer, as_sharding, placed, resolved
from numinit.jax.keys import as_key
from numinit.models.integers import INTEGERS, check_integers, integers
from numinit.models.recipe import Recipe, RecipeError
from numinit.models.recipes import as_recipe
from numinit.models.tensors import Plans
from numinit.show import show
from numinit.stream.dtypes import as_dtype

tree = jax.tree_util
BOXES = ("AxisMetadata", "Variable")  # of Flax: one leaf and what is known of it


def init_pytree(abstract: Any, recipe: Any, sharding: Any = None, *, seed: Any) -> Any:
    """Initialize a whole model, each leaf from the stream of its path.

    A leaf's name is its path with dots: "params.Dense_0.kernel". Slashes in Haiku's module names
    count as dots, and the "value" in Flax's boxes and variables is left out. The values of a leaf
    depend on its name, its shape, its initializer and `seed` alone. They are those of
    `numinit.init_params` for the same names.

    Parameters
    ----------
    abstract : pytree
        Its leaves have a shape and a dtype: what ``jax.eval_shape``, ``nnx.eval_shape`` or
        ``eqx.filter_eval_shape`` returns, or a model's arrays. Other leaves beside them are
        returned as they are. Integer and boolean leaves need a constant.
    recipe : Recipe, str, Path, mapping, function of `numinit.jax.initializers` or Initializer
        A recipe, its name or path; globs and their initializers, of which the first glob that
        matches a name wins; or one initializer for all leaves.
    sharding : Sharding, PartitionSpec, Device, pytree of them or None
        One for all leaves, or a prefix of `abstract`. None: that of an abstract leaf that has one,
        else JAX's default device.
    seed : int, Key, or key of JAX
        The leaf `name` is drawn from ``as_key(seed).fold_in(name)``.

    Returns
    -------
    pytree
        Like `abstract`.

    Raises
    ------
    RecipeError
        If the recipe cannot be read, leaves a leaf without a rule, or does not fit a shape.
    TypeError, ValueError
        If no leaf has a shape and a dtype, a leaf's dtype is not accepted, an integer leaf has no constant, or two leaves have the
        same name.

    Examples
    --------
    >>> import jax, numinit.jax
    >>> from numinit.jax import initializers
    >>> abstract = {"fc": {"kernel": jax.ShapeDtypeStruct((64, 10), "float32"),
    ...                    "bias": jax.ShapeDtypeStruct((10,), "float32")}}
    >>> recipe = {"*.bias": initializers.zeros, "*": initializers.he_normal()}
    >>> params = numinit.jax.init_pytree(abstract, recipe, seed=0)
    >>> key = ni.Key(0).fold_in("fc.kernel")
    >>> bool((params["fc"]["kernel"] == recipe["*"].initializer((64, 10), seed=key)).all())
    True
    """
    if seed is None:
        raise TypeError(
            "seed: None was given; an integer or a key, the same in every process, is accepted"
        )
    leaves = _named(abstract)
    rules = as_recipe(_rules(recipe))
    kinds = {name: _kind(name, leaf) for name, leaf in leaves.items() if _is_array(leaf)}
    if leaves and not kinds:
        raise TypeError(
            f"abstract: {show(abstract)} was given, none of whose leaves has a shape and a dtype; what "
            "jax.eval_shape returns, jax.ShapeDtypeStruct(shape, dtype) and arrays are accepted"
        )
    shapes = {name: tuple(leaves[name].shape) for name in kinds}
    floating = {n: as_dtype(kind) for n, kind in kinds.items() if kind.name not in INTEGERS}
    made, key, like = Plans(rules.made(shapes, floating)), as_key(seed), jnp.zeros(())
    counts = {}
    for name in kinds.keys() - floating.keys():
        integer = INTEGERS[kinds[name].name]
        check_integers(name, made[name], shapes[name], integer)
        counts[name] = integers(name, made[name], shapes[name], integer)

    def array(name: str, place: Any) -> jax.Array:
        shape, kind = shapes[name], kinds[name]
        if name in counts:
            value = counts[name].astype(kind)
            if place is None:
                return jnp.asarray(value)
            return jax.make_array_from_callback(shape, place, value.__getitem__)
        init, own = made.ready(name, shape, floating[name]), made.key(name, key)
        if place is None:
            return alone(init, own, shape, kind, like)
        return placed(init, own, shape, kind, place)

    arrays = []
    for (name, leaf), place in zip(
        leaves.items(), _places(sharding, abstract, list(leaves.values())), strict=True
    ):
        try:
            arrays.append(array(name, place) if name in kinds else leaf)
        except ValueError as error:
            raise RecipeError(f"leaf {show(name)}: {error}") from error
    return tree.tree_unflatten(tree.tree_structure(abstract), arrays)


def _rules(recipe: Any) -> Any:
    """Return a recipe argument without functions of this package."""
    if isinstance(recipe, Recipe | str | Path):
        return recipe
    if not isinstance(recipe, Mapping):
        recipe = {"*": recipe}
    return {glob: as_initializer(given) for glob, given in recipe.items()}


def _is_array(leaf: Any) -> bool:
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype")


def _is_box(node: Any) -> bool:
    return any(
        base.__name__ in BOXES and base.__module__.startswith("flax.")
        for base in type(node).__mro__
    )


def _kind(name: str, leaf: Any) -> np.dtype:
    """Return the element type of a leaf's array."""
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        raise TypeError(
            f"leaf {show(name)}: it is a key ({leaf.dtype}), which no initializer makes; leave such "
            "leaves out, as nnx.state(model, nnx.Param) does"
        )
    return resolved(leaf.dtype)


def _named(abstract: Any) -> dict[str, Any]:
    """Return all leaves by their names, in the order of the pytree."""
    found: dict[str, Any] = {}
    for path, node in tree.tree_flatten_with_path(abstract, is_leaf=_is_box)[0]:
        inner = tree.tree_flatten_with_path(node)[0]
        for below, leaf in inner:
            whole = path if len(inner) == 1 else path + below
            name = tree.keystr(whole, simple=True, separator=".").replace("/", ".")
            if name in found:
                raise ValueError(f"abstract: two leaves have the name {show(name)}")
            found[name] = leaf
    return found


def _places(sharding: Any, abstract: Any, leaves: list[Any]) -> list[Any]:
    """Return the sharding of each leaf; None is JAX's default device."""
    places: list[Any] = []

    def spread(place: Any, below: Any) -> None:
        places.extend([place] * len(tree.tree_leaves(below)))

    tree.tree_map(spread, sharding, abstract, is_leaf=_is_place)
    for number, (place, leaf) in enumerate(zip(places, leaves, strict=True)):
        if place is None and isinstance(leaf, jax.ShapeDtypeStruct):
            place = leaf.sharding
        places[number] = None if place is None else as_sharding(place)
    return places


def _is_place(given: Any) -> bool:
    kinds = jax.sharding.Sharding, jax.sharding.PartitionSpec, jax.Device
    return given is None or isinstance(given, kinds)
