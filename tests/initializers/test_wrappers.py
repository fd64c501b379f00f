"""Rules: spreads against numbers worked out by hand, muP against its tables, padding to the bit."""

import math

import numpy as np
import pytest
from helpers import law_of
from hypothesis import given
from hypothesis import strategies as st

import numinit as ni
from numinit.engines.zeros import SPARSE
from numinit.initializers.variance_scaling import Spread
from numinit.models import recipes
from numinit.models.recipes import RecipeError
from numinit.models.verify import Mismatch, verify
from numinit.models.write import write
from numinit.stream.dtypes import DTYPES, as_dtype
from numinit.weights.keys import Key

KEY = Key(0x0123456789ABCDEF, 0xFEDCBA9876543210)


def bits(array):
    return np.ascontiguousarray(array).view(np.uint8)


# Depth.


@pytest.mark.parametrize(
    ("init", "law"),
    [
        (ni.Normal(3, 0.8), ni.Normal(3, 0.2)),
        (ni.Uniform(1, 3), ni.Uniform(1.75, 2.25)),
        (ni.TruncNormal(1, 4, -3, 9), ni.TruncNormal(1, 1, 0, 3)),
        (ni.TruncNormal(0, 4, 8, math.inf), ni.TruncNormal(0, 1, 2, math.inf)),
        (ni.TruncatedNormal(0, 4), ni.TruncNormal(0, 1, -2, 2)),
        (ni.LecunUniform(), Spread(1 / 12, "uniform")),
        (
            ni.VarianceScaling(distribution="truncated_normal"),
            Spread(1 / 12, "truncated_normal"),
        ),
    ],
)
def test_depth_scaled_divides_the_spread_and_keeps_the_mean(init, law):
    assert law_of(ni.DepthScaled(init, 8), (5, 9)) == law


def test_depth_scaled_keeps_the_zeros_of_a_sparse_matrix():
    plan = ni.DepthScaled(ni.Sparse(0.5, 1.0), 2).plan((6, 4), as_dtype("float32"))
    assert plan.zeros.pattern is SPARSE and plan.distribution.std == 0.5
    np.testing.assert_array_equal(
        ni.DepthScaled(ni.Sparse(0.5, 1.0), 2)((6, 4), seed=0),
        ni.Sparse(0.5, 0.5)((6, 4), seed=0),
    )


@pytest.mark.parametrize(
    ("make", "error", "parts"),
    [
        (lambda: ni.DepthScaled(ni.Ones(), 2), ValueError, ["Ones", "no spread"]),
        (lambda: ni.DepthScaled(ni.Normal(), 0), ValueError, ["layers", "0", "at least 1"]),
        (lambda: ni.DepthScaled(ni.Normal(), 1.5), TypeError, ["layers", "1.5", "integer"]),
        (lambda: ni.DepthScaled(ni.Normal(), True), TypeError, ["layers", "True"]),
        (lambda: ni.DepthScaled("Normal", 2), TypeError, ["init", "'Normal'", "Normal(std=0.02)"]),
        (lambda: ni.DepthScaled(ni.Normal, 2), TypeError, ["init"]),
        (lambda: ni.MuP(ni.Normal(), "Hidden", (2, 2)), ValueError, ["role", "'Hidden'", "output"]),
        (lambda: ni.MuP(ni.Normal(), [], (2, 2)), ValueError, ["role", "[]"]),
        (lambda: ni.MuP(ni.Zeros(), "hidden", (2, 2)), ValueError, ["Zeros", "no spread"]),
        (lambda: ni.MuP(ni.Normal(), "hidden", (2, 0)), ValueError, ["base_shape", "(2, 0)"]),
        (lambda: ni.MuP(ni.Normal(), "hidden", (2, 0.5)), TypeError, ["base_shape", "0.5"]),
        (lambda: ni.MuP(ni.Normal(), "hidden", (2, 2), "x"), TypeError, ["in_axis", "'x'"]),
        (lambda: ni.Padded(ni.Normal(), 0.0), TypeError, ["padding_idx", "0.0", "integer"]),
        (lambda: ni.Padded(ni.Normal(), False), TypeError, ["padding_idx", "False"]),
        (lambda: ni.Padded(3, 0), TypeError, ["init", "3"]),
    ],
)
def test_refused_fields(make, error, parts):
    with pytest.raises(error) as caught:
        make()
    for part in parts:
        assert part in str(caught.value)


