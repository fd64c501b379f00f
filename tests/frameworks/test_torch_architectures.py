"""Small models of transformers: what the trace makes has the distribution of what the model makes.

Every tensor of a model is made by its own constructor with `SEEDS` seeds, and by the trace of that
constructor with as many. An element that is the same for all seeds is a constant: both must have the
same constants, to the bit. All other elements of a tensor are two samples, which are compared by the
test of Kolmogorov and Smirnov. These are fewer than 500 tests, each with a false-alarm rate of
`ALPHA`: if all distributions are right, any of them fails with a probability below 0.0005. The seeds
are fixed.
"""

import numpy as np
import pytest

import numinit as ni

torch = pytest.importorskip("torch")
tf = pytest.importorskip("transformers", minversion="5")
stats = pytest.importorskip("scipy.stats")
from numinit.torch import init_module, trace  # noqa: E402  # after torch was found

SEEDS = 3
ALPHA = 1e-6

TEXT = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96,
    "vocab_size": 256,
}  # fmt: skip
DECODER = TEXT | {"num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 64}
VISION = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96,
    "image_size": 32, "patch_size": 8,
}  # fmt: skip
SEQUENCES = {
    "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 96,
    "decoder_ffn_dim": 96, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "vocab_size": 256, "pad_token_id": 1, "bos_token_id": 1, "eos_token_id": 2,
    "decoder_start_token_id": 3,
}  # fmt: skip

