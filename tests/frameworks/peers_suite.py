"""A plugin of pytest: JAX's and MLX's own tests of initializers, with numinit's in place of theirs.

Keras' wheel has Keras' tests, which test_keras runs. For the others take the files of the installed
versions, ``tests/nn_test.py`` of JAX, ``python/tests/test_init.py`` and ``mlx_tests.py`` of MLX::

    PYTHONPATH=tests/frameworks python -m pytest -p peers_suite -c /dev/null nn_test.py -k Initializers
    PYTHONPATH=tests/frameworks:FOLDER python -m pytest -p peers_suite -c /dev/null FOLDER/test_init.py

`JAX_ENABLE_X64=1` runs JAX's with x64.
"""

import importlib
import inspect

PEERS = {
    "nn_test.py": ("jax.nn.initializers", "numinit.jax.initializers"),
    "test_init.py": ("mlx.nn.init", "numinit.mlx"),
}


def pytest_collect_file(file_path):
    if file_path.name not in PEERS:
        return
    peer, ours = map(importlib.import_module, PEERS[file_path.name])
    for name, value in vars(ours).items():
        if inspect.isfunction(value) and value.__module__ == ours.__name__ and name[0] != "_":
            assert hasattr(peer, name), name
            setattr(peer, name, value)
