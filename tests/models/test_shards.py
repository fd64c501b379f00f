"""Checkpoints in several files: split, written by several processes, resumed, verified, not trusted."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numinit import Normal, Zeros, cli
from numinit.models import shards
from numinit.models import verify as verifying
from numinit.models import write as writing
from numinit.models.formats.safetensors import read_header
from numinit.models.recipes import RecipeError, parse
from numinit.models.shards import index_of, parse_size, split
from numinit.models.sources import TensorSpec, load_model
from numinit.models.untrusted import InputError
from numinit.models.verify import Mismatch, verify
from numinit.models.write import write
from numinit.stream.dtypes import DTYPES

# New processes find the package that is tested, installed or not.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(writing.__file__).parents[2])}
COMMAND = [sys.executable, "-m", "numinit"]
INDEX = "model.safetensors.index.json"

#: Rules that look at other tensors, most of them in other files.
RECIPE = """
name = "whole"
layers = "h.*"
[[rules]]
match = "head.weight"
same_as = "embed.weight"
[[rules]]
match = "*.bias"
init = "KaimingUniform"
fans_of = "weight"
[[rules]]
match = "*.o.weight"
init = "Normal"
std = 0.02
depth_scaled = true
[[rules]]
match = "*.at"
init = "Constant"
value = "layer / layers"
[[rules]]
match = "*.g"
norm_of = "v"
[[rules]]
match = "*.whole"
init = "Orthogonal"
[[rules]]
match = "count"
init = "Ones"
[[rules]]
match = "*"
init = "Normal"
"""
SPECS = {"embed.weight": TensorSpec((40, 8), "bfloat16"), "count": TensorSpec((3,), "int64")}
for layer in range(4):
    SPECS |= {
        f"h.{layer}.a.bias": TensorSpec((32,)),
        f"h.{layer}.o.weight": TensorSpec((16, 8)),
        f"h.{layer}.o.at": TensorSpec((2,), "float64"),
        f"h.{layer}.a.g": TensorSpec((12, 1)),
        f"h.{layer}.whole": TensorSpec((8, 8), "float16"),
        f"h.{layer}.a.weight": TensorSpec((32, 9)),
        f"h.{layer}.a.v": TensorSpec((12, 5)),
    }
SPECS |= {"empty": TensorSpec((0, 4)), "head.weight": TensorSpec((40, 8), "bfloat16")}
SIZE = 1000


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A current directory with a model (m.json) and a recipe (r.toml)."""
    monkeypatch.chdir(tmp_path)
    tensors = {
        name: {"shape": list(shape), "dtype": dtype or "float32"}
        for name, (shape, dtype) in SPECS.items()
    }
    (tmp_path / "m.json").write_text(json.dumps({"tensors": tensors}))
    (tmp_path / "r.toml").write_text(RECIPE)
    return tmp_path


def made(path="set", **changes):
    """A set of files."""
    arguments = {"specs": SPECS, "recipe": parse(RECIPE), "max_shard_size": SIZE} | changes
    write(path, **arguments)
    return Path(path)


def files(directory):
    """The bytes of every file."""
    return {path.name: path.read_bytes() for path in Path(directory).iterdir()}


def tensor_bytes(path):
    _, entries, offset = read_header(path)
    data = path.read_bytes()[offset:]
    return {name: data[entry.start : entry.stop] for name, entry in entries.items()}


def parts(directory):
    return sorted(Path(directory).glob("*.safetensors"))


# Sizes and names


@pytest.mark.parametrize(
    ("size", "number"),
    [("5GB", 5 * 10**9), ("1.5 mb", 1_500_000), ("3KiB", 3072), ("2TiB", 2 << 40), (17, 17)],
)
def test_sizes(size, number):
    assert parse_size(size) == number


