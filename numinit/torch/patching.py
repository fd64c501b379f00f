"""torch's own initialization at numinit's speed, while a context lasts."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

import numinit.functional as functional
from numinit.initializers import Initializer, Normal, Uniform
from numinit.torch import hooks
from numinit.torch.memory import use_huge_pages
from numinit.torch.steps import FILLED

__all__ = ["patched"]

#: Functions that fill a tensor, and the initializer that their arguments mean.
_FILLS: dict[Any, Callable[..., Initializer]] = {
    Tensor.uniform_: lambda tensor, low=0.0, high=1.0: Uniform(low, high),
    Tensor.normal_: lambda tensor, mean=0.0, std=1.0: Normal(mean, std),
}
#: Functions that make a random tensor: one that makes it empty, and its initializer.
_DRAWS: dict[Any, tuple[Callable[..., Tensor], Initializer]] = {
    torch.rand: (torch.empty, Uniform()),
    torch.rand_like: (torch.empty_like, Uniform()),
    torch.randn: (torch.empty, Normal()),
    torch.randn_like: (torch.empty_like, Normal()),
}
#: numinit's errors, and torch's own, as in a vmap whose randomness differs. Then torch's function is
#: called, which does it, or has its own error.
_REFUSALS = (ImportError, TypeError, ValueError, RuntimeError)
_EMPTY = {torch.empty, torch.empty_like, torch.empty_strided, Tensor.new_empty}


@contextlib.contextmanager
def patched() -> Iterator[None]:
    """Run code that initializes with torch at numinit's speed.

    It is for modules' constructors, ``torch.nn.init`` under any name (transformers keeps functions of
    it), ``Tensor.normal_`` and ``Tensor.uniform_``, ``torch.randn`` and ``torch.rand``, for tensors
    of any size in this thread. ``torch.manual_seed`` governs the values as before: each fill takes
    its seed from torch's generator, or from the one that it is given. The values are numinit's, with
    the distributions that torch has. Tensors that numinit does not accept, such as subclasses of
    torch.Tensor or those on other devices than CPUs and CUDA's, are filled by torch.

    Contexts may be nested. Other threads are not affected; each may enter one of its own.

    Examples
    --------
    >>> import torch
    >>> from numinit.torch import patched
    >>> with patched():
    ...     generator = torch.manual_seed(0)
    ...     module = torch.nn.Linear(64, 10)
    >>> generator = torch.manual_seed(0)
    >>> bool((ni.kaiming_uniform_(torch.empty(10, 64), a=5**0.5) == module.weight).all())
    True
    """
    with hooks.handled(_init_function), _Fast():
        yield


def _init_function(
    name: str, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """One of torch.nn.init's functions: numinit's function of the same name and signature."""
    tensor = args[0] if args else kwargs.get("tensor")
    if not _accepted(tensor):
        return original(*args, **kwargs)
    try:
        return getattr(functional, name)(*args, **kwargs)
    except _REFUSALS:
        return original(*args, **kwargs)


def _accepted(tensor: Any) -> bool:
    """Whether numinit fills such a tensor."""
    return (
        type(tensor) in (Tensor, torch.nn.Parameter)
        and tensor.dtype in FILLED
        and (tensor.is_cpu or (tensor.is_cuda and torch.version.cuda is not None))
    )


class _Fast(TorchFunctionMode):
    """Fills with numinit what torch's functions would draw."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _FILLS and _accepted(args[0]) and not _recorded(args[0]):
            return _filled(func, args, kwargs)
        if func in _DRAWS and kwargs.get("out") is None:
            return _drawn(func, args, kwargs)
        made = func(*args, **kwargs)
        if func in _EMPTY:
            use_huge_pages(made)
        return made


def _recorded(tensor: Tensor) -> bool:
    """Whether autograd has something to say about a write, which torch's function then hears."""
    return bool(tensor.requires_grad and torch.is_grad_enabled())


def _filled(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = {_PLAIN.get(key, key): value for key, value in kwargs.items() if key != "generator"}
    try:
        return _FILLS[func](*args, **given).fill_(args[0], seed=kwargs.get("generator"))
    except _REFUSALS:
        return func(*args, **kwargs)


#: torch's names of arguments that Python has for something else.
_PLAIN = {"from": "low", "to": "high"}


def _drawn(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    empty, init = _DRAWS[func]
    given = {
        key: value for key, value in kwargs.items() if key not in ("generator", "requires_grad")
    }
    tensor = empty(*args, **given)
    if not _accepted(tensor):
        return func(*args, **kwargs)
    use_huge_pages(tensor)
    try:
        init.fill_(tensor, seed=kwargs.get("generator"))
    except _REFUSALS:
        return func(*args, **kwargs)
    return tensor.requires_grad_(kwargs.get("requires_grad", False))