# muP. The widths double from one row to the next; what is fixed has size 10.

POWERS = {"input": 0, "bias": 0, "hidden": 1 / 2, "output": 0, "plain_output": 1}
BASE = {
    "input": (64, 10),
    "bias": (64,),
    "hidden": (64, 64),
    "output": (10, 64),
    "plain_output": (10, 64),
}
INITS = {
    "normal": (ni.Normal(std=0.5), lambda fan_in, fan_out: 0.5),
    "kaiming": (ni.KaimingNormal(), lambda fan_in, fan_out: math.sqrt(2 / fan_in)),
    "fan_out": (ni.KaimingNormal(mode="fan_out"), lambda fan_in, fan_out: math.sqrt(2 / fan_out)),
    "xavier": (ni.XavierNormal(), lambda fan_in, fan_out: math.sqrt(2 / (fan_in + fan_out))),
}


def wider(base, factor):
    return tuple(size if size == 10 else size * factor for size in base)


@pytest.mark.parametrize("role", POWERS)
@pytest.mark.parametrize("name", INITS)
@pytest.mark.parametrize("factor", [1, 2, 4, 0.5])
def test_mup_scales_as_its_tables_say(role, name, factor):
    base = BASE[role]
    if name != "normal" and role == "bias":
        return  # a vector has no fans
    init, std = INITS[name]
    shape = tuple(map(int, wider(base, factor)))
    expected = std(base[-1], base[0]) / factor ** POWERS[role]
    law = law_of(ni.MuP(init, role, base), shape)
    assert law.mean == 0 and law.std == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("role", POWERS)
def test_mup_values_have_that_variance(role):
    """To 6 standard errors: a false alarm has a probability of 2e-9, and the seed is fixed."""
    base, stds = BASE[role], []
    for factor in (64, 128):
        values = ni.MuP(ni.Normal(std=0.5), role, base)(wider(base, factor), "float64", seed=3)
        multiplier = factor ** -POWERS[role]
        assert values.std() == pytest.approx(0.5 * multiplier, rel=6 / math.sqrt(2 * values.size))
        stds.append(multiplier)
    assert stds[0] / stds[1] == pytest.approx(2 ** POWERS[role])


def test_a_mup_hidden_kaiming_is_that_of_the_shape_itself():
    for shape in [(64, 64), (256, 256), (256, 128), (96, 512)]:
        law = law_of(ni.MuP(ni.KaimingNormal(), "hidden", (32, 32)), shape)
        assert law.std == pytest.approx(law_of(ni.KaimingNormal(), shape).std, rel=1e-15)


@pytest.mark.parametrize(
    ("init", "in_axis", "base", "shape", "multiplier"),
    [
        (ni.Normal(), None, (8, 4), (8, 4), 1),
        (ni.Normal(), None, (8, 4), (24, 12), 3),
        (ni.Normal(), 0, (4, 8), (12, 16), 3),  # as transformers' Conv1D: (in, out)
        (ni.Normal(), -2, (4, 8), (12, 16), 3),
        (ni.Normal(), [1, 2], (8, 4, 2), (16, 12, 4), 6),
        (ni.Normal(), 1, (8, 4, 3, 3), (16, 20, 3, 3), 5),
        (ni.XavierNormal(in_axis=0, out_axis=1), None, (4, 8), (12, 16), 3),
        (ni.DepthScaled(ni.XavierNormal(in_axis=0, out_axis=1), 2), None, (4, 8), (12, 16), 3),
        (ni.XavierNormal(), None, (4, 8), (12, 16), 2),
    ],
)
def test_the_multiplier_is_of_inputs(init, in_axis, base, shape, multiplier):
    law = law_of(ni.MuP(init, "hidden", base, in_axis), shape)
    assert law == law_of(init, base).divided(math.sqrt(multiplier))


