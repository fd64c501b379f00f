"""The command line: what a person or a script sees of it, in good and in bad weather."""

import contextlib
import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import numinit as ni
from numinit import cli
from numinit.models import files as mapped
from numinit.models.formats.safetensors import read_header

# New processes find the package that is tested, installed or not.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(ni.__file__).parents[1])}
COMMAND = [sys.executable, "-m", "numinit"]
posix_only = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and descriptors")

RECIPE = """
optional = true
[[rules]]
match = "*.bias"
init = "Zeros"
[[rules]]
match = "*.weight"
init = "Normal"
std = 0.5
"""
SHAPES = {"a.weight": [30, 7], "a.bias": [30], "b.weight": [2, 3, 5]}
LAWS = {"*.bias": ni.Zeros(), "*.weight": ni.Normal(std=0.5)}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current directory with a model (m.json) and a recipe (r.toml)."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.json").write_text(json.dumps({"tensors": SHAPES}))
    (tmp_path / "r.toml").write_text(RECIPE)
    return tmp_path


@pytest.fixture
def run(capsys):
    """Run a command line in this process; gives the exit code, stdout and stderr."""

    def run(*arguments):
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as exit:  # argparse's way
            code = exit.code
        return code, *capsys.readouterr()

    return run


PLAN = ("plan", "m.json", "--recipe", "r.toml")
INIT = ("init", "m.json", "--recipe", "r.toml")


def values(path):
    """The tensors of a file, bit by bit."""
    _, entries, offset = read_header(path)
    data = Path(path).read_bytes()[offset:]
    return {name: (e.dtype, e.shape, data[e.start : e.stop]) for name, e in entries.items()}


def made(shapes, laws, seed=0, dtype="float32"):
    """What the file should hold, by the other way to make a model."""
    code = {"float32": "F32", "float64": "F64", "float16": "F16", "bfloat16": "BF16"}[dtype]
    params = ni.init_params(shapes, laws, seed, dtype)
    return {name: (code, array.shape, array.tobytes()) for name, array in params.items()}


def created(folder):
    return sorted(p.name for p in folder.iterdir() if p.name not in ("m.json", "r.toml"))


# Init and verify.


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_init_then_verify(folder, run, dtype):
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes", reason="arrays of bfloat16 need ml_dtypes")
    code, out, err = run(*INIT, "--dtype", dtype, "--seed", 3)
    size = {"float32": "1.08 kB", "float64": "2.16 kB"}.get(dtype, "540 B")
    assert (code, err) == (0, "")
    assert re.fullmatch(rf"m.safetensors: 3 tensors, {size} in .* s \(.* GB/s\)\n", out)
    assert created(folder) == ["m.safetensors"]
    assert values("m.safetensors") == made(SHAPES, LAWS, 3, dtype)
    code, out, err = run("verify", "m.safetensors")
    assert (code, err) == (0, "")
    assert re.fullmatch(rf"m.safetensors: OK, 3 tensors, {size} in .*, bit for bit\n", out)


def test_the_first_command_of_the_readme(folder, run):
    pytest.importorskip("ml_dtypes", reason="arrays of bfloat16 need ml_dtypes")
    assert run("init", "gpt2-small", "--dtype", "bfloat16", "-q") == (0, "", "")
    assert values("gpt2-small.safetensors") == made("gpt2-small", "gpt2", dtype="bfloat16")
    assert run("verify", "gpt2-small.safetensors", "-q") == (0, "", "")


@pytest.mark.parametrize(
    "model",
    [
        "bert-base", "clip-vit-base-patch32", "convnext-tiny", "dlrm-dcnv2-criteo", "gemma-3-4b",
        "llama-3.1-8b", "mamba-130m", "mixtral-8x7b", "qwen3-8b", "resnet-50",
        "stable-diffusion-1.5-unet", "swinv2-tiny", "t5-base", "vit-base", "wav2vec2-base",
    ],
)  # fmt: skip
def test_small_copies_of_the_shipped_models(folder, run, model):
    """The shipped recipe on the shipped names, with every dimension cut to 8."""
    table = json.loads((Path(ni.__file__).parent / f"models/data/models/{model}.json").read_bytes())
    name = table["model"]
    table["tensors"] = {n: [min(d, 8) for d in shape] for n, shape in table["tensors"].items()}
    (folder / "m.json").write_text(json.dumps(table))
    assert run("init", "m.json", "-q") == (0, "", "")  # the model names its recipe and itself
    assert values(f"{name}.safetensors") == made("m.json", table["recipe"])
    assert run("verify", f"{name}.safetensors", "-q") == (0, "", "")


