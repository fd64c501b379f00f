"""Dummy weights: every type in place, the same everywhere, finite, and without temporaries."""

import tracemalloc

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from numinit.torch import dummy_  # noqa: E402

FLOATS = [
    "float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz",
    "float8_e5m2fnuz",
]  # fmt: skip
PACKED = ["uint8", "int32", "float4_e2m1fn_x2", "int4", "uint2", "uint7", "bits8"]
ZERO = ["int16", "int64", "uint16", "uint32", "uint64", "bool"]


def typed(names):
    return [name for name in names if hasattr(torch, name)]


def raw(tensor):
    return tensor.detach().contiguous().view(torch.uint8).numpy().tobytes()


def filled(shape, name, **more):
    """A tensor of a type, before a NaN or all ones, from the seed 3."""
    tensor = torch.empty(shape, dtype=getattr(torch, name))
    tensor.view(torch.uint8).fill_(255)
    return dummy_({"w": tensor}, seed=3, **more)["w"]


@pytest.mark.parametrize("name", typed(FLOATS))
def test_floats_are_small_finite_and_many(name):
    values = filled((300, 400), name).double()
    kind = getattr(torch, name)
    most = max(1e-3, 4 * torch.finfo(kind).smallest_normal) * (1 + torch.finfo(kind).eps)
    assert values.isfinite().all() and values.abs().max() <= most
    assert values.min() < -most / 2 and values.max() > most / 2
    assert len(values.unique()) > 30 and (values == 0).double().mean() < 0.05


@pytest.mark.parametrize("name", ["complex64", "complex128", "complex32"])
@pytest.mark.filterwarnings("ignore:ComplexHalf support")
def test_complex(name):
    values = torch.view_as_real(filled((40, 50), name)).double()
    assert values.isfinite().all() and values.abs().max() <= 1.001e-3 and values.std() > 4e-4


@pytest.mark.parametrize("name", typed(PACKED))
def test_packed_ones_have_any_bits(name):
    counts = np.bincount(np.frombuffer(raw(filled((256, 512), name)), np.uint8), minlength=256)
    expected = counts.sum() / 256
    assert abs(counts - expected).max() < 6 * expected**0.5


@pytest.mark.parametrize("name", typed(ZERO))
def test_counters_and_indices_are_zero(name):
    assert not any(raw(filled((7, 5), name)))


def test_the_other_integers():
    values = filled((300, 400), "int8")
    assert (values.min(), values.max()) == (-8, 7)
    counts = np.bincount(values.flatten().numpy() + 8)
    assert len(counts) == 16 and abs(counts - 7500).max() < 6 * 7500**0.5
    assert not filled((64,), "int32").any()  # an index or a counter
    if hasattr(torch, "float8_e8m0fnu"):
        assert (filled((3, 4), "float8_e8m0fnu").float() == 2.0**-10).all()


@pytest.mark.parametrize("name", typed(["float32", "float8_e4m3fnuz", "int8", "int32", "uint8"]))
def test_the_layout_changes_no_value(name):
    shape = (70, 3, 1024)  # several pieces
    plain = filled(shape, name)
    kind = getattr(torch, name)
    if name != "int32":  # whose bytes are drawn, in the order of the last axis
        turned = torch.empty(shape[::-1], dtype=kind).permute(2, 1, 0)
        assert raw(dummy_({"w": turned}, seed=3)["w"]) == raw(plain)
    spread = torch.empty(140, 3, 2048, dtype=kind)[::2, :, :1024]
    assert raw(dummy_({"w": spread}, seed=3)["w"]) == raw(plain)


def test_any_packed_layout_is_filled():
    turned = torch.zeros(64, 128, dtype=torch.int32).t()
    dummy_({"w": turned})
    assert (turned != 0).all(dim=0).any() and (turned == 0).double().mean() < 0.01
    apart = torch.zeros(4, 4, dtype=torch.int32)[::2, ::2]
    with pytest.raises(TypeError, match=r"^tensor 'w': its elements are apart on every axis"):
        dummy_({"w": apart})


