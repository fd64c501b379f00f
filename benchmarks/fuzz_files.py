"""Random and mutated recipes, models, headers and files: refused or right, in bounded time and memory.

``python -m benchmarks.fuzz_files --seconds 180 --seed 0`` runs all parts in turn. Every case must
end in a result or in an error of the kinds that the command line reports as bad input, with a short
message, within seconds and megabytes; and every changed bit of a written file must be found, or be
a rounding that `numinit.models.tolerance` allows. A failure prints the case's seed and part.
"""

import argparse
import json
import random
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np

from numinit.engines import driver
from numinit.engines.spec import Whole
from numinit.models import recipes
from numinit.models import verify as verifying
from numinit.models import write as writing
from numinit.models.formats.safetensors import BITS, read_header
from numinit.models.recipes import RecipeError
from numinit.models.sources import TensorSpec, load_model
from numinit.models.tolerance import outside
from numinit.models.untrusted import InputError
from numinit.stream.dtypes import DTYPES
from numinit.weights.keys import Key

SECONDS = 10.0  # for one case, on a machine that others use
MEGABYTES = 100.0
MESSAGE = 2500  # characters

SHIPPED = [
    (resources.files("numinit.models") / f"data/recipes/{name}.toml").read_text()
    for name in recipes.available()
]
WORDS = [
    "name", "source", "layers", "base", "rules", "match", "init", "depth_scaled", "fans_of", "mup",
    "in_axis", "padding_idx", "std", "mean", "low", "high", "gain", "a", "mode", "value", "sparsity",
    "nonlinearity", "groups", "packed", "out_axis", "batch_axis", "transposed", "distribution",
    "optional", "constants", "same_as", "norm_of", "dtype", "parts", "axis", "size", "of", "init",
    "values", "scale", "floor", "lower", "corrected", "layout", "base_shape", "role", "of_shape",
]  # fmt: skip
SHAPES = [(), (1,), (3,), (2, 3), (3, 2), (0, 4), (4, 3, 2, 2), (2, 2, 2)]


def number(draw: random.Random) -> str:
    return draw.choice(
        ["0", "-0.0", "1", "-1", "0.02", "1e39", "-1e400", "nan", "inf", "-inf", "true", "10" * 40,
         "0x" + "f" * draw.randrange(1, 400), "1979-05-27", "1e-320", str(2**63), "2.5"]
    )  # fmt: skip


def glob(draw: random.Random) -> str:
    part = ["*", "?", "[ab]", "[!a]", "[", "]", "a", "b", ".", "weight", "bias", "h", "\u2028", "é"]
    return "".join(draw.choices(part, k=draw.choice([1, 3, 8, 40])))


def formula(draw: random.Random) -> str:
    """A text that is nearly a formula."""
    pieces = [
        "1", "9", "1e308", "i", "j", "n", "layers", "layer", "fan_in", "size(0)", "size(-9)", "+",
        "-", "*", "/", "//", "%", "**", "(", ")", ",", "sqrt(", "log(", "exp(", "sin(", "min(", " ",
        ".", "\u0663",
    ]  # fmt: skip
    if draw.random() < 0.5:  # one that is a formula
        text = draw.choice(["1", "layers", "fan_in", "i"])
        for _ in range(draw.choice([1, 3, 10])):
            text = draw.choice(
                ["({} + 1)", "sqrt({})", "{} ** 9", "exp({})", "1 / {}", "-{}"]
            ).format(text)
        return text
    return "".join(draw.choices(pieces, k=draw.choice([1, 3, 8, 40, 120])))


def value(draw: random.Random, depth: int = 0) -> str:
    if draw.random() < 0.01:
        nested = draw.randrange(400)
        return "[" * nested + draw.choice(["1", ""]) + "]" * nested
    kind = draw.randrange(7 if depth < 2 else 3)
    if draw.random() < 0.2:
        return json.dumps(formula(draw), ensure_ascii=False)
    if kind < 2:
        return number(draw)
    if kind < 4:
        text = glob(draw) if kind == 2 else draw.choice(
            ["relu", "gelu", "fan_in", "normal", "hidden", "output", "weight", *recipes.known()]
        )  # fmt: skip
        return json.dumps(text, ensure_ascii=draw.random() < 0.5)
    if kind < 6:
        inner = [value(draw, depth + 1) for _ in range(draw.choice([0, 1, 2, 2, 30]))]
        return "[" + draw.choice([", ", ",\n"]).join(inner) + "]"
    return "{" + ", ".join(f"{key(draw)} = {value(draw, depth + 1)}" for _ in range(2)) + "}"