@pytest.mark.parametrize(
    "size", ["5", "GB", "-1GB", "0GB", "0.1KB ish", "1e3GB", "nanGB", "5 PB", "", 0, -3, True, 2.5,
             None, "9" * 400 + "GB"],
)  # fmt: skip
def test_refused_sizes(size):
    with pytest.raises(InputError, match=r"^max_shard_size: got .*such as 5GB or 512MiB"):
        parse_size(size)


def test_the_example_of_huggingface_hub():
    byte = DTYPES["float8_e4m3fn"]
    tensors = {
        name: ((size,), byte) for name, size in zip("abcdef", [6, 6, 2, 6, 2, 2], strict=True)
    }
    expected = {"model-00001-of-00003.safetensors": ["a"],
                "model-00002-of-00003.safetensors": ["b", "c"],
                "model-00003-of-00003.safetensors": ["d", "e", "f"]}  # fmt: skip
    assert split(tensors, 10) == expected
    assert split(tensors, 24) == {"model.safetensors": list("abcdef")}
    # A tensor beyond the limit comes before the file that is not full yet.
    assert list(split(tensors, 5).values()) == [["a"], ["b"], ["d"], ["c", "e"], ["f"]]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=40), st.integers(1, 40))
def test_files_and_index_are_those_of_huggingface_hub(sizes, most):
    hub = pytest.importorskip("huggingface_hub", reason="needs huggingface_hub")
    names = {f"t{n}": size for n, size in enumerate(sizes)}
    theirs = hub.split_state_dict_into_shards_factory(
        names,
        get_storage_size=lambda size: size,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=most,
    )
    tensors = {name: ((size,), DTYPES["float8_e4m3fn"]) for name, size in names.items()}
    ours = split(tensors, most)
    assert list(ours.items()) == list(theirs.filename_to_tensors.items())
    index = {"metadata": theirs.metadata, "weight_map": theirs.tensor_to_filename}
    assert index_of(ours, tensors).decode() == json.dumps(index, indent=2)


def test_the_index_is_the_file_that_huggingface_hub_writes(tmp_path):
    torch = pytest.importorskip("torch", reason="needs torch")
    hub = pytest.importorskip("huggingface_hub", reason="needs huggingface_hub")
    pytest.importorskip("safetensors", reason="needs safetensors")
    tensors = {f"ü.{n}": torch.zeros(n, 3) for n in range(1, 9)}
    (tmp_path / "theirs").mkdir()
    hub.save_torch_state_dict(tensors, tmp_path / "theirs", max_shard_size=120)
    specs = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    made(tmp_path / "ours", specs=specs, recipe={"*": Zeros()}, max_shard_size=120)
    ours, theirs = files(tmp_path / "ours"), files(tmp_path / "theirs")
    assert ours.keys() == theirs.keys() and ours[INDEX] == theirs[INDEX]
    # What one library writes, the other reads.
    assert load_model(tmp_path / "theirs") == (
        "theirs",
        None,
        load_model(tmp_path / "ours").tensors,
    )
    read = hub.load_state_dict_from_file
    loaded = {name: t for path in parts(tmp_path / "ours") for name, t in read(path).items()}
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)


# Writing


def test_values_are_those_of_one_file(model):
    write("one.safetensors", SPECS, "r.toml", 3)
    made(seed=3)
    expected, table = (
        tensor_bytes(Path("one.safetensors")),
        json.loads(Path("set", INDEX).read_text()),
    )
    found = {}
    for path in parts("set"):
        held = tensor_bytes(path)
        assert len(held) == 1 or sum(map(len, held.values())) <= SIZE
        assert all(table["weight_map"][name] == path.name for name in held)
        found |= held
    assert found == expected
    assert list(table["weight_map"]) != sorted(SPECS) and table["weight_map"].keys() == SPECS.keys()
    assert table["metadata"] == {"total_size": sum(map(len, found.values()))}
    summary = verify("set")
    assert summary == verify(Path("set", INDEX)) == verify("one.safetensors")
    assert summary.tensors == len(SPECS) and summary.nbytes == table["metadata"]["total_size"]


