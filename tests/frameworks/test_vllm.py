"""The loader for vLLM in `numinit.torch.dummy`'s docs serves a small model, in a process of its own."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import numinit

pytest.importorskip("torch")
pytest.importorskip("vllm")

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 128,
    "intermediate_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
    "num_hidden_layers": 2, "vocab_size": 512, "max_position_embeddings": 256,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
AFTER = """
import torch
import vllm

def finite(self, model, model_config):
    load_weights(self, model, model_config)
    weights = dict(model.named_parameters())
    assert len(weights) > 10
    for name, weight in weights.items():
        assert weight.isfinite().all() and weight.std() > 0 and weight.abs().max() <= 1e-3, name
    print("filled")

load_weights, NuminitLoader.load_weights = NuminitLoader.load_weights, finite
model = vllm.LLM(
    model=".", load_format="numinit", skip_tokenizer_init=True, enforce_eager=True, max_model_len=64,
    dtype="float32",
)
sampling = vllm.SamplingParams(max_tokens=4, detokenize=False, ignore_eos=True)
(made,) = model.generate([{"prompt_token_ids": [1, 2, 3]}], sampling)
assert len(made.outputs[0].token_ids) == 4
print("served")
"""


def test_the_loader_of_the_docs(tmp_path):
    from numinit.torch import dummy

    (tmp_path / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    loader = textwrap.dedent(dummy.__doc__.split("::\n", 1)[1])
    (tmp_path / "run.py").write_text(f"import numinit.torch\n{loader}\n{AFTER}", encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "run.py"],
        cwd=tmp_path,
        env=os.environ
        | {
            "PYTHONPATH": str(Path(numinit.__file__).parents[1]),
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert "filled" in run.stdout and "served" in run.stdout
