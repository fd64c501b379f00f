"""Shipped models: their files, the shapes of their libraries, and the laws of their whole tensors."""

import math

import numpy as np
import pytest
from make_shapes import FOLDER, MODELS, built, text_of

import numinit as ni
from numinit.engines.spec import Sampled
from numinit.initializers.variance_scaling import Spread
from numinit.models import recipes
from numinit.stream.dtypes import DTYPES

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # transformers' own
    pytest.mark.skipif(
        tuple(map(int, transformers.__version__.split(".")[:2])) < (5, 24),
        reason="before transformers 5.24, some names differ, and so does what meta tensors get",
    ),
]

#: What the libraries make of several operations; `test_families` compares them as samples.
COMPUTED = (
    "A_log", "dt_proj.bias", "embed_positions.weight", "original0", "original1", "logit_scale",
)  # fmt: skip


def public(name):
    pytest.importorskip(MODELS[name].library, reason=f"{MODELS[name].library} makes {name}")
    return MODELS[name]


@pytest.mark.parametrize("name", MODELS)
def test_files_are_what_the_script_makes(name):
    written = FOLDER.joinpath(f"{name}.json").read_text(encoding="utf-8")
    assert written == text_of(name, public(name)), "run tests/models/make_shapes.py"


def law(plan):
    """A sampled weight's distribution as comparable numbers."""
    assert isinstance(plan, Sampled)
    given = plan.distribution
    if isinstance(given, Spread) and given.distribution == "uniform":
        given = ni.Uniform(-math.sqrt(3) * given.std, math.sqrt(3) * given.std)
    if isinstance(given, ni.Zeros | ni.Ones):
        given = ni.Constant(float(isinstance(given, ni.Ones)))
    numbers = [getattr(given, field) for field in given.__dataclass_fields__]
    return type(given), plan.zeros, numbers


@pytest.mark.parametrize("name", MODELS)
def test_laws_of_whole_models(name):
    """Each tensor of a model in its full size has exactly the law that its own code gives it."""
    from numinit.torch import trace

    model = built(public(name))
    traced = trace(model).tensors
    shapes = {n: tuple(t.shape) for n, t in model.state_dict().items() if n in traced}
    plans = recipes.load(MODELS[name].recipe).plan(shapes)
    computed = 0
    for tensor, shape in shapes.items():
        theirs = traced[tensor].initializer
        if theirs is None:
            assert tensor.endswith(COMPUTED), tensor
            computed += 1
            continue
        *kind, numbers = law(plans[tensor])
        *expected, others = law(theirs.plan(shape, DTYPES["float32"]))
        assert kind == expected, tensor
        np.testing.assert_allclose(numbers, others, rtol=1e-7, err_msg=tensor)  # some are float32's
    assert computed < len(shapes) / 4
