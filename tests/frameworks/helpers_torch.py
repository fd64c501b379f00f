"""What the tests of torch in one process and in several share."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import numinit as ni

torch = pytest.importorskip("torch")
if not torch.distributed.is_available():
    pytest.skip("this build of torch has no torch.distributed", allow_module_level=True)
nn = torch.nn
try:
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
    from torch.distributed.tensor.placement_types import _StridedShard
except ImportError:  # torch 2.4
    from torch.distributed._tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

    _StridedShard = None

__all__ = ["DTensor", "Partial", "Replicate", "Shard", "_StridedShard", "distribute_tensor"]

CALLS = {
    "uniform": lambda t: ni.uniform_(t, -1.0, 2.0, seed=1),
    "normal": lambda t: ni.normal_(t, std=0.02, seed=1),
    "trunc_normal": lambda t: ni.trunc_normal_(t, seed=1),
    "xavier_uniform": lambda t: ni.xavier_uniform_(t, seed=1),
    "xavier_normal": lambda t: ni.xavier_normal_(t, seed=1),
    "kaiming_uniform": lambda t: ni.kaiming_uniform_(t, 5**0.5, seed=1),
    "kaiming_normal": lambda t: ni.kaiming_normal_(t, mode="fan_out", seed=1),
    "orthogonal": lambda t: ni.orthogonal_(t, seed=1),
    "sparse": lambda t: ni.sparse_(t, 0.3, seed=1),
    "constant": lambda t: ni.constant_(t, 0.25),
    "ones": ni.ones_,
    "zeros": ni.zeros_,
    "eye": ni.eye_,
}


def digest(*tensors):
    """A digest of the values of tensors."""
    made = hashlib.sha256()
    for tensor in tensors:
        made.update(tensor.detach().contiguous().view(torch.uint8).numpy().tobytes())
    return made.hexdigest()


class Model(nn.Module):
    """About 10 MB, with sizes that no small number of processes divides, and a tie."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(1001, 512)
        self.up = nn.Linear(512, 2048)
        self.down = nn.Linear(2048, 512, bias=False)
        self.norm = nn.LayerNorm(512)

    def forward(self, ids):
        return self.norm(self.down(self.up(self.embed(ids)).relu()))


def fill_model(model):
    """Fill a model by the names of its tensors."""
    for name, tensor in model.state_dict().items():
        init = ni.Normal(std=0.02) if tensor.ndim > 1 else ni.Uniform(0.5, 1.5)
        init.fill_(tensor, seed=ni.Key(0).fold_in(name))
    return model


def in_processes(cases, world, folder):
    """What `distributed_worker` gives for some cases in a number of processes."""
    here = Path(__file__).parent
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(here), str(Path(ni.__file__).parents[1])]),
        "OMP_NUM_THREADS": "1",
        "NUMINIT_NUM_THREADS": "1",
    }
    store = folder / f"store{world}"
    script = [sys.executable, "-W", "ignore", str(here / "distributed_worker.py")]
    started = [
        subprocess.Popen(
            [*script, ",".join(cases), str(rank), str(world), str(store)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(world)
    ]  # fmt: skip
    try:
        results = [process.communicate(timeout=240) for process in started]
    finally:
        for process in started:
            process.kill()
    for process, (_, errors) in zip(started, results, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return json.loads(results[0][0])
