"""Arrays of frameworks as memory that the engines fill, and new arrays.

NumPy arrays, torch tensors, and arrays on NVIDIA GPUs that export ``__cuda_array_interface__`` or
DLPack 1.0 are filled where they are. JAX, Keras and MLX have modules of their own: `numinit.jax`,
`numinit.keras`, `numinit.mlx`. Other frameworks take a NumPy array. In these examples ``key`` is
``ni.Key(0)``.

CuPy, on the GPU (with the extra cuda12 or cuda13)::

    import cupy

    weight = cupy.empty((64, 32), cupy.float32)
    ni.KaimingUniform().fill_(weight, seed=key.fold_in("layer.weight"))

PaddlePaddle, whose linear weights are (in, out)::

    import paddle

    layer = paddle.nn.Linear(32, 64)
    init = ni.KaimingUniform(in_axis=0, out_axis=1)
    layer.weight.set_value(init(layer.weight.shape, seed=key.fold_in("layer.weight")))

TensorFlow's variables, a large one part by part, so that no second copy of it is made::

    import tensorflow as tf

    weight = tf.Variable(tf.zeros((1000, 64)))
    for low in range(0, 1000, 250):
        part = np.s_[low : low + 250]
        rows = ni.Normal(std=0.01).block(weight.shape, part, seed=key.fold_in("table"))
        weight[part].assign(rows)

tinygrad, with torch's axes::

    from tinygrad import Tensor, nn

    layer = nn.Linear(32, 64)
    values = ni.KaimingUniform()(layer.weight.shape, seed=key.fold_in("layer.weight"))
    layer.weight.assign(Tensor(values)).realize()
"""
