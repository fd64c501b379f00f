"""The layers of the package, as a test: a module imports from lower layers only."""

import ast
from fnmatch import fnmatchcase
from pathlib import Path

import numinit

PACKAGE = Path(numinit.__file__).parent

# From the bottom. A glob stands for modules of one layer; within a layer any order but no cycle.
LAYERS = [
    ["cache", "jit", "jit_cuda", "_process"],
    ["bits", "transforms.*"],
    ["engines.*"],
    ["dtypes", "fans", "gains", "keys", "arrays", "tails", "haar", "globs"],
    ["initializers", "initializers.*", "functional", "recipes", "tolerance"],
    ["adapters.*", "models", "checkpoint", "cli", "__main__", ""],
]
ANYWHERE = {"_version"}  # two constants
EMPTY = {"adapters", "engines", "transforms"}  # packages of nothing but a docstring
#: What the base install may import at the top of a module; anything else is imported where it is used.
BASE = {"numba", "llvmlite", "numpy"}
OPTIONAL = {"adapters.torch": {"torch"}}


def module_name(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def layer(name):
    found = [n for n, globs in enumerate(LAYERS) if any(fnmatchcase(name, glob) for glob in globs)]
    assert len(found) == 1, f"{name} must be in one layer, found in {found}"
    return found[0]


def imports(name):
    """The modules of the package that a module imports, anywhere in its text."""
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
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
                yield rest if rest in MODULES else parent


def test_imports_point_down():
    for name in MODULES.keys() - EMPTY - ANYWHERE:
        for target in imports(name):
            if target not in ANYWHERE:
                assert layer(target) <= layer(name), f"{name} imports {target} of a higher layer"


def test_no_cycles():
    graph = {name: set(imports(name)) - {name} for name in MODULES}
    while free := {name for name, targets in graph.items() if not targets & graph.keys()}:
        for name in free:
            del graph[name]
    assert not graph, f"a cycle among {sorted(graph)}"


def test_empty_packages():
    for name in EMPTY:
        assert len(ast.parse(MODULES[name].read_text(encoding="utf-8")).body) == 1


def test_only_one_module_knows_the_compiler():
    decorators = {"njit", "vectorize", "guvectorize", "stencil", "cfunc"}
    for name in MODULES.keys() - {"jit"}:
        tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
        used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
        used |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
        assert not used & decorators, f"{name} has compiler settings of its own"


def test_optional_packages_are_imported_where_they_are_used():
    import sys

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
