"""The memory that modules take, at its peak: each case in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import numinit

pytest.importorskip("torch")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc/self/status")

BEFORE = """
import warnings; warnings.simplefilter("ignore")
import sys, torch
from torch import nn
from numinit.torch import SeedCheckpoint, init_module

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024

def model(scale, device="meta"):
    with torch.device(device):
        return nn.Sequential(
            nn.Embedding(24 * scale, 1024), nn.Linear(1024, 16 * scale), nn.LayerNorm(1024),
            nn.Linear(16 * scale, 1024, bias=False),
        )

SMALL, LARGE = 4, 1024  # MiB: about 224 of the large one
"""
AFTER = """
size = sum(p.numel() * 4 for p in model(LARGE).parameters()) / 2**20
case(model(SMALL))  # compiles
large = model(LARGE)
before = peak()
case(large)
print(size, peak() - before)
"""
META = "def case(module): init_module(module, seed=0)"
SHARDED = """
from torch.distributed._composable.fsdp import fully_shard
from torch.testing._internal.distributed.fake_pg import FakeStore

torch.distributed.init_process_group("fake", store=FakeStore(), rank=1, world_size=4)
mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (4,))

def case(module):
    fully_shard(module, mesh=mesh)
    init_module(module, seed=0)
"""
LOADED = """
import torch.distributed.checkpoint as dcp

own = model

def model(scale):
    made = own(scale, "cpu")
    for tensor in made.parameters():
        tensor.data.fill_(1)
    return made

def case(module):
    source = own(module[0].num_embeddings // 24)
    dcp.load(module.state_dict(), storage_reader=SeedCheckpoint(source, seed=0))
"""


@pytest.mark.parametrize(("case", "share"), [(META, 1), (SHARDED, 1 / 4), (LOADED, 0)])
def test_a_process_takes_its_share_and_64_mib(case, share):
    run = subprocess.run(
        [sys.executable, "-c", BEFORE + case + AFTER],
        env=os.environ | {"PYTHONPATH": str(Path(numinit.__file__).parents[1])},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    size, grown = map(float, run.stdout.split())
    assert size > 200
    assert share * size - 16 < grown < share * size + 64
