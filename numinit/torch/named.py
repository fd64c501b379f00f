"""A module's tensors by their qualified names."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch.nn.parameter import is_lazy  # in torch 2.4 a DTensor is an instance of each Parameter


class Named(NamedTuple):
    """A parameter or buffer of a module."""

    name: str
    tensor: torch.Tensor
    buffer: bool
    persistent: bool
    """Whether the module's state_dict has it."""


def named_tensors(module: torch.nn.Module) -> list[Named]:
    """All parameters and buffers, in the order of ``state_dict``; ties under each of their names.

    Raises
    ------
    ValueError
        Naming the tensors of lazy modules, which have no shape yet.
    """
    named = list(_named(module, ""))
    lazy = [one.name for one in named if is_lazy(one.tensor)]
    if lazy:
        raise ValueError(
            f"module: {', '.join(lazy)} have no shape yet; run the lazy module once, so that it sees "
            "its input"
        )
    return named


def _named(module: torch.nn.Module, prefix: str) -> Iterator[Named]:
    for name, parameter in module._parameters.items():
        if parameter is not None:
            yield Named(prefix + name, parameter, False, True)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            persistent = name not in module._non_persistent_buffers_set
            yield Named(prefix + name, buffer, True, persistent)
    for name, child in module._modules.items():
        if child is not None:
            yield from _named(child, f"{prefix}{name}.")
