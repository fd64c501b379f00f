"""A plugin of pytest: Keras' own tests of initializers, with numinit's classes in place of Keras'."""

import sys
import types
from pathlib import Path

import keras
import pytest
from keras.src import initializers

import numinit.keras

#: The folder of Keras' tests, which its wheel has.
FOLDER = Path(initializers.__file__).parent


def skip_if_backend(name, reason):
    return pytest.mark.skipif(keras.backend.backend() == name, reason=reason)


# Keras' tests import it from the `conftest` of Keras' repository.
sys.modules["conftest"] = types.ModuleType("conftest")
sys.modules["conftest"].skip_if_backend = skip_if_backend


def pytest_configure(config):
    config.addinivalue_line("markers", "multi_device: needs several devices")


@pytest.fixture(autouse=True)
def numinits_classes(request, monkeypatch):
    if request.path.parent != FOLDER:
        return
    registered = keras.saving.get_custom_objects()  # no scope, which Keras' tests clear
    for name, kind in numinit.keras.NAMES.items():
        monkeypatch.setitem(registered, name, kind)
        if hasattr(initializers, name):
            monkeypatch.setattr(initializers, name, kind)
