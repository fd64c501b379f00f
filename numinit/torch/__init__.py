"""torch modules: initialized by the names of their tensors, from a recipe or from their own code.

`init_module` gives every parameter and buffer the stream of its qualified name. A module that was made
on the meta device gets its memory there, once::

    with torch.device("meta"):
        module = Model(config)
    numinit.torch.init_module(module, seed=0)             # the module's own distributions
    numinit.torch.init_module(module, "llama", seed=0)    # those of a recipe, as files have

Without a recipe, the module's own functions run on tensors that have no memory, and what they do to
each tensor is written down: fills, fills of parts, and other operations. A fill is then made by
numinit; what draws nothing, such as a table of positions, is made by torch on the real memory.

`trace` records a constructor, which also knows the values of its buffers, and says what it found::

    traced = numinit.torch.trace(lambda: Model(config))
    traced.tensors["layers.0.wq.weight"].initializer      # Normal(mean=0.0, std=0.02)
    numinit.torch.init_module(traced.module, traced, seed=0)
    Path("recipe.toml").write_text(traced.toml())         # for ``numinit init --recipe recipe.toml``

What a constructor copies stays a copy: the layers of a torch.nn.TransformerEncoder begin alike.
Fills that others overwrite are left out, so that no tensor is filled twice. Three things cannot be
recorded, and give a warning that names the module: draws that numinit has no fill for
(``exponential_``, ``randperm``), which torch makes from a seed that follows from the tensor's name;
random values that Python code reads (``w.norm().item()``), which are drawn while the code runs; and
operations on random values that torch cannot describe without carrying them out (``geqrf``), which
are treated in the same way.

`patched` is for code that should stay as it is: inside of it, torch's own initialization runs at
numinit's speed, and ``torch.manual_seed`` governs it as before.

A module that several processes share (DTensor, FSDP, tensor parallelism) is filled where it is, with
the values of one device; see `numinit.torch.distributed`. `SeedCheckpoint` is a checkpoint of
initial weights for `torch.distributed.checkpoint.load` that was never stored. `save` writes a
module's file, or several of a given size, without the memory of the module, as ``numinit init
package.module:factory`` does. `trace` and ``numinit init`` also make the module that a config.json of
transformers describes. `dummy_` fills the weights of any type with small finite values, to test
what serves them.

Memory on the CPU and on CUDA's GPUs is filled in place. On other devices (mps, xpu, hpu, ROCm's GPUs)
the values are made on the host, in pieces of 64 MiB, and copied; they are the same.

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