def test_names_seeds_and_ties():
    state = {name: torch.empty(40) for name in ("a", "b")} | {"count": 3, "extra": None}
    assert dummy_(state, seed=1) is state
    assert not torch.equal(state["a"], state["b"])
    again = dummy_({"b": torch.empty(40)}, seed=1)
    assert torch.equal(state["b"], again["b"])
    assert not torch.equal(state["b"], dummy_({"b": torch.empty(40)}, seed=2)["b"])
    tied = torch.empty(40)
    dummy_({"a": tied, "b": tied.detach()}, seed=1)
    assert torch.equal(tied, state["a"])


def test_a_module_gives_a_finite_forward_pass():
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Flatten(),
        torch.nn.Linear(8 * 36, 4),
    )  # fmt: skip
    module.register_buffer("computed", torch.arange(3.0), persistent=False)
    for tensor in module.state_dict().values():
        tensor.view(-1).view(torch.uint8).fill_(255)
    assert dummy_(module, seed=0) is module
    module.eval()
    assert module(torch.ones(2, 3, 8, 8)).isfinite().all()
    assert (module[1].running_var > 0).all() and module[1].num_batches_tracked == 0
    assert module.computed.tolist() == [0, 1, 2]
    assert (dummy_({"bn.running_var": torch.empty(9)})["bn.running_var"] > 0).all()


def test_tensors_that_consist_of_others():
    from torch.testing._internal.two_tensor import TwoTensor

    inner = torch.empty(5, 4), torch.empty(5, 4)
    dummy_({"w": TwoTensor(*inner)}, seed=0)
    assert all(t.abs().max() <= 1e-3 and t.std() > 0 for t in inner)
    assert not torch.equal(*inner)


@pytest.mark.filterwarnings("ignore:.*deprecated")
def test_quantized():
    whole = torch.quantize_per_tensor(torch.zeros(30, 40), 0.1, 0, torch.qint8)
    steps = dummy_({"w": whole}, seed=0)["w"].int_repr()
    assert steps.min() < -5 and steps.max() > 5 and steps.abs().max() <= 8


def test_refused_before_anything_is_touched():
    good = torch.full((3,), 5.0)
    bad = {"meta": torch.empty(3, device="meta"), "sparse": torch.eye(3).to_sparse()}
    for name, tensor in bad.items():
        with pytest.raises((TypeError, ValueError), match=rf"^tensor '{name}': "):
            dummy_({"good": good, name: tensor})
    for bound in (-1, 0, float("nan"), float("inf"), "x"):
        with pytest.raises(ValueError, match=rf"^bound: '?{bound}'? was given"):
            dummy_({"good": good}, bound=bound)
    assert (good == 5).all()
    with pytest.raises(TypeError, match=r"^target: a list was given"):
        dummy_([good])


@pytest.mark.parametrize("name", typed(["float8_e4m3fn", "float8_e4m3fnuz", "int8"]))
def test_no_temporary(name):
    resource = pytest.importorskip("resource")
    tensor = torch.empty(1 << 26, dtype=getattr(torch, name))
    tensor.view(torch.uint8).fill_(1)
    dummy_({"w": tensor[: 1 << 17]})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    dummy_({"w": tensor})
    python = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 16 << 10 and python < 4 << 20


@pytest.mark.parametrize("name", typed(["float32", "float8_e4m3fnuz", "int8", "int32", "uint8"]))
def test_another_device_has_the_same_values(monkeypatch, name):
    from numinit.torch import devices, dummy

    plain = filled((70, 300), name)
    near = []
    own = dummy.Initializer.fill_, dummy.Initializer._fill_as

    def note(number):
        def fill(self, *args, **kwargs):
            near.append(next(a for a in args if isinstance(a, torch.Tensor)).numel())
            return own[number](self, *args, **kwargs)

        return fill

    for module in (devices, dummy):
        monkeypatch.setattr(module, "direct", lambda device: False)
    monkeypatch.setattr(devices, "PIECE", 1000)
    monkeypatch.setattr(dummy.Initializer, "fill_", note(0))
    monkeypatch.setattr(dummy.Initializer, "_fill_as", note(1))
    assert raw(filled((70, 300), name)) == raw(plain)
    assert near and (max(near) <= 1000 or name == "float8_e4m3fnuz")  # rounded from float32