def test_plan(folder, run):
    code, out, err = run(*PLAN, "--dtype", "float16")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "a.weight  [30, 7]    float16  rule 2  Normal(mean=0.0, std=0.5)",
        "a.bias    [30]       float16  rule 1  Zeros()",
        "b.weight  [2, 3, 5]  float16  rule 2  Normal(mean=0.0, std=0.5)",
        "3 tensors, 270 elements, 540 bytes",
    ]
    assert sorted(path.name for path in folder.iterdir()) == ["m.json", "r.toml"]
    layers = {f"h.{n}.weight": [4, 2] for n in range(12)} | {"x\n\x1b.bias": [3]}
    (folder / "m.json").write_text(json.dumps({"tensors": layers}))
    code, out, _ = run(*PLAN)
    assert out.splitlines() == [
        "h.{0-11}.weight  x12  [4, 2]  float32  rule 2  Normal(mean=0.0, std=0.5)",
        "x??.bias              [3]     float32  rule 1  Zeros()",
        "13 tensors, 99 elements, 396 bytes",
    ]
    (folder / "m.json").write_text(json.dumps({"tensors": {"a.weight": [2]}}))
    assert run(*PLAN)[0] == 0
    (folder / "r.toml").write_text(RECIPE.replace("optional = true", ""))
    code, out, err = run(*PLAN)
    assert (code, out) == (2, "")
    assert "rule 1: the glob '*.bias' matches no tensor; mend it, or say optional = true" in err
    assert run("plan", "gpt2-small")[1].endswith(
        "148 tensors, 124,439,808 elements, 497,759,232 bytes\n"
    )


@pytest.mark.parametrize(
    ("text", "seed"),
    [
        ("7", 7),
        ("0" * 30 + "7", 7),
        ("18446744073709551615", 2**64 - 1),
        ("0xFFFFFFFFFFFFFFFF", 2**64 - 1),
        ("0X1f", 31),
    ],
)
def test_seeds(folder, run, text, seed):
    assert run(*INIT, "--seed", text, "-q") == (0, "", "")
    assert values("m.safetensors") == made(SHAPES, LAWS, seed)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("18446744073709551616", r"not below 2\*\*64"),
        ("0x10000000000000000", r"not below 2\*\*64"),
        ("9" * 5000, r"not below 2\*\*64"),
        ("z" * 5000, "not an integer"),
        ("-1", "."),
        ("1_0", "not an integer"),
        ("1.0", "not an integer"),
        ("ff", "not an integer"),
        ("0x", "not an integer"),
        ("١", "not an integer"),
        ("", "not an integer"),
    ],
)
def test_refused_seeds(folder, run, text, message):
    code, out, err = run(*INIT, "--seed", text)
    assert (code, out, created(folder)) == (2, "", [])
    assert re.search(f"--seed.*{message}", err) and len(err) < 2000


def test_a_tensor_as_npy(folder, run):
    for dtype in ("float32", "float64", "float16"):
        path = f"{dtype}.npy"
        arguments = ("--dtype", dtype, "--tensor", "a.weight", "-o", path)
        assert run(*INIT, *arguments, "--seed", 5, "-q") == (0, "", "")
        expected = ni.Normal(std=0.5)((30, 7), dtype, seed=ni.Key(5).fold_in("a.weight"))
        found = np.load(path)
        assert (found.dtype, found.shape) == (dtype, (30, 7))
        assert found.tobytes() == expected.tobytes()
    code, _, err = run("verify", "float32.npy")
    assert code == 2
    assert "records no seed" in err


