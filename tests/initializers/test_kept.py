"""What prepared fills keep, and how long messages about a caller's objects are."""

import copy
import gc
import pickle
import weakref
from dataclasses import InitVar, dataclass, field
from typing import Any

import numpy as np
import pytest

import numinit as ni
from numinit.initializers import ByIndex, Initializer, Sampled, Whole, base
from numinit.show import show
from numinit.stream.dtypes import as_dtype


@dataclass(frozen=True, eq=False)
class Table(ni.Normal):
    """A user's own initializer, which holds an array."""

    table: np.ndarray = field(default_factory=lambda: np.zeros(1 << 10))


class Big:
    """A model whose method is an activation."""

    def __call__(self, z):
        return np.maximum(z, 0)


WRAPPERS = {
    "plain": lambda init: init,
    "input": lambda init: ni.MuP(init, "input", (64, 2)),
    "twice": lambda init: ni.MuP(ni.MuP(init, "bias", (64, 2)), "bias", (64, 2)),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_no_array_is_kept(wrapper):
    init = WRAPPERS[wrapper](ni.Assign(np.zeros((64, 2))))
    inner = init
    while isinstance(inner, ni.MuP):
        inner = inner.init
    kept = weakref.ref(inner.value)
    init((64, 2))
    init.fill_(np.empty((64, 2)))
    init.rows((64, 2), [1, 2])
    del init, inner
    gc.collect()
    assert kept() is None


@pytest.mark.parametrize(
    "wrap", [lambda i: i, lambda i: ni.Padded(i, 0), lambda i: ni.DepthScaled(i, 2)]
)
def test_nothing_that_a_subclass_holds_is_kept(wrap):
    init = wrap(Table())
    kept = weakref.ref(getattr(init, "init", init).table)
    init((4, 4), seed=0)
    del init
    gc.collect()
    assert kept() is None


def test_no_activation_is_kept():
    model = Big()
    kept = weakref.ref(model)
    ni.Padded(ni.KaimingNormal(nonlinearity=model), 0)((4, 4), seed=0)
    ni.kaiming_normal_(np.empty((4, 4)), nonlinearity=model, seed=0)
    del model
    gc.collect()
    assert kept() is None


def test_fills_of_small_initializers_are_kept_and_bounded():
    init = ni.Padded(ni.MuP(ni.KaimingNormal(), "hidden", (4, 4)), 0)
    layout = (8, 8), as_dtype("float32"), (8, 8), (32, 4)
    first = init._ready(*layout)
    assert init._ready(*layout) is first
    assert ni.Padded(ni.MuP(ni.KaimingNormal(), "hidden", (4, 4)), 0)._ready(*layout) is first
    assert base._prepared.cache_info().maxsize == 1024


def test_repr_of_assigned_arrays_is_short():
    for shape in ((1 << 20, 0), (0, 1 << 20), (16,) * 10 + (0,), (3, 1000)):
        assert len(repr(ni.Assign(np.zeros(shape)))) < 200
    assert repr(ni.Assign([[1, 2]])) == "Assign(value=[[1, 2]])"


HUGE = 10**100_000
LONG = "x" * 1_000_000
MANY = [1.5] * 1_000_000


def test_show():
    for value in (HUGE, -HUGE, LONG, MANY, tuple(MANY), np.zeros(10**6), {LONG: MANY}):
        assert len(show(value)) < 2000
        assert len(show([value, (value,)])) < 4000


REFUSED = [
    lambda: ni.Normal((LONG,)),
    lambda: ni.Normal(MANY),
    lambda: ni.Normal(std=LONG),
    lambda: ni.Uniform(HUGE, 1),
    lambda: ni.Ones()(LONG),
    lambda: ni.Ones()((HUGE,)),
    lambda: ni.Ones()((-HUGE,)),
    lambda: ni.Ones()((2, 2), LONG),
    lambda: ni.Normal()((2, 2), seed=HUGE),
    lambda: ni.Normal()((2, 2), seed=LONG),
    lambda: ni.Normal()((2, 2), seed=MANY),
    lambda: ni.Key(-HUGE),
    lambda: ni.Key(0).fold_in(HUGE),
    lambda: ni.Ones().block((2, 2), HUGE),
    lambda: ni.Ones().block((2, 2), LONG),
    lambda: ni.Ones().block((2, 2), (0, 0, LONG)),
    lambda: ni.Ones().block((2, 2), slice(0, 2, HUGE)),
    lambda: ni.Ones().rows((2, 2), [HUGE]),
    lambda: ni.Ones().fill_(np.empty((2, 2)), shape=(2, 2), offset=(HUGE, 0)),
    lambda: ni.KaimingNormal(mode=LONG),
    lambda: ni.KaimingNormal(nonlinearity=LONG),
    lambda: ni.KaimingNormal(a=LONG),
    lambda: ni.KaimingNormal(groups=-HUGE),
    lambda: ni.KaimingNormal(groups=HUGE)((4, 4)),
    lambda: ni.KaimingNormal(in_axis=LONG),
    lambda: ni.KaimingNormal(in_axis=HUGE)((4, 4)),
    lambda: ni.KaimingNormal(transposed=LONG),
    lambda: ni.VarianceScaling(distribution=LONG),
    lambda: ni.Sparse(HUGE),
    lambda: ni.Padded(ni.Ones(), HUGE)((4, 4)),
    lambda: ni.Padded(LONG, 0),
    lambda: ni.Padded(ni.Assign(np.zeros((1 << 20, 0))), 0)((1 << 20, 0)),
    lambda: ni.DepthScaled(ni.Normal(), -HUGE),
    lambda: ni.DepthScaled(ni.Normal(), LONG),
    lambda: ni.MuP(ni.Normal(), LONG, (4, 4)),
    lambda: ni.MuP(ni.Normal(), "hidden", LONG),
    lambda: ni.MuP(ni.Normal(), "hidden", (4, 4), HUGE)((8, 8)),
    lambda: ni.Dirac(groups=HUGE)((4, 4, 3)),
    lambda: ni.Dirac(in_axis=HUGE)((4, 4, 3)),
    lambda: ni.Eye(batch_axis=HUGE)((4, 4)),
    lambda: ni.Orthogonal(batch_axis=HUGE)((4, 4)),
    lambda: ni.Orthogonal(out_axis=HUGE)((4, 4)),
    lambda: ni.STFT(window=[*MANY, "x"]),
    lambda: ni.STFT(side=LONG),
    lambda: ni.STFT(scaling=MANY),
    lambda: ni.Assign([HUGE]),
    lambda: ni.calculate_gain(LONG),
    lambda: ni.calculate_gain("leaky_relu", LONG),
]


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_messages_are_short(number):
    with pytest.raises((TypeError, ValueError, IndexError)) as refused:
        REFUSED[number]()
    message = str(refused.value)
    assert len(message) < 2000
    assert "digits" not in message


class Doubled(np.ndarray):
    def __setitem__(self, index, value):
        super().__setitem__(index, 2 * value)


class Named(np.ndarray):
    name = "w"


def test_subclasses_that_set_elements_in_their_own_way_are_refused(tmp_path):
    masked = np.ma.masked_array(np.zeros(4, np.float32), mask=[0, 1, 0, 1])
    for array in (masked, masked.copy().harden_mask(), np.zeros(4).view(Doubled)):
        with pytest.raises(TypeError, match=f"{type(array).__name__} was given.*a plain array"):
            ni.ones_(array)
        with pytest.raises(TypeError, match="a plain array"):
            ni.Assign(array)
        assert not np.asarray(array).any()
    with pytest.raises(TypeError, match="a plain array"):
        ni.Ones().rows((4, 2), np.ma.masked_array([0, 1], mask=[0, 1]))


def test_other_subclasses_are_filled(tmp_path):
    mapped = np.memmap(tmp_path / "w", np.float32, "w+", shape=(2, 2))
    plain = np.zeros((2, 2), np.float32)
    for array in (mapped, plain.copy().view(np.matrix), plain.view(np.recarray), plain.view(Named)):
        assert ni.ones_(array) is array
        assert (np.asarray(array) == 1).all()


def test_torchs_subclasses():
    torch = pytest.importorskip("torch")

    class Own(torch.Tensor):
        def __setitem__(self, index, value):
            raise RuntimeError("read only")

    class Plain(torch.Tensor):
        pass

    with pytest.raises(TypeError, match="Own was given"):
        ni.ones_(torch.zeros(3).as_subclass(Own))
    assert (ni.ones_(torch.zeros(3).as_subclass(Plain)) == 1).all()


@dataclass(frozen=True)
class FromInitVar(Initializer):
    value: InitVar[float]

    def __post_init__(self, value):
        object.__setattr__(self, "own", value)

    def plan(self, shape, dtype):
        return Sampled(ni.Constant(self.own))


class WithState(ni.Normal):
    def __init__(self, value):
        super().__init__()
        object.__setattr__(self, "own", value)

    def transform(self, dtype):
        return ni.Constant(self.own).transform(dtype)


@dataclass(frozen=True)
class Filled(Initializer):
    kind: Any

    def plan(self, shape, dtype):
        return Sampled(ni.Constant(self.kind.own))


@dataclass(frozen=True)
class Three:
    own = 3.0


@dataclass(frozen=True)
class Four:
    own = 4.0


class OwnFloat(float):
    def __init__(self, value):
        self.own = value

    def __new__(cls, value):
        return float.__new__(cls, 1.0)


class OwnInt(int):
    def __init__(self, value):
        self.own = value

    def __new__(cls, value):
        return int.__new__(cls, 1)


@pytest.mark.parametrize(
    "make",
    [
        FromInitVar,
        WithState,
        lambda value: ni.Padded(WithState(value), 1),
        lambda value: Filled({3.0: Three, 4.0: Four}[value]),
        lambda value: Filled(OwnFloat(value)),
        lambda value: Filled(OwnInt(value)),
    ],
)
def test_state_that_is_in_no_field_shares_no_fill(make):
    assert [float(make(value)((2,))[0]) for value in (3.0, 4.0)] == [3.0, 4.0]


@dataclass
class Changing(Initializer):
    std: float = 1.0

    def plan(self, shape, dtype):
        return Sampled(ni.Constant(self.std))


def test_an_initializer_that_may_change_keeps_no_fill():
    init = Changing(1.0)
    outer = ni.Padded(init, 0)
    assert [init((2,))[1], outer((2,))[1]] == [1, 1]
    init.std = 2.0
    assert [init((2,))[1], outer((2,))[1]] == [2, 2]


HELD = {
    "callable": lambda: ni.KaimingNormal(nonlinearity=Big()),
    "wrapped": lambda: ni.Padded(ni.KaimingNormal(nonlinearity=Big()), 0),
    "Assign": lambda: ni.Assign(np.arange(32.0).reshape(8, 4)),
}


@pytest.mark.parametrize("name", HELD)
def test_what_no_cache_may_hold_keeps_its_fills_itself(name):
    init = HELD[name]()
    layout = (8, 4), as_dtype("float32"), (8, 4), (16, 4)
    first = init._ready(*layout)
    assert init._ready(*layout) is first
    assert init._ready(*layout, on_gpu=False) is not first  # it is asked for in another way
    made = init((8, 4), seed=1)
    for rows in range(1, 20):  # of which it keeps a few
        init.block((8, 4), slice(rows % 8, 8), seed=1)
    assert len(vars(init)["_fills"]) <= 4
    again = pickle.loads(pickle.dumps(init)) if name == "Assign" else copy.copy(init)
    assert not {"_fills", "_ready"} & {*vars(again)}
    np.testing.assert_array_equal(again((8, 4), seed=1), made)
    kept = weakref.ref(init)
    gc.disable()
    try:
        del init
        assert kept() is None  # no circle of references, so that arrays are freed at once
    finally:
        gc.enable()


@pytest.mark.parametrize("given", [3, None, ni.KaimingNormal(), ni.Normal])
def test_a_plan_of_no_distribution_is_refused(given):
    with pytest.raises(TypeError, match=r"^distribution: .* was given; a distribution such as"):
        Sampled(given)


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_complex_values_need_a_plan_that_says_so(dtype):
    def values(index):
        return index[0] * 1j

    array = np.full(3, 7, dtype)
    with pytest.raises(TypeError, match=r"^values: Mine made complex numbers; .*complex=True"):
        Planning(ByIndex("Mine", values)).fill_(array)
    assert (array == 7).all()
    if dtype == "complex64":
        Planning(ByIndex("Mine", values, complex=True)).fill_(array)
        assert array.tolist() == [0, 1j, 2j]


PLANS = {
    "Sampled": (ni.Normal(), (4, 4)),
    "Sparse": (ni.Sparse(0.5), (4, 4)),
    "Padded": (ni.Padded(ni.Uniform(), 1), (4, 4)),
    "Eye": (ni.Eye(), (4, 4)),
    "Dirac": (ni.Dirac(2), (4, 2, 3)),
    "Bilinear": (ni.Bilinear(), (1, 2, 4, 4)),
    "Assign": (ni.Assign([1.0, 2.0]), (2,)),
    "STFT": (ni.STFT(), (8, 1, 5)),
    "Orthogonal": (ni.Orthogonal(), (4, 4)),
    "DeltaOrthogonal": (ni.DeltaOrthogonal(), (4, 2, 3)),
}


@pytest.mark.parametrize("name", PLANS)
def test_plans_are_pickled(name):
    init, shape = PLANS[name]
    plan = pickle.loads(pickle.dumps(init.plan(shape, as_dtype("float32"))))
    if isinstance(plan, Sampled):
        assert plan == init.plan(shape, as_dtype("float32"))
    np.testing.assert_array_equal(Planning(plan)(shape, seed=1), init(shape, seed=1))


@dataclass(frozen=True)
class Planning(Initializer):
    made: Any

    def plan(self, shape, dtype):
        return self.made


@pytest.mark.parametrize("made", [None, 3, ni.Normal()])
def test_an_answer_that_is_no_plan_is_named(made):
    with pytest.raises(TypeError, match=r"plan: .* was returned; a Sampled, ByIndex or Whole"):
        Planning(made)((2,))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("value", [None, np.zeros(3, np.float32)])
def test_a_whole_weight_of_another_shape_is_refused(dtype, value):
    with pytest.raises(ValueError, match=r"Mine: make returned an array of shape"):
        Planning(Whole("Mine", lambda *given: value))((2, 4), dtype, seed=0)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("float16", np.inf),
        ("bfloat16", np.inf),
        ("float8_e5m2", np.inf),
        ("float8_e4m3fn", np.nan),
    ],
)
def test_values_of_a_whole_weight_beyond_the_type_overflow(dtype, expected):
    made = Planning(Whole("Mine", lambda *given: np.full((2,), 3e38 * 1e10)))((2,), dtype, seed=0)
    np.testing.assert_array_equal(made.astype(float), [expected] * 2)


def test_a_copied_type_is_the_same_object():
    kind = as_dtype("bfloat16")
    assert copy.deepcopy(kind) is copy.copy(kind) is pickle.loads(pickle.dumps(kind)) is kind


def test_an_error_of_a_model_names_no_object_of_ours():
    with pytest.raises(
        ValueError, match=r"^tensor 'a': std: 1e\+30 was given; float16 holds .* 65504$"
    ):
        ni.init_params({"a": (2,)}, {"*": ni.Normal(0, 1e30)}, dtype="float16")
