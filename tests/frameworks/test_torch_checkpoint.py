"""A checkpoint that was never stored, and a module's file: the values of `init_module`."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers_torch import Model, digest, in_processes, torch

import numinit as ni
from numinit.models.formats.safetensors import read_header
from numinit.models.verify import verify
from numinit.torch import SeedCheckpoint, init_module, save, trace

dcp = pytest.importorskip("torch.distributed.checkpoint")

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


def meta_model():
    with torch.device("meta"):
        return Model()


def load(state, reader, **more):
    dcp.load(state, storage_reader=reader, no_dist=True, **more)
    return state


@pytest.fixture(scope="module")
def whole():
    return init_module(Model(), seed=0).state_dict()


def test_in_one_process(whole):
    given = {
        "meta": SeedCheckpoint(meta_model(), seed=0),
        "real": SeedCheckpoint(Model(), seed=ni.Key(0)),
        "trace": SeedCheckpoint(trace(Model), seed=0),
        "recipe": SeedCheckpoint(
            {name: tuple(tensor.shape) for name, tensor in whole.items()},
            trace(Model).recipe(), seed=0,
        ),
    }  # fmt: skip
    for case, reader in given.items():
        state = load(Model().state_dict(), reader)
        assert digest(*state.values()) == digest(*whole.values()), case


def test_in_three_processes(tmp_path, whole):
    """`test_torch_distributed` loads it in two and in four."""
    given = in_processes(["checkpoints"], 3, tmp_path)
    assert given and set(given.values()) == {digest(*whole.values())}


def test_types_are_those_of_the_tensors(whole):
    state = load(Model().bfloat16().state_dict(), SeedCheckpoint(meta_model(), seed=0))
    for name, tensor in state.items():
        assert torch.equal(tensor, whole[name].bfloat16()), name


def test_a_whole_nested_state_and_an_empty_one(whole):
    reader = SeedCheckpoint(meta_model(), seed=0, prefix="model.")
    state = load({"model": Model().state_dict()}, reader)
    assert digest(*state["model"].values()) == digest(*whole.values())
    found = reader.read_metadata().state_dict_metadata["model.up.weight"]
    assert found.size == (2048, 512) and found.properties.dtype == torch.float32


def test_ties_buffers_and_weights_made_whole():
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.one = torch.nn.Linear(6, 6)
            self.two = torch.nn.Linear(6, 6, bias=False)
            self.two.weight = self.one.weight
            self.norm = torch.nn.BatchNorm1d(6)
            self.register_buffer("ids", torch.arange(5))
            torch.nn.init.orthogonal_(self.one.weight)

    traced = trace(Tied)
    expected = init_module(Tied(), traced, seed=2).state_dict()
    state = {name: torch.full_like(tensor, 7) for name, tensor in expected.items()}
    load(state, SeedCheckpoint(traced, seed=2))
    assert state.keys() == expected.keys() and torch.equal(state["ids"], torch.arange(5))
    for name, tensor in state.items():
        assert torch.equal(tensor, expected[name]), name
    one = state["one.weight"]
    assert torch.equal(one, state["two.weight"]) and torch.allclose(
        one @ one.T, torch.eye(6), atol=1e-5
    )


def test_refused():
    reader = SeedCheckpoint(meta_model(), seed=0)
    for state, error in (
        ({"nope": torch.empty(3)}, "nope"),
        ({"up.bias": torch.empty(3)}, "up.bias"),
    ):
        with pytest.raises(dcp.api.CheckpointException, match=error):
            load(state, reader)
    with pytest.raises(TypeError, match=r"^recipe: names and shapes were given without one"):
        SeedCheckpoint({"w": (2, 3)}, seed=0)
    with pytest.raises(TypeError, match=r"^recipe: a trace needs none"):
        SeedCheckpoint(trace(Model), "gpt2", seed=0)


def tensors_of(path):
    _, entries, offset = read_header(path)
    data = Path(path).read_bytes()
    return {
        name: np.frombuffer(data[offset + e.start : offset + e.stop], np.float32).reshape(e.shape)
        for name, e in entries.items()
    }


@pytest.mark.parametrize("recipe", [None, {"*.bias": ni.Zeros(), "*": ni.Uniform(-0.1, 0.1)}])
def test_saved_from_meta_and_verified(tmp_path, recipe):
    path = tmp_path / "model.safetensors"
    summary = save(meta_model(), path, 5, recipe)
    assert verify(path) == summary and summary.tensors == 6
    whole = init_module(Model(), recipe, seed=5).state_dict()
    found = tensors_of(path)
    assert found.keys() == whole.keys()
    for name, tensor in whole.items():
        np.testing.assert_array_equal(found[name], tensor.numpy(), err_msg=name)
    with pytest.raises(ValueError, match="exists"):
        save(trace(Model), path, 5, recipe)
    save(trace(Model), path, 5, recipe, dtype="bfloat16", overwrite=True)
    assert verify(path).nbytes == summary.nbytes / 2


def test_the_command_line_takes_a_factory(tmp_path, whole):
    (tmp_path / "own.py").write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from helpers_torch import Model\nclass Kinds: plain = Model\n",
        encoding="utf-8",
    )

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "numinit", *arguments],
            cwd=tmp_path, capture_output=True, text=True, timeout=300,
        )  # fmt: skip

    made = run("init", "own:Kinds.plain", "--seed", "0", "-o", "made.safetensors", "-q")
    assert made.returncode == 0, made.stderr
    assert run("verify", "made.safetensors").returncode == 0
    found = tensors_of(tmp_path / "made.safetensors")
    assert digest(*(torch.from_numpy(found[name].copy()) for name in whole)) == digest(
        *whole.values()
    )
    for source, message in (("own:nope", "nope"), ("missing_package:x", "missing_package")):
        failed = run("init", source)
        assert failed.returncode == 2 and message in failed.stderr


def test_no_public_name_is_hidden_by_a_module():
    import importlib
    import pkgutil

    package = importlib.import_module("numinit.torch")
    for found in pkgutil.iter_modules(package.__path__, "numinit.torch."):
        importlib.import_module(found.name)
    assert not {name for name in package.__all__ if not callable(getattr(package, name))}
