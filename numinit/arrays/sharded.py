"""ShardedTensors of torch, as torchrec has them: their local shards say where they begin."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from torch.distributed._shard.sharded_tensor import ShardedTensor

from numinit.arrays.memory import Framework, Memory, Part
from numinit.arrays.torch import default_seed, seed_from


def memory(tensor: Any) -> Memory:
    """Refuse a ShardedTensor where one memory is needed."""
    raise TypeError(
        "tensor: a ShardedTensor has no memory of its own; fill_ and the functions of torch.nn.init "
        "accept it, and elsewhere the tensor of a local shard is accepted"
    )


def values(tensor: Any) -> np.ndarray:
    """Refuse a ShardedTensor where all values are needed."""
    raise TypeError(
        "tensor: a ShardedTensor holds a part of its values; a plain tensor is accepted"
    )


def parts(tensor: Any) -> tuple[tuple[int, ...], Iterable[Part]]:
    """The whole shape, and the shards that this process holds."""
    shards = tensor.local_shards()
    return tuple(tensor.size()), [(s.tensor, tuple(s.metadata.shard_offsets)) for s in shards]


FRAMEWORK = Framework(
    ShardedTensor, memory, values, default_seed=default_seed, seed_from=seed_from, parts=parts
)
