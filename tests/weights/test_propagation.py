"""What gains are for: the variance of activations, and of gradients, through fifty layers.

The variance q of a layer's inputs maps to V(q) = gain**2 E[f(sqrt(q) z)**2], and the gain makes
V(1) = 1. Whether noise of a finite width dies out from layer to layer is another matter: it does
where d ln V / d ln q <= 1 at 1, and is amplified by that slope in every layer where it is more, by
any initialization that has only a gain to choose (Poole et al., NIPS 2016; Schoenholz et al., ICLR
2017). The same holds backward, where the factor is gain**2 E[f'(z)**2] in each layer.
"""

import math

import numpy as np
import pytest

import numinit as ni

WIDTH, DEPTH, SAMPLES = 1024, 50, 4
# Where the slope is 1, the noise of the layers adds up: the logarithm of one network's variance is
# off by 0.07 sqrt(layers). What an initialization keeps is the mean over networks.
NETWORKS = 6


def sigmoid(z):
    return (1 + np.tanh(z / 2)) / 2


def softplus(z):
    return np.logaddexp(z, 0)


def normal_cdf(z):
    return (1 + np.vectorize(math.erf, otypes=[float])(z / math.sqrt(2))) / 2


#: name: the activation, and the slope d ln V / d ln q at q = 1
ACTIVATIONS = {
    "identity": (lambda z: z, 1.0),
    "relu": (lambda z: np.maximum(z, 0), 1.0),
    "leaky_relu": (lambda z: np.where(z > 0, z, 0.01 * z), 1.0),
    "prelu": (lambda z: np.where(z > 0, z, 0.25 * z), 1.0),
    "relu6": (lambda z: np.clip(z, 0, 6), 1.0),
    "elu": (lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))), 0.891),
    "selu": (lambda z: 1.0507009873554805 * np.where(z > 0, z, 1.6732632423543772 * np.expm1(np.minimum(z, 0))), 0.783),
    "tanh": (np.tanh, 0.461),
    "sigmoid": (sigmoid, 0.106),
    "softplus": (softplus, 0.492),
    "softsign": (lambda z: z / (1 + abs(z)), 0.477),
    "hardtanh": (lambda z: np.clip(z, -1, 1), 0.385),
    "hardsigmoid": (lambda z: np.clip(z / 6 + 0.5, 0, 1), 0.097),
    "gelu": (lambda z: z * normal_cdf(z), 1.144),
    "gelu_tanh": (lambda z: z / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))), 1.143),
    "silu": (lambda z: z * sigmoid(z), 1.173),
    "mish": (lambda z: z * np.tanh(softplus(z)), 1.076),
    "hardswish": (lambda z: z * np.clip(z + 3, 0, 6) / 6, 1.224),
}  # fmt: skip
STABLE = [name for name, (_, slope) in ACTIVATIONS.items() if slope <= 1]
AMPLIFYING = [name for name, (_, slope) in ACTIVATIONS.items() if slope > 1]


def weight(name, layer, mode="fan_in", network=0):
    """A layer's weight with the gain that keeps the variance, asked for by the function itself."""
    torchs_own = name in ("sigmoid", "tanh", "selu")
    nonlinearity = ACTIVATIONS[name][0] if torchs_own else name
    init = ni.KaimingNormal(None, mode, nonlinearity)
    return init((WIDTH, WIDTH), seed=ni.Key(network).fold_in(name).fold_in(layer))


def inputs():
    return ni.Normal()((WIDTH, SAMPLES), seed=1)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_gain_is_that_of_the_function(name):
    function, slope = ACTIVATIONS[name]
    assert ni.variance_gain(name) == pytest.approx(ni.variance_gain(function), rel=1e-10)

    def variance(q):
        return 1 / ni.variance_gain(lambda z: function(math.sqrt(q) * z)) ** 2

    found = math.log(variance(1.001) / variance(0.999)) / math.log(1.001 / 0.999)
    assert found == pytest.approx(slope, abs=2e-3)


@pytest.mark.parametrize("name", STABLE)
def test_activations_keep_their_variance(name):
    function, slope = ACTIVATIONS[name]
    networks = [inputs()] * (NETWORKS if slope == 1 else 1)
    for layer in range(DEPTH):
        networks = [
            weight(name, layer, network=n) @ function(z).astype(np.float32)
            for n, z in enumerate(networks)
        ]
        assert 0.5 < np.mean([z.var() for z in networks]) < 2, layer


@pytest.mark.parametrize("name", AMPLIFYING)
def test_normalized_activations_keep_their_variance(name):
    """Each of fifty layers, given inputs of variance 1, as a normalization layer makes them."""
    z = inputs()
    for layer in range(DEPTH):
        z = weight(name, layer) @ ACTIVATIONS[name][0](z / z.std()).astype(np.float32)
        assert 0.5 < z.var() < 2, layer


@pytest.mark.parametrize("name", AMPLIFYING)
def test_noise_grows_as_the_slope_says(name):
    """Started 2% too wide, they leave the factor of 2 within fifty layers; the stable ones return."""
    function, slope = ACTIVATIONS[name]
    q = 1.02
    for _ in range(DEPTH):
        q /= (ni.variance_gain(lambda z, q=q: function(math.sqrt(q) * z)) / ni.variance_gain(name)) ** 2 * q  # fmt: skip
    assert q > 2 if slope > 1.1 else q > 1.3


#: name: (derivative, gain**2 E[f'(z)**2])
DERIVATIVES = {
    "identity": (np.ones_like, 1.0),
    "relu": (lambda z: (z > 0) * 1.0, 1.0),
    "leaky_relu": (lambda z: np.where(z > 0, 1, 0.01), 1.0),
    "prelu": (lambda z: np.where(z > 0, 1, 0.25), 1.0),
    "relu6": (lambda z: ((z > 0) & (z < 6)) * 1.0, 1.0),
    "elu": (lambda z: np.where(z > 0, 1, np.exp(np.minimum(z, 0))), 1.036),
    "tanh": (lambda z: 1 - np.tanh(z) ** 2, 1.178),
    "softsign": (lambda z: (1 + abs(z)) ** -2.0, 1.244),
    "hardtanh": (lambda z: (abs(z) < 1) * 1.0, 1.323),
}


@pytest.mark.parametrize("name", DERIVATIVES)
def test_gradients(name):
    """In fan_out mode they keep their variance where f is homogeneous; else they grow as predicted."""
    derivative, factor = DERIVATIVES[name]
    mean_square = 1 / ni.variance_gain(derivative) ** 2
    assert ni.variance_gain(name) ** 2 * mean_square == pytest.approx(factor, abs=1e-3)
    variances = np.zeros((NETWORKS if factor == 1 else 1, DEPTH))
    for network, row in enumerate(variances):
        z, layers = inputs(), []
        for layer in range(DEPTH):
            layers.append((weight(name, layer, "fan_out", network), z))
            z = layers[-1][0] @ ACTIVATIONS[name][0](z).astype(np.float32)
        gradient = ni.Normal()(z.shape, seed=2)
        for depth, (w, z) in enumerate(reversed(layers)):
            gradient = (w.T @ gradient) * derivative(z).astype(np.float32)
            row[depth] = np.square(gradient).mean()
    mean = variances.mean(0)
    if factor == 1:
        assert (mean > 0.5).all() and (mean < 2).all()
    else:  # the exponent to a tenth, and a factor for the noise of the first layers
        expected = np.arange(1, DEPTH + 1) * math.log(factor)
        assert (abs(np.log(mean) - expected) < 0.1 * expected + 0.4).all()