#: A model's class and the fields of its configuration, by the name of its family.
MODELS = {
    "bart": ("BartForConditionalGeneration", SEQUENCES | {"max_position_embeddings": 64}),
    "bert": ("BertForPreTraining", TEXT | {"max_position_embeddings": 64}),
    "bloom": ("BloomForCausalLM", {"hidden_size": 64, "n_layer": 2, "n_head": 4, "vocab_size": 256}),
    "clip": (
        "CLIPModel",
        {
            "text_config": TEXT | {"max_position_embeddings": 32, "projection_dim": 32},
            "vision_config": VISION | {"projection_dim": 32},
            "projection_dim": 32,
        },
    ),
    "convnext": (
        "ConvNextForImageClassification",
        {"hidden_sizes": [32, 64], "depths": [2, 2], "num_stages": 2},
    ),
    "deberta_v2": (
        "DebertaV2ForMaskedLM",
        TEXT | {"max_position_embeddings": 64, "relative_attention": True},
    ),
    "deepseek_v3": (
        "DeepseekV3ForCausalLM",
        TEXT
        | {
            "num_key_value_heads": 2, "max_position_embeddings": 64, "n_routed_experts": 4,
            "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1,
            "moe_intermediate_size": 48, "kv_lora_rank": 32, "q_lora_rank": 32,
            "qk_rope_head_dim": 16, "qk_nope_head_dim": 16, "v_head_dim": 16,
        },
    ),
    "falcon": ("FalconForCausalLM", {k: v for k, v in TEXT.items() if k != "intermediate_size"}),
    "gemma2": ("Gemma2ForCausalLM", DECODER),
    "gpt2": (
        "GPT2LMHeadModel",
        {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 256, "n_positions": 64},
    ),
    "gpt_oss": (
        "GptOssForCausalLM",
        DECODER | {"num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "llama": ("LlamaForCausalLM", DECODER),
    "mamba": (
        "MambaForCausalLM",
        {
            "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 256,
            "rescale_prenorm_residual": True,
        },
    ),
    "mamba2": (
        "Mamba2ForCausalLM",
        {
            "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 256, "num_heads": 8,
            "head_dim": 16, "state_size": 16, "n_groups": 2,
        },
    ),
    "mixtral": ("MixtralForCausalLM", DECODER | {"num_local_experts": 4}),
    "opt": (
        "OPTForCausalLM",
        {
            "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 96,
            "vocab_size": 256, "max_position_embeddings": 64, "word_embed_proj_dim": 64,
        },
    ),
    "qwen2": ("Qwen2ForCausalLM", DECODER),
    "qwen3_moe": (
        "Qwen3MoeForCausalLM",
        DECODER | {"num_experts": 4, "moe_intermediate_size": 48, "num_experts_per_tok": 2},
    ),
    "resnet": (
        "ResNetForImageClassification",
        {"embedding_size": 32, "hidden_sizes": [32, 64], "depths": [2, 2]},
    ),
    "rwkv": (
        "RwkvForCausalLM",
        {
            "hidden_size": 64, "attention_hidden_size": 64, "num_hidden_layers": 2,
            "vocab_size": 256,
        },
    ),
    "swinv2": (
        "Swinv2ForImageClassification",
        {
            "embed_dim": 32, "depths": [2, 2], "num_heads": [2, 4], "image_size": 32,
            "patch_size": 4, "window_size": 4,
        },
    ),
    "t5": (
        "T5ForConditionalGeneration",
        {
            "d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 2, "num_heads": 4,
            "vocab_size": 256,
        },
    ),
    "vit": ("ViTForImageClassification", VISION),
    "wav2vec2": (
        "Wav2Vec2ForPreTraining",
        {
            "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
            "intermediate_size": 96, "conv_dim": (32, 32), "conv_kernel": (3, 3),
            "conv_stride": (2, 2), "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 8,
            "num_conv_pos_embedding_groups": 4, "codevector_dim": 32, "proj_codevector_dim": 32,
        },
    ),
    "whisper": (
        "WhisperForConditionalGeneration",
        SEQUENCES | {"max_source_positions": 64, "max_target_positions": 32},
    ),
}  # fmt: skip

#: Those whose own functions do not say all: a value that only the constructor knows, or a weight that
#: is computed from others, which transformers initializes instead of these.
ONLY_BY_CONSTRUCTOR = {"clip", "wav2vec2"}

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning")]


def maker(name):
    kind, fields = MODELS[name]
    model = getattr(tf, kind)
    config = model.config_class(**fields)
    return lambda: model(config)


def values(module):
    named = [*module.named_parameters(), *module.named_buffers()]
    return {name: tensor.detach().clone().numpy() for name, tensor in named}


def compare(make, traced):
    theirs, ours = [], []
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        theirs.append(values(make()))
        ours.append(values(init_module(traced.module, traced, seed=seed)))
    assert theirs[0].keys() == ours[0].keys()
    for key in theirs[0]:
        a, b = (np.stack([one[key] for one in sample]) for sample in (theirs, ours))
        assert a.dtype == b.dtype and a.shape == b.shape, key
        constant = (a == a[0]).all(0)
        assert ((b == b[0]).all(0) == constant).all(), key
        assert a[:, constant].tobytes() == b[:, constant].tobytes(), key
        if not constant.all():
            found = stats.ks_2samp(a[:, ~constant].ravel(), b[:, ~constant].ravel())
            assert found.pvalue > ALPHA, (key, found)


@pytest.mark.parametrize("name", MODELS)
def test_the_trace_makes_what_the_model_makes(name):
    make = maker(name)
    traced = trace(make)
    assert not traced.uninitialized
    compare(make, traced)


def test_a_wrong_distribution_is_seen():
    make = maker("llama")
    traced = trace(make)
    weight = traced.tensors["model.embed_tokens.weight"]
    object.__setattr__(weight, "initializer", ni.Normal(std=1.1 * weight.initializer.std))
    with pytest.raises(AssertionError, match="embed_tokens"):
        compare(make, traced)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_on_the_meta_device(name):
    make = maker(name)
    traced = trace(make)
    whole = init_module(traced.module, traced, seed=0).state_dict()
    with torch.device("meta"):
        module = make()
    if name in ONLY_BY_CONSTRUCTOR:
        with pytest.raises(ValueError, match="nothing initializes"):
            init_module(module, seed=0)
        return
    module = init_module(module, seed=0)
    state = module.state_dict()
    assert state.keys() == whole.keys()
    for key, tensor in whole.items():
        assert torch.equal(state[key], tensor), key
    ties = [key for key, first in traced.names.items() if key != first]
    for key in ties:
        first = traced.names[key]
        assert module.get_parameter(key) is module.get_parameter(first), key


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "qwen3_moe", "resnet", "t5", "vit"])
def test_the_recipe_in_a_file(name, tmp_path):
    from numinit.models.sources import load_shapes
    from numinit.models.verify import verify
    from numinit.models.write import write

    traced = trace(maker(name))
    state = init_module(traced.module, traced, seed=7).state_dict()
    (recipe := tmp_path / "traced.toml").write_text(traced.toml(), encoding="utf-8")
    write(path := tmp_path / "model.safetensors", traced.specs(), str(recipe), 7)
    verify(path)
    params = ni.init_params(path, recipe, seed=7)
    assert load_shapes(path).keys() == params.keys() == traced.specs().keys()
    for key, array in params.items():
        assert state[key].numpy().tobytes() == array.tobytes(), key
