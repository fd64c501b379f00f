"""Shipped recipes against the libraries' own initialization, each tensor as a sample of its law.

A draw is compared by two tests, each of which fails by chance with probability ALPHA: of some
thousand tensors, less than once in 400 seeds, and the seeds are fixed.
"""

import numpy as np
import pytest

from numinit.models import recipes
from numinit.models.adapters import lora_shapes
from numinit.models.init_params import init_params
from numinit.models.sources import InputError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
stats = pytest.importorskip("scipy.stats")

ALPHA = 1e-6

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own

DECODER = {
    "vocab_size": 128, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip
ENCODER = {
    "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
}  # fmt: skip


def of(model, config, **numbers):
    """A model of transformers."""
    return getattr(transformers, model)(getattr(transformers, config)(**numbers))


def clip():
    text = ENCODER | {"hidden_size": 64, "num_hidden_layers": 3, "vocab_size": 128}
    text |= {"max_position_embeddings": 20, "bos_token_id": 1, "eos_token_id": 2}
    vision = ENCODER | {"num_hidden_layers": 5, "image_size": 32, "patch_size": 8}
    return of("CLIPModel", "CLIPConfig", text_config=text, vision_config=vision, projection_dim=40)


def convnext():
    return of(
        "ConvNextForImageClassification", "ConvNextConfig", hidden_sizes=[16, 24, 32, 40],
        depths=[1, 1, 2, 1], num_labels=10,
    )  # fmt: skip


def convnextv2():
    return of(
        "ConvNextV2ForImageClassification", "ConvNextV2Config", hidden_sizes=[16, 24, 32, 40],
        depths=[1, 1, 2, 1], num_labels=10,
    )  # fmt: skip


def deepseek_v3():
    return of(
        "DeepseekV3ForCausalLM", "DeepseekV3Config", **DECODER | {"num_key_value_heads": 4},
        moe_intermediate_size=32, n_routed_experts=4, n_shared_experts=1, kv_lora_rank=24,
        q_lora_rank=40, qk_rope_head_dim=8, qk_nope_head_dim=16, v_head_dim=16, n_group=2,
        topk_group=1, num_experts_per_tok=2, first_k_dense_replace=1,
    )  # fmt: skip


def gemma3_text():
    return of("Gemma3ForCausalLM", "Gemma3TextConfig", **DECODER, head_dim=24)


def gemma3():
    return of(
        "Gemma3ForConditionalGeneration", "Gemma3Config", text_config=DECODER | {"head_dim": 24},
        vision_config=ENCODER | {"image_size": 32, "patch_size": 8, "vision_use_head": False},
        mm_tokens_per_image=16, image_token_index=3, boi_token_index=4, eoi_token_index=5,
    )  # fmt: skip


def mamba():
    return of(
        "MambaForCausalLM", "MambaConfig", vocab_size=128, hidden_size=64, state_size=8,
        num_hidden_layers=4,
    )  # fmt: skip


def mixtral():
    return of("MixtralForCausalLM", "MixtralConfig", **DECODER, num_local_experts=4)


def qwen3():
    return of("Qwen3ForCausalLM", "Qwen3Config", **DECODER, head_dim=24)


def stable_diffusion_unet():
    diffusers = pytest.importorskip("diffusers", reason="diffusers has the UNet to compare with")
    return diffusers.UNet2DConditionModel(
        sample_size=8, block_out_channels=(16, 32), layers_per_block=1, cross_attention_dim=24,
        attention_head_dim=2, norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), num_class_embeds=8,
    )  # fmt: skip


def swinv2():
    return of(
        "Swinv2ForImageClassification", "Swinv2Config", image_size=32, patch_size=2, embed_dim=24,
        depths=[1, 2], num_heads=[2, 4], window_size=4, num_labels=10, use_absolute_embeddings=True,
    )  # fmt: skip


def t5():
    return of(
        "T5ForConditionalGeneration", "T5Config", vocab_size=128, d_model=48, d_kv=16, d_ff=96,
        num_layers=2, num_heads=4, num_decoder_layers=3,
    )  # fmt: skip


