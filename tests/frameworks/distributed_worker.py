"""One process of several, started by the tests: ``python distributed_worker.py CASES RANK WORLD STORE``.

Process 0 prints what the cases gave, as JSON.
"""

import json
import os
import sys
import warnings

import torch
import torch.distributed as dist
from helpers_torch import (
    CALLS,
    DTensor,
    Model,
    Partial,
    Replicate,
    Shard,
    _StridedShard,
    digest,
    distribute_tensor,
    fill_model,
    nn,
)
from torch.distributed.device_mesh import init_device_mesh

import numinit as ni
from numinit.torch import SeedCheckpoint, dummy_, init_flat, init_module, table_init, trace

SHAPE = (101, 96)


def placements(world):
    """Meshes and the placements on them."""
    cases = {
        "shard0": ((world,), [Shard(0)]),
        "shard1": ((world,), [Shard(1)]),
        "replicate": ((world,), [Replicate()]),
    }
    if world == 4:
        cases |= {
            "rows_columns": ((2, 2), [Shard(0), Shard(1)]),
            "rows_rows": ((2, 2), [Shard(0), Shard(0)]),
            "hsdp": ((2, 2), [Replicate(), Shard(0)]),
            "columns_replicate": ((2, 2), [Shard(1), Replicate()]),
        }
    return cases


def dtensors(world):
    """Every function of torch.nn.init and every placement."""
    made = {}
    for case, (shape, where) in placements(world).items():
        mesh = init_device_mesh("cpu", shape)
        for name, call in CALLS.items():
            tensor = distribute_tensor(torch.full(SHAPE, torch.nan), mesh, where)
            assert call(tensor) is tensor
            made[f"{case} {name}"] = digest(tensor.full_tensor())
        whole = torch.empty(3, 1)  # fewer rows than processes
        tensor = distribute_tensor(whole, mesh, where)
        made[f"{case} small"] = digest(ni.normal_(tensor, seed=3).full_tensor())
        torch.manual_seed(11)
        parameter = nn.Parameter(distribute_tensor(torch.empty(SHAPE), mesh, where))
        ni.ones_(parameter)  # draws nothing
        made[f"{case} drawn"] = digest(ni.normal_(parameter).full_tensor().detach())
        made[f"{case} next"] = digest(torch.empty(5).normal_())
    return made


