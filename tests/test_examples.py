"""Every example in a docstring runs, and every public name has a complete docstring."""

import doctest
import importlib
import inspect
import pkgutil

import numpy as np
import pytest

import numinit as ni
from numinit.engines import spec
from numinit.weights import keys

#: The first runs the command line; the others import numba.cuda, and have no examples.
SKIPPED = {"numinit.__main__", "numinit.compiler.cuda", "numinit.engines.cuda_kernel"}
OPTIONAL = {"cupy", "jax", "keras", "ml_dtypes", "mlx", "scipy", "torch"}
MODULES = sorted(
    {"numinit", *(found.name for found in pkgutil.walk_packages(ni.__path__, "numinit."))} - SKIPPED
)
PUBLIC = {name: getattr(ni, name) for name in ni.__all__ if callable(getattr(ni, name))}


def public_methods(kind):
    """The functions that a class defines under a public name, and __call__."""
    return {
        f"{kind.__name__}.{name}": member
        for name, member in vars(kind).items()
        if inspect.isfunction(member) and (not name.startswith("_") or name == "__call__")
    }


PLANS = {kind.__name__: kind for kind in (spec.Sampled, spec.ByIndex, spec.Whole)}
DOCUMENTED = {**PUBLIC, **PLANS}
for kind in (ni.Initializer, ni.Key, ni.Generator, spec.Distribution):
    DOCUMENTED |= public_methods(kind)


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name, monkeypatch):
    monkeypatch.setattr(keys, "default_generator", ni.Generator())  # examples seed it
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in OPTIONAL:
            raise
        pytest.skip(f"{error.name} is not installed")
    failed = []
    runner = doctest.DocTestRunner(verbose=False)
    for test in doctest.DocTestFinder().find(module, extraglobs={"np": np, "ni": ni}):
        runner.run(test, out=failed.append)
    assert not failed, "".join(failed)


def parameters(documented):
    if inspect.isclass(documented) and documented is ni.Initializer:
        return []  # abstract: a subclass has the fields
    return [name for name in inspect.signature(documented).parameters if name != "self"]


@pytest.mark.parametrize("name", DOCUMENTED)
def test_docstrings_are_complete(name):
    documented = DOCUMENTED[name]
    text = documented.__doc__  # its own: inspect.getdoc would find that of a base
    assert text, "no docstring"
    sections = {
        "Parameters": bool(parameters(documented)),
        "Returns": not inspect.isclass(documented)
        and inspect.signature(documented).return_annotation not in (None, "None"),
        "Examples": True,
    }
    text = inspect.cleandoc(text)
    missing = [
        s for s, needed in sections.items() if needed and f"\n{s}\n{'-' * len(s)}" not in text
    ]
    assert not missing
    assert ">>>" in text
    named = text.partition("\nReturns\n")[0]
    assert [p for p in parameters(documented) if p not in named] == []