def test_a_safetensors_file_as_the_source(folder, run):
    run(*INIT, "--dtype", "float16", "-o", "a.safetensors")
    assert run("init", "a.safetensors", "--recipe", "r.toml", "-o", "b.safetensors", "-q")[0] == 0
    assert values("b.safetensors") == values("a.safetensors")
    # Onto itself, with other values.
    arguments = ("--recipe", "r.toml", "-o", "a.safetensors", "--seed", 1, "--force", "-q")
    assert run("init", "a.safetensors", *arguments) == (0, "", "")
    assert values("a.safetensors") == made(SHAPES, LAWS, 1, "float16")


def test_an_existing_file(folder, run):
    target = folder / "m.safetensors"
    target.write_text("precious")
    code, out, err = run(*INIT)
    assert (code, out) == (2, "")
    assert "m.safetensors: exists; pass --force" in err
    assert target.read_text() == "precious"
    assert run(*INIT, "--force", "-q") == (0, "", "")
    assert run("verify", target, "-q") == (0, "", "")
    assert created(folder) == ["m.safetensors"]


@pytest.mark.skipif(not hasattr(os, "symlink") or os.name == "nt", reason="needs symbolic links")
def test_a_link_keeps_being_a_link(folder, run):
    (folder / "real").mkdir()
    (folder / "m.safetensors").symlink_to("real/weights.safetensors")
    assert run(*INIT, "-q") == (0, "", "")
    assert (folder / "m.safetensors").is_symlink()
    assert run("verify", "real/weights.safetensors", "-q") == (0, "", "")


