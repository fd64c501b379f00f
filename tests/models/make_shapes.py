"""Make the JSON files of shipped models from public configs: ``python tests/models/make_shapes.py``.

Each model is built on the meta device by the library that its checkpoint is for. The names are those
that its `save_pretrained` writes, tied tensors once. A config is written as what differs from the
library's defaults. The files of ResNet, ViT and DLRM are older than this script, and stay as they are.
"""

import importlib
import itertools
import json
import math
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parents[2] / "numinit" / "models" / "data" / "models"
NUMBER = re.compile(r"(?<=\.)([0-9]+)(?=\.)")

Shapes = list[tuple[str, list[int]]]


class Public(NamedTuple):
    """A model with a public config."""

    page: str
    """Where its config.json is on huggingface.co."""
    recipe: str
    kind: str
    """The class of the model."""
    config: str
    """The class of its config."""
    numbers: dict[str, Any] = {}  # noqa: RUF012
    """What config.json has that differs from the defaults and matters for shapes."""
    library: str = "transformers"
    prefixed: bool = False
    """Whether what transformers calls a `PrefixChange` makes the published names."""


MODELS = {
    "bert-base": Public(
        "google-bert/bert-base-uncased", "bert", "BertModel", "BertConfig"
    ),
    "clip-vit-base-patch32": Public(
        "openai/clip-vit-base-patch32", "clip", "CLIPModel", "CLIPConfig"
    ),
    "convnext-tiny": Public(
        "facebook/convnext-tiny-224", "convnext", "ConvNextForImageClassification",
        "ConvNextConfig", {"num_labels": 1000},
    ),
    "deepseek-v3": Public(
        "deepseek-ai/DeepSeek-V3", "deepseek-v3", "DeepseekV3ForCausalLM", "DeepseekV3Config"
    ),
    "gemma-3-1b": Public(
        "google/gemma-3-1b-pt", "gemma3", "Gemma3ForCausalLM", "Gemma3TextConfig",
        {
            "vocab_size": 262144, "hidden_size": 1152, "intermediate_size": 6912,
            "num_hidden_layers": 26, "num_attention_heads": 4, "num_key_value_heads": 1,
            "head_dim": 256,
        },
    ),
    "gemma-3-4b": Public(
        "google/gemma-3-4b-pt", "gemma3", "Gemma3ForConditionalGeneration", "Gemma3Config",
        {
            "text_config": {
                "vocab_size": 262208, "hidden_size": 2560, "intermediate_size": 10240,
                "num_hidden_layers": 34, "num_attention_heads": 8, "num_key_value_heads": 4,
                "head_dim": 256,
            },
            "vision_config": {
                "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27,
                "num_attention_heads": 16, "image_size": 896, "patch_size": 14,
                "vision_use_head": False,
            },
        },
        prefixed=True,
    ),
    "gpt2-small": Public("openai-community/gpt2", "gpt2", "GPT2LMHeadModel", "GPT2Config"),
    "llama-3.1-8b": Public(
        "meta-llama/Llama-3.1-8B", "llama", "LlamaForCausalLM", "LlamaConfig",
        {"vocab_size": 128256, "intermediate_size": 14336, "num_key_value_heads": 8},
    ),
    "mamba-130m": Public(
        "state-spaces/mamba-130m-hf", "mamba", "MambaForCausalLM", "MambaConfig",
        {"num_hidden_layers": 24},
    ),
    "mixtral-8x7b": Public(
        "mistralai/Mixtral-8x7B-v0.1", "llama", "MixtralForCausalLM", "MixtralConfig"
    ),
    "qwen3-8b": Public(
        "Qwen/Qwen3-8B", "llama", "Qwen3ForCausalLM", "Qwen3Config",
        {"intermediate_size": 12288, "num_hidden_layers": 36, "num_key_value_heads": 8},
    ),
    "stable-diffusion-1.5-unet": Public(
        "stable-diffusion-v1-5/stable-diffusion-v1-5/unet", "stable-diffusion-unet",
        "UNet2DConditionModel", "",
        {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}, "diffusers",
    ),
    "swinv2-tiny": Public(
        "microsoft/swinv2-tiny-patch4-window8-256", "swinv2", "Swinv2ForImageClassification",
        "Swinv2Config", {"image_size": 256, "window_size": 8, "num_labels": 1000},
    ),
    "t5-base": Public(
        "google-t5/t5-base", "t5", "T5ForConditionalGeneration", "T5Config",
        {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12},
    ),
    "wav2vec2-base": Public(
        "facebook/wav2vec2-base", "wav2vec2", "Wav2Vec2ForPreTraining", "Wav2Vec2Config",
    ),
    "whisper-small.en": Public(
        "openai/whisper-small.en", "whisper", "WhisperForConditionalGeneration", "WhisperConfig",
        {
            "vocab_size": 51864, "d_model": 768, "encoder_layers": 12, "decoder_layers": 12,
            "encoder_attention_heads": 12, "decoder_attention_heads": 12, "encoder_ffn_dim": 3072,
            "decoder_ffn_dim": 3072,
        },
    ),
}  # fmt: skip


