"""A module's tensors by their qualified names."""

import contextlib
import sys
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch.nn.parameter import is_lazy  # in torch 2.4 a DTensor is an instance of each Parameter

from numinit.show import show


class Named(NamedTuple):
    """A parameter or buffer of a module."""

    name: str
    tensor: torch.Tensor
    buffer: bool
    persistent: bool
    """Whether the module's state_dict has it."""
    owner: torch.nn.Module
    """The part of the module that has it."""


#: The names of modules that wrap another one, which the names in a ``state_dict`` leave out: FSDP1's,
#: and that of activation checkpointing.
WRAPPED = {"_fsdp_wrapped_module", "_checkpoint_wrapped_module"}


def is_dense(tensor: torch.Tensor) -> bool:
    """Whether a tensor has one memory, as no sparse one has."""
    return tensor.layout is torch.strided


def alike(new: torch.Tensor, old: torch.Tensor) -> None:
    """Give a tensor that takes another's place the attributes, and the class of a parameter, of that."""
    with contextlib.suppress(AttributeError):
        new.__dict__.update(old.__dict__)
    kind = type(old)
    if type(new) is torch.nn.Parameter and torch.nn.Parameter in kind.__mro__:  # no DTensor's is
        with contextlib.suppress(TypeError):  # its memory is laid out otherwise
            new.__class__ = kind


def is_wrapper(module: torch.nn.Module) -> bool:
    """Whether a module is FSDP1's, whose parameters are runs of flattened ones."""
    fsdp = sys.modules.get("torch.distributed.fsdp")  # else none was made; importing it takes long
    return fsdp is not None and isinstance(module, fsdp.FullyShardedDataParallel)


def refuse_flat(module: torch.nn.Module) -> None:
    """Refuse a module whose parameters are runs of flattened ones, or empty while others hold these.

    Raises
    ------
    ValueError
    """
    if any(map(is_wrapper, module.modules())):
        raise ValueError("module: FullyShardedDataParallel has flattened it; init_flat accepts it")
    for name, parameter in module.named_parameters():
        if hasattr(parameter, "ds_tensor"):
            raise ValueError(
                f"module: DeepSpeed's ZeRO-3 has partitioned {show(name)}; fill its ds_tensor by "
                "fill_flat, see numinit.torch.distributed"
            )


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
            yield Named(prefix + name, parameter, False, True, module)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            persistent = name not in module._non_persistent_buffers_set
            yield Named(prefix + name, buffer, True, persistent, module)
    for name, child in module._modules.items():
        if child is not None:
            yield from _named(child, prefix if name in WRAPPED else f"{prefix}{name}.")