def key(draw: random.Random) -> str:
    return ".".join(draw.choices(WORDS, k=draw.choice([1] * 12 + [2, 60, 300])))


def grammar(draw: random.Random) -> str:
    """A text that is nearly a recipe."""
    lines = []
    for _ in range(draw.choice([1, 3, 10, 10, 400])):
        kind = draw.random()
        if kind < 0.3:
            lines += [
                "[[rules]]",
                f"match = {json.dumps(glob(draw))}" if draw.random() < 0.9 else "",
                f'init = "{draw.choice(list(recipes.known()))}"',
            ]
        elif kind < 0.35:
            lines.append(draw.choice(["[base]", "[[rules]]", f"[{key(draw)}]", f"[[{key(draw)}]]"]))
        else:
            lines.append(f"{key(draw)} = {value(draw)}")
    return draw.choice(["\n", "\n", "\r\n", "\u2028"]).join(lines)


def mutated(draw: random.Random, data: bytes) -> bytes:
    """Bytes flipped, dropped, repeated and moved."""
    changed = bytearray(data)
    for _ in range(draw.choice([1, 1, 2, 5, 30])):
        at = draw.randrange(len(changed) + 1)
        size = draw.choice([1, 2, 10, 100])
        part = changed[at : at + size]
        kind = draw.randrange(5)
        if kind == 0 and at < len(changed):
            changed[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del changed[at : at + size]
        elif kind == 2:
            changed[at:at] = part * draw.choice([1, 2, 50])
        elif kind == 3:
            changed[at:at] = draw.choice([b"[", b"{", b'"', b".", b"a." * 99, b"\xff", b"9" * 99])
        else:
            other = draw.randrange(len(changed) + 1)
            changed[at : at + size] = changed[other : other + size]
    return bytes(changed)


def names(draw: random.Random) -> dict[str, tuple[int, ...]]:
    made = {}
    for _ in range(draw.choice([1, 5, 50])):
        long = "ab" * draw.choice([1, 1, 900])
        parts = draw.choices(["h", "0", "1", "a", "b", "{0-1}", "{2-90}", long], k=4)
        made[".".join([*parts, draw.choice(["weight", "bias"])])[:4096]] = draw.choice(SHAPES)
    return made


def recipe(draw: random.Random, folder: Path) -> str:
    """Parse a recipe, and plan a model with it."""
    if draw.random() < 0.5:
        text = grammar(draw)
    else:
        text = mutated(draw, draw.choice(SHIPPED).encode()).decode(errors="replace")
    if draw.random() < 0.7:
        text += '\n[[rules]]\nmatch = "*"\ninit = "Zeros"\n'
    parsed = recipes.parse(text, "fuzz")
    recipes.dump(parsed)  # which compares
    parsed.plan(names(draw))
    return "planned"


def model(draw: random.Random, folder: Path) -> str:
    """Read a model's JSON."""
    table = {"model": "m", "recipe": "gpt2", "tensors": names(draw)}
    path = folder / "m.json"
    path.write_bytes(mutated(draw, json.dumps(table).encode()))
    load_model(path)
    return "read"


def header(draw: random.Random, folder: Path) -> str:
    """Read a header, which must then describe the file exactly."""
    table, end = {}, 0
    for name, shape in names(draw).items():
        code = draw.choice([*BITS])
        size = int(np.prod(shape)) * BITS[code] // 8
        table[name] = {"dtype": code, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(table).encode()
    if draw.random() < 0.8:
        text = mutated(draw, text)
    size = len(text) if draw.random() < 0.9 else draw.getrandbits(64)
    path = folder / "h.safetensors"
    path.write_bytes(size.to_bytes(8, "little") + text + bytes(end))
    _, entries, offset = read_header(path)
    assert offset + max((e.stop for e in entries.values()), default=0) == path.stat().st_size
    return "read"


LAWS = {
    "n": "Normal",
    "u": "Uniform",
    "q": "Orthogonal",
    "d": "DeltaOrthogonal",
    "e": "Eye",
    "z": "Zeros",
}
WRITTEN = recipes.parse(
    "optional = true\n"
    + "".join(f'[[rules]]\nmatch = "{name}*"\ninit = "{init}"\n' for name, init in LAWS.items()), "fuzz"
)  # fmt: skip


CODES = ["float32", "bfloat16", "float64", "float16", "float8_e4m3fn", "float8_e5m2"]


def compiled(folder: Path) -> None:
    """Make all kernels that `damaged` uses, which takes seconds and much memory."""
    specs = {f"{name}{code}": TensorSpec((5, 4, 3), code) for name in LAWS for code in CODES[:2]}
    del specs["efloat32"], specs["ebfloat16"]
    specs |= {"q": TensorSpec((2, 2), "float64")}
    writing.write(folder / "w.safetensors", specs, WRITTEN)


def damaged(draw: random.Random, folder: Path) -> str:
    """Change a written file, and verify it."""
    specs = {
        f"{name}{code}": TensorSpec((5, 4, 3) if name == "d" else (6, 5), code)
        for name in draw.sample([*LAWS], 2)
        for code in draw.sample(CODES if name in "qd" else CODES[:2], 2)
    }
    path = folder / "w.safetensors"
    writing.write(path, specs, WRITTEN, seed=draw.getrandbits(64), overwrite=True)
    metadata, entries, offset = read_header(path)
    whole = path.read_bytes()
    data = bytearray(whole)
    if draw.random() < 0.3:  # anywhere, in any way
        data = bytearray(mutated(draw, whole))
        path.write_bytes(data)
        if data == whole:
            return "the same"
        at = next((n for n, (a, b) in enumerate(zip(data, whole, strict=False)) if a != b), -1)
        end = len(data) == len(whole) and at >= offset
    else:
        at = draw.randrange(len(data))
        data[at] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        end = at >= offset
    try:
        verifying.verify(path)
    except (verifying.Mismatch, InputError):
        return "found"
    assert end, f"byte {at} of the header was changed and nothing said"
    key = Key(int(metadata["numinit.seed"]))
    for name, entry in entries.items():
        found = np.frombuffer(data, np.uint8)[offset + entry.start : offset + entry.stop]
        if found.tobytes() == whole[offset + entry.start : offset + entry.stop]:
            continue
        dtype = DTYPES[specs[name].dtype]
        plan, own = WRITTEN.plan({name: entry.shape}, {name: dtype})[name], key.fold_in(name)
        assert isinstance(plan, Whole), name
        values = driver.matrix(plan, dtype, own.seed, own.stream).reshape(-1)
        # Elements that the tolerance explains, with a margin for this sum's own order: none.
        assert not outside(found, values, dtype, plan.tolerance(dtype)).any(), name
    return "a rounding"


PARTS: dict[str, Callable[[random.Random, Path], str]] = {
    "recipe": recipe, "model": model, "header": header, "damaged": damaged,
}  # fmt: skip


def run(seconds: float, seed: int, cases: int | None = None) -> Counter[str]:
    """Run cases until the time is over or there were so many; says what they came to."""
    came: Counter[str] = Counter()
    slowest = largest = (0.0, "none")
    with tempfile.TemporaryDirectory() as place:
        compiled(Path(place))
        case = 0
        begin = time.perf_counter()
        while time.perf_counter() - begin < seconds and case != cases:
            part = [*PARTS][case % len(PARTS)]
            draw = random.Random(f"{seed} {case}")
            measured = case % 16 < len(PARTS)  # tracing memory is slow
            if measured:
                tracemalloc.start()
            started = time.perf_counter()
            try:
                what = PARTS[part](draw, Path(place))
            except (RecipeError, InputError) as error:
                what = "refused"
                assert len(str(error)) < MESSAGE, f"{part} {case}: {len(str(error))} characters"
            except BaseException:
                print(f"failed: part {part}, seed {seed}, case {case}")
                raise
            finally:
                took = time.perf_counter() - started
                peak = tracemalloc.get_traced_memory()[1] / 1e6 if measured else 0.0
                tracemalloc.stop()
            assert took < SECONDS, f"{part}, seed {seed}, case {case}: {took:.1f} s"
            assert peak < MEGABYTES, f"{part}, seed {seed}, case {case}: {peak:.0f} MB"
            slowest = max(slowest, (took, f"{part} {case}"))
            largest = max(largest, (peak, f"{part} {case}"))
            came[f"{part}: {what}"] += 1
            case += 1
    print(
        f"{case} cases; the slowest {slowest[0]:.2f} s ({slowest[1]}), the largest "
        f"{largest[0]:.1f} MB ({largest[1]})"
    )
    return came


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for what, count in sorted(run(arguments.seconds, arguments.seed).items()):
        print(f"{what:24}{count:8}")


if __name__ == "__main__":
    main()
