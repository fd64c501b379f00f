"""The activations that numinit knows by name, as torch defines them, in NumPy."""

import math

import numpy as np
from scipy.special import erf, expit

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def softplus(z):
    return np.logaddexp(0, z)


def leaky(slope):
    return lambda z: np.where(z > 0, z, slope * z)


def elu(z):
    return np.where(z > 0, z, np.expm1(np.minimum(z, 0)))


ACTIVATIONS = {
    "linear": lambda z: z,
    "identity": np.positive,
    "relu": lambda z: np.maximum(z, 0),
    "leaky_relu": leaky(0.01),
    "prelu": leaky(0.25),
    "relu6": lambda z: np.clip(z, 0, 6),
    "tanh": np.tanh,
    "sigmoid": expit,
    "hardtanh": lambda z: np.clip(z, -1, 1),
    "hardsigmoid": lambda z: np.clip(z / 6 + 0.5, 0, 1),
    "softsign": lambda z: z / (1 + abs(z)),
    "elu": elu,
    "celu": elu,
    "selu": lambda z: SELU_SCALE * np.where(z > 0, z, SELU_ALPHA * np.expm1(np.minimum(z, 0))),
    "softplus": softplus,
    "logsigmoid": lambda z: -softplus(-z),
    "gelu": lambda z: z * (1 + erf(z / math.sqrt(2))) / 2,
    "gelu_tanh": lambda z: z * (1 + np.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))) / 2,
    "silu": lambda z: z * expit(z),
    "swish": lambda z: z * expit(z),
    "mish": lambda z: z * np.tanh(softplus(z)),
    "hardswish": lambda z: z * np.clip(z / 6 + 0.5, 0, 1),
    "tanhshrink": lambda z: z - np.tanh(z),
    "softshrink": lambda z: np.where(abs(z) > 0.5, z - 0.5 * np.sign(z), 0),
    "hardshrink": lambda z: np.where(abs(z) > 0.5, z, 0),
}