# Refused: exit code 2, the culprit named, nothing created.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "required: COMMAND"),
        (("frobnicate",), "invalid choice: 'frobnicate'"),
        (("init",), "required: SOURCE"),
        (("verify",), "required: FILE"),
        ((*INIT, "--dtype", "int8"), "--dtype: invalid choice: 'int8'"),
        ((*INIT, "--no-such"), "unrecognized arguments: --no-such"),
        (("init", "m.json"), "m.json names no recipe of its own: --recipe is needed"),
        (("init", "gpt2-smal"), "no model 'gpt2-smal' .did you mean 'gpt2-small'"),
        (("init", "no.json", "--recipe", "r.toml"), "no.json: cannot be read"),
        (("init", "m.json", "--recipe", "gpt"), "no recipe 'gpt' .did you mean 'gpt2'"),
        (("init", "m.json", "--recipe", "no.toml"), "no.toml: cannot be read"),
        (("init", "m.json", "--recipe", "llama"), "no rule for tensor 'a.weight'"),
        ((*INIT, "-o", "m.bin"), "m.bin: the name must end in .safetensors or .npy"),
        ((*INIT, "-o", "no/m.safetensors"), "directory .*no does not exist"),
        ((*INIT, "-o", "m.npy"), "the source has 3; choose one with --tensor"),
        ((*INIT, "-o", "m.npy", "--tensor", "c"), "no tensor 'c'; the source has"),
        ((*INIT, "-o", "m.npy", "--tensor", "a.bias", "--dtype", "bfloat16"), "no bfloat16"),
        ((*INIT, "--tensor", "a.bias"), "for .npy only"),
        ((*INIT, "--shard", "3"), "--shard: '3' is not K/N, such as 3/16"),
        ((*INIT, "--shard", "3/16"), r"shard \(--shard\): a part of several files; max_shard_size"),
        ((*INIT, "--max-shard-size", "1KB", "--shard", "0/3"), r"shard: got \(0, 3\)"),
        ((*INIT, "--max-shard-size", "5"), "max_shard_size: got '5'; accepted: .* such as 5GB"),
        ((*INIT, "--max-shard-size", "5GB", "-o", "a.safetensors"), "makes a directory of files"),
        (("verify", "no.safetensors"), "no.safetensors: cannot be read"),
        (("verify", "no.index.json"), "no.index.json: cannot be read"),
        (("verify", "m.npy"), "m.npy: .npy records no seed"),
        (("verify", "m.json"), "m.json: truncated, or not safetensors"),
    ],
)
def test_refused_requests(folder, run, arguments, message):
    code, out, err = run(*arguments)
    assert (code, out, created(folder)) == (2, "", [])
    assert re.search(message, err)
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("m.json", "[" * 1_000_000, "m.json: not usable JSON: nested too deep"),
        ("m.json", '{"tensors": {"w": [4294967296, 4294967296]}}', "'w': .*more than"),
        (
            "m.json",
            '{"tensors": {"w.weight": [4611686018427387904], "w.bias": [1]}}',
            "'w.weight'.*beyond",
        ),
        ("m.json", '{"tensors": {"w": [-1]}}', "'w': got a dimension -1"),
        ("m.json", '{"tensors": {"w\\ud800": [1]}}', "not valid Unicode"),
        ("m.json", '{"tensors": {"c": [1]}}', "no rule for tensor 'c'"),
        ("m.json", '{"model": "../up", "tensors": {"w.bias": [1]}}', "'../up' makes no file name"),
        ("m.json", '{"model": ".hidden", "tensors": {"w.bias": [1]}}', "makes no file name"),
        ("r.toml", "[[rules]]\nmatch = 3", "r.toml, rule 1, key 'match'"),
        ("r.toml", "a." * 30_000, "r.toml, line 1"),
        ("r.toml", '[[rules]]\nmatch = "*"\ninit = "Normal"\nstd = -1', "r.toml, rule 1"),
    ],
)
def test_hostile_sources(folder, run, file, text, message):
    (folder / file).write_text(text)
    code, out, err = run(*INIT)
    assert (code, out, created(folder)) == (2, "", [])
    assert re.search(message, err)
    assert len(err) < 1000


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"\xff" * 8 + data[8:], "the header is cut off"),
        (lambda data: data[:100], "the header is cut off"),
        (lambda data: data[:-1], "truncated"),
        (lambda data: data + b"\0", "bytes after the last tensor"),
        (lambda data: data.replace(b"numinit.", b"numexit."), "not written by numinit"),
        (lambda data: data.replace(b'stream_version":"1"', b'stream_version":"9"'), "has 1"),
        (lambda data: data.replace(b"numinit.header", b"numinit.Header"), "no numinit.header"),
    ],
)
def test_a_damaged_file(folder, run, damage, message):
    run(*INIT)
    path = folder / "m.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    code, out, err = run("verify", path)
    assert (code, out) == (2, "")
    assert re.fullmatch(f"numinit: error: .*m.safetensors: .*{message}.*\n", err)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"format":"pt"', b'"format":"tf"'),
        (b'"numinit.version":"', b'"numinit.version":"1'),
        (b'"numinit.seed":"0"', b'"numinit.seed":"1"'),
        (b'"numinit.recipe":"r.toml"', b'"numinit.recipe":"s.toml"'),
        (b"mine", b"ours"),
        (b"# a comment", b"# a Comment"),
        (b"Normal", b"normal"),
        (b'"shape":[30,7]', b'"shape":[7,30]'),
        (b"b.weight", b"c.weight"),
        (b'"shape":', b'"shape": '),  # the same, to a reader of JSON
        (b'"numinit.header":"', b'"numinit.header":"?'),
    ],
)
def test_a_changed_header(folder, run, old, new):
    (folder / "r.toml").write_text(f"source = 'mine'  # a comment\n{RECIPE}")
    run(*INIT)
    path = folder / "m.safetensors"
    data = path.read_bytes()
    size = 8 + int.from_bytes(data[:8], "little")
    header = new.join(data[8:size].rsplit(old, 1))
    assert header != data[8:size]
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[size:])
    code, out, err = run("verify", path)
    assert (code, out) == (1, "")
    assert re.fullmatch("numinit: verify: .*m.safetensors: the header differs: .*\n", err)


def test_a_file_of_somebody_else(folder, run):
    library = pytest.importorskip("safetensors.numpy", reason="needs safetensors")
    library.save_file({"w": np.ones(3, np.float32)}, folder / "theirs.safetensors")
    code, _, err = run("verify", "theirs.safetensors")
    assert code == 2
    assert "theirs.safetensors: not written by numinit" in err


def test_verify_names_the_tensor_and_element(folder, run):
    run(*INIT)
    path = folder / "m.safetensors"
    _, entries, offset = read_header(path)
    data = bytearray(path.read_bytes())
    data[offset + entries["a.weight"].start + 4 * (7 * 12 + 3)] ^= 0x80
    path.write_bytes(data)
    code, out, err = run("verify", path)
    assert (code, out) == (1, "")
    assert re.search(r"tensor 'a.weight' differs, first at element \[12, 3\]: expected", err)
    code, out, err = run("verify", "-q", path)  # quiet or not, a script and a person are told
    assert (code, out) == (1, "") and err


