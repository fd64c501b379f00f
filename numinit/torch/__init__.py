"""torch modules: initialized by the names of their tensors, from a recipe or from their own code.

Each function is imported, and torch with it, when it is first asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numinit.torch.checkpoint import SeedCheckpoint
    from numinit.torch.distributed import flat_shards, init_flat, table_init
    from numinit.torch.dummy import dummy_
    from numinit.torch.module import init_module
    from numinit.torch.patching import patched
    from numinit.torch.saving import save
    from numinit.torch.tracing import trace

__all__ = [
    "SeedCheckpoint",
    "dummy_",
    "flat_shards",
    "init_flat",
    "init_module",
    "patched",
    "save",
    "table_init",
    "trace",
]

#: Where each public name is defined.
_HOMES = {
    "SeedCheckpoint": "numinit.torch.checkpoint",
    "dummy_": "numinit.torch.dummy",
    "flat_shards": "numinit.torch.distributed",
    "init_flat": "numinit.torch.distributed",
    "init_module": "numinit.torch.module",
    "patched": "numinit.torch.patching",
    "save": "numinit.torch.saving",
    "table_init": "numinit.torch.distributed",
    "trace": "numinit.torch.tracing",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        home = importlib.import_module(_HOMES[name])
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ImportError(f"{__name__}.{name} needs torch: pip install 'numinit[torch]'") from None
    value = globals()[name] = getattr(home, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
