"""Keras' layouts on JAX's devices in the place of GPUs, under Numba's simulator: run by test_keras.

Each shard is filled by the kernel for GPUs, in memory that JAX allocated. Prints OK at the end.
"""

import keras
import numpy as np

import numinit.keras as nk
from numinit.engines import cuda_driver
from numinit.jax import arrays


def main():
    filled = []
    arrays.ordinal_of = lambda device: device.id
    cuda_driver.wait = lambda ordinal: None
    on_gpu = arrays.on_gpu

    def spy(*args, **kwargs):
        made = on_gpu(*args, **kwargs)
        filled.append((next(iter(made.devices())).id, made.shape))
        return made

    arrays.on_gpu = spy
    mesh = keras.distribution.DeviceMesh((2, 2), axis_names=("batch", "model"))
    layouts = keras.distribution.LayoutMap(mesh)
    layouts["kernel"] = keras.distribution.TensorLayout([None, "model"])
    init = nk.HeNormal(seed=7)
    with keras.distribution.ModelParallel(layout_map=layouts).scope():
        kernel = keras.Variable(init, (4, 6), "float32", name="kernel")
    assert (np.asarray(kernel.value) == init.numinit((4, 6), seed=7)).all()
    assert sorted(filled) == [(device, (4, 3)) for device in range(4)]
    print("OK")


if __name__ == "__main__":
    main()