def test_verify_says_how_it_compared(folder, run):
    (folder / "r.toml").write_text(
        RECIPE.replace('"*.bias"\ninit = "Zeros"', '"a.weight"\ninit = "Orthogonal"\ngain = 2.0')
        + '[[rules]]\nmatch = "*"\ninit = "Zeros"'
    )
    run(*INIT)
    code, out, _ = run("verify", "m.safetensors")
    assert code == 0
    assert out.endswith(", 2 bit for bit, 1 (Orthogonal) within 2e-06\n")


def test_several_files(folder, run):
    """The model's name is the directory's; whatever the way, the values are those of one file."""
    command = (*INIT, "--max-shard-size", "0.5KB", "--seed", 3)
    (folder / "m.json").write_text(json.dumps({"model": "small", "tensors": SHAPES}))
    code, out, err = run(*command)
    assert (code, err) == (0, "")
    assert re.fullmatch(r"small: 3 tensors, 1.08 kB in .* s \(.* GB/s\)\n", out)
    names = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    assert sorted(os.listdir("small")) == [*names, "model.safetensors.index.json"]
    found = {name: v for file in names for name, v in values(f"small/{file}").items()}
    assert found == made(SHAPES, LAWS, 3)
    for path in ("small", "small/model.safetensors.index.json"):
        code, out, err = run("verify", path)
        assert (code, err) == (0, "")
        assert re.fullmatch(rf"{path}: OK, 3 tensors, 1.08 kB in .*, bit for bit\n", out)
    assert run("verify", f"small/{names[1]}", "-q") == run(*command, "-q") == (0, "", "")
    code, out, err = run(*INIT, "--max-shard-size", "0.5KB", "--seed", 4)
    assert (code, out) == (2, "") and f"{names[0]}: exists and is not what" in err
    assert run(*INIT, "--max-shard-size", "0.5KB", "--seed", 4, "--force", "-q") == (0, "", "")
    assert run("plan", "small", "--recipe", "r.toml")[0] == 0


# Information.


@pytest.mark.parametrize("command", [(), ("init",), ("verify",), ("info",)])
def test_help(run, command):
    code, out, err = run(*command, "--help")
    assert (code, err) == (0, "")
    assert out.startswith("usage: numinit")
    assert command == ("info",) or "exit codes:" in out


def test_version(run):
    expected = f"numinit {ni.__version__} (stream version {ni.STREAM_VERSION})\n"
    assert run("--version") == (0, expected, "")


def test_info(run):
    code, out, err = run("info")
    assert (code, err) == (0, "")
    table = {line[:11].rstrip(" :"): line[11:] for line in out.splitlines()}
    assert table["numinit"] == f"{ni.__version__}, stream version {ni.STREAM_VERSION}"
    assert table["threads"].startswith("1 of" if os.cpu_count() == 1 else tuple("123456789"))
    assert "gpt2-small" in table["models"] and "llama" in table["recipes"]
    assert re.fullmatch(r"\d+ bits|unknown", table["vectors"])
    assert table["threading"].startswith("numinit's own threads")
    assert Path(table["cache"]).is_dir() or table["cache"].startswith("none:")
    listed = f"{table['found']}, {table['not found']}"
    assert all(name in listed for name in ("torch", "numba_cuda", "cupy", "ml_dtypes", "scipy"))


def test_installed_as_a_module(folder):
    """``python -m numinit`` in a process of its own, from the arguments to the exit code."""
    done = subprocess.run(
        [*COMMAND, *INIT, "--tensor", "x"], capture_output=True, text=True, env=ENVIRONMENT
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch("numinit: error: m.safetensors: .* for .npy only\n", done.stderr)


# Bad weather.


def fail_with(error):
    def fail(*_):
        raise error

    return fail


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="needs posix_fallocate")
def test_a_full_disk(folder, run, monkeypatch):
    monkeypatch.setattr(mapped.os, "posix_fallocate", fail_with(OSError(errno.ENOSPC, "no room")))
    code, out, err = run(*INIT)
    assert (code, out, created(folder)) == (3, "", [])
    assert re.fullmatch("numinit: error: .*no room.*m.safetensors'\n", err)