def test_what_fits_into_one_file_is_one(model):
    write("one.safetensors", SPECS, "r.toml")
    made(max_shard_size="5GB")
    assert files("set") == {"model.safetensors": Path("one.safetensors").read_bytes()}
    assert verify("set") == verify("one.safetensors")


@pytest.mark.parametrize("count", [3, 40])
def test_parts_that_share_nothing_make_the_whole_set(model, count):
    expected = files(made("one"))
    for part in range(count, 0, -1):
        made(shard=(part, count))
        assert Path("set", INDEX).exists() == (part == 1)
    assert files("set") == expected


def test_processes_share_nothing_but_the_command_line(model):
    expected = files(made("one", seed=5))
    command = [*COMMAND, "init", "m.json", "--recipe", "r.toml", "--seed", "5", "-o", "set"]
    command += ["--max-shard-size", str(SIZE / 1000) + "KB", "--shard"]
    running = [
        subprocess.Popen(
            [*command, f"{part}/3"], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
        )
        for part in (1, 2, 3)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    counts = [int(re.match(r"set: (\d+) tensors, ", output)[1]) for output in outputs]
    assert sum(counts) == len(SPECS) and all(counts)
    assert files("set") == expected
    assert cli.main(["verify", "set", "-q"]) == 0


def test_every_file_verifies_alone(model):
    """It has what it needs of the others: the layers of a stack, what it is tied to, fans and norms."""
    paths, needed = parts(made()), set()
    assert len(paths) > 6
    for path in paths:
        alone = Path("alone.safetensors")
        shutil.copy(path, alone)
        assert verify(alone).tensors == len(tensor_bytes(path))
        metadata, entries, _ = read_header(path)
        others = json.loads(metadata.get("numinit.others", "{}"))
        assert not others.keys() & entries.keys()
        if any(name.endswith((".o.weight", ".at")) for name in entries):
            assert {name[:4] for name in {*others, *entries} if name[0] == "h"} == {
                f"h.{layer}." for layer in range(4)
            }
        needed |= others.keys()
    assert "embed.weight" in needed and len(needed) < len(SPECS) / 2


def test_a_file_alone_is_as_large_a_stack_as_the_set(model):
    """A file that forgot its set would have 1 / sqrt(2), the share of a single layer."""
    specs = {f"h.{layer}.o.weight": (16, 8) for layer in range(4)}
    paths = parts(
        made(specs=specs, recipe=parse(RECIPE.replace("[[rules]]", "[[rules]]\noptional = true")))
    )
    stds = [np.frombuffer(*tensor_bytes(path).values(), np.float32).std() for path in paths]
    assert len(stds) == 2 or len(stds) == 4
    assert all(abs(std / (0.02 / 8**0.5) - 1) < 0.2 for std in stds)


def test_given_tensors(tmp_path):
    asked = []

    def values(name):
        def given(dtype):
            asked.append(name)
            return np.full(8, len(name), np.uint8)

        return given

    specs = {"a": (2,), "bb": (2,), "ccc": (2,), "d": (2,)}
    given = {"bb": values("bb"), "ccc": values("ccc")}
    shared = {"specs": specs, "recipe": {"*": Normal()}, "given": given, "max_shard_size": 8}
    summary = write(tmp_path / "set", shard=(1, 2), **shared)
    assert asked == ["ccc", "ccc"] and summary == (2, 16, (("given", 0.0, 1),))
    write(tmp_path / "set", shard=(2, 2), **shared)
    assert verify(tmp_path / "set") == (4, 32, (("given", 0.0, 2),))
    path = parts(tmp_path / "set")[1]
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(
        Mismatch, match=r"00002-of-00004.safetensors: tensor 'bb' differs from what"
    ):
        verify(tmp_path / "set")


@pytest.mark.parametrize(
    ("path", "arguments", "message"),
    [
        (
            "a.safetensors",
            {},
            r"a.safetensors: max_shard_size \(--max-shard-size\) makes a directory",
        ),
        ("a.npy", {}, r"a.npy: max_shard_size .* makes a directory"),
        ("m.json", {}, "m.json: exists and is not a directory"),
        ("no/where", {}, "no.where: the directory .*no does not exist"),
        ("set", {"shard": (0, 3)}, r"shard: got \(0, 3\); accepted: .* such as \(3, 16\)"),
        ("set", {"shard": (4, 3)}, r"shard: got \(4, 3\)"),
        ("set", {"shard": "1/3"}, "shard: got '1/3'"),
        ("set", {"shard": (True, 3)}, "shard: got"),
        ("a.safetensors", {"shard": (1, 3), "max_shard_size": None}, "^shard .*max_shard_size"),
        ("set", {"max_shard_size": "5"}, "max_shard_size: got '5'"),
        ("set", {"tensor": "count"}, "for .npy only"),
        ("set", {"recipe": {"*": Normal()}}, "does not fit tensor|whole number|int64"),
    ],
)
def test_refused_requests(model, path, arguments, message):
    with pytest.raises(ValueError, match=message):
        made(path, **arguments)
    assert sorted(os.listdir()) == ["m.json", "r.toml"]


def test_a_slip_in_a_rule_is_one_of_the_set(model):
    recipe = parse(RECIPE.replace('"*.whole"', '["*.whole", "slip"]'))
    with pytest.raises(RecipeError, match="the glob 'slip' matches no tensor"):
        made(recipe=recipe, shard=(2, 3))


# Going on


def test_whole_files_are_kept_and_others_made(model):
    expected = files(made())
    times = {path: path.stat().st_mtime_ns for path in parts("set")}
    first = next(iter(times))
    first.unlink()
    Path("set", INDEX).unlink()
    seen = []
    summary = write(
        "set", SPECS, "r.toml", max_shard_size=SIZE, progress=lambda *at: seen.append(at)
    )
    assert files("set") == expected and summary.tensors == len(SPECS)
    kept = [path for path in times if path.stat().st_mtime_ns == times[path]]
    assert kept == [path for path in times if path != first]
    assert seen == sorted(seen) and seen[-1] == (summary.nbytes, summary.nbytes)


def test_nothing_else_is_kept_or_replaced_unasked(model):
    before = files(made())
    recipe = parse(RECIPE.replace("0.02", "0.03"))
    for change in {"seed": 1}, {"recipe": recipe}, {"specs": SPECS | {"x": (3,)}}:
        with pytest.raises(InputError, match=r"exists and is not what would be written.*--force"):
            made(**change)
    with pytest.raises(InputError, match=r"has files of another checkpoint.*--force"):
        made(dtype="float16")
    assert files("set") == before
    made(seed=1, overwrite=True)
    assert files("set") == files(made("other", seed=1)) != before


def test_a_damaged_file_is_not_kept(model):
    expected = files(made())
    damaged = parts("set")[3]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    with pytest.raises(
        InputError, match=rf"^{re.escape(str(damaged))}: tensor .* differs.*--force"
    ):
        made()
    times = {path: path.stat().st_mtime_ns for path in parts("set")}
    made(overwrite=True)
    assert files("set") == expected
    assert [path for path in times if path.stat().st_mtime_ns != times[path]] == [damaged]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(InputError, match=rf"^{re.escape(str(damaged))}: exists and is not what"):
        made()


def test_files_of_another_checkpoint_do_not_stay_beside_it(model):
    """A loader would take model.safetensors before the index, and old parts for new ones."""
    made(max_shard_size="5GB")
    Path("set/model-00009-of-00009.safetensors").write_text("old")
    Path("set/mine.safetensors").write_text("not a name of a set")
    with pytest.raises(
        InputError, match=r"another checkpoint.*'model-00009-of-00009.safetensors', 'model.s"
    ):
        made()
    made(overwrite=True, shard=(2, 2))
    assert Path("set/model.safetensors").exists()
    made(overwrite=True, shard=(1, 2))
    assert files("set") == files(made("other")) | {"mine.safetensors": b"not a name of a set"}


def test_another_index_is_not_replaced_unasked(model):
    made()
    Path("set", INDEX).write_text("{}")
    for part in (1, 2):
        with pytest.raises(
            InputError, match=r"index.json: exists and is not what would be written"
        ):
            made(shard=(part, 2))
    made(overwrite=True)
    verify("set")


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_killed_and_resumed(model):
    expected = files(made("one"))
    script = """
import os, signal, sys
from numinit import cli
from numinit.models import files, write
left = int(sys.argv[1])
def some(function):
    def counted(*arguments):
        global left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)
    return counted
write.map_window, files._publish = some(write.map_window), some(files._publish)
sys.exit(cli.main(sys.argv[2:]))
"""
    command = ["init", "m.json", "--recipe", "r.toml", "--max-shard-size", "1KB", "-o", "set", "-q"]
    codes = []
    while not codes or codes[-1]:
        at = str(random.Random(len(codes)).randrange(4, 40))
        code = [sys.executable, "-c", script, at, *command]
        codes.append(subprocess.run(code, env=ENVIRONMENT, timeout=60).returncode)
        left = parts("set") if Path("set").is_dir() else []
        assert all(verify(path) for path in left)  # whatever has its name is whole
        assert len(codes) < 12
    assert codes[:-1] == [-signal.SIGKILL] * (len(codes) - 1) and len(codes) > 2
    assert files("set") == expected


# Verifying


def damaged(directory, name):
    path = Path(directory, name)
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def test_the_first_file_that_differs_is_named(model):
    made()
    names = [path.name for path in parts("set")]
    for name in names[5], names[2]:
        damaged("set", name)
        with pytest.raises(Mismatch, match=f"^set.{name}: tensor .* differs, first at element"):
            verify("set")
    assert cli.main(["verify", "set"]) == 1


def test_missing_files_are_named(model, capsys):
    names = [path.name for path in parts(made())]
    for name in names[1], names[-1]:
        Path("set", name).unlink()
    message = f"2 of its files are missing: {names[1]!r}, {names[-1]!r}"
    for path in ("set", f"set/{INDEX}"):
        assert cli.main(["verify", path]) == 2
        assert message in capsys.readouterr().err
    Path("set", INDEX).unlink()
    with pytest.raises(InputError, match=rf"^set: {message}$"):
        verify("set")
    for name in names[2:-1]:
        Path("set", name).unlink()
    with pytest.raises(InputError, match=rf"{len(names) - 1} of its files are missing"):
        verify("set")


def test_a_set_without_its_index(model):
    summary = verify(made())
    Path("set", INDEX).unlink()
    assert verify("set") == summary


def swapped(names):
    one, other = Path("set", names[0]), Path("set", names[1])
    held = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(held)


def of_another_seed(names):
    made("other", seed=1)
    shutil.copy(Path("other", names[2]), Path("set", names[2]))


def of_a_larger_set(names):
    specs = {"more": TensorSpec((SIZE // 4,))} | SPECS
    for path in parts(made("other", specs=specs))[1:]:
        shutil.copy(path, Path("set", names[int(path.name[6:11]) - 2]))
    Path("set", INDEX).unlink()


def changed(change):
    def write_index(names):
        table = json.loads(Path("set", INDEX).read_text())
        change(table)
        Path("set", INDEX).write_text(json.dumps(table))

    return write_index


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (swapped, InputError, "has no tensor .*, which the index puts there"),
        (of_another_seed, Mismatch, "00003-of-.* is of another set than .*: their numinit.seed differ"),
        (of_a_larger_set, Mismatch, "have not all tensors"),
        (changed(lambda table: table["weight_map"].pop("count")), Mismatch, "index differs at .*'count'"),
        (changed(lambda table: table["weight_map"].update(x="model-00001-of-00001.safetensors")),
         InputError, "1 of its files is missing: 'model-00001-of-00001.safetensors'"),
        (changed(lambda table: table["weight_map"].update(x=table["weight_map"]["count"])),
         InputError, "has no tensor 'x', which the index puts there"),
        (changed(lambda table: table["metadata"].update(total_size=1)), Mismatch, "total_size 1; the"),
        (changed(lambda table: table.pop("metadata")), Mismatch, "total_size None"),
        (lambda names: shutil.copy(Path("set", names[0]), Path("set", names[1])), InputError,
         "tensor .* is in model-00001-of-.*, too"),
    ],
)  # fmt: skip
def test_files_that_are_no_set(model, change, error, message):
    names = [path.name for path in parts(made())]
    change(names)
    with pytest.raises(error, match=message):
        verify("set")


def test_files_of_their_own_are_no_set(model):
    Path("set").mkdir()
    for name in "ab":
        write(f"set/{name}.safetensors", {name: (3,)}, {"*": Normal()})
    with pytest.raises(InputError, match=r"a.safetensors: was not written as one of several files"):
        verify("set")
    made("other")
    for path in parts("other"):
        shutil.copy(path, "set")
    assert verify("set") == verify("other")  # those with the names of a set
    shutil.copy(path, "set/other-00001-of-00002.safetensors")
    with pytest.raises(InputError, match=r"set: several checkpoints: .*an index is needed"):
        verify("set")


def test_whole_sets_are_verified_by_all_threads(model, monkeypatch):
    made()
    running, most = set(), []
    compare = verifying.compare_file

    def slow(one, *rest):
        running.add(one.path)
        most.append(len(running))
        time.sleep(0.02)
        compare(one, *rest)
        running.discard(one.path)

    monkeypatch.setattr(verifying, "compare_file", slow)
    verify("set")
    assert max(most) == verifying.AT_ONCE


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupt_ends_all_threads(model, error):
    made()
    seen = []

    def progress(done, total):
        seen.append(done)
        if len(seen) == 5:
            raise error("now")

    with pytest.raises(error, match="now"):
        verify("set", progress)
    count = len(seen)
    time.sleep(0.05)
    assert len(seen) == count
    assert count < len(SPECS) / 2 or error is OSError


def test_progress_counts_every_byte_once(model):
    seen = []
    summary = verify(made(), lambda *at: seen.append(at))
    assert seen == sorted(seen) and seen[-1] == (summary.nbytes, summary.nbytes)


# Sources


def test_sets_are_sources(model):
    made()
    expected = {
        name: TensorSpec(shape, dtype or "float32") for name, (shape, dtype) in SPECS.items()
    }
    for source in ("set", f"set/{INDEX}"):
        found = load_model(source)
        assert found.tensors == expected and found.recipe is None
    assert load_model("set").name == "set" and load_model(f"set/{INDEX}").name == "model"
    made("large", max_shard_size=1200)  # no tensor has a file of its own
    write("again", "large", "r.toml", max_shard_size=1200)
    assert files("again") == files("large")
    Path("set", INDEX).unlink()
    assert load_model("set").tensors == expected


def test_an_index_may_name_less_than_the_files_have(model):
    """A source is less strict than a proof."""
    made()
    changed(lambda table: table["weight_map"].pop("count"))(None)
    assert load_model("set").tensors.keys() == SPECS.keys() - {"count"}


HOSTILE = {
    "no map": ({}, "'weight_map' must map"),
    "a list": ({"weight_map": []}, "'weight_map' must map"),
    "nothing": ({"weight_map": {}}, "'weight_map' must map"),
    "absolute": ({"weight_map": {"a": "/etc/m.safetensors"}}, "beside the index"),
    "upward": ({"weight_map": {"a": "../m.safetensors"}}, "beside the index"),
    "below": ({"weight_map": {"a": "set/m.safetensors"}}, "beside the index"),
    "of Windows": ({"weight_map": {"a": "..\\m.safetensors"}}, "beside the index"),
    "a drive": ({"weight_map": {"a": "C:m.safetensors"}}, "beside the index"),
    "a NUL": ({"weight_map": {"a": "m\0.safetensors"}}, "beside the index"),
    "a number": ({"weight_map": {"a": 3}}, "beside the index"),
    "another type": ({"weight_map": {"a": "m.bin"}}, "beside the index"),
    "an index": ({"weight_map": {"a": INDEX}}, "beside the index"),
    "a long name": ({"weight_map": {"a": "m" * 300 + ".safetensors"}}, "beside the index"),
    "missing": ({"weight_map": {"a": "x.safetensors"}}, "1 of its files is missing: 'x.safe"),
    "not Unicode": ({"weight_map": {"\ud800": "m.safetensors"}}, "is missing|has no tensor"),
    "twice": (b'{"weight_map": {"a": "m.safetensors", "a": "n.safetensors"}}', "occurs twice"),
    "deep": (b"[" * 100_000, "not usable JSON"),
    "cut off": (b'{"weight_map": {"a"', "not usable JSON"),
    "many": ({"weight_map": {f"t{n}": f"f{n}.safetensors" for n in range(190_000)}}, "190000 of its"),
    "too many": ({"weight_map": {f"t{n}": "f.safetensors" for n in range(210_000)}}, "400000 values"),
    "too large": (b" " * (shards.MAX_INDEX + 1), "at most 33554432 are accepted"),
    "not there": ({"weight_map": {"b": "m.safetensors"}}, "has no tensor 'b', which the index puts"),
    "a cycle": ({"weight_map": {"a": "cycle.safetensors"}}, "cannot be read|not a regular file|is missing"),
    "a directory": ({"weight_map": {"a": "dir.safetensors"}}, "not a regular file"),
    "two names": ({"weight_map": {"a": "m.safetensors", "b": "n.safetensors"}}, "'a' is in m.s.*, too"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_indices(tmp_path, case):
    table, message = HOSTILE[case]
    write(tmp_path / "m.safetensors", {"a": (2,)}, {"*": Normal()})
    shutil.copy(tmp_path / "m.safetensors", tmp_path / "n.safetensors")
    (tmp_path / "dir.safetensors").mkdir()
    with contextlib.suppress(OSError, NotImplementedError):
        (tmp_path / "cycle.safetensors").symlink_to("cycle.safetensors")
    path = tmp_path / INDEX
    path.write_bytes(table if isinstance(table, bytes) else json.dumps(table).encode())
    for read in (load_model, verify):
        begin = time.process_time()
        with pytest.raises(InputError, match=message):
            read(path)
        assert time.process_time() - begin < 1


def test_hostile_directories(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"a directory without \.safetensors files"):
        verify(tmp_path)
    (tmp_path / "model-00001-of-999999999.safetensors").write_bytes(b"")
    with pytest.raises(
        InputError, match="999999998 of its files are missing: 'model-000000002-of-"
    ):
        verify(tmp_path)
    made(tmp_path / "set")
    monkeypatch.setattr(shards, "MAX_HEADERS", 5000)
    with pytest.raises(InputError, match=r"the headers of . files have more than 5000 bytes"):
        load_model(tmp_path / "set")


def test_hostile_metadata_of_other_files(model):
    """A stranger's file may say anything of the rest of its set."""
    from numinit.models import provenance

    path = parts(made())[-1]
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    for others, message in {
        "[": "not usable JSON",
        '{"x": 3}': "tensor 'x': the shape must be a list",
        '{"x": {"shape": [1], "dtype": "float31"}}': "tensor 'x': got dtype 'float31'",
        '{"x": {"shape": [9999999999, 9999999999]}}': "more than 2\\*\\*63 - 1 elements",
        "{}": "needs the tensor",
    }.items():
        header = json.loads(data[8 : 8 + length])
        header["__metadata__"] |= {
            "numinit.others": others,
            "numinit.header": provenance.UNSEALED,
        }
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        path.write_bytes(
            provenance.sealed(len(text).to_bytes(8, "little") + text) + data[8 + length :]
        )
        with pytest.raises(InputError, match=message):
            verify(path)
