"""The table of frameworks: one row each, imported when an object of the framework is first seen."""

import functools
import importlib
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from numinit.arrays.memory import Framework

#: Package, or a part of one -> the module whose ``FRAMEWORK`` is its `Framework`.
FRAMEWORKS = {
    "numpy": "numinit.arrays.numpy",
    "torch": "numinit.arrays.torch",
    "torch.distributed.tensor": "numinit.arrays.dtensor",
    "torch.distributed._tensor": "numinit.arrays.dtensor",  # in torch 2.4
    "torch.distributed._shard.sharded_tensor": "numinit.arrays.sharded",
}

#: The module for arrays of other packages that export a GPU's memory by one of these attributes.
EXPORTED = "numinit.arrays.gpu"
EXPORTS = ("__cuda_array_interface__", "__dlpack_device__")


def framework_of(array: Any) -> Framework:
    """The framework of an array.

    Raises
    ------
    TypeError
        If neither its type nor a base of it belongs to a framework, and it exports no memory.
    """
    kind = type(array)
    found = _of_type(kind)  # type: ignore[arg-type]
    if found is not None:
        return found
    # Of its class first, because an array makes its answer anew each time.
    if any(hasattr(kind, name) or hasattr(array, name) for name in EXPORTS):
        return _imported(EXPORTED)
    raise TypeError(
        f"array: {type(array).__name__} was given; an array on a GPU, a NumPy array or a torch "
        "tensor is accepted"
    )


@functools.lru_cache(256)
def _of_type(kind: Any) -> Framework | None:
    for framework in of_ancestry(kind):
        if issubclass(kind, framework.kind):
            return framework
    return None


def of_ancestry(kind: Any) -> Iterator[Framework]:
    """The frameworks that a type or one of its bases belongs to."""
    for base in kind.__mro__:
        package = base.__module__
        while package and package not in FRAMEWORKS:
            package = package.rpartition(".")[0]
        if package:
            yield _imported(FRAMEWORKS[package])


def values_of(name: str, given: Any) -> np.ndarray:
    """The values of an argument that is an array of any framework, or what NumPy makes one of.

    Raises
    ------
    TypeError, ValueError
        If it has none; the message has the argument's `name`.
    """
    try:
        values = framework_of(given).values
    except TypeError:
        values = np.asarray
    try:
        return values(given)
    except (TypeError, ValueError, RuntimeError) as error:  # the last one of a meta tensor
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(f"{name}: {str(error).removeprefix('array: ')}") from None


def in_use() -> Iterator[Framework]:
    """The frameworks that this process has imported, except NumPy."""
    used = (module for package, module in FRAMEWORKS.items() if package in sys.modules)
    for module in dict.fromkeys(used):
        if module != FRAMEWORKS["numpy"]:
            yield _imported(module)


@functools.cache
def _imported(module: str) -> Framework:
    framework: Framework = importlib.import_module(module).FRAMEWORK
    return framework