def test_a_file_beyond_the_limit_of_the_process(folder):
    pytest.importorskip("resource", reason="needs setrlimit")
    code = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "from numinit.cli import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    (folder / "m.json").write_text('{"tensors": {"w.bias": [10000]}}')
    done = subprocess.run(
        [sys.executable, "-c", code, *INIT], capture_output=True, text=True, env=ENVIRONMENT
    )
    assert (done.returncode, done.stdout, created(folder)) == (3, "", [])
    assert "File too large" in done.stderr and "m.safetensors" in done.stderr


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.EIO, "bad disk")])
def test_a_failure_at_the_end_leaves_what_was_there(folder, run, monkeypatch, error):
    (folder / "m.safetensors").write_text("precious")
    monkeypatch.setattr(mapped.os, "fsync", fail_with(error))
    code, out, err = run(*INIT, "--force")
    assert (code, out, created(folder)) == (3, "", ["m.safetensors"])
    assert (folder / "m.safetensors").read_text() == "precious"
    assert re.search("out of memory|bad disk", err)


# A new process ignores what its parent did, for example where the tests run in the background.
DEFAULTS = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
for name in "SIGTERM", "SIGHUP":
    signal.signal(getattr(signal, name), signal.SIG_DFL)
"""
# A run that sends itself a signal before its fourth window: in the middle, without a race.
SIGNALLED = """
from numinit import cli
from numinit.models import write as writing
original, count = writing.map_window, 0
def map_window(*arguments):
    global count
    count += 1
    if count == 4:
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
    return original(*arguments)
writing.map_window = map_window
sys.exit(cli.main(sys.argv[2:]))
"""


def run_script(script, *arguments):
    command = [sys.executable, "-c", DEFAULTS + script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=60)


@posix_only
@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("SIGINT", 130, "interrupted"),
        ("SIGTERM", 143, "terminated"),
        ("SIGHUP", 143, "terminated"),
        ("SIGKILL", -9, None),
    ],
)
def test_signals(folder, name, code, message):
    (folder / "m.safetensors").write_text("precious")
    done = run_script(SIGNALLED, name, *INIT, "--force")
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr == (f"numinit: {message}\n" if message else "")
    assert (folder / "m.safetensors").read_text() == "precious"
    left = [name for name in created(folder) if name != "m.safetensors"]
    assert len(left) == (name == "SIGKILL")
    assert all(re.fullmatch(r"\.m\.safetensors\.[0-9a-f]{16}\.tmp", name) for name in left)


@posix_only
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_ignored_signals_stay_ignored(folder, name):
    """As under nohup, and in the background of a shell without job control."""
    ignored = "signal.signal(getattr(signal, sys.argv[1]), signal.SIG_IGN)"
    done = run_script(ignored + SIGNALLED, name, *INIT, "-q")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert created(folder) == ["m.safetensors"]


@posix_only
def test_a_burst_of_signals(folder):
    """The first one counts; the others, up to the end of the process, disturb nothing."""
    script = """
import threading, time
from numinit import cli
from numinit.models import write as writing
original = writing.map_window
def burst():
    while True:
        for number in signal.SIGINT, signal.SIGTERM, signal.SIGHUP:
            os.kill(os.getpid(), number)
sender = threading.Thread(target=burst, daemon=True)
def map_window(*arguments):
    if not sender.is_alive():
        sender.start()
    time.sleep(0.01)
    return original(*arguments)
writing.map_window = map_window
sys.argv[0] = "numinit"
code = cli.main()
time.sleep(0.1)
sys.exit(code)
"""
    for _ in range(3):
        done = run_script(script, *INIT)
        assert (done.returncode, done.stderr) in (
            (130, "numinit: interrupted\n"),
            (143, "numinit: terminated\n"),
        )
        assert (done.stdout, created(folder)) == ("", [])


@posix_only
@pytest.mark.parametrize("second", ["SIGINT", "SIGTERM"])
def test_a_signal_in_the_clean_up(folder, second):
    # For this module alone, because Numba's compiler calls the function, too.
    script = f"""
import types
from numinit.models import files as mapped
clear = mapped.traceback.clear_frames
def clear_frames(*arguments):
    os.kill(os.getpid(), signal.{second})
    clear(*arguments)
