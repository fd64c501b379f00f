"""The layers of the package, as a test: a module imports from lower layers only."""

import ast
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

import numinit

PACKAGE = Path(numinit.__file__).parent

# From the bottom. A glob stands for modules of one layer; within a layer any order but no cycle.
LAYERS = [
    ["show"],
    ["compiler.*"],
    ["stream.*"],
    ["engines.*"],
    ["arrays.*"],
    ["weights.*"],
    ["initializers", "initializers.*"],
    ["models.*"],
    # Frameworks' own conventions.
    ["functional", "torch", "torch.*", "jax", "jax.*", "keras", "mlx", "dask"],
    ["cli", "__main__", ""],
]
ANYWHERE = {"_version"}  # two constants
#: Packages of nothing but a docstring.
EMPTY = {"arrays", "compiler", "engines", "models", "stream", "weights"}
#: What a module may import at its top besides the standard library; anything else is imported where
#: it is used.
BASE = {"numpy"}
JAX, TORCH = {"jax"}, {"torch"}
OPTIONAL = {
    **dict.fromkeys(["arrays.torch", "arrays.dtensor", "arrays.sharded"], TORCH),
    **dict.fromkeys(
        [f"jax.{n}" for n in ("arrays", "initializers", "keys", "traced", "trees")], JAX
    ),
    "keras": {"keras"},
    "mlx": {"mlx"},
    **dict.fromkeys(["torch.hooks", "torch.memory", "torch.module", "torch.named"], TORCH),
    **dict.fromkeys(["torch.patching", "torch.simplified", "torch.steps"], TORCH),
    **dict.fromkeys(["torch.traced", "torch.tracing"], TORCH),
    **dict.fromkeys(
        ["torch.checkpoint", "torch.devices", "torch.distributed", "torch.dummy"], TORCH
    ),
    **dict.fromkeys(["torch.configs", "torch.saving"], TORCH),
}


def module_name(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def layer(name):
    found = [n for n, globs in enumerate(LAYERS) if any(fnmatchcase(name, glob) for glob in globs)]
    assert len(found) == 1, f"{name} must be in one layer, found in {found}"
    return found[0]


def imports(name, modules):
    """The modules of the package that a module imports, anywhere in its text."""
    for node in ast.walk(ast.parse(modules[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: a relative import, line {node.lineno}"
            targets = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for target in targets:
            head, _, rest = target.partition(".")
            if head == "numinit":
                parent = rest.rpartition(".")[0]
                yield rest if rest in modules else parent


def check_direction(modules):
    for name in modules.keys() - EMPTY - ANYWHERE:
        for target in imports(name, modules):
            if target not in ANYWHERE:
                assert layer(target) <= layer(name), f"{name} imports {target} of a higher layer"


def check_cycles(modules):
    graph = {name: set(imports(name, modules)) - {name} for name in modules}
    while free := {name for name, targets in graph.items() if not targets & graph.keys()}:
        for name in free:
            del graph[name]
    assert not graph, f"a cycle among {sorted(graph)}"


def test_imports_point_down():
    check_direction(MODULES)


def test_no_cycles():
    check_cycles(MODULES)


@pytest.mark.parametrize(
    ("name", "text", "target"),
    [
        ("stream.planted", "from numinit.engines.spec import Spec", "engines.spec"),
        ("engines.planted", "import numinit.arrays.memory as memory", "arrays.memory"),
        (
            "initializers.planted",
            "def late():\n    from numinit.models import recipes",
            "models.recipes",
        ),
        ("weights.planted", "import numinit", ""),
    ],
)
def test_a_planted_upward_import_is_seen(tmp_path, name, text, target):
    file = tmp_path / "planted.py"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(AssertionError, match=rf"^{name} imports {target} of a higher layer"):
        check_direction(MODULES | {name: file})


def test_a_planted_cycle_is_seen(tmp_path):
    texts = {
        "stream.one": "from numinit.stream import two",
        "stream.two": "import numinit.stream.one",
    }
    planted = {name: tmp_path / f"{name}.py" for name in texts}
    for name, file in planted.items():
        file.write_text(texts[name], encoding="utf-8")
    with pytest.raises(AssertionError, match=r"^a cycle among \['stream.one', 'stream.two'\]"):
        check_cycles(MODULES | planted)


def test_empty_packages():
    for name in EMPTY:
        assert len(ast.parse(MODULES[name].read_text(encoding="utf-8")).body) == 1


def test_only_one_module_knows_the_compiler():
    decorators = {"njit", "vectorize", "guvectorize", "stencil", "cfunc"}
    for name in MODULES:
        if name.startswith("compiler."):
            continue
        tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
        used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
        used |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
        assert not used & decorators, f"{name} has compiler settings of its own"


def test_optional_packages_are_imported_where_they_are_used():
    for name, path in MODULES.items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                heads = {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                heads = {node.module.partition(".")[0]}
            else:
                continue
            foreign = heads - sys.stdlib_module_names - BASE - {"numinit"}
            assert foreign <= OPTIONAL.get(name, set()), f"{name} imports {foreign}"
