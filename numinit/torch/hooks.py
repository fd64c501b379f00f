"""torch.nn.init's functions, and numinit's own, taken over while a thread records them or makes them faster.

Other packages keep the functions under names of their own: ``from torch.nn.init import normal_``, or
the table of transformers. So it is the functions' code that is exchanged, which all of these share,
and not an attribute of a module. A thread that has asked for nothing runs torch's own code.
"""

import contextlib
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch

import numinit.initializers as initializers
from numinit.initializers import Initializer

Function = Callable[..., Any]
#: ``handler(name, original, args, kwargs)`` stands in for a function of torch.nn.init.
Handler = Callable[[str, Function, tuple[Any, ...], dict[str, Any]], Any]


def _kaiming(
    kind: type[Initializer], a: float, mode: str, nonlinearity: str | Callable[[Any], Any]
) -> Initializer:
    return kind(a, mode.lower(), nonlinearity)  # type: ignore[call-arg]


#: For each function of torch.nn.init: the tensor, and the initializer that the arguments mean.
MEANINGS: dict[str, Callable[..., tuple[torch.Tensor, Initializer]]] = {
    "uniform_": lambda tensor, a=0.0, b=1.0, generator=None: (tensor, initializers.Uniform(a, b)),
    "normal_": lambda tensor, mean=0.0, std=1.0, generator=None: (
        tensor,
        initializers.Normal(mean, std),
    ),
    "trunc_normal_": lambda tensor, mean=0.0, std=1.0, a=-2.0, b=2.0, generator=None: (
        tensor,
        initializers.TruncNormal(mean, std, a, b),
    ),
    "xavier_uniform_": lambda tensor, gain=1.0, generator=None: (
        tensor,
        initializers.XavierUniform(gain),
    ),
    "xavier_normal_": lambda tensor, gain=1.0, generator=None: (
        tensor,
        initializers.XavierNormal(gain),
    ),
    "kaiming_uniform_": lambda tensor, a=0, mode="fan_in", nonlinearity="leaky_relu", generator=None: (
        tensor,
        _kaiming(initializers.KaimingUniform, a, mode, nonlinearity),
    ),
    "kaiming_normal_": lambda tensor, a=0, mode="fan_in", nonlinearity="leaky_relu", generator=None: (
        tensor,
        _kaiming(initializers.KaimingNormal, a, mode, nonlinearity),
    ),
    "orthogonal_": lambda tensor, gain=1, generator=None: (tensor, initializers.Orthogonal(gain)),
    "sparse_": lambda tensor, sparsity, std=0.01, generator=None: (
        tensor,
        initializers.Sparse(sparsity, std),
    ),
    "eye_": lambda tensor: (tensor, initializers.Eye()),
    "dirac_": lambda tensor, groups=1: (tensor, initializers.Dirac(groups)),
    # numinit's own: of a whole tensor; a window is left to it
    "fill_": lambda init, array, *, shape=None, offset=None, seed=None: (
        array if shape is None and offset is None else None,
        init,
    ),
}

# Their code is torch's; a clone of each keeps it while the function itself has another.
_FUNCTIONS: dict[str, Any] = {
    name: getattr(torch.nn.init, name, Initializer.fill_) for name in MEANINGS
}
_ORIGINALS: dict[str, Function] = {}


class _Handlers(threading.local):
    """The handlers of a thread; the last one is asked."""

    stack: tuple[Handler, ...] = ()


_handlers = _Handlers()
_lock = threading.Lock()
_users = 0


def call(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Carry out a call of one of torch.nn.init's functions, whose code is `_stand_in`'s."""
    original = _ORIGINALS[name]
    stack = _handlers.stack
    if not stack:
        return original(*args, **kwargs)
    _handlers.stack = stack[:-1]  # what a handler calls is for the one before it
    try:
        return stack[-1](name, original, args, kwargs)
    finally:
        _handlers.stack = stack


def _stand_in(name: str) -> types.CodeType:
    """The code that a function has while any thread handles it.

    It runs with the global names of torch.nn.init, and so imports what it needs.
    """

    def code(*args, **kwargs):  # type: ignore[no-untyped-def]
        from numinit.torch.hooks import call

        return call("", args, kwargs)

    constants = tuple(name if constant == "" else constant for constant in code.__code__.co_consts)
    return code.__code__.replace(co_consts=constants, co_name=name, co_qualname=name)


def _clone(function: types.FunctionType) -> Function:
    clone = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__
    )
    clone.__kwdefaults__ = function.__kwdefaults__
    return clone


@contextlib.contextmanager
def handled(handler: Handler) -> Iterator[None]:
    """Hand this thread's calls of torch.nn.init's functions to `handler`."""
    global _users
    with _lock:
        if _users == 0:
            for name, function in _FUNCTIONS.items():
                _ORIGINALS[name] = _clone(function)
                function.__code__ = _stand_in(name)
        _users += 1
    outer = _handlers.stack
    _handlers.stack = (*outer, handler)
    try:
        yield
    finally:
        _handlers.stack = outer
        with _lock:
            _users -= 1
            if _users == 0:
                for name, function in _FUNCTIONS.items():
                    function.__code__ = _ORIGINALS[name].__code__