mapped.traceback = types.SimpleNamespace(clear_frames=clear_frames)
"""
    done = run_script(script + SIGNALLED, "SIGTERM", *INIT)
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "numinit: terminated\n")
    assert created(folder) == []


@posix_only
def test_a_signal_to_verify(folder, run):
    run(*INIT, "-q")
    script = """
from numinit import cli
from numinit.models import verify as verifying
def compare(*_):
    os.kill(os.getpid(), signal.SIGTERM)
verifying._compare = compare
sys.exit(cli.main(sys.argv[1:]))
"""
    done = run_script(script, "verify", "m.safetensors")
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "numinit: terminated\n")


def test_a_fault_is_no_difference(run, monkeypatch):
    """Exit code 1 says that a file differs, and nothing else does."""
    monkeypatch.setattr(cli, "verify", fail_with(RuntimeError("can't start new thread")))
    code, out, err = run("verify", "m.safetensors")
    assert (code, out, err) == (70, "", "numinit: fault: RuntimeError: can't start new thread\n")


@pytest.mark.parametrize("installed", [True, False])
def test_a_setting_that_is_refused(folder, installed):
    """Settings are read where failures, and an early Ctrl-C, are handled."""
    command = COMMAND
    if installed:
        (folder / "bin").mkdir()
        command = [sys.executable, str(folder / "bin" / "numinit")]
        Path(command[1]).write_text("import sys; from numinit.cli import main; sys.exit(main())")
    environment = ENVIRONMENT | {"NUMBA_NUM_THREADS": "0"}
    done = subprocess.run([*command, "info"], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch("numinit: error: NUMBA_NUM_THREADS: 0 .*\n", done.stderr)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [("info",), INIT])
def test_a_full_disk_for_the_output(folder, arguments):
    buffered = ENVIRONMENT | {"PYTHONUNBUFFERED": ""}
    with Path("/dev/full").open("wb") as stdout:
        done = subprocess.run(
            [*COMMAND, *arguments], stdout=stdout, stderr=subprocess.PIPE, env=buffered
        )
    assert done.returncode == 3
    assert re.fullmatch(rb"numinit: error: .*No space left.*\n", done.stderr)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_a_folder_that_takes_no_file(folder, run):
    code, out, err = run(*INIT, "-o", "/proc/m.safetensors")
    assert (code, out) == (3, "")
    assert re.fullmatch("numinit: error: .*: '/proc/m.safetensors'\n", err)


@posix_only
@pytest.mark.parametrize("arguments", [("info",), ("--help",), INIT])
def test_nobody_reads_the_output(folder, arguments):
    buffered = ENVIRONMENT | {"PYTHONUNBUFFERED": ""}  # else argparse swallows the failure
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as stdout:
        done = subprocess.run(
            [*COMMAND, *arguments], stdout=stdout, stderr=subprocess.PIPE, env=buffered
        )
    assert (done.returncode, done.stderr) == (141, b"")
    assert created(folder) == (["m.safetensors"] if arguments == INIT else [])


@posix_only
def test_a_closed_output(folder):
    command = [*COMMAND, *INIT]
    done = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *command], env=ENVIRONMENT)
    assert done.returncode == 0
    assert created(folder) == ["m.safetensors"]


def test_names_that_the_terminal_cannot_show(folder):
    name = "層.weight"
    (folder / "m.json").write_text(json.dumps({"tensors": {name: [1], "other": [1]}}))
    environment = ENVIRONMENT | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run([*COMMAND, *INIT], capture_output=True, env=environment)
    assert done.returncode == 2
    assert b"no rule for tensor 'other'" in done.stderr
    (folder / "r.toml").write_text('[[rules]]\nmatch = "other"\ninit = "Zeros"')
    done = subprocess.run([*COMMAND, *INIT], capture_output=True, env=environment)
    assert done.returncode == 2
    assert b"no rule for tensor '\\u5c64.weight'" in done.stderr


# The progress bar.


@posix_only
@pytest.mark.parametrize(("terminal", "quiet"), [(True, False), (True, True), (False, False)])
def test_progress_is_for_a_terminal(folder, terminal, quiet):
    (folder / "m.json").write_text('{"tensors": {"w.bias": [10000]}}')
    reader, writer = os.openpty() if terminal else os.pipe()
    if terminal:  # its width, not that of the terminal that stdout may be
        import termios

        termios.tcsetwinsize(writer, (24, 60))
    try:
        done = subprocess.run(
            [*COMMAND, *INIT, *["-q"] * quiet],
            stdout=subprocess.PIPE,
            stderr=writer,
            env=ENVIRONMENT,
        )
        os.close(writer)
        text = b""
        with contextlib.suppress(OSError):  # how Linux ends a terminal that nobody has open
            while part := os.read(reader, 4096):
                text += part
    finally:
        os.close(reader)
    assert done.returncode == 0
    assert bool(done.stdout) != quiet
    if quiet or not terminal:
        assert text == b""
    else:
        *_, last, wiped, rest = text.decode().split("\r")
        assert last.startswith(f"[{'#' * 24}] 100%  40 kB of 40 kB") and len(last) == 59
        assert (wiped, rest) == (" " * 59, "")


def test_progress_ends_at_the_whole(capsys, monkeypatch):
    """Bars come at most ten times a second, and the last one is full."""
    clock = iter([0.0, 0.2, 0.25, 0.4, 0.41])
    monkeypatch.setattr(cli.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with cli._progress(False) as draw:
        for done in (10, 20, 30, 40):
            draw(done, 40)
    bars = [float(share) for share in re.findall(r"(\d+)%", capsys.readouterr().err)]
    assert bars == [25, 75, 100]


# Other programs read the files.


def test_transformers_loads_gpt2(folder, run):
    torch = pytest.importorskip("torch", reason="needs torch")
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    run("init", "gpt2-small", "--dtype", "bfloat16", "--seed", 9, "-o", "model.safetensors", "-q")
    transformers.GPT2Config(dtype="bfloat16").save_pretrained(folder)
    model, info = transformers.GPT2LMHeadModel.from_pretrained(
        folder, output_loading_info=True, local_files_only=True, dtype=torch.bfloat16
    )
    assert not any(info.values()), info  # nothing missing, unexpected or of another shape
    loaded = dict(model.named_parameters())
    params = ni.init_params("gpt2-small", "gpt2", seed=9, dtype="float32")
    assert loaded.keys() == params.keys()  # lm_head is the token embedding
    for name, array in params.items():
        assert torch.equal(loaded[name], torch.from_numpy(array).bfloat16()), name
    logits = model(torch.tensor([[1, 2, 3]])).logits
    assert logits.shape == (1, 3, 50257) and bool(logits.isfinite().all())


def test_the_safetensors_library_reads_slices(folder, run):
    library = pytest.importorskip("safetensors", reason="needs safetensors")
    run(*INIT, "--dtype", "float64")
    with library.safe_open("m.safetensors", "numpy") as file:
        assert set(file.keys()) == set(SHAPES)
        assert file.metadata()["numinit.seed"] == "0"
        part = file.get_slice("b.weight")[1:, :, 2:4]
    expected = ni.init_params(SHAPES, LAWS, dtype="float64")["b.weight"][1:, :, 2:4]
    assert part.tobytes() == expected.tobytes()


def test_kernels_are_compiled_ahead_of_time(tmp_path, monkeypatch, capsys):
    def files():
        return sorted(file.name for file in tmp_path.rglob("*") if file.is_file())

    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "numinit", "compile", "--dtype", "float32"]
    command += ["--initializer", "Uniform", "--initializer", "Ones"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert re.match(r"Uniform, float32: [\d.]+ s\nOnes, float32: [\d.]+ s\nkernels", done.stdout)
    made = files()
    names = [name.rpartition("-")[0] for name in made]
    assert names == ["calls", "constant_float32", "drive_1x4", "uniform_float32"]
    script = "import numinit as ni; ni.Uniform()(9); ni.Ones()(9)"
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
    assert files() == made


def test_what_cannot_be_compiled_is_named(capsys):
    assert cli.main(["compile", "--dtype", "float32", "--initializer", "Dirac"]) == cli.USAGE
    assert "Dirac of float32: Only tensors with 3, 4, or 5 dimensions" in capsys.readouterr().err