@pytest.mark.parametrize(
    ("role", "in_axis", "base", "shape", "parts"),
    [
        ("hidden", None, (8, 4), (16, 4), ["in_axis", "(8, 4)", "(16, 4)"]),
        ("hidden", None, (8, 4), (16, 16), ["in_axis", "one factor"]),
        ("hidden", 2, (8, 4), (16, 8), ["in_axis", "2", "(16, 8)"]),
        ("hidden", None, (8, 4), (16,), ["base_shape", "(8, 4)", "(16,)"]),
        ("bias", None, (8,), (16, 1), ["base_shape", "(8,)", "(16, 1)"]),
        ("input", None, (8, 4), (16, 8), ["base_shape", '"input"', "hidden"]),
        ("output", None, (8, 4), (16, 8), ["base_shape", '"output"', "hidden"]),
        ("plain_output", None, (8, 4), (16, 8), ["base_shape", '"plain_output"']),
    ],
)
def test_mup_refuses_shapes_that_do_not_fit_the_role(role, in_axis, base, shape, parts):
    with pytest.raises(ValueError, match=parts[0]) as caught:
        ni.MuP(ni.Normal(), role, base, in_axis)(shape, seed=0)
    for part in parts:
        assert part in str(caught.value)


def test_mup_of_a_weight_without_elements():
    assert ni.MuP(ni.Normal(), "hidden", (4, 4))((0, 0), seed=0).shape == (0, 0)


# Tables of recommender models.


def test_embedding_uniform():
    for rows in (1, 3, 1000, 40_000_000, 150_000_000):
        law = law_of(ni.EmbeddingUniform(), (rows, 16))
        # The very law that shipped recipes spelled with VarianceScaling.
        assert law == law_of(ni.VarianceScaling(1 / 3, "fan_out", "uniform"), (rows, 16))
        assert math.sqrt(3) * law.std == pytest.approx(1 / math.sqrt(rows), rel=1e-15)
    values = ni.EmbeddingUniform()((100, 400), seed=0)
    assert 0.0999 < abs(values).max() <= np.float32(0.1)
    assert law_of(ni.EmbeddingUniform(), (7,)) == law_of(ni.EmbeddingUniform(), (7, 2, 3))
    assert ni.EmbeddingUniform()((0, 4), seed=0).size == 0
    with pytest.raises(ValueError, match="rows"):
        ni.EmbeddingUniform()((), seed=0)


# Padding rows.

SHAPE = (7, 5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "init", [ni.Normal(), ni.Uniform(1, 2), ni.KaimingUniform(), ni.Constant(-3)]
)
@pytest.mark.parametrize("row", [0, 3, -1])
def test_one_row_is_zero_and_no_other_changes(dtype, init, row):
    expected = init(SHAPE, dtype, seed=KEY)
    assert bits(expected[row]).any()
    expected[row] = 0
    values = ni.Padded(init, row)(SHAPE, dtype, seed=KEY)
    np.testing.assert_array_equal(bits(values), bits(expected))


@pytest.mark.parametrize("dtype", ["float32", "complex64", "float8_e4m3fn"])
@given(st.data())
def test_a_part_is_that_of_the_whole(dtype, data):
    shape = tuple(data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=3)))
    row = data.draw(st.integers(-shape[0], shape[0] - 1))
    init = ni.Padded(ni.Normal(), row)
    whole = init(shape, dtype, seed=KEY)
    expected = ni.Normal()(shape, dtype, seed=KEY)
    expected[row] = 0
    np.testing.assert_array_equal(bits(whole), bits(expected))
    # A window, in the middle of other memory.
    low = [data.draw(st.integers(0, size)) for size in shape]
    high = [data.draw(st.integers(a, size)) for a, size in zip(low, shape, strict=True)]
    index = tuple(map(slice, low, high))
    np.testing.assert_array_equal(
        bits(init.block(shape, index, dtype, seed=KEY)), bits(whole[index])
    )
    around = np.full([2 * s + 1 for s in whole[index].shape], 1, whole.dtype)
    view = around[tuple(slice(1, None, 2) for _ in shape)]
    init.fill_(view, shape=shape, offset=low, seed=KEY)
    np.testing.assert_array_equal(bits(view), bits(whole[index]))
    view[...] = 1
    np.testing.assert_array_equal(bits(around), bits(np.ones_like(around)))
    # Rows in any order, and a run of elements.
    ids = data.draw(st.lists(st.integers(-shape[0], shape[0] - 1), max_size=12))
    rows = init.rows(shape, np.array(ids, np.int64), dtype, seed=KEY)
    np.testing.assert_array_equal(bits(rows), bits(whole[ids].reshape(rows.shape)))
    start = data.draw(st.integers(0, whole.size - 1))
    count = data.draw(st.integers(0, whole.size - start))
    raw = np.ones(count * whole.itemsize, np.uint8)
    init.fill_flat(raw, start, shape, dtype, KEY)
    np.testing.assert_array_equal(raw, bits(whole.reshape(-1)[start : start + count]).reshape(-1))


