"""Tables of torchrec, sharded by rows, whole and by columns, in two processes."""

import pytest
from helpers_torch import digest, in_processes

import numinit as ni

torch = pytest.importorskip("torch")
pytest.importorskip("torchrec")


def test_tables(tmp_path):
    given = in_processes(["tables"], 2, tmp_path)
    for name, rows in (("rows", 101), ("whole", 50), ("columns", 60)):
        key = ni.Key(0).fold_in(name)
        assert given[name] == digest(ni.EmbeddingUniform().fill_(torch.empty(rows, 8), seed=key))
