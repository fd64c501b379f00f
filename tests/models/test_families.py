"""Shipped recipes against transformers' own initialization, each tensor as a sample of its law."""

import numpy as np
import pytest

from numinit.models import recipes
from numinit.models.init_params import init_params

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
stats = pytest.importorskip("scipy.stats")

ALPHA = 1e-6  # of some hundred tensors, each with one test

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own


def clip():
    text = {
        "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
        "num_attention_heads": 2, "vocab_size": 128, "max_position_embeddings": 20,
        "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    vision = {
        "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 5,
        "num_attention_heads": 2, "image_size": 32, "patch_size": 8,
    }  # fmt: skip
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=40)
    return transformers.CLIPModel(config)


def whisper():
    return transformers.WhisperForConditionalGeneration(
        transformers.WhisperConfig(
            vocab_size=128, d_model=64, encoder_layers=2, decoder_layers=3,
            encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=96,
            decoder_ffn_dim=96, num_mel_bins=16, max_source_positions=30,
            max_target_positions=20, pad_token_id=7, bos_token_id=1, eos_token_id=2,
            decoder_start_token_id=3,
        )
    )  # fmt: skip


def mamba():
    return transformers.MambaForCausalLM(
        transformers.MambaConfig(vocab_size=128, hidden_size=64, state_size=8, num_hidden_layers=4)
    )


def wav2vec2():
    return transformers.Wav2Vec2ForPreTraining(
        transformers.Wav2Vec2Config(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
            conv_dim=(24, 24, 24), conv_kernel=(10, 3, 3), conv_stride=(5, 2, 2), conv_bias=True,
            num_feat_extract_layers=3, num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=4, codevector_dim=16, proj_codevector_dim=16,
            num_codevectors_per_group=20,
        )
    )  # fmt: skip


@pytest.mark.parametrize("make", [clip, whisper, mamba, wav2vec2])
def test_every_tensor_has_its_distribution(make):
    torch.manual_seed(0)
    state = {name: tensor.numpy() for name, tensor in make().state_dict().items()}
    recipe = recipes.load(make.__name__)
    if make is whisper:
        recipe = recipes.parse(recipe.text.replace("padding_idx = 50256", "padding_idx = 7"))
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
            spread = stats.levene(ours, theirs).pvalue
            assert spread > ALPHA, name
    assert drawn > 10
    for name in state:
        if name.endswith("original0"):  # weight normalization's g
            v = made[name.replace("original0", "original1")].astype(np.float64)
            norms = np.sqrt(np.square(v).sum((0, 1), keepdims=True))
            np.testing.assert_array_equal(made[name], norms.astype(np.float32))
    ties = {
        "proj_out.weight": "model.decoder.embed_tokens.weight",
        "lm_head.weight": "backbone.embeddings.weight",
    }
    for name, other in ties.items():
        if name in state and other in state:
            np.testing.assert_array_equal(made[name], made[other])


def test_a_slip_would_show():
    """The test above is sharp: half a stack's depth is seen."""
    torch.manual_seed(0)
    state = {name: tensor.numpy() for name, tensor in clip().state_dict().items()}
    text = recipes.load("clip").text.replace("depth_scaled = true\n", "")
    made = init_params({name: a.shape for name, a in state.items()}, recipes.parse(text), seed=1)
    name = "text_model.encoder.layers.0.self_attn.q_proj.weight"
    assert stats.levene(made[name].ravel(), state[name].ravel()).pvalue < ALPHA