def test_transposed_memory_and_many_threads():
    shape, row = (3000, 257), 1500
    expected = ni.Normal()(shape, seed=KEY)
    expected[row] = 0
    init = ni.Padded(ni.Normal(), row)
    transposed = np.empty(shape[::-1], np.float32).T
    np.testing.assert_array_equal(init.fill_(transposed, seed=KEY), expected)
    np.testing.assert_array_equal(init(shape, seed=KEY), expected)


def test_a_row_beyond_2_to_the_32_elements():
    shape = (1 << 40, 64)
    row = (1 << 33) + 5
    init = ni.Padded(ni.Normal(), row)
    near = ni.Normal().block(shape, slice(row - 2, row + 3), seed=KEY)
    near[2] = 0
    np.testing.assert_array_equal(init.block(shape, slice(row - 2, row + 3), seed=KEY), near)
    last = ni.Padded(ni.Normal(), -1).rows(shape, [-1, 0], seed=KEY)
    assert not last[0].any() and last[1].all()


def test_rules_nest():
    init = ni.Padded(ni.DepthScaled(ni.MuP(ni.Normal(std=0.4), "hidden", (2, 2)), 8), 1)
    expected = ni.Normal(std=0.05)((8, 8), seed=KEY)
    expected[1] = 0
    np.testing.assert_array_equal(init((8, 8), seed=KEY), expected)
    inside_out = ni.DepthScaled(ni.Padded(ni.Normal(std=0.2), 1), 8)
    np.testing.assert_array_equal(inside_out((8, 8), seed=KEY), expected)
    assert hash(init) == hash(ni.Padded(init.init, np.int64(1)))


def test_a_torch_embedding():
    torch = pytest.importorskip("torch")
    table = torch.nn.Embedding(6, 4, padding_idx=-2)  # torch keeps 4
    ni.Padded(ni.Normal(), table.padding_idx).fill_(table.weight, seed=0)
    assert not table.weight[4].any() and table.weight[[0, 1, 2, 3, 5]].all()


@pytest.mark.parametrize(
    ("init", "shape", "parts"),
    [
        (ni.Padded(ni.Normal(), 7), SHAPE, ["padding_idx", "7", "(7, 5)", "7 rows"]),
        (ni.Padded(ni.Normal(), -8), SHAPE, ["padding_idx", "-8", "7 rows"]),
        (ni.Padded(ni.Normal(), 0), (0, 5), ["padding_idx", "0 rows"]),
        (ni.Padded(ni.Normal(), 0), (), ["padding_idx", "no rows"]),
        (ni.Padded(ni.Sparse(0.5), 0), SHAPE, ["init", "Sparse(", "each element alone"]),
        (ni.Padded(ni.Padded(ni.Normal(), 0), 1), SHAPE, ["init", "Padded("]),
        (ni.MuP(ni.Padded(ni.Normal(), 0), "input", (7, 5)), SHAPE, ["init", "Padded(MuP(...))"]),
        (ni.MuP(ni.Sparse(0.5), "hidden", (7, 5)), SHAPE, ["init", "Sparse"]),
    ],
)
def test_zeros_that_do_not_go_together(init, shape, parts):
    with pytest.raises(ValueError, match=parts[0]) as caught:
        init(shape, seed=0)
    for part in parts:
        assert part in str(caught.value)


# In recipes.