def t5_gated():
    return of(
        "T5ForSequenceClassification", "T5Config", vocab_size=128, d_model=48, d_kv=16, d_ff=96,
        num_layers=1, num_heads=4, feed_forward_proj="gated-gelu", num_labels=3,
    )  # fmt: skip


def wav2vec2():
    return of(
        "Wav2Vec2ForPreTraining", "Wav2Vec2Config", **ENCODER, conv_dim=(24, 24, 24),
        conv_kernel=(10, 3, 3), conv_stride=(5, 2, 2), conv_bias=True, num_feat_extract_layers=3,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, codevector_dim=16,
        proj_codevector_dim=16, num_codevectors_per_group=20,
    )  # fmt: skip


def whisper():
    return of(
        "WhisperForConditionalGeneration", "WhisperConfig", vocab_size=128, d_model=64,
        encoder_layers=2, decoder_layers=3, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=96, decoder_ffn_dim=96, num_mel_bins=16, max_source_positions=30,
        max_target_positions=20, pad_token_id=7, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=3,
    )  # fmt: skip


FAMILIES = {  # how a model is made, its recipe, and what differs from that in a small model
    clip: ("clip",),
    convnext: ("convnext",),
    convnextv2: ("convnext",),
    deepseek_v3: ("deepseek-v3",),
    gemma3: ("gemma3",),
    gemma3_text: ("gemma3",),
    mamba: ("mamba",),
    mixtral: ("llama",),
    qwen3: ("llama",),
    stable_diffusion_unet: ("stable-diffusion-unet",),
    swinv2: ("swinv2",),
    t5: ("t5", "d_kv = 64", "d_kv = 16"),
    t5_gated: ("t5", "d_kv = 64", "d_kv = 16"),
    wav2vec2: ("wav2vec2",),
    whisper: ("whisper", "padding_idx = 50256", "padding_idx = 7"),
}


def recipe_of(make):
    name, *change = FAMILIES[make]
    recipe = recipes.load(name)
    if not change:
        return recipe
    assert change[0] in recipe.text
    return recipes.parse(recipe.text.replace(*change))


def compare(state, recipe):
    """Compare each tensor with the recipe's; return how many are drawn, and the recipe's."""
    made = init_params({name: array.shape for name, array in state.items()}, recipe, seed=1)
    drawn = 0
    for name, theirs in state.items():
        ours = made[name]
        assert ours.dtype == theirs.dtype, name
        if (theirs == theirs.flat[0]).all():  # a constant, to the bit
            np.testing.assert_array_equal(ours, theirs, name)
        elif name.endswith(("A_log", "encoder.embed_positions.weight")):
            # transformers computes in float32, and its angles are up to 30.
            np.testing.assert_allclose(ours, theirs, rtol=3e-7, atol=1e-5, err_msg=name)
        else:
            drawn += 1
            zeros = (theirs == 0).reshape(len(theirs), -1).all(1)
            np.testing.assert_array_equal((ours == 0).reshape(len(ours), -1).all(1), zeros, name)
            ours, theirs = ours[~zeros].ravel(), theirs[~zeros].ravel()
            assert stats.ks_2samp(ours, theirs).pvalue > ALPHA, name
            assert stats.levene(ours, theirs).pvalue > ALPHA, name
    return drawn, made


@pytest.mark.parametrize("make", FAMILIES, ids=lambda make: make.__name__)
def test_every_tensor_has_its_distribution(make, tmp_path):
    """By the names in memory, and by those of a checkpoint, which may be others."""
    torch.manual_seed(0)
    model, recipe = make(), recipe_of(make)
    ties = dict(getattr(model, "all_tied_weights_keys", {}))
    state = {name: t.numpy() for name, t in model.state_dict().items()}
    if make is gemma3:  # its recipe ties the names of the model without vision
        del state["lm_head.weight"], ties["lm_head.weight"]
    drawn, made = compare(state, recipe)
    assert drawn > 10
    for name in made:
        if name.endswith("original0"):  # weight normalization's g
            v = made[name.replace("original0", "original1")].astype(np.float64)
            norms = np.sqrt(np.square(v).sum((0, 1), keepdims=True))
            np.testing.assert_array_equal(made[name], norms.astype(np.float32))
    for name, other in ties.items():
        np.testing.assert_array_equal(made[name], made[other])
    model.save_pretrained(tmp_path)
    saved = pytest.importorskip("safetensors.numpy").load_file(next(tmp_path.glob("*.safetensors")))
    assert made.keys() - ties == saved.keys() or compare(saved, recipe)[0] >= drawn - len(ties)


