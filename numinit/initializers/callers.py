"""Frameworks that call an initializer of torch's axes by mistake: an error that names the import."""

import sys
from typing import Any

from numinit.show import show

#: Packages that call an initializer as ``init(shape, dtype)``, as anyone may, but for weights in
#: other axes than torch's; and the module that has initializers in theirs.
CALLERS = {"keras": "numinit.keras", "haiku": "numinit.jax"}


def refuse_caller(init: Any) -> None:
    """Refuse a call by a framework of other axes. `Initializer.__call__` is the caller of this.

    The arguments cannot tell such a call from a user's, so that the caller itself is looked at: the
    function that made the call, those of JAX (which traces one for Keras) left out. A function of
    the user's between the framework and numinit is trusted, because it may turn the axes.

    Raises
    ------
    TypeError
        If the caller is in `CALLERS`, and the values depend on axes that were left at torch's.
    """
    for package in CALLERS:
        if package in sys.modules:
            break
    else:
        return
    if not _in_torch_axes(init):
        return
    frame = sys._getframe(2)
    while (package := _package(frame.f_globals.get("__name__"))) in ("jax", "jaxlib"):
        if frame.f_back is None:
            return
        frame = frame.f_back
    if package in CALLERS:
        name = type(init).__name__
        raise TypeError(
            f"{name}: {package} called {show(init)}, whose axes are torch's, (out, in, *kernel), and "
            f"not {package}'s; use {CALLERS[package]} instead of numinit: {CALLERS[package]} has "
            "this initializer, or the one that is meant, in those axes"
        )


def refused_call(init: Any, shape: Any, count: int) -> TypeError | None:
    """The error for a call as JAX's or MLX's, or of too many arguments; else None."""
    name, package = type(init).__name__, _package(type(shape).__module__)
    if package == "mlx":
        return TypeError(
            f"shape: an MLX array was given; MLX calls an initializer with an array, and {name} "
            "accepts (shape, dtype), with torch's axes; use numinit.mlx instead of numinit"
        )
    if package in ("jax", "jaxlib"):
        return TypeError(
            f"shape: a JAX {type(shape).__name__} was given; JAX, Flax and others call an "
            f"initializer with (key, shape, dtype), and {name} accepts (shape, dtype), with torch's "
            "axes; use numinit.jax (from numinit.jax import initializers) instead of numinit"
        )
    if count > 2:
        return TypeError(
            f"{name}: {count} positional arguments were given; shape and dtype are accepted, and "
            "seed= and device="
        )
    return None


def _in_torch_axes(init: Any) -> bool:
    """Whether an initializer, or the one that it wraps, has axes and no others were chosen."""
    while hasattr(init, "init"):
        init = init.init
    kind = type(init)
    axes = [name for name in ("in_axis", "out_axis") if hasattr(kind, name)]
    return bool(axes) and all(getattr(init, name) == getattr(kind, name) for name in axes)


def _package(module: Any) -> str:
    return str(module).partition(".")[0]