RECIPE = """
name = "mine"
layers = "h.*"

[base]
"emb.weight" = [50, 16]
"*.fc1.weight" = [64, 16]
"*.fc2.weight" = [16, 64]
"head.weight" = [10, 16]

[[rules]]
match = "emb.weight"
init = "Normal"
std = 0.5
mup = "input"
padding_idx = -1

[[rules]]
match = "*.fc2.weight"
init = "Normal"
std = 0.5
mup = "hidden"
in_axis = [1]
depth_scaled = true

[[rules]]
match = "*.fc1.weight"
init = "XavierUniform"
in_axis = 1
mup = "hidden"

[[rules]]
match = "*.fc1.bias"
init = "KaimingUniform"
a = 2.23606797749979
fans_of = "weight"
mup = "bias"

[[rules]]
match = "head.weight"
init = "KaimingNormal"
mup = "plain_output"

[[rules]]
match = "norm"
init = "Ones"
padding_idx = 1
"""
SHAPES = {
    "emb.weight": (50, 32),
    "h.0.fc1.weight": (128, 32),
    "h.0.fc1.bias": (128,),
    "h.0.fc2.weight": (32, 128),
    "h.1.fc2.weight": (32, 128),
    "head.weight": (10, 32),
    "norm": (3,),
}


def test_a_recipe_in_mup():
    plans = recipes.parse(RECIPE).plan(SHAPES)
    padded = ni.Padded(ni.Normal(std=0.5), 49)
    assert plans["emb.weight"] == padded.plan((50, 32), as_dtype("float32"))
    plan = {name: planned.distribution for name, planned in plans.items()}
    # m = 2 and two layers: 0.5 / sqrt(2) / sqrt(4).
    assert plan["h.1.fc2.weight"].std == pytest.approx(0.5 / math.sqrt(8), rel=1e-15)
    assert plan["h.0.fc1.weight"].std == pytest.approx(math.sqrt(2 / 80) / math.sqrt(2), rel=1e-15)
    assert plan["h.0.fc1.bias"].std * math.sqrt(3) == pytest.approx(1 / 4, rel=1e-15)  # base fans
    assert plan["head.weight"].std == pytest.approx(math.sqrt(2 / 16) / 2, rel=1e-15)
    params = ni.init_params(SHAPES, recipes.parse(RECIPE), seed=1)
    assert params["norm"].tolist() == [1, 0, 1]
    assert not params["emb.weight"][49].any() and params["emb.weight"][:49].all()


def test_fans_of_and_padding_look_at_different_shapes():
    text = """
    [[rules]]
    match = "a.bias"
    init = "LecunUniform"
    fans_of = "weight"
    padding_idx = 4
    [[rules]]
    match = "*"
    init = "Ones"
    """
    params = ni.init_params({"a.bias": (5,), "a.weight": (3, 4)}, recipes.parse(text))
    assert params["a.bias"][4] == 0 and params["a.bias"][:4].all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float8_e5m2", "complex64"])
def test_a_file_with_rules_verifies(tmp_path, dtype):
    path = tmp_path / "m.safetensors"
    (tmp_path / "mine.toml").write_text(RECIPE, encoding="utf-8")
    write(path, SHAPES, tmp_path / "mine.toml", seed=5, dtype=dtype)
    assert verify(path).tensors == len(SHAPES)
    data = bytearray(path.read_bytes())
    expected = ni.init_params(SHAPES, recipes.parse(RECIPE), seed=5, dtype=dtype)
    zeros = bytes(expected["emb.weight"][48:].tobytes())  # the row before and the padding row
    place = data.index(zeros) + len(zeros) - 1
    data[place] = 1  # in the last element of the padding row
    path.write_bytes(data)
    with pytest.raises(Mismatch) as caught:
        verify(path)
    assert (caught.value.tensor, caught.value.index) == ("emb.weight", (49, 31))


def rule(init, *lines):
    return "\n".join(["[[rules]]", 'match = "*"', f'init = "{init}"', *lines])