def strided(world):
    """What `distribute_tensor` deals out, of any number of rows, is what is filled."""
    if _StridedShard is None:
        return {}
    mesh = init_device_mesh("cpu", (2, world // 2))
    two = [_StridedShard(0, split_factor=world // 2), Shard(0)]
    for rows in (8, 16, 101) if hasattr(Shard, "_custom_chunk") else (8, 16):
        for where in (two, [two[0], Replicate()], [Shard(1), two[0]]):
            whole = ni.normal_(torch.empty(rows, 6), seed=5)
            try:
                given = distribute_tensor(whole, mesh, where)
            except Exception:  # torch 2.4 cannot deal out what only FSDP2 made there
                continue
            tensor = DTensor.from_local(
                torch.full_like(given.to_local(), torch.nan), mesh, where,
                shape=given.shape, stride=given.stride(), run_check=False,
            )  # fmt: skip
            ni.normal_(tensor, seed=5)
            assert torch.equal(tensor.to_local(), given.to_local()), (rows, where)
    return {}


def refused(world):
    mesh = init_device_mesh("cpu", (world,))
    summed = DTensor.from_local(torch.zeros(4, 4), mesh, [Partial()])
    wrong = DTensor.from_local(
        torch.zeros(3, 4), mesh, [Shard(0)], shape=(4, 4), stride=(4, 1), run_check=False
    )
    for tensor, message in ((summed, "Partial"), (wrong, "local tensor of shape")):
        try:
            ni.normal_(tensor, seed=0)
        except TypeError as error:
            assert str(error).startswith("tensor: ") and message in str(error), error
        else:
            raise AssertionError(message)
        assert not tensor.to_local().any()
    whole = DTensor.from_local(
        torch.zeros(2, 4, dtype=torch.int16), mesh, [Replicate()], run_check=False
    )
    for call, error, message in (
        (lambda: ni.normal_(whole, seed=0), TypeError, "tensor: "),
        (lambda: ni.eye_(distribute_tensor(torch.zeros(4), mesh, [Shard(0)])), ValueError, "2 dim"),
        (lambda: ni.Normal().fill_(summed, offset=(1, 0)), TypeError, "Partial"),
    ):
        try:
            call()
        except error as caught:
            assert message in str(caught), caught
        else:
            raise AssertionError(message)
    return {}


def sharded_models(world):
    """Models on the meta device: FSDP2, HSDP, and tensor parallelism with FSDP2."""
    from torch.distributed._composable.fsdp import fully_shard
    from torch.distributed.tensor.parallel import (
        ColwiseParallel,
        RowwiseParallel,
        parallelize_module,
    )

    meshes = {"fsdp2": init_device_mesh("cpu", (world,))}
    if world == 4 and _StridedShard is not None:  # torch 2.4 lacks state dicts of two axes
        meshes["hsdp"] = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
        meshes["fsdp2_tp"] = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    for case, mesh in meshes.items():
        with torch.device("meta"):
            model = Model()
        if case == "fsdp2_tp":
            plan = {"up": ColwiseParallel(), "down": RowwiseParallel()}
            parallelize_module(model, mesh["tensor"], plan)
            mesh = mesh["data"]
        fully_shard(model.up, mesh=mesh)
        fully_shard(model, mesh=mesh)
        yield case, model


def whole_digest(state):
    return digest(*(t.full_tensor() if isinstance(t, DTensor) else t for t in state.values()))


def modules(world):
    """Sharded models, made real and initialized by us and by `init_module`, and dummies."""
    made = {}
    for case, model in sharded_models(world):
        init_module(model, seed=0)
        made[f"{case} own"] = whole_digest(model.state_dict())
        fill_model(model)
        made[f"{case} filled"] = whole_digest(model.state_dict())
        made[f"{case} dummy"] = whole_digest(dummy_(model, seed=0).state_dict())
    mesh = init_device_mesh("cpu", (world,))
    for name in ("int32", "uint8", "int8"):
        tensor = DTensor.from_local(
            torch.zeros(8 // world, 6, dtype=getattr(torch, name)),
            mesh,
            [Shard(0)],
            run_check=False,
        )
        made[f"{name} dummy"] = digest(dummy_({"w": tensor})["w"].full_tensor())
    return made


def checkpoints(world):
    """A checkpoint that was never stored, loaded into sharded models."""
    import torch.distributed.checkpoint as dcp

    with torch.device("meta"):
        source = Model()
    made = {}
    for case, model in sharded_models(world):
        model.to_empty(device="cpu")
        state = {"model": model.state_dict()}
        dcp.load(state, storage_reader=SeedCheckpoint(source, seed=0, prefix="model."))
        model.load_state_dict(state["model"])
        made[f"{case} loaded"] = whole_digest(model.state_dict())
        del state
    return made


def flat(world):
    """FSDP1, with the original parameters and without, nested; and ShardedTensors."""
    from torch.distributed._shard import sharded_tensor
    from torch.distributed._shard.sharding_spec import ChunkShardingSpec
    from torch.distributed.fsdp import FullyShardedDataParallel

    made = {}
    traced = trace(Model)
    for case in (False, True):
        model = Model()
        with torch.no_grad():
            for tensor in model.parameters():
                tensor.fill_(torch.nan)

        def wrap(module, original=case):
            return FullyShardedDataParallel(
                module, use_orig_params=original, device_id=torch.device("cpu")
            )

        model.up = wrap(model.up)
        model = wrap(model)
        try:
            init_module(model, {"*": ni.Ones()}, seed=0)
        except ValueError as error:
            assert str(error).startswith("module: FullyShardedDataParallel has flattened it"), error
        else:
            raise AssertionError("shards were taken for weights")
        assert init_flat(model, traced, seed=0) is model
        with FullyShardedDataParallel.summon_full_params(model, writeback=False):
            state = {n: tensor.detach().clone() for n, tensor in model.named_parameters()}
            made[f"flat{case} own"] = digest(*state.values())
    rank = dist.get_rank()
    fill = table_init(ni.Normal(), (101, 8), seed=3)
    block = -(-101 // world)
    own = fill(torch.empty(min(block, 101 - rank * block), 8))
    assert fill(torch.empty(0)).numel() == 0  # torchrec's, where a table is another process's
    for dim in (0, 1):
        places = [f"rank:{number}/cpu" for number in range(world)]
        tensor = sharded_tensor.empty(ChunkShardingSpec(dim, places), 101, 8)
        assert ni.normal_(tensor, seed=3) is tensor
        whole = torch.empty(101, 8) if rank == 0 else None
        tensor.gather(0, whole)
        if rank == 0:
            made[f"sharded{dim} table"] = digest(whole)
        if dim == 0:
            assert torch.equal(own, tensor.local_shards()[0].tensor)
    try:
        fill(torch.empty(101, 4))
    except ValueError as error:
        assert str(error).startswith("tensor: shape (101, 4) was given"), error
    else:
        raise AssertionError("a column shard")
    return made


def tables(world):
    """Tables of torchrec: those by rows and whole ones by `init_fn`, those by columns afterwards."""
    from torchrec import EmbeddingBagCollection, EmbeddingBagConfig
    from torchrec.distributed import sharding_plan as plans
    from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
    from torchrec.distributed.model_parallel import DistributedModelParallel
    from torchrec.distributed.types import ShardingEnv, ShardingPlan

    rows = {"rows": 101, "whole": 50, "columns": 60}
    init, keys = ni.EmbeddingUniform(), {name: ni.Key(0).fold_in(name) for name in rows}
    init_fns = {name: table_init(init, (rows[name], 8), seed=keys[name]) for name in rows}
    init_fns["columns"] = nn.init.zeros_
    source = EmbeddingBagCollection(
        device=torch.device("meta"),
        tables=[
            EmbeddingBagConfig(
                name=name, embedding_dim=8, num_embeddings=rows[name], feature_names=[f"of_{name}"],
                init_fn=init_fns[name],
            )
            for name in rows
        ],
    )  # fmt: skip
    where = {
        "rows": plans.row_wise(),
        "whole": plans.table_wise(rank=0),
        "columns": plans.column_wise(ranks=[0, 1]),
    }
    sharder = EmbeddingBagCollectionSharder()
    plan = plans.construct_module_sharding_plan(
        source, where, sharder=sharder, world_size=world, local_size=world, device_type="cpu"
    )
    model = DistributedModelParallel(
        nn.Sequential(source), env=ShardingEnv.from_process_group(dist.group.WORLD),
        device=torch.device("cpu"), plan=ShardingPlan({"0": plan}), sharders=[sharder],
        init_data_parallel=False,
    )  # fmt: skip
    made = {}
    state = {name.split(".")[-2]: tensor for name, tensor in model.state_dict().items()}
    init.fill_(state["columns"], seed=keys["columns"])
    for name, tensor in state.items():
        whole = torch.empty(tensor.size()) if dist.get_rank() == 0 else None
        tensor.gather(0, whole)
        if whole is not None:
            made[name] = digest(whole)
    return made


def theirs(world):
    """What torch's own initialization of a DTensor gives; it depends on the number of processes."""
    mesh = init_device_mesh("cpu", (world,))
    torch.manual_seed(0)
    tensor = distribute_tensor(torch.empty(SHAPE), mesh, [Shard(0)])
    nn.init.normal_(tensor)
    return {"theirs": digest(tensor.full_tensor())}


def main(cases, rank, world, store):
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    rank, world = int(rank), int(world)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world)}  # torchrec reads them
    os.environ |= {"LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(world)}
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    made = {}
    for case in cases.split(","):
        made |= globals()[case](world)
    dist.barrier()
    if rank == 0:
        print(json.dumps(made))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
