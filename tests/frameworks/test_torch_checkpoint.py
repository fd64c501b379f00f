"""A checkpoint that was never stored, and a module's file: the values of `init_module`."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers_torch import Model, _StridedShard, digest, in_processes, torch

import numinit as ni
from numinit import cli
from numinit.models.formats.safetensors import read_header
from numinit.models.provenance import Mismatch, given_of
from numinit.models.recipes import parse
from numinit.models.sources import load_model
from numinit.models.untrusted import InputError
from numinit.models.verify import verify
from numinit.torch import SeedCheckpoint, init_module, save, trace

dcp = pytest.importorskip("torch.distributed.checkpoint")

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is (disabled|unavailable)")


def meta_model():
    with torch.device("meta"):
        return Model()


def load(state, reader, **more):
    dcp.load(state, storage_reader=reader, **more)
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
    wrong = {"nope": torch.empty(3)}
    if _StridedShard is not None:  # torch 2.4 does not compare shapes
        wrong["up.bias"] = torch.empty(3)
    for error, tensor in wrong.items():
        state = {error: tensor}
        with pytest.raises(dcp.api.CheckpointException, match=error):
            load(state, reader)
    with pytest.raises(TypeError, match=r"^recipe: names and shapes were given without one"):
        SeedCheckpoint({"w": (2, 3)}, seed=0)
    with pytest.raises(TypeError, match=r"^recipe: a trace has names and shapes of its own"):
        SeedCheckpoint({"w": (2, 3)}, trace(Model), seed=0)
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


@pytest.mark.parametrize(
    ("module", "recipe"),
    [
        (torch.nn.Linear(4, 4, bias=False), {"*": ni.Padded(ni.Normal(), 1, axis=1)}),
        (torch.nn.Linear(4, 4), {"bias": ni.Assign([1, 2, 3, 4]), "*": ni.Normal()}),
        (
            torch.nn.Linear(4, 4),
            {"bias": ni.Zeros(), "*": ni.Parts([(1, ni.Ones()), (None, ni.Normal(std=0.5))])},
        ),
        (torch.nn.BatchNorm1d(4), {"weight": ni.Normal(), "bias": ni.Zeros()}),
        (torch.nn.BatchNorm1d(4), parse('rules = [{match = ["weight", "bias"], init = "Ones"}]')),
    ],
)
def test_any_recipe_is_saved_as_init_module_fills(tmp_path, module, recipe):
    path = tmp_path / "model.safetensors"
    summary = save(module, path, 5, recipe)
    assert verify(path)[:2] == summary[:2]
    found = pytest.importorskip("safetensors.torch").load_file(path)
    whole = init_module(module, recipe, seed=5).state_dict()
    assert found.keys() == whole.keys()
    for name, tensor in whole.items():
        assert torch.equal(found[name], tensor), name


class Computed(torch.nn.Module):
    """Tensors that no recipe in TOML describes."""

    def __init__(self):
        super().__init__()
        self.plain = torch.nn.Linear(3, 4)
        self.steps = torch.nn.Parameter(torch.empty(300).uniform_(0.1, 1).log())
        self.register_buffer("places", torch.arange(7))
        self.register_buffer("table", torch.arange(6.0).reshape(2, 3) / 7)
        self.register_buffer("none", torch.empty(0))
        self.pairs = torch.nn.Parameter(torch.randn(3, 2, dtype=torch.complex64))
        self.phases = torch.nn.Parameter(torch.polar(torch.ones(3), torch.arange(3.0)))


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_what_no_recipe_describes_is_written_and_verified_by_its_digest(tmp_path, dtype):
    path = tmp_path / "computed.safetensors"
    traced = trace(Computed)
    summary = save(traced, path, 1, dtype=dtype)
    assert verify(path) == summary and (summary.tensors, summary.given) == (8, 5)
    safetensors = pytest.importorskip("safetensors.torch")
    found = safetensors.load_file(path)
    whole = init_module(Computed(), traced, seed=1, dtype=dtype).state_dict()
    assert found.keys() == whole.keys()
    for name, tensor in whole.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name
    data = bytearray(path.read_bytes())
    _, entries, offset = read_header(path)
    data[offset + entries["steps"].start] ^= 1
    path.write_bytes(data)
    with pytest.raises(Mismatch, match=r"tensor 'steps' differs") as caught:
        verify(path)
    assert caught.value.tensor == "steps"


@pytest.mark.parametrize(
    "generator", [ni.Generator, np.random.default_rng, lambda n: torch.Generator().manual_seed(n)]
)
def test_a_generator_is_one_seed_for_a_whole_file(tmp_path, generator):
    path, traced = tmp_path / "computed.safetensors", trace(Computed)
    save(traced, path, generator(5))
    found = pytest.importorskip("safetensors.torch").load_file(path)
    for name, tensor in init_module(Computed(), traced, seed=generator(5)).state_dict().items():
        assert torch.equal(found[name], tensor), name


def test_a_digest_of_nothing_is_refused(tmp_path):
    path = tmp_path / "computed.safetensors"
    save(trace(Computed), path, 1)
    metadata, entries, _ = read_header(path)
    for given in (f'{{"nope": "{"0" * 64}"}}', '{"steps": 3}', "[1]"):
        with pytest.raises(InputError, match=r"numinit\.given"):
            given_of(metadata | {"numinit.given": given}, entries, path)
    module = torch.nn.Module()
    module.weight = torch.nn.Parameter(torch.empty(3, device="meta"))
    with pytest.raises(ValueError, match=r"^module: nothing initializes 1 tensors: weight"):
        save(module, tmp_path / "other.safetensors")
    assert not (tmp_path / "other.safetensors").exists()


def test_the_command_line_takes_a_factory(tmp_path, whole):
    (tmp_path / "own.py").write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import torch\nfrom helpers_torch import Model\nclass Kinds: plain = Model\n"
        "class Computed(torch.nn.Linear):\n"
        "    def __init__(self):\n"
        "        super().__init__(3, 2)\n"
        "        self.steps = torch.nn.Parameter(torch.rand(3).log())\n"
        "def broken(): return {}['key']\n",
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
    plan = run("plan", "own:Kinds.plain")
    assert plan.returncode == 0 and f"{len(found)} tensors" in plan.stdout, plan.stderr
    plan = run("plan", "own:Computed")
    assert re.search(r"steps +\[3\] +float32  no rule  operations of torch\n", plan.stdout)
    assert "3 tensors, 11 elements, 44 bytes" in plan.stdout
    for source, message in (
        ("own:nope", "nope"),
        ("missing_package:x", "missing_package"),
        ("own:broken", "error: own:broken: it raised KeyError: 'key'"),
    ):
        failed = run("init", source)
        assert failed.returncode == 2 and message in failed.stderr


def test_a_module_in_several_files(tmp_path):
    def data(path):
        _, entries, offset = read_header(path)
        return {
            n: path.read_bytes()[offset + e.start : offset + e.stop] for n, e in entries.items()
        }

    traced, one = trace(Computed), tmp_path / "one.safetensors"
    save(traced, one, 3)
    expected, found = data(one), {}
    for part in (2, 1):
        summary = save(traced, tmp_path / "set", 3, max_shard_size=60, shard=(part, 2))
        assert 0 < summary.tensors < len(expected)
    assert verify(tmp_path / "set").given == verify(one).given > 0
    for path in (tmp_path / "set").glob("*.safetensors"):
        verify(path)
        found |= data(path)
    assert found == expected


LLAMA = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 16,
    "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 40,
    "torch_dtype": "bfloat16", "auto_map": {"AutoModelForCausalLM": "own--modeling.Own"},
}  # fmt: skip


@pytest.fixture
def configured(tmp_path, monkeypatch):
    """A function that writes a configuration of transformers."""
    monkeypatch.chdir(tmp_path)
    Path("llama").mkdir()

    def write(**changes):
        table = {key: value for key, value in (LLAMA | changes).items() if value is not None}
        Path("llama/config.json").write_text(json.dumps(table))

    write()
    return write


def test_a_configuration_of_transformers_is_a_model(configured, capsys):
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    command = ["init", "llama/config.json", "--seed", "4", "--max-shard-size", "3KB", "-q"]
    assert cli.main(command) == cli.main(command) == 0  # into the directory of that name
    assert len(list(Path("llama").glob("model-*-of-*.safetensors"))) > 2
    assert cli.main(["verify", "llama"]) == 0
    assert ", bit for bit" in capsys.readouterr().out
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        "llama", output_loading_info=True, local_files_only=True, trust_remote_code=False
    )
    assert not any(info.values()), info  # nothing missing, unexpected or of another shape
    assert model.dtype == torch.bfloat16
    traced = trace("llama/config.json")
    expected = init_module(traced.module, traced, seed=4).state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    Path("other").mkdir()
    shutil.copy("llama/config.json", "other")
    assert cli.main(["plan", "other"]) == 2
    assert "without .safetensors files; a config.json has to be named" in capsys.readouterr().err
    assert cli.main(["plan", "other/config.json"]) == 0
    assert "model.layers.{0-1}.self_attn.q_proj.weight" in capsys.readouterr().out
    assert (
        cli.main(["init", "other/config.json", "--recipe", "llama", "-o", "own.safetensors", "-q"])
        == 0
    )
    assert verify("own.safetensors").tensors == len(expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "lama"}, "has no model_type 'lama'"),
        ({"architectures": ["LlamaForNothing"]}, "has no model 'LlamaForNothing'"),
        ({"architectures": ["AutoConfig"]}, "has no model 'AutoConfig'"),
        ({"architectures": [3]}, "has no model 3"),
        ({"architectures": {"a": 1}}, "has no model {'a': 1}"),
        ({"hidden_size": "many"}, "config.json: transformers refuses it: "),
        ({"torch_dtype": "float31"}, "config.json: transformers refuses it: "),
    ],
)
def test_configurations_that_are_refused(configured, capsys, changes, message):
    pytest.importorskip("transformers", reason="needs transformers")
    configured(**changes)
    assert cli.main(["plan", "llama/config.json"]) == 2
    assert message in capsys.readouterr().err


def test_a_configuration_without_a_class_is_the_bare_model(configured):
    pytest.importorskip("transformers", reason="needs transformers")
    configured(architectures=None)
    assert type(trace(Path("llama/config.json")).module).__name__ == "LlamaModel"


def test_configurations_without_transformers(configured, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        ImportError, match=r"config.json needs transformers: pip install transformers"
    ):
        trace("llama/config.json")
    assert cli.main(["plan", "llama/config.json"]) == 2
    assert "needs transformers: pip install transformers" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "numinit.torch.saving")
    assert cli.main(["plan", "llama/config.json"]) == 2
    assert "llama/config.json needs torch: pip install 'numinit[torch]'" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"numinit\.torch\.trace makes its names and shapes"):
        load_model("llama/config.json")
    with pytest.raises(InputError, match=r"^nowhere: accepted: the config.json of a model"):
        trace("nowhere")


def test_no_public_name_is_hidden_by_a_module():
    import importlib
    import pkgutil

    package = importlib.import_module("numinit.torch")
    for found in pkgutil.iter_modules(package.__path__, "numinit.torch."):
        importlib.import_module(found.name)
    assert not {name for name in package.__all__ if not callable(getattr(package, name))}
