"""A module's tensors by their qualified names."""

from collections.abc import Iterator
from typing import NamedTuple

import torch


class Named(NamedTuple):
    """A parameter or buffer of a module."""

    name: str
    tensor: torch.Tensor
    buffer: bool
    persistent: bool
    """Whether the module's state_dict has it."""


def named_tensors(module: torch.nn.Module) -> list[Named]:
    """All parameters and buffers, in the order of ``state_dict``; ties under each of their names."""
    return list(_named(module, ""))


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