BASED = '[base]\n"a.*" = [2, 2]\n'


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (rule("Normal", "mup = 'hidden'"), ["rule 1", "'mup'", "[base]"]),
        (BASED + rule("Normal", "mup = 'deep'"), ["rule 1", "'mup'", "'deep'", "plain_output"]),
        (BASED + rule("Normal", "mup = true"), ["rule 1", "'mup'", "True", "hidden"]),
        (BASED + rule("Zeros", "mup = 'hidden'"), ["rule 1", "'mup'", "Zeros", "no spread"]),
        (rule("Normal", "in_axis = 0"), ["rule 1", "'in_axis'", "padding_idx"]),
        (BASED + rule("Normal", "mup = 'hidden'", "in_axis = 'x'"), ["rule 1", "'in_axis'", "'x'"]),
        (BASED + rule("Normal", "mup = 'hidden'", "in_axis = [[0]]"), ["'in_axis'", "[0]"]),
        (BASED + rule("Normal", "mup = 'hidden'", "in_axis = true"), ["'in_axis'", "True"]),
        (rule("Normal", "padding_idx = 0.0"), ["rule 1", "'padding_idx'", "0.0", "integer"]),
        (rule("Normal", "padding_idx = true"), ["rule 1", "'padding_idx'", "True", "integer"]),
        (rule("Normal", "padding_idx = [0.5]"), ["rule 1", "'padding_idx'", "[0.5]", "integer"]),
        ("base = 'x'\n" + rule("Normal"), ["here", "'base'", "'x'", "table"]),
        ("base = {}\n" + rule("Normal"), ["here", "'base'", "{}", "table"]),
        ("base = {w = 3}\n" + rule("Normal"), ["here", "[base]", "'w'", "3", "shape"]),
        ("base = {w = [0]}\n" + rule("Normal"), ["here", "[base]", "'w'", "[0]", "positive"]),
        ("base = {w = [true]}\n" + rule("Normal"), ["here", "[base]", "'w'", "[True]"]),
        ("base = {w = [1.5]}\n" + rule("Normal"), ["here", "[base]", "'w'", "[1.5]"]),
        (rule("Padded", "padding_idx = 0"), ["rule 1", "Padded", "'of'", "None"]),
        (rule("MuP"), ["rule 1", "MuP", "'of'", "None"]),
    ],
)
def test_parse_errors(text, parts):
    with pytest.raises(RecipeError) as caught:
        recipes.parse(text, "here")
    for part in ["here", *parts]:
        assert part in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("text", "name", "parts"),
    [
        (rule("Normal", "padding_idx = 9"), "a.w", ["rule 1", "'a.w'", "padding_idx", "9"]),
        (BASED + rule("Normal", "mup = 'hidden'"), "b.w", ["rule 1", "'b.w'", "[base]"]),
        (BASED + rule("Normal", "mup = 'output'"), "a.w", ["rule 1", "'a.w'", "base_shape"]),
        (BASED + rule("Normal", "mup = 'hidden'"), "a.w", ["rule 1", "'a.w'", "in_axis"]),
        (rule("Sparse", "sparsity = 0.5", "fans_of = 'v'"), "a.w", ["rule 1", "'a.w'", "fans_of"]),
    ],
)
def test_plan_errors(text, name, parts):
    with pytest.raises(RecipeError) as caught:
        recipes.parse(text, "here").plan({name: (4, 8), "a.v": (8, 4)})
    for part in ["here", *parts]:
        assert part in str(caught.value)


def test_a_sparse_rule_is_not_padded(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(rule("Sparse", "sparsity = 0.5", "padding_idx = 0"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"'w'.*each element alone"):
        write(tmp_path / "m.safetensors", {"w": (4, 4)}, path)
    assert not (tmp_path / "m.safetensors").exists()


def test_bert_pads_row_0_of_its_words_and_changes_nothing_else():
    shapes = {f"embeddings.{n}_embeddings.weight": (9, 4) for n in ("word", "position")}
    plan = recipes.load("bert").plan(shapes)
    for name, init in {
        "word": ni.Padded(ni.Normal(0, 0.02), 0),
        "position": ni.Normal(0, 0.02),
    }.items():
        planned = plan[f"embeddings.{name}_embeddings.weight"]
        assert planned == init.plan((9, 4), as_dtype("float32"))
