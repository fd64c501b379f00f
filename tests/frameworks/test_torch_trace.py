"""Modules traced and initialized by name, and torch's own code at numinit's speed."""

import copy
import math
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest

import numinit as ni
import numinit.models.recipes

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from numinit.torch import init_module, patched, save, trace  # noqa: E402
from numinit.torch.traced import Operation  # noqa: E402


def values(module):
    named = [*module.named_parameters(), *module.named_buffers()]
    return {name: tensor.detach().clone().numpy() for name, tensor in named}


def assert_same(a, b):
    a, b = (values(m) if isinstance(m, nn.Module) else m for m in (a, b))
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].tobytes() == b[name].tobytes(), name


def made(make, seed=0):
    """A module made by the trace of what makes it."""
    traced = trace(make)
    return init_module(traced.module, traced, seed=seed)


class One(nn.Module):
    """A module of one tensor, `w`."""

    def __init__(self, make):
        super().__init__()
        self.w = nn.Parameter(make(), requires_grad=False)


def one(make):
    """The trace of one tensor."""
    return trace(lambda: One(make)).tensors["w"]


def fill(traced, seed=0, **kwargs):
    return traced.fill_(torch.empty(traced.shape, dtype=traced.dtype), seed=seed, **kwargs)


def key(name="w", seed=0):
    return ni.Key(seed).fold_in(name)


def test_the_import_is_lazy():
    code = (
        "import sys, numinit, numinit.torch; assert 'torch' not in sys.modules; "
        "assert {'init_module', 'patched', 'trace'} <= set(dir(numinit.torch)); "
        "numinit.torch.trace; assert sys.modules['torch'].__name__ == 'torch'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        ni.torch.nothing  # noqa: B018


# What a tensor's code amounts to.


def test_layers_of_torch():
    traced = trace(
        lambda: nn.Sequential(
            nn.Linear(8, 4), nn.Embedding(5, 3, padding_idx=1), nn.BatchNorm1d(4), nn.LayerNorm(4)
        )
    ).tensors
    slope = math.sqrt(5)
    bound = 1 / math.sqrt(8)
    assert {name: tensor.initializer for name, tensor in traced.items()} == {
        "0.weight": ni.KaimingUniform(a=slope),
        "0.bias": ni.Uniform(-bound, bound),
        "1.weight": ni.Padded(ni.Normal(), 1),
        "2.weight": ni.Ones(),
        "2.bias": ni.Zeros(),
        "2.running_mean": ni.Zeros(),
        "2.running_var": ni.Ones(),
        "2.num_batches_tracked": ni.Zeros(),
        "3.weight": ni.Ones(),
        "3.bias": ni.Zeros(),
    }


@pytest.mark.parametrize(
    ("make", "init"),
    [
        (lambda: torch.randn(4, 6), ni.Normal()),
        (lambda: torch.rand(4, 6), ni.Uniform()),
        (lambda: torch.normal(1.0, 2.0, (4, 6)), ni.Normal(1.0, 2.0)),
        (lambda: torch.randn_like(torch.empty(4, 6)), ni.Normal()),
        (lambda: torch.randn(4, 6) * 0.5, ni.Normal(0.0, 0.5)),
        (lambda: 0.5 * torch.randn(4, 6) + 1, ni.Normal(1.0, 0.5)),
        (lambda: torch.rand(4, 6).mul_(2).sub_(1), ni.Uniform(-1.0, 1.0)),
        (lambda: -torch.rand(4, 6) / 4, ni.Uniform(-0.25, 0.0)),
        (lambda: torch.empty(4, 6).copy_(torch.randn(4, 6)), ni.Normal()),
        (lambda: nn.init.trunc_normal_(torch.empty(4, 6), std=0.5), ni.TruncNormal(0.0, 0.5)),
        (lambda: nn.init.orthogonal_(torch.empty(4, 6), 2.0), ni.Orthogonal(2.0)),
        (lambda: nn.init.sparse_(torch.empty(4, 6), 0.3), ni.Sparse(0.3)),
        (lambda: nn.init.eye_(torch.empty(4, 6)), ni.Eye()),
        (lambda: nn.init.dirac_(torch.empty(4, 2, 3)), ni.Dirac()),
        (lambda: nn.init.xavier_normal_(torch.empty(4, 6), gain=2), ni.XavierNormal(2.0)),
        (lambda: nn.init.kaiming_normal_(torch.empty(4, 6), mode="fan_out"), ni.KaimingNormal(mode="fan_out")),
        (lambda: nn.init.xavier_uniform_(torch.empty(3, 6)).div_(2), ni.Uniform(-math.sqrt(2 / 3) / 2, math.sqrt(2 / 3) / 2)),
        (lambda: torch.full((4, 6), 0.25), ni.Constant(0.25)),
        (lambda: torch.ones(4, 6) * 3, ni.Constant(3.0)),
        (lambda: torch.empty(4, 6).normal_().zero_(), ni.Zeros()),
        (lambda: torch.empty(4, 6).normal_().fill_(-0.0), ni.Constant(-0.0)),
        (lambda: torch.tensor(2.5), ni.Constant(2.5)),
        (lambda: torch.full((2, 3), 0.5, out=torch.empty(2, 3)), ni.Constant(0.5)),
        (lambda: torch.rand(2, 3, out=torch.empty(2, 3)), ni.Uniform()),
        (lambda: torch.empty(4, 6, dtype=torch.bfloat16).fill_(0.1), ni.Constant(0.10009765625)),
    ],
)  # fmt: skip
def test_one_initializer(make, init):
    traced = one(make)
    found = traced.initializer
    if isinstance(init, ni.Uniform) and init.low != 0 and found != init:  # the bounds are rounded
        assert isinstance(found, ni.Uniform)
        assert (found.low, found.high) == pytest.approx((init.low, init.high), rel=1e-15)
        init = found
    assert found == init and type(found) is type(init)
    dtype = str(traced.dtype).removeprefix("torch.")
    expected = torch.empty(traced.shape, dtype=traced.dtype)
    assert torch.equal(fill(traced), init.fill_(expected, seed=key())), dtype
    assert math.copysign(1, fill(traced).flatten()[0]) == math.copysign(1, expected.flatten()[0])


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.arange(6.0),
        lambda: torch.linspace(0, 1, 5).pow(2),
        lambda: torch.tensor([1.0, 2.5, -0.0]),
        lambda: torch.from_numpy(np.arange(3.0)),
        lambda: torch.from_numpy(np.arange(3.0)).float() + 1,
        lambda: torch.log(torch.arange(1, 9, dtype=torch.float32)).repeat(2, 1),
        lambda: torch.ones(3, 4).tril(),
        lambda: torch.zeros(3, 4).index_fill_(1, torch.tensor([0, 2]), 1.0),
        lambda: torch.tensor([x.item() for x in torch.linspace(0, 1, 4)]),
        lambda: torch.tensor(torch.linspace(0, 1, 4).tolist()),
        lambda: torch.from_numpy(torch.arange(4.0).numpy() * 2),
        lambda: torch.arange(9.0)[torch.arange(9.0) > 4],
        lambda: torch.zeros(3) if torch.ones(2).sum() == 2 else torch.ones(3),
        lambda: copy.deepcopy(torch.arange(4.0)),
        lambda: torch.stack([torch.arange(3.0), torch.ones(3)]).T.contiguous(),
        lambda: torch.arange(4.0).flip(0).to(torch.bfloat16),
        lambda: torch.zeros(4, 3).copy_(torch.arange(3)),
        lambda: torch.tensor([[4, 1], [2, 3]]).sort().values.float(),
        lambda: torch.empty(3, device="cpu").fill_(float(torch.ones(2).sum())),
        lambda: torch.ones(2, 3, dtype=torch.complex64) * 1j,
    ],
)
def test_constants_to_the_bit(make):
    traced = one(make)
    expected = make()
    assert (traced.shape, traced.dtype) == (tuple(expected.shape), expected.dtype)
    found = fill(traced)
    assert torch.equal(found, expected)
    if found.is_floating_point():
        assert torch.equal(found.signbit(), expected.signbit())
    assert not traced.random


