"""Initializers whose numbers are formulas."""

import math
import pickle

import pytest
from helpers import law_of

import numinit as ni
from numinit.initializers.formulated import Formulated, bound, formulas_of


def test_formulas_of_the_shape():
    init = Formulated(ni.Normal, std="size(1) ** -1 * size(-1) / 4", mean=0.5)
    assert law_of(init, (4, 8)) == ni.Normal(0.5, 0.25)
    assert law_of(Formulated(ni.Normal, std="1 / fan_in"), (4, 8)) == ni.Normal(std=0.125)
    conv = Formulated(ni.Normal, std="sqrt(fan_out) / fan_in")
    assert law_of(conv, (4, 2, 4, 1)) == ni.Normal(std=math.sqrt(16) / 8)
    jax = Formulated(ni.Normal, std="1 / fan_in", in_axis=-2, out_axis=-1)
    assert law_of(jax, (4, 8)) == ni.Normal(std=0.25)
    own = Formulated(ni.VarianceScaling, scale="fan_in / fan_out", in_axis=[0], out_axis=1)
    assert law_of(own, (4, 8)) == law_of(ni.VarianceScaling(0.5, in_axis=0, out_axis=1), (4, 8))
    a = Formulated(ni.KaimingUniform, a="sqrt(5)")
    assert law_of(a, (4, 8)) == law_of(ni.KaimingUniform(math.sqrt(5)), (4, 8))


def test_integers():
    init = Formulated(ni.KaimingNormal, groups="size(0) / 2", mode="fan_out")
    assert init.made((8, 1)) == ni.KaimingNormal(groups=4, mode="fan_out")
    with pytest.raises(ValueError, match=r"groups: formula 'size\(0\) / 2' gives 3.5; an integer"):
        init.made((7, 1))


def test_names_are_bound_wherever_they_are():
    init = ni.Padded(ni.DepthScaled(Formulated(ni.Normal, std="c / layers"), 2), 0)
    assert {formula.text for formula in formulas_of(init)} == {"c / layers"}
    half = bound(init, {"c": 3.0})
    whole = bound(half, {"layers": 6, "other": 1})
    assert whole.plan((3, 4), None).distribution == ni.Normal(std=0.25)
    assert bound(init, {"x": 1}) is init
    parts = ni.Parts([(1, ni.FromIndex("i + layers")), (None, ni.Ones())])
    assert bound(parts, {"layers": 2})((3,)).tolist() == [2, 1, 1]
    with pytest.raises(ValueError, match="'layers' has no value here"):
        half((3, 4))


def test_they_compare_and_travel():
    init = Formulated(ni.Normal, std="1 / size(0)", mean=1)
    assert init == Formulated(ni.Normal, mean=1, std="1 / size(0)")
    assert init != Formulated(ni.Normal, std="1/size(0)", mean=1)
    assert init != ni.Normal()
    assert len({init, pickle.loads(pickle.dumps(init))}) == 1
    assert repr(init) == "Formulated(Normal, mean=1, std='1 / size(0)')"
    with pytest.raises(AttributeError):
        init.kind = ni.Uniform


def test_what_is_refused():
    for arguments, fields, message in [
        ((3,), {}, "kind: 3 was given"),
        ((ni.Normal,), {"sd": "1"}, "Normal has no field 'sd'; accepted: mean, std"),
    ]:
        with pytest.raises(TypeError, match=message):
            Formulated(*arguments, **fields)
    for std, message in [("-1", "std: -1.0 was given"), ("1 / 0", "no finite number")]:
        with pytest.raises(ValueError, match=message):
            Formulated(ni.Normal, std=std)((3, 3))
    with pytest.raises(ValueError, match="Fan in and fan out"):
        Formulated(ni.Normal, std="fan_in")((3,))
    with pytest.raises(ValueError, match=r"formula '1 [+]': ends"):
        Formulated(ni.Normal, std="1 +")