def test_adapters():
    """LoRA adapters of any base: names, shapes and distributions are PEFT's."""
    peft = pytest.importorskip("peft", reason="PEFT has the adapters to compare with")
    torch.manual_seed(0)

    def state_of(model, **numbers):
        adapted = peft.get_peft_model(model, peft.LoraConfig(**numbers))
        state = peft.get_peft_model_state_dict(adapted, save_embedding_layers=False)
        return {name: t.numpy() for name, t in state.items()}

    def base_of(model):
        return {name: tuple(t.shape) for name, t in model.state_dict().items()}

    targets = ["q_proj", "v_proj", "mlp.down_proj"]
    cases = [
        (qwen3(), {"r": 4, "target_modules": targets}, {}),
        (
            of("GPT2LMHeadModel", "GPT2Config", n_embd=32, n_layer=1, n_head=2, vocab_size=64),
            {"r": 8, "target_modules": ["c_attn"], "fan_in_fan_out": True}, {"transposed": True},
        ),
        (torch.nn.Sequential(torch.nn.Conv2d(8, 16, 3)), {"r": 6, "target_modules": ["0"]}, {}),
    ]  # fmt: skip
    for model, numbers, more in cases:
        shapes = lora_shapes(base_of(model), numbers["r"], numbers["target_modules"], **more)
        state = state_of(model, **numbers)
        assert shapes == {name: array.shape for name, array in state.items()}
        drawn, made = compare(state, recipes.load("lora"))
        assert drawn == len(made) / 2
    state = state_of(
        qwen3(), target_modules=["embed_tokens", "q_proj"], lora_bias=False, init_lora_weights=True
    )
    compare(state, recipes.load("lora"))


def test_adapters_of_a_shipped_model():
    shapes = lora_shapes("llama-3.1-8b", 16)
    assert len(shapes) == 2 * 2 * 32
    name = "base_model.model.model.layers.31.self_attn.v_proj.lora_B.weight"
    assert shapes[name] == (1024, 16)
    with pytest.raises(InputError, match="targets: 'w_proj' matches no layer"):
        lora_shapes("llama-3.1-8b", 16, ["q_proj", "w_proj"])
    with pytest.raises(InputError, match=r"'norm' matches the tensor 'model.norm.weight' of shape"):
        lora_shapes("llama-3.1-8b", 16, ["norm"])
    with pytest.raises(InputError, match="no target matches"):
        lora_shapes("llama-3.1-8b", 16, [])
    with pytest.raises(TypeError, match="a sequence of strings"):
        lora_shapes("llama-3.1-8b", 16, "q_proj")
    with pytest.raises(ValueError, match="rank"):
        lora_shapes("llama-3.1-8b", 0)


def test_a_slip_would_show():
    """The tests above are sharp: half a stack's depth is seen, and a head's width of T5."""
    for make, slip, name in (
        (clip, ("depth_scaled = true\n", ""), "text_model.encoder.layers.0.mlp.fc2.weight"),
        (t5, ("d_kv = 64", "d_kv = 32"), "decoder.block.2.layer.1.EncDecAttention.q.weight"),
    ):
        torch.manual_seed(0)
        state = {name: tensor.numpy() for name, tensor in make().state_dict().items()}
        text = recipes.load(FAMILIES[make][0]).text
        assert slip[0] in text
        recipe = recipes.parse(text.replace(*slip))
        made = init_params({name: a.shape for name, a in state.items()}, recipe, seed=1)
        assert stats.levene(made[name].ravel(), state[name].ravel()).pvalue < ALPHA