def test_integers_and_counters():
    class Buffers(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("ids", torch.arange(5).expand((1, -1)), persistent=False)
            self.register_buffer("mask", torch.ones(3, dtype=torch.bool))
            self.register_buffer("count", torch.tensor(7))

    traced = trace(Buffers)
    assert_same(init_module(traced.module, traced, seed=0), Buffers())
    assert list(traced.specs()) == ["mask", "count"]
    assert traced.tensors["count"].initializer == ni.Constant(7.0)


# Parts of a tensor.


def test_parts_take_the_words_of_their_elements():
    def packed():
        w = torch.empty(6, 4)
        w[:2].uniform_(-1, 1)
        w[2:].normal_(0, 3)
        return w

    traced = one(packed)
    assert [(part.size, part.offset, part.what) for part in traced.parts] == [
        ((2, 4), 0, ni.Uniform(-1.0, 1.0)),
        ((4, 4), 8, ni.Normal(0.0, 3.0)),
    ]
    whole = fill(traced)
    for init, rows in ((ni.Uniform(-1, 1), slice(0, 2)), (ni.Normal(0, 3), slice(2, 6))):
        assert (whole[rows].numpy() == init((6, 4), seed=key())[rows]).all()
    assert traced.initializer is None and traced.initialized


@pytest.mark.parametrize(
    "part",
    [
        lambda w: w[:, 1:3], lambda w: w[::2, ::3], lambda w: w.t(), lambda w: w[1], lambda w: w[:, 2],
        lambda w: w.view(3, 8), lambda w: w.diagonal(), lambda w: w.flatten()[5:9], lambda w: w[3, 2],
    ],
)  # fmt: skip
def test_any_view_takes_the_words_of_its_elements(part):
    def written():
        w = torch.zeros(6, 4)
        part(w).normal_()
        return w

    expected = torch.zeros(6, 4)
    whole = torch.from_numpy(ni.Normal()((6, 4), seed=key()))
    part(expected).copy_(part(whole))
    assert torch.equal(fill(one(written)), expected)


def test_matrices_that_are_made_whole_are_apart():
    def gates():
        w = torch.empty(4, 8, 8)
        for gate in w:
            nn.init.orthogonal_(gate)
        return w

    found = fill(one(gates)).numpy()
    for n, gate in enumerate(found):
        assert np.allclose(gate @ gate.T, np.eye(8), atol=1e-5)
        for other in found[:n]:
            assert abs(gate - other).max() > 0.1


def test_values_that_were_read_are_not_drawn_again():
    def twice():
        w = torch.empty(1000).normal_()
        before = w.clone()
        w.normal_()
        return torch.stack([before, w])

    a, b = fill(one(twice)).numpy()
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.15

    def partly():
        w = torch.empty(2000).normal_()
        w.cumsum_(0)
        w[:1000].normal_()
        return w

    found = fill(one(partly)).numpy()
    first = ni.Normal()((2000,), seed=key())[:1000]
    assert abs(np.corrcoef(found[:1000], first)[0, 1]) < 0.15


def test_overwritten_fills_are_not_made():
    def again():
        w = torch.empty(4, 4).normal_().mul_(3)
        nn.init.uniform_(w)
        return w

    assert len(one(again).parts) == 1


def test_operations_are_done_by_torch():
    def bias():
        dt = torch.exp(torch.rand(64) * 4 - 6).clamp(min=1e-4)
        return dt + torch.log(-torch.expm1(-dt))

    traced = one(bias)
    assert [type(part.what) for part in traced.parts] == [Operation]
    # One of its temporaries is U(-6, -2), drawn with the tensor's own words.
    drawn = torch.from_numpy(ni.Uniform(-6, -2)(64, seed=key()))
    dt = torch.exp(drawn).clamp(min=1e-4)
    assert torch.allclose(fill(traced), dt + torch.log(-torch.expm1(-dt)), atol=1e-6)
    assert torch.equal(traced.fill_(torch.empty(9), offset=(5,), seed=0), fill(traced)[5:14])


def test_long_chains():
    def chain():
        x = torch.rand(4) + 1
        for _ in range(300):
            x = (x + x.sqrt()) / (1 + x / x.norm())
        return x

    found = fill(one(chain))
    x = torch.from_numpy(ni.Uniform(1, 2)(4, seed=key()))
    for _ in range(300):
        x = (x + x.sqrt()) / (1 + x / x.norm())
    assert torch.allclose(found, x, rtol=1e-4)


def test_copies_are_copies():
    class Copies(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 4)
            self.b = copy.deepcopy(self.a)
            self.norm = nn.Parameter(self.a.weight.detach().norm(dim=1))
            self.a.weight.data.mul_(2)

    module = made(Copies)
    assert torch.equal(module.a.weight, 2 * module.b.weight)
    assert torch.equal(module.a.bias, module.b.bias)
    assert torch.equal(module.norm, module.b.weight.norm(dim=1))
    encoder = made(
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 3)
    )
    for name, tensor in encoder.layers[0].named_parameters():
        assert torch.equal(tensor, encoder.layers[2].get_parameter(name))