def built(public: Public) -> Any:
    """A model without its memory."""
    import torch

    library = importlib.import_module(public.library)
    kind = getattr(library, public.kind)
    with torch.device("meta"):
        if public.config:
            return kind(getattr(library, public.config)(**public.numbers))
        return kind(**public.numbers)


def shapes_of(public: Public) -> Shapes:
    """The names and shapes of a model's checkpoint."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import revert_weight_conversion

    model = built(public)
    state = model.state_dict()
    if public.library == "transformers":
        state = {n: t for n, t in state.items() if n not in model.all_tied_weights_keys}
        if public.prefixed:  # as if it had been loaded: one made new is saved without prefixes
            model._weight_conversions = get_model_conversion_mapping(model, add_legacy=False)
        if (saved := revert_weight_conversion(model, state)).keys() != state.keys():
            # Of many experts; their order is that of names, and of numbers in them.
            parts = {n: [int(p) if p.isdigit() else p for p in n.split(".")] for n in saved}
            state = {n: saved[n] for n in sorted(saved, key=lambda n: _order(parts[n]))}
    return [(name, list(tensor.shape)) for name, tensor in state.items()]


def _order(parts: list[str | int]) -> list[tuple[int, str]]:
    """Parts of a name as what sorts: numbers as such."""
    return [(part, "") if isinstance(part, int) else (-1, part) for part in parts]


def folded(shapes: Shapes) -> Shapes:
    """The same with ranges in the names, where layers or experts that follow one another are alike."""
    made: Shapes = []
    layers: list[tuple[str, int, int, Shapes]] = []  # what comes before, a range, what follows

    def head(entry: tuple[str, list[int]]) -> list[str]:
        return NUMBER.split(entry[0], maxsplit=1)[:-1]

    for key, group in itertools.groupby(shapes, head):
        if not key:
            layers += [(name, 0, -1, [("", shape)]) for name, shape in group]
            continue
        before, number = key[0], int(key[1])
        rest = folded([(NUMBER.split(name, maxsplit=1)[-1], shape) for name, shape in group])
        if layers and (layers[-1][0], layers[-1][2], layers[-1][3]) == (before, number - 1, rest):
            layers[-1] = before, layers[-1][1], number, rest
        else:
            layers.append((before, number, number, rest))
    for before, first, last, rest in layers:
        number = "" if last < first else f"{{{first}-{last}}}" if first < last else str(first)
        made += [(f"{before}{number}{name}", shape) for name, shape in rest]
    return made


def text_of(name: str, public: Public) -> str:
    """The text of a model's file."""
    shapes = shapes_of(public)
    head = {
        "model": name,
        "source": f"https://huggingface.co/{public.page}/config.json, {public.kind} of {public.library}",
        "recipe": public.recipe,
        "parameters": sum(math.prod(shape) for _, shape in shapes),
    }
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    tensors = [f"{json.dumps(name)}: {json.dumps(shape)}" for name, shape in folded(shapes)]
    joined = ",\n".join(tensors)
    return ",\n".join([*lines, f'"tensors": {{\n{joined}\n}}']).join(["{\n", "\n}\n"])


if __name__ == "__main__":
    for name in sys.argv[1:] or MODELS:
        FOLDER.joinpath(f"{name}.json").write_text(text_of(name, MODELS[name]), encoding="utf-8")
