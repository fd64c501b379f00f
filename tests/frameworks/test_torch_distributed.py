"""Tensors of torch that are spread over processes: DTensors, FSDP, tensor parallelism, flat shards."""

import itertools

import numpy as np
import pytest
from helpers_torch import (
    CALLS,
    Model,
    Replicate,
    Shard,
    _StridedShard,
    digest,
    fill_model,
    in_processes,
    torch,
)

import numinit as ni
from numinit.arrays.dtensor import shards
from numinit.torch import dummy_, init_flat, init_module, table_init

SHAPE = (101, 96)


@pytest.fixture(scope="module", params=[2, 4])
def given(request, tmp_path_factory):
    """What the cases give in 2 and in 4 processes."""
    cases = ["dtensors", "strided", "refused", "modules", "checkpoints", "flat", "theirs"]
    return in_processes(cases, request.param, tmp_path_factory.mktemp("store"))


def test_every_function_gives_the_values_of_one_device(given):
    whole = {name: digest(call(torch.empty(SHAPE))) for name, call in CALLS.items()}
    whole["small"] = digest(ni.normal_(torch.empty(3, 1), seed=3))
    seen = 0
    for case, found in given.items():
        placement, _, name = case.partition(" ")
        if name in whole:
            assert found == whole[name], (placement, name)
            seen += 1
    assert seen >= 3 * len(whole)


def test_torchs_generator_governs_it_and_moves_on_as_on_one_device(given):
    torch.manual_seed(11)
    drawn = digest(ni.normal_(torch.empty(SHAPE)))
    then = digest(torch.empty(5).normal_())
    assert {v for case, v in given.items() if case.endswith(" drawn")} == {drawn}
    assert {v for case, v in given.items() if case.endswith(" next")} == {then}


def test_modules_give_the_values_of_one_device(given):
    for what, make in (
        ("own", lambda: init_module(Model(), seed=0)),
        ("loaded", lambda: init_module(Model(), seed=0)),
        ("filled", lambda: fill_model(Model())),
        ("dummy", lambda: dummy_(Model(), seed=0)),
    ):
        whole = digest(*make().state_dict().values())
        cases = ("fsdp2", "hsdp", "fsdp2_tp", "flatFalse", "flatTrue")
        found = {case: given[f"{case} {what}"] for case in cases if f"{case} {what}" in given}
        assert found and set(found.values()) == {whole}, (what, found)


def test_sharded_tensors_and_tables(given):
    whole = digest(ni.normal_(torch.empty(101, 8), seed=3))
    assert {given["sharded0 table"], given["sharded1 table"]} == {whole}


@pytest.mark.parametrize("name", ["int32", "uint8", "int8"])
def test_dummies_of_any_type(given, name):
    whole = torch.zeros(8, 6, dtype=getattr(torch, name))
    assert given[f"{name} dummy"] == digest(dummy_({"w": whole})["w"])


def test_torchs_own_depends_on_the_processes(given):
    """If this fails, torch has learned it, and the docs should say so."""
    torch.manual_seed(0)
    assert given["theirs"] != digest(torch.nn.init.normal_(torch.empty(SHAPE)))


def test_shards_are_those_that_torch_deals_out():
    kinds = [Replicate(), Shard(0), Shard(1)]
    if hasattr(Shard, "_custom_chunk"):  # else _StridedShard is missing, or for even shards only
        kinds += [_StridedShard(0, split_factor=2), _StridedShard(1, split_factor=3)]
    mesh = (2, 3)
    for rows, columns in itertools.product((1, 5, 8, 13), (2, 12)):
        whole = torch.arange(rows * columns).reshape(rows, columns)
        for placements in itertools.product(kinds, repeat=2):
            for place in itertools.product(range(2), range(3)):
                local = whole
                for placement, processes, index in zip(placements, mesh, place, strict=True):
                    if not isinstance(placement, Replicate):
                        pieces = placement._split_tensor(local, processes, with_padding=False)[0]
                        local = pieces[index]
                runs = shards((rows, columns), placements, mesh, place)
                ids = [[i for b, n in axis for i in range(b, b + n)] for axis in runs]
                found = whole[np.ix_(*(np.array(axis, int) for axis in ids))]
                assert torch.equal(local, found), (placements, place, runs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_flat_shards(dtype):
    whole = ni.kaiming_normal_(torch.empty(37, 29, dtype=dtype), seed=4)
    init = ni.KaimingNormal()
    for processes in (1, 3, 4):
        step = -(-whole.numel() // processes)
        flat = torch.cat([
            init.fill_flat(
                torch.empty(min(step, whole.numel() - start), dtype=dtype),
                start=start, shape=whole.shape, seed=4,
            )
            for start in range(0, whole.numel(), step)
        ])  # fmt: skip
        assert torch.equal(flat.view(37, 29), whole)


def test_flat_shards_refused():
    array = torch.zeros(4)
    for arguments, message in (
        (
            {"start": 3, "shape": (2, 3)},
            r"^start: 4 elements from 3 on reach beyond the 6 of shape",
        ),
        ({"start": -1}, r"^start: -1 has a negative"),
        ({"start": 0.5}, r"^start: 0.5 was given"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            ni.Normal().fill_flat(array, seed=0, **arguments)
    with pytest.raises(ValueError, match=r"^array: its shape is \(2, 2\)"):
        ni.Normal().fill_flat(array.view(2, 2), seed=0)
    assert not array.any()


def test_modules_and_tables_refused():
    with pytest.raises(ValueError, match=r"^module: no part of it is a FullyShardedDataParallel"):
        init_flat(torch.nn.Linear(2, 2), {"*": ni.Ones()}, seed=0)
    partitioned = torch.nn.Linear(2, 2)  # as DeepSpeed leaves it
    partitioned.weight.ds_tensor, partitioned.weight.data = torch.empty(4), torch.empty(0)
    with pytest.raises(ValueError, match=r"^module: DeepSpeed's ZeRO-3 has partitioned 'weight'"):
        init_module(partitioned, {"*": ni.Ones()}, seed=0)
    for shape in ((3,), (1, 2, 3)):
        with pytest.raises(ValueError, match=r"^shape: \(.*\) was given; rows and columns"):
            table_init(ni.Normal(), shape, seed=0)