@pytest.mark.parametrize(
    "wrap",
    [
        nn.utils.parametrizations.weight_norm,
        nn.utils.parametrizations.spectral_norm,
        nn.utils.spectral_norm,
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_parametrized_layers(wrap):
    module = made(lambda: wrap(nn.Linear(6, 4)))
    own = wrap(nn.Linear(6, 4))
    assert module.state_dict().keys() == own.state_dict().keys()
    x = torch.ones(2, 6)
    assert torch.isfinite(module(x)).all()
    if wrap is nn.utils.parametrizations.weight_norm:
        parts = module.parametrizations.weight
        assert torch.equal(parts.original0, parts.original1.norm(dim=1, keepdim=True))
    if "spectral_norm" in wrap.__name__ and hasattr(module, "parametrizations"):
        assert torch.linalg.matrix_norm(module.weight, 2).item() == pytest.approx(1, abs=0.1)


def test_operations_that_write_several_tensors():
    class Several(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Parameter(torch.ones(3)), nn.Parameter(torch.empty(3).normal_())
            self.q, self.r = nn.Parameter(torch.empty(2, 2)), nn.Parameter(torch.empty(2, 2))
            with torch.no_grad():
                torch._foreach_mul_([self.a, self.b], [2.0, 3.0])
                torch.linalg.qr(torch.tensor([[2.0, 1.0], [0.0, 3.0]]), out=(self.q, self.r))

    found, own = values(made(Several)), values(Several())
    for name in "aqr":
        assert (found[name] == own[name]).all(), name
    assert (found["b"] == 3 * ni.Normal()(3, seed=key("b"))).all()


def test_operations_that_write_and_return_tensors():
    class Seen(nn.Module):
        """What has seen a batch: its running statistics are written, its output is kept."""

        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(4)
            self.other = nn.InstanceNorm1d(4, affine=True, track_running_stats=True)
            batch = torch.arange(24.0).reshape(2, 4, 3).sin()
            self.w = nn.Parameter(self.norm(batch).detach())
            self.other(batch)

    found, own = values(made(Seen)), values(Seen())
    assert found["norm.running_mean"].any()
    assert_same(found, own)


def test_integers_of_torchs_functions():
    assert fill(one(lambda: nn.init.eye_(torch.empty(2, 3, dtype=torch.int32)))).tolist() == [
        [1, 0, 0],
        [0, 1, 0],
    ]


def test_functions_of_numinit():
    class Own(nn.Linear):
        def reset_parameters(self):
            ni.kaiming_normal_(self.weight, generator=5)
            ni.Normal(std=0.5).fill_(self.bias[1:], seed=torch.Generator())
            ni.zeros_(self.bias.data[:1])

    expected = ni.KaimingNormal()((4, 3), seed=key("weight"))
    with torch.device("meta"):
        without = Own(3, 4)
    for module in (made(lambda: Own(3, 4)), init_module(without, seed=0)):
        assert (module.weight.detach().numpy() == expected).all()
        bias = ni.Normal(std=0.5)(4, seed=key("bias"))
        assert module.bias.tolist() == [0, *bias[1:].tolist()]
    array = np.empty(3, np.float32)
    traced = trace(lambda: One(lambda: torch.from_numpy(ni.Normal().fill_(array, seed=0))))
    assert (fill(traced.tensors["w"]).numpy() == ni.Normal()(3, seed=0)).all()
    assert (ni.Normal().fill_(array, seed=1) == ni.Normal()(3, seed=1)).all()


# What Python does with values.


def test_numbers_in_lists():
    def make():
        a = torch.arange(3.0)
        made = [torch.tensor([a[1], [2 * a[2]][0]]), torch.as_tensor((a[0], 5.0))]
        return torch.cat([*made, a.new_tensor([a[2], 7]), a.double().new_tensor([1]).float()])

    assert fill(one(make)).tolist() == make().tolist() == [1, 4, 0, 5, 2, 7, 1]


def test_arrays_share_memory():
    def make():
        w = torch.zeros(6)
        kept = w.numpy()
        kept[:2] = 7
        w[1:3] = 1
        kept = w.numpy()[::2]
        kept += 2
        w.mul_(2)
        np.asarray(w)[5] = 3
        np.asarray(torch.ones(3))[:] = 4
        return w

    assert fill(one(make)).tolist() == make().tolist() == [18, 2, 6, 0, 4, 3]


def test_memory_may_be_shared():
    traced = trace(lambda: nn.Linear(3, 2).share_memory())
    assert not traced.uninitialized


# What cannot be replayed.


def test_an_operation_that_has_no_form_without_values():
    def make():
        return nn.utils.parametrizations.orthogonal(nn.Linear(6, 4))

    torch.manual_seed(0)
    with pytest.warns(UserWarning, match=r"^geqrf in _Orthogonal \(right_inverse, .*needs random"):
        traced = trace(make)
    module = init_module(traced.module, traced, seed=0)
    assert torch.allclose(module.weight @ module.weight.T, torch.eye(4), atol=1e-5)
    expected = ni.Uniform(-1 / math.sqrt(6), 1 / math.sqrt(6))(4, seed=key("bias"))
    assert (module.bias.detach().numpy() == expected).all()


def test_a_random_value_that_is_read():
    class Normalized(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(30, requires_grad=False))
            self.w.data.div_(self.w.data.norm().item())
            self.v = nn.Parameter(torch.randn(3))

    torch.manual_seed(0)
    with pytest.warns(
        UserWarning, match=r"^item in Normalized \(__init__, line \d+ of .*needs random"
    ):
        traced = trace(Normalized)
    module = init_module(traced.module, traced, seed=0)
    assert (module.v.detach().numpy() == ni.Normal()(3, seed=key("v"))).all()
    assert torch.isfinite(module.w).all() and module.w.std() > 0


def test_an_operation_that_draws_by_itself(monkeypatch):
    class Mask(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.empty(50).exponential_())
            self.v = nn.Parameter(torch.empty(50).exponential_())
            self.register_buffer("order", torch.randperm(50))
            self.more = nn.ParameterList(
                [
                    torch.empty(9).cauchy_(),
                    torch.empty(9).log_normal_(),
                    torch.empty(9).geometric_(0.5),
                ]
            )

    with pytest.warns(
        UserWarning,
        match=r"^(exponential_|randperm|cauchy_|log_normal_|geometric_) in Mask \(__init__, line",
    ):
        traced = trace(Mask)
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    state = torch.get_rng_state()
    a, b, c = (
        values(init_module(copy.deepcopy(traced.module), traced, seed=seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert not seeded  # nor are the generators of GPUs
    assert (a["w"] == b["w"]).all() and (a["w"] != c["w"]).any() and (a["w"] != a["v"]).any()
    assert sorted(a["order"]) == list(range(50)) and (a["w"] > 0).all()


def test_errors_of_the_code_are_its_own():
    with pytest.raises(ValueError, match="fewer than 2 dimensions"):
        one(lambda: nn.init.xavier_uniform_(torch.empty(3)))
    with pytest.raises(RuntimeError, match="size of tensor"):
        one(lambda: torch.zeros(3) + torch.zeros(4))
    with pytest.raises(TypeError, match=r"^make: it returned a int"):
        trace(lambda: 3)
    with pytest.raises(TypeError, match=r"^make: 3 was given"):
        trace(3)
    with pytest.raises(ValueError, match=r"^module: weight, bias have no shape yet"):
        init_module(nn.LazyLinear(3), seed=0)
    assert torch.zeros(1).device.type == "cpu" and not torch.zeros(1).is_meta


# Modules.


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 4, padding_idx=0)
        self.lstm = nn.LSTM(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 7)
        self.head.weight = self.embed.weight
        self.conv = nn.Conv2d(3, 2, 3).to(memory_format=torch.channels_last)


def test_a_module_on_the_meta_device():
    real = init_module(Net(), seed=3)
    with torch.device("meta"):
        module = Net()
    assert init_module(module, seed=3) is module
    assert_same(real, module)
    assert module.head.weight is module.embed.weight
    assert module.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert all(p.requires_grad for p in module.parameters())
    module.lstm(torch.zeros(2, 1, 4))[0].sum().backward()  # its own list has the new parameters
    assert module.lstm.weight_ih_l0.grad is not None
    traced = trace(Net)
    assert_same(init_module(traced.module, traced, seed=3), real)
    assert_same(init_module(Net(), traced, seed=3), real)


def test_names_and_seeds_alone():
    a, b = (values(init_module(nn.Linear(5, 3), seed=seed)) for seed in (0, 1))
    assert (a["weight"] != b["weight"]).all()
    expected = ni.KaimingUniform(a=math.sqrt(5))((3, 5), seed=key("weight"))
    assert (a["weight"] == expected).all()
    two = values(init_module(nn.Sequential(nn.Linear(5, 3), nn.Linear(5, 3)), seed=0))
    assert (two["0.weight"] != two["1.weight"]).all()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    init_module(nn.Linear(5, 3).to("meta"), seed=ni.Key(0))
    assert not torch.equal(before, torch.get_rng_state())  # by the constructor alone
    state = torch.get_rng_state()
    assert_same(init_module(nn.Linear(5, 3).to("meta"), seed=ni.Key(0)) and a, a)
    assert not torch.equal(state, torch.get_rng_state())


def test_a_default_device_changes_nothing():
    def make():
        return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Embedding(4, 3, padding_idx=0))

    expected = values(made(make))
    with torch.device("meta"):
        traced = trace(make)
        assert_same(init_module(traced.module, traced, seed=0), expected)
        module = make()
        assert_same(init_module(module, seed=0), expected)
        tensor = trace(lambda: One(lambda: torch.rand(4).exp() + torch.arange(4))).tensors["w"]
        found = tensor.fill_(torch.empty(2, device="cpu"), offset=(1,), seed=0)
    expected = torch.from_numpy(ni.Uniform()(4, seed=key())).exp() + torch.arange(4)
    assert torch.equal(found, expected[1:3])


def test_no_generator_is_advanced():
    module = nn.Linear(5, 3)
    state = torch.get_rng_state()
    init_module(module, seed=0)
    trace(lambda: nn.Linear(5, 3))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_recipe():
    recipe = {"*.bias": ni.Zeros(), "embed.*": ni.Padded(ni.Normal(std=0.1), 0), "*": ni.Normal()}
    with torch.device("meta"):
        module = Net()
    with pytest.raises(ValueError, match=r"num_batches_tracked.* int64"):
        init_module(module, recipe, seed=1)
    assert module.norm.weight.is_meta
    init_module(module, {"norm.num_batches_tracked": ni.Zeros()} | recipe, seed=1)
    state = module.state_dict()
    drawn = state.keys() - {"head.weight", "norm.num_batches_tracked"}
    params = ni.init_params({name: tuple(state[name].shape) for name in drawn}, recipe, seed=1)
    for name, array in params.items():
        assert (state[name].numpy() == array).all(), name
    assert module.head.weight is module.embed.weight and state["norm.num_batches_tracked"] == 0


def test_buffers_without_a_rule():
    module = nn.BatchNorm1d(4)
    with torch.device("meta"):
        meta = nn.BatchNorm1d(4)
    recipe = {"weight": ni.Normal(), "bias": ni.Zeros()}
    assert_same(init_module(module, recipe, seed=0), init_module(meta, recipe, seed=0))
    assert module.running_var.tolist() == [1.0] * 4
    with pytest.raises(
        ni.models.recipe.RecipeError, match=r"no rule for 2 parameters: 0.bias, 1.bias"
    ):
        init_module(
            nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), {"*.weight": ni.Ones()}, seed=0
        )


def test_what_is_not_initialized_is_listed():
    class Holes(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)
            self.scale = nn.Parameter(torch.ones(3))
            self.empty = nn.Parameter(torch.empty(3))
            self.part = nn.Parameter(torch.empty(4))
            self.part.data[:2].normal_()
            self.register_buffer("table", torch.arange(3.0))

    with torch.device("meta"):
        module = Holes()
    with pytest.raises(
        ValueError, match=r"nothing initializes 4 tensors: scale, empty, part, table\."
    ):
        init_module(module, seed=0)
    assert all(tensor.is_meta for tensor in module.parameters())
    traced = trace(Holes)
    assert traced.uninitialized == ["empty", "part"]
    with pytest.raises(ValueError, match=r"nothing initializes 2 tensors: empty, part\."):
        init_module(traced.module, traced, seed=0)
    real = nn.Module()
    real.register_buffer("table", torch.arange(3.0))
    assert init_module(real, seed=0).table.tolist() == [0, 1, 2]  # it has its values
    with pytest.raises(ValueError, match="of another module"):
        init_module(nn.Linear(3, 3), traced, seed=0)
    with pytest.raises(ValueError, match=r"shape \(3, 3\) in the trace, and \(2, 3\)"):
        init_module(nn.Linear(3, 2), trace(lambda: nn.Linear(3, 3)), seed=0)
    with pytest.raises(TypeError, match=r"^module: a int was given"):
        init_module(3, seed=0)
    with pytest.raises(TypeError, match=r"^module: a int was given"):
        save(3, "never.safetensors")
    with pytest.raises(ValueError, match=r"^device: meta was given"):
        init_module(nn.Linear(3, 3), seed=0, device="meta")


def over(*parts):
    """A tensor whose parts are filled."""

    def make():
        w = torch.empty(4, 6)
        for part in parts:
            part(w).normal_()
        return w

    return make


def fills_anew():
    w = torch.empty(4).bfloat16()
    w[:2].fill_(1)
    w[2:].fill_(2)
    return w


def foreach():
    w = torch.empty(4)
    torch._foreach_zero_([w, torch.empty(3)])
    return w


@pytest.mark.filterwarnings("ignore:randint_like")
@pytest.mark.parametrize(
    ("make", "known"),
    [
        (over(lambda w: w[:2], lambda w: w[1:3]), False),  # as many elements as there are
        (over(lambda w: w[:, :3], lambda w: w[:, 2:5], lambda w: w[1:]), False),
        (over(lambda w: w[:, :3], lambda w: w[:, 3:]), True),
        (over(lambda w: w[::2], lambda w: w[1::2, ::2], lambda w: w[:, 1::2]), True),
        (over(lambda w: w.t()), True),
        (over(lambda w: w.flatten()[:13], lambda w: w.flatten()[12:]), True),
        (lambda: torch.empty(4).clone(), False),
        (lambda: torch.empty(4).bfloat16(), False),
        (lambda: torch.empty(4, 3).t().contiguous() + 1, False),
        (lambda: torch.stack([torch.empty(3), torch.ones(3)]), False),
        (lambda: torch.ones(6, 4)[:, 1:3], True),
        (lambda: torch.view_as_complex(torch.randn(3, 2)), True),
        (lambda: torch.randint_like(torch.empty(4), 3), True),
        (lambda: torch.zeros(0, 3).repeat(2, 1), True),
        (fills_anew, True),
        (foreach, True),
    ],
)
def test_values_of_memory_without_values_are_none(make, known):
    assert one(make).initialized is known


def test_a_buffer_that_only_the_constructor_knows():
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("table", torch.arange(3.0))
            self.w = nn.Parameter(torch.empty(3))
            self.reset_parameters()

        def reset_parameters(self):
            with torch.no_grad():
                self.w.copy_(self.table)

    with pytest.raises(ValueError, match=r"nothing initializes 1 tensors: w\."):
        init_module(Table(), seed=0)
    assert made(Table).w.tolist() == [0, 1, 2]


def test_attributes_and_classes_of_parameters():
    class Marked(nn.Parameter):
        pass

    class Biased(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Parameter(torch.empty(3)), Marked(torch.empty(3))
            self.a.kept = True
            self.reset_parameters()

        def reset_parameters(self):
            nn.init.constant_(self.a, 2.0 if getattr(self.a, "kept", False) else 3.0)
            nn.init.constant_(self.b, 4.0 if isinstance(self.b, Marked) else 5.0)

    with torch.device("meta"):
        without = Biased()
    for module in (init_module(Biased(), seed=0), init_module(without, seed=0), made(Biased)):
        assert module.a.tolist() == [2.0] * 3 and module.b.tolist() == [4.0] * 3
        assert module.a.kept and type(module.b) is Marked


@pytest.mark.parametrize("of", [lambda w: w, lambda w: w.data, lambda w: w[:2]])
def test_a_tensor_that_the_code_keeps(of):
    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(3))
            self.kept = [of(self.w)]

        def reset_parameters(self):
            for w in self.kept:
                nn.init.normal_(w)

    module = Keeps()
    with pytest.raises(
        ValueError, match=r"^module: its code writes 'w' by a reference that it keeps"
    ):
        init_module(module, seed=0)
    assert not module.w.any()


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's, of a layout that may change
@pytest.mark.parametrize(
    "kind",
    [
        lambda a: a.to_sparse(),
        lambda a: torch.sparse_coo_tensor(a.nonzero().t(), torch.ones(4), a.shape).coalesce(),
        lambda a: a.to_sparse_csr(),
    ],
)
def test_sparse_buffers_stay(tmp_path, kind):
    class Graph(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)
            self.register_buffer("adjacent", kind(torch.eye(4)))
            self.register_buffer("degree", self.adjacent.to_dense().sum(1))

    traced = trace(Graph)
    for module in (traced.module, Graph()):
        init_module(module, traced, seed=0)
        own = Graph().adjacent
        assert module.adjacent.layout is own.layout and module.adjacent.dtype is own.dtype
        assert (module.degree == Graph().degree).all()
        expected = ni.KaimingUniform(a=math.sqrt(5))((4, 4), seed=key("linear.weight"))
        assert (module.linear.weight.detach().numpy() == expected).all()
    assert save(traced, tmp_path / "graph.safetensors").tensors == 3
    assert (init_module(Graph(), seed=0).linear.weight.detach().numpy() == expected).all()


def test_only_a_draw_is_random():
    for make in (lambda: nn.init.eye_(torch.empty(3, 3)), lambda: torch.arange(3.0).exp()):
        assert not one(make).random
    for make in (lambda: nn.init.orthogonal_(torch.empty(3, 3)), lambda: torch.rand(3).exp()):
        assert one(make).random


def test_what_is_no_window_is_refused():
    plain, computed = one(lambda: torch.rand(4, 6)), one(lambda: torch.rand(4, 6).exp())
    for traced in (plain, computed):
        for shape, offset, message in (
            ((2, 6), (3, 0), "offset: a window"), ((1, 6), (-1, 0), "offset: .* negative"),
            ((4, 6), (1, 0), "offset: a window"), ((9, 9), None, "offset: a window"),
            ((6,), None, "as many axes"), ((1, 6), (1,), "as many axes"),
        ):  # fmt: skip
            tensor = torch.zeros(shape)
            with pytest.raises(ValueError, match=message):
                traced.fill_(tensor, offset=offset, seed=0)
            assert not tensor.any()


def test_the_device_is_given():
    with torch.device("meta"):
        module = nn.Linear(3, 2)
    assert init_module(module, seed=0, device="cpu") is module
    assert_same(module, init_module(nn.Linear(3, 2), seed=0))


def test_types():
    narrow = init_module(Net(), seed=0, dtype=torch.bfloat16)
    wide = init_module(Net(), seed=0)
    assert {p.dtype for p in narrow.parameters()} == {torch.bfloat16}
    assert narrow.norm.num_batches_tracked.dtype == torch.int64
    assert narrow.head.weight is narrow.embed.weight
    for name, tensor in wide.named_parameters():
        assert torch.equal(narrow.get_parameter(name), tensor.bfloat16()), name
    with torch.device("meta"):
        module = Net()
    assert_same(
        {
            n: t.float().numpy()
            for n, t in init_module(module, seed=0, dtype="bfloat16").state_dict().items()
        },
        {n: t.float().numpy() for n, t in narrow.state_dict().items()},
    )
    with pytest.raises(ValueError, match=r"^tensor 'weight': "):
        init_module(nn.Linear(2, 2), {"*": ni.Constant(1e6)}, seed=0, dtype="float16")


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_type_of_a_rule(tmp_path, device):
    recipe = numinit.models.recipes.parse(
        'rules = [{match = "0.weight", init = "Normal", dtype = "float32"}, '
        '{match = "0.bias", init = "Normal", dtype = "keep"}, {match = "*", init = "Normal"}]'
    )
    with torch.device(device):
        module = nn.Sequential(nn.Linear(3, 2, dtype=torch.float64), nn.Linear(3, 2))
    if device == "cpu":
        module[0](torch.ones(3, dtype=torch.float64)).sum().backward()
    save(module, tmp_path / "m.safetensors", 1, recipe, dtype="bfloat16")
    init_module(module, recipe, seed=1, dtype="bfloat16")
    kinds = [tensor.dtype for tensor in module.parameters()]
    assert kinds == [torch.float32, torch.float64, torch.bfloat16, torch.bfloat16]
    assert device == "meta" or [module[0].weight.grad.dtype, module[0].bias.grad.dtype] == kinds[:2]
    found = pytest.importorskip("safetensors.torch").load_file(tmp_path / "m.safetensors")
    for name, tensor in module.named_parameters():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


@pytest.mark.parametrize("recipe", [None, {"linear.*": ni.Ones()}])
def test_buffers_that_nothing_fills_keep_their_values(recipe):
    class Rotary(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)
            self.register_buffer("angles", torch.arange(300.0) / 7)
            self.register_buffer("sparse", torch.eye(3).to_sparse())
            self.register_buffer("places", torch.arange(300))

    module = init_module(Rotary(), recipe, seed=0, dtype="bfloat16", device="cpu")
    assert torch.equal(module.angles, (torch.arange(300.0) / 7).bfloat16())
    assert torch.equal(module.sparse.to_dense(), torch.eye(3).bfloat16())
    assert torch.equal(module.places, torch.arange(300))
    assert module.linear.weight.dtype is torch.bfloat16


def test_attributes_and_gradients_stay():
    with torch.device("meta"):
        module = nn.Linear(3, 2)
    module.bias.requires_grad_(False)
    module.weight.sharded = "yes"
    init_module(module, seed=0)
    assert module.weight.sharded == "yes"
    assert module.weight.requires_grad and not module.bias.requires_grad
    module(torch.ones(3)).sum().backward()
    init_module(module, seed=0)
    assert module.weight.grad is not None


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_activation_checkpointing_changes_no_name(device):
    wrapper = pytest.importorskip(
        "torch.distributed.algorithms._checkpoint.checkpoint_wrapper"
    ).checkpoint_wrapper

    def make(wrap=wrapper):
        inner = nn.Sequential(nn.Linear(4, 4), nn.LSTM(4, 4))
        module = wrap(nn.Sequential(wrap(nn.Linear(4, 4)), wrap(inner)))
        inner[0].weight = next(iter(module.parameters()))
        return module

    with torch.device(device):
        module = make()
    init_module(module, seed=0)
    plain, found = make(lambda module: module).state_dict(), module.state_dict()
    assert list(found) == list(plain) == list(trace(make).names)
    own = init_module(make(lambda module: module), seed=0).state_dict()
    assert all(torch.equal(found[name], own[name]) for name in own)
    names = [name for name, _ in module.named_parameters()]  # the tie stays where it was
    assert len(names) == len(own) - 1


def test_views_of_one_memory():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            flat = torch.empty(6).normal_()
            self.a, self.b = nn.Parameter(flat[:2]), nn.Parameter(flat[2:])

    traced = trace(Flat)
    module = init_module(traced.module, traced, seed=0)
    storages = {p.untyped_storage().data_ptr() for p in module.parameters()}
    assert len(storages) == 1
    together = torch.cat([module.a, module.b]).detach()
    assert len(together.unique()) == 6


# Recipes of traces.


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_views_that_are_one_in_the_trace_alone(dtype):
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 3)
            self.b = nn.Parameter(self.a.weight.data)
            self.register_buffer("c", self.a.bias.data)

    traced = trace(Shared)
    for module in (Shared(), copy.deepcopy(Shared()), traced.module):
        init_module(module, traced, seed=0, dtype=dtype)
        expected = ni.KaimingUniform(a=math.sqrt(5))((3, 3), seed=key("b"))
        expected = torch.from_numpy(expected).to(module.b.dtype)
        assert torch.equal(module.b, expected) and torch.equal(module.c, module.a.bias)


def test_the_recipe_makes_the_values_of_the_module():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
            self.table = nn.Parameter(torch.arange(12.0).view(3, 4))
            self.bias = nn.Parameter(torch.log(torch.rand(5) + 1))

    traced = trace(Mixed)
    module = init_module(traced.module, traced, seed=2)
    recipe = traced.recipe()
    assert [rule.match for rule in recipe.rules] == [
        ("table",),
        ("bias",),
        ("*.weight",),
        ("*.bias",),
    ]
    assert_same(ni.init_params(traced.specs(), recipe, seed=2), module)
    with pytest.raises(
        ValueError, match=r"^recipe: no rule of TOML describes 2 tensors: table, bias"
    ):
        traced.toml()


def test_toml():
    make = lambda: nn.Sequential(  # noqa: E731
        nn.Linear(4, 3),
        nn.ReLU(),
        nn.Linear(3, 3),
        nn.Embedding(4, 3, padding_idx=2),
        nn.LayerNorm(3),
    )
    traced = trace(make)
    text = traced.toml()
    recipe = ni.models.recipes.parse(text)
    shapes = {name: spec.shape for name, spec in traced.specs().items()}
    module = init_module(traced.module, traced, seed=0)
    assert_same(ni.init_params(shapes, recipe, seed=0), module)
    assert "padding_idx = 2" in text and 'init = "KaimingUniform"\na = 2.23606797749979\n' in text


def test_globs_of_odd_names():
    from numinit.torch.rules import rules_of

    said = {
        "a[0].w": ni.Ones(), "a0.w": ni.Zeros(), "b*.w": ni.Ones(), "bb.w": ni.Zeros(), "w": ni.Ones(),
        "h.0.w": ni.Normal(), "h.1.w": ni.Normal(), "h.1.x.w": ni.Zeros(), "x.0": ni.Normal(), "x.1": ni.Zeros(),
    }  # fmt: skip
    rules = rules_of(said)
    for name, init in said.items():
        assert [rule.init for rule in rules if rule.matches(name)] == [init], name


# Speed: patched().


def test_patched_draws_numinits_values():
    with patched():
        torch.manual_seed(0)
        found = [
            torch.randn(3, 4), torch.rand(2), torch.empty(5).normal_(1, 2), torch.empty(5).uniform_(to=2),
            torch.randn_like(torch.empty(3)), nn.init.trunc_normal_(torch.empty(9), std=2),
            nn.init.orthogonal_(torch.empty(3, 3)), nn.Linear(3, 2).weight.detach(),
        ]  # fmt: skip
    torch.manual_seed(0)
    expected = [
        ni.normal_(torch.empty(3, 4)), ni.uniform_(torch.empty(2)), ni.normal_(torch.empty(5), 1, 2),
        ni.uniform_(torch.empty(5), 0, 2), ni.normal_(torch.empty(3)), ni.trunc_normal_(torch.empty(9), std=2),
        ni.orthogonal_(torch.empty(3, 3)), ni.kaiming_uniform_(torch.empty(2, 3), math.sqrt(5)),
    ]  # fmt: skip
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


def test_patched_takes_generators():
    def draw():
        source = torch.Generator().manual_seed(3)
        made = [torch.randn(3, generator=source), torch.empty(3).uniform_(generator=source)]
        return torch.stack([*made, nn.init.normal_(torch.empty(3), generator=source)])

    own = draw()
    with patched():
        a, b = draw(), draw()
    assert torch.equal(a, b) and not torch.equal(a, own)
    assert torch.equal(draw(), own)


def test_patched_leaves_torch_as_it_was():
    init = nn.init.normal_
    code, signature = init.__code__, init.__defaults__
    kept = {"normal_": init}
    torch.manual_seed(0)
    own = torch.randn(3)
    with pytest.raises(KeyError), patched(), patched():
        raise KeyError
    assert init.__code__ is code and init.__defaults__ is signature
    torch.manual_seed(0)
    with patched():
        with patched():
            inner = kept["normal_"](torch.empty(3))
        torch.manual_seed(0)
        assert torch.equal(torch.randn(3), inner)
        assert init.__code__ is not code
    torch.manual_seed(0)
    assert torch.equal(torch.randn(3), own) and init.__code__ is code


def test_patched_in_threads():
    torch.manual_seed(0)
    own = nn.init.normal_(torch.empty(1000), 5.0)
    inside, leave = threading.Event(), threading.Event()
    failed = []

    def patch():
        with patched():
            inside.set()
            leave.wait(30)
            for _ in range(50):
                nn.Linear(3, 3)

    thread = threading.Thread(target=patch)
    thread.start()
    try:
        assert inside.wait(30)
        torch.manual_seed(0)
        if not torch.equal(nn.init.normal_(torch.empty(1000), 5.0), own):
            failed.append("another thread is affected")
    finally:
        leave.set()
        thread.join()
    assert not failed


def test_patched_errors_and_autograd():
    with patched():
        with pytest.raises(RuntimeError, match="std"):
            torch.empty(3).normal_(0, -1)
        with pytest.raises(RuntimeError, match=r"single memory location|refers to a single"):
            torch.empty(3).expand(2, 3).normal_()
        with pytest.raises(ValueError, match="fewer than 2 dimensions"):
            nn.init.kaiming_normal_(torch.empty(3))
        with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
            nn.Parameter(torch.empty(3)).normal_()
        assert torch.randn(3, requires_grad=True).requires_grad
        product = torch.ones(3, requires_grad=True) * 2
        assert product.normal_().grad_fn is not None
        tensor = torch.zeros(3)
        version = tensor._version
        assert tensor.normal_()._version > version
        assert torch.empty(3, device="meta").normal_().is_meta
        assert torch.randint(0, 9, (4,)).dtype == torch.int64
        out = torch.empty(3)
        assert torch.randn(3, out=out) is out
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert torch.randn(4, 3, dtype=torch.float64).dtype == torch.float64


def test_patched_in_a_vmap():
    def noisy(tensor):
        return tensor + torch.randn(2), torch.zeros_like(tensor).normal_()

    with patched():
        for values in torch.func.vmap(noisy, randomness="different")(torch.zeros(3, 2)):
            assert values.unique().numel() == values.numel()
        with pytest.raises(RuntimeError, match="randomness"):
            torch.func.vmap(noisy)(torch.zeros(3, 2))


def test_patched_makes_traces_and_modules():
    with patched():
        traced = trace(lambda: nn.Linear(3, 2))
        a = values(init_module(traced.module, traced, seed=0))
    assert_same(a, init_module(nn.Linear(3, 2), seed=0))


def test_patched_inside_of_a_trace():
    def make():
        with patched():
            return nn.Sequential(nn.Linear(3, 2), One(lambda: torch.randn(1200, 1000)))

    traced = trace(make)
    module = init_module(traced.module, traced, seed=0)
    plain = made(lambda: nn.Sequential(nn.Linear(3, 2), One(lambda: torch.randn(1200, 1000))))
    for name, tensor in plain.named_parameters():
        assert torch.allclose(module.get_parameter(name), tensor, rtol=1e-6), name


def test_patched_large_tensors():
    with patched():
        torch.manual_seed(0)
        layer = nn.Linear(2048, 1024)
    values = layer.weight.detach().clone().numpy()
    bound = 1 / math.sqrt(2048)
    assert -bound <= values.min() < -0.999 * bound and 0.999 * bound < values.max() <= bound
    layer.weight.untyped_storage().resize_(0)  # as FSDP does


def test_another_device_is_filled_in_pieces(monkeypatch):
    from numinit.torch import devices

    monkeypatch.setattr(devices, "direct", lambda device: False)
    monkeypatch.setattr(devices, "PIECE", 100)
    linear = init_module(nn.Linear(16, 37), seed=0)
    assert (
        linear.weight.detach().numpy()
        == ni.KaimingUniform(a=math.sqrt(5))((37, 16), seed=key("weight"))
    ).all()
    tensor = trace(lambda: nn.Linear(16, 37)).tensors["weight"]
    part = tensor.fill_(torch.empty(20, 7), offset=(11, 4), seed=0)
    assert torch.equal(part, linear.weight[11:31, 4:11])
    made = []
    devices.filled(
        torch.empty(2, 60), (0, 0), lambda piece, low: made.append((tuple(piece.shape), low)),
        ni.Normal(), (2, 60),
    )  # fmt: skip
    assert max(math.prod(shape) for shape, _ in made) <= 25  # also where rows are long
    assert sum(math.prod(shape) for shape, _ in made) == 120


class Elsewhere(torch.Tensor):
    """A tensor that says that it is on a device whose memory numinit does not fill."""

    device = torch.device("mps")


def elsewhere(tensor):
    return tensor.as_subclass(Elsewhere)


@pytest.mark.parametrize("init", [ni.Normal(), ni.Orthogonal()])
def test_tables_and_flat_shards_on_another_device(monkeypatch, init):
    from numinit.torch import devices, table_init
    from numinit.torch.distributed import FlatShard, _fill_flat

    monkeypatch.setattr(devices, "PIECE", 64)
    whole = init.fill_(torch.empty(12, 5), seed=3)
    calls = []
    for name in ("fill_", "fill_flat"):
        own = getattr(ni.Initializer, name)

        def fill(self, tensor, *args, own=own, **kwargs):
            if isinstance(tensor, torch.Tensor):  # else one that an orthogonal weight needs
                assert type(tensor) is torch.Tensor  # on the host
                calls.append(tensor.numel())
            return own(self, tensor, *args, **kwargs)

        monkeypatch.setattr(ni.Initializer, name, fill)
    table = table_init(init, (12, 5), seed=3)(elsewhere(torch.empty(12, 5)))
    assert torch.equal(table, whole)
    flat = elsewhere(torch.empty(40))
    _fill_flat(FlatShard("w", flat, 7, (12, 5)), init, ni.Key(3))
    assert torch.equal(flat, whole.flatten()[7:47])
    assert calls == [60, 40] if isinstance(init, ni.Orthogonal) else max(calls) == 16
