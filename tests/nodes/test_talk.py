"""SVI Talk on ComfyUI's own classes: features against transformers' wav2vec2, guidance against its formula, keys."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.e2e import tiny_models, tiny_talk_models

LAYERS, CHANNELS = 2, 16  # of the tiny speech encoder
RATE = 16_000
ENCODER = {
    "model_type": "wav2vec2", "embed_dim": CHANNELS, "num_heads": 2, "num_layers": LAYERS,
    "conv_norm": False, "conv_bias": False, "do_normalize": False, "do_stable_layer_norm": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def talk(pack):
    return sys.modules[f"{pack.__name__}.nodes.talk"]


@pytest.fixture(scope="module")
def core(pack):
    """The pack's own svi_core, whose classes the nodes compare with."""
    parts = {
        "clips": "clips.clip_plan",
        "layouts": "systems.layouts",
        "schedule": "schedule.text",
        "talk": "conditioning.talk",
        "conditioning": "conditioning.build_y",
    }
    return SimpleNamespace(**{name: sys.modules[f"{pack.__name__}.svi_core.{part}"] for name, part in parts.items()})


def loaded_video_model(model_type="i2v"):
    import comfy.sd

    tensors, header = tiny_talk_models.talk_diffusion_model(model_type)
    return comfy.sd.load_diffusion_model_state_dict(tensors, metadata=header)


def patcher_of(module):
    import comfy.model_management
    import comfy.model_patcher

    devices = (comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device())
    return comfy.model_patcher.CoreModelPatcher(module, *devices)


def filled(module, seed):
    module.load_state_dict({name: value.float() for name, value in tiny_models.fill_randomly(module, seed).items()})
    return module.requires_grad_(False)


@pytest.fixture(scope="module")
def model(comfy):
    return loaded_video_model()


@pytest.fixture(scope="module")
def model_patch(comfy):
    return patcher_of(filled(tiny_talk_models.multitalk_module(2, blocks=LAYERS, channels=CHANNELS), 42))


@pytest.fixture(scope="module")
def audio_encoder(comfy):
    """ComfyUI's audio encoder of chinese-wav2vec2-base's structure, two layers of width 16."""
    from comfy.audio_encoders.audio_encoders import AudioEncoderModel

    encoder = AudioEncoderModel(dict(ENCODER))
    filled(encoder.model, 43)
    return encoder


def audio_of(seconds=2.0, rate=RATE, channels=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {"waveform": torch.randn(1, channels, round(seconds * rate), generator=generator) * 0.1, "sample_rate": rate}


@pytest.fixture(scope="module")
def make(talk, audio_encoder, model_patch):
    def make(audio=None, audio_cfg=5.0, **parts):
        given = {"audio": audio or audio_of(), "audio_encoder": audio_encoder, "model_patch": model_patch} | parts
        return talk.make_control(*given.values(), audio_cfg)

    return make


def request_at(core, start_frame, num_frames=9):
    layout = core.layouts.make_layout("Talk", num_frames)
    return core.clips.ClipRequest(0, core.schedule.ClipSpec("a"), 1, layout, True, start_frame=start_frame)


# ------------------------------------------------------------------------------------------------------- what is heard


def test_features_equal_those_of_transformers_interpolated_by_hand(talk, audio_encoder):
    """25 features per second before the transformer, and the outputs of its layers, the input of the first left out."""
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": CHANNELS, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "intermediate_size": 4 * CHANNELS}
    reference = transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**sizes)).eval()
    outputs = []
    for layer in reference.encoder.layers:
        layer.register_forward_hook(lambda module, given, made: outputs.append(made[0] if isinstance(made, tuple) else made))
    missing, unexpected = reference.load_state_dict(audio_encoder.model.state_dict(), strict=False)
    assert not missing and not unexpected
    samples, num_frames = audio_of(1.3)["waveform"][0, 0], 32
    with torch.no_grad():
        conv = reference.feature_extractor(samples[None])[0].numpy()  # [512, t]
        places = np.linspace(0, conv.shape[1] - 1, num_frames)
        resampled = np.stack([np.interp(places, np.arange(conv.shape[1]), row) for row in conv])
        hidden, _ = reference.feature_projection(torch.from_numpy(resampled.T[None]).float())
        reference.encoder(hidden)
    found = talk.SpeechEncoder(audio_encoder)(samples, num_frames)
    assert found.shape == (num_frames, LAYERS, CHANNELS)
    for layer, expected in enumerate(outputs):
        assert torch.allclose(found[:, layer], expected[0], atol=1e-4)
    assert len(outputs) == LAYERS


def test_features_hardly_depend_on_the_loudness(talk, audio_encoder):
    """Which is why a change of the whole sound's loudness may leave the keys of single clips alone."""
    samples, encode = audio_of(1.0)["waveform"][0, 0], talk.SpeechEncoder(audio_encoder)
    soft, loud = encode(samples, 25), encode(4 * samples, 25)
    assert (soft - loud).abs().max() < 0.01 * soft.abs().max()


def test_tokens_equal_comfyuis_own_packing_where_both_hear_the_same(make, core, model_patch):
    """Inside the sound; at its end ComfyUI's own function pads with the first frame, SVI with silence."""
    from comfy.ldm.wan.model_multitalk import project_audio_features

    control = make()
    control.speech.heard_by(0, 5)
    (whole,) = control.speech._pieces.values()
    patched = control.patched(loaded_video_model(), request_at(core, 16), torch.zeros(1))
    (attention,) = patched.model_options["transformer_options"]["patches"]["attn2_patch"]
    expected = project_audio_features(model_patch.model.audio_proj, [whole], 16, 25)
    assert attention.tokens.shape == (1, 3, 32, tiny_talk_models.TOKEN_CHANNELS)
    assert torch.allclose(attention.tokens, expected, atol=1e-6)
    silence = project_audio_features(model_patch.model.audio_proj, [torch.zeros_like(whole)], 16, 25)
    assert torch.allclose(attention.silence, silence, atol=1e-6) and not torch.allclose(silence, expected)


def test_projection_equals_plain_matrix_products(make, core, model_patch):
    control = make()
    patched = control.patched(loaded_video_model(), request_at(core, 0, 5), torch.zeros(1))
    (attention,) = patched.model_options["transformer_options"]["patches"]["attn2_patch"]
    weights = {name: value.double() for name, value in model_patch.model.audio_proj.state_dict().items()}
    features = next(iter(control.speech._pieces.values())).double()

    def layer(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    rows = [
        layer(features[[0, 0, 0, 1, 2]].flatten(), "proj1"),
        layer(features[[0, 0, 1, 2, 3, 4, 5, 6]].flatten(), "proj1_vf"),
    ]
    hidden = layer(torch.stack(rows).relu(), "proj2").relu()
    tokens = layer(hidden, "proj3").reshape(2, 32, -1)
    centred = tokens - tokens.mean(-1, keepdim=True)
    expected = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    expected = expected * weights["norm.weight"] + weights["norm.bias"]
    assert torch.allclose(attention.tokens[0].double(), expected, atol=1e-5)


def test_stereo_of_any_rate_is_heard_as_one_channel_and_kept_as_it_is(make):
    audio = audio_of(2.0, 44_100, 2)
    control = make(audio)
    assert torch.equal(control.sound.waveform, audio["waveform"][0]) and control.sound.sample_rate == 44_100
    assert control.speech.num_frames == 50 and control.speech.samples.ndim == 1


# ---------------------------------------------------------------------------------------------------------- guidance


@pytest.fixture(scope="module")
def conditions(comfy, bridge, core):
    """A positive and a negative CONDITIONING with the same y and CLIP vision features."""
    generator = torch.Generator().manual_seed(7)
    latent = torch.randn(1, 16, 3, 4, 6, generator=generator)
    y = core.conditioning.ConditioningLatent(latent, core.conditioning.known_mask(latent))
    vision = SimpleNamespace(penultimate_hidden_states=torch.randn(1, 257, 1280, generator=generator))
    texts = (torch.randn(1, 5, tiny_models.TEXT_DIM, generator=generator) for _ in range(2))
    return [bridge.sampling.set_y([[text, {}]], y, vision) for text in texts]


def one_step(bridge, model, positive, negative, cfg) -> torch.Tensor:
    """Return what one Euler step from noise to sigma 0 gives: the guided, denoised prediction."""
    import comfy.samplers

    noise = torch.randn(1, 16, 3, 4, 6, generator=torch.Generator().manual_seed(8))
    sigmas, euler = torch.tensor([0.9, 0.0]), comfy.samplers.sampler_object("euler")
    with torch.inference_mode():
        return bridge.sampling.sample_stage(
            model, noise, cfg, euler, sigmas, positive, negative, torch.zeros_like(noise), 0, None
        )


@pytest.fixture(scope="module")
def passes(bridge, make, core, model, model_patch, conditions):
    """The single passes (prompt or negative, sound or silence) by ComfyUI's own patch, one forward each."""
    from comfy.ldm.wan.model_multitalk import MultiTalkCrossAttnPatch

    patched = make().patched(model, request_at(core, 8), torch.zeros(1))
    (attention,) = patched.model_options["transformer_options"]["patches"]["attn2_patch"]
    found = {}
    for words, condition in zip(("pos", "neg"), conditions, strict=True):
        for heard, tokens in (("sound", attention.tokens), ("silence", attention.silence)):
            alone = model.clone()
            alone.set_model_patch(MultiTalkCrossAttnPatch(model_patch), "attn2_patch")
            alone.model_options["transformer_options"]["audio_embeds"] = tokens
            found[words, heard] = one_step(bridge, alone, condition, condition, 1.0)
    return found


def guided(passes, text, audio):
    """The formula of docs/METHOD.md, 7.3; at cfg 1 the sound is measured with the prompt."""
    words = "neg" if text != 1.0 else "pos"
    positive, negative, silent = passes["pos", "sound"], passes[words, "sound"], passes[words, "silence"]
    return silent + text * (positive - negative) + audio * (negative - silent)


@pytest.mark.parametrize(
    ("text", "audio", "expected_passes"),
    [(2.0, 5.0, [0, 1, 2]), (3.0, 0.5, [0, 1, 2]), (2.0, 1.0, [0, 1]), (1.0, 5.0, [0, 2]), (1.0, 1.0, [0])],
)
def test_guidance_equals_the_formula_and_takes_no_pass_too_many(
    bridge, talk, make, core, model, conditions, passes, monkeypatch, text, audio, expected_passes
):
    ran = []
    real = talk.AudioAttention.__call__

    def counted(self, kwargs):
        if kwargs["transformer_options"]["block_index"] == 0:
            ran.extend(kwargs["transformer_options"]["cond_or_uncond"])
        return real(self, kwargs)

    monkeypatch.setattr(talk.AudioAttention, "__call__", counted)
    patched = make(audio_cfg=audio).patched(model, request_at(core, 8), torch.zeros(1))
    found = one_step(bridge, patched, *conditions, text)
    assert sorted(ran) == expected_passes
    assert torch.allclose(found, guided(passes, text, audio), atol=2e-4)
    others = [guided(passes, *scales) for scales in ((2.0, 5.0), (2.0, 1.0), (1.0, 5.0), (1.0, 1.0)) if scales != (text, audio)]
    assert all((found - other).abs().max() > 0.01 for other in others)


def test_a_part_of_the_clip_is_refused(bridge, make, core, model, conditions):
    """Context windows hand the model fewer slots; it would hear the wrong moment."""
    patched = make().patched(model, request_at(core, 8, 13), torch.zeros(1))
    with pytest.raises(ValueError, match="sound is for 4 slots of a clip, but the model works on 3.*context windows"):
        one_step(bridge, patched, *conditions, 2.0)


def test_the_model_itself_stays_as_it_is(make, core, model):
    before = {name: dict(value) if isinstance(value, dict) else value for name, value in model.model_options.items()}
    patched = make().patched(model, request_at(core, 8), torch.zeros(1))
    assert model.model_options == before and patched.patches_uuid == model.patches_uuid  # no weight is patched again


def test_audio_layers_are_loaded_with_the_model(make, core, model, model_patch):
    patched = make().patched(model, request_at(core, 8), torch.zeros(1))
    assert patched.model_patches_models() == [model_patch]


def test_audio_is_projected_on_the_model_s_device(make, core):
    """PyTorch's meta device stands for a GPU: weights that wait on the CPU come to it."""
    control, found = make(), []
    clone = SimpleNamespace(
        set_model_patch=lambda attention, _: found.append(attention), set_model_sampler_calc_cond_batch_function=lambda _: None
    )
    for place in ("meta", "cpu"):
        model = SimpleNamespace(load_device=torch.device(place), clone=lambda: clone)
        control.patched(model, request_at(core, 8), torch.zeros(1))
        assert found[-1].tokens.device.type == found[-1].silence.device.type == place


def test_tokens_move_to_a_device_and_keep_their_precision(talk, model_patch):
    attention = talk.AudioAttention(model_patch, torch.ones(1, 2, 3, 4), torch.zeros(1, 2, 3, 4))
    assert attention.to(torch.float8_e4m3fn) is attention
    moved = attention.to(torch.device("meta"))
    assert moved.tokens.device.type == moved.silence.device.type == "meta" and moved.model_patch is model_patch


# --------------------------------------------------------------------------------------------------------------- keys


def keys(control, core, starts=(0, 8, 16, 24, 32, 40)):
    from svi_core.files.fingerprint import fingerprint

    return [fingerprint(control.determinants(request_at(core, start))) for start in starts]


def changed(audio, second):
    other = {**audio, "waveform": audio["waveform"].clone()}
    other["waveform"][..., round(second * RATE)] += 0.01
    return other


def test_a_changed_sound_changes_the_keys_of_the_clips_that_hear_it_only(make, core):
    """Clips of 9 frames begin every 8 frames, 0.32 s; the change is at frame 25: heard by the clips of frames 16 and 24."""
    audio = audio_of()
    before, after = keys(make(audio), core), keys(make(changed(audio, 1.0)), core)
    assert [a != b for a, b in zip(before, after, strict=True)] == [False, False, True, True, False, False]
    assert keys(make(audio_of()), core) == before


def test_a_longer_sound_leaves_the_clips_that_heard_all_they_could(make, core):
    short, long = audio_of(1.0), audio_of(2.0)
    long["waveform"][..., :RATE] = short["waveform"]
    before, after = keys(make(short), core), keys(make(long), core)
    assert before[:2] == after[:2] and all(a != b for a, b in zip(before[3:], after[3:], strict=True))


def test_weights_and_scale_are_part_of_the_key(make, core, audio_encoder):
    other_patch = patcher_of(filled(tiny_talk_models.multitalk_module(2, blocks=LAYERS, channels=CHANNELS), 44))
    other_encoder = type(audio_encoder)(dict(ENCODER))
    filled(other_encoder.model, 45)
    controls = [make(), make(audio_cfg=4.0), make(model_patch=other_patch), make(audio_encoder=other_encoder)]
    assert len({keys(control, core)[1] for control in controls}) == len(controls)


# ------------------------------------------------------------------------------------------------------ what is refused


def encoder_like(**sizes):
    from comfy.audio_encoders.wav2vec2 import Wav2Vec2Model

    return SimpleNamespace(model=Wav2Vec2Model(**{"embed_dim": 16, "num_heads": 2, "num_layers": 3, **sizes}))


class Whisper(torch.nn.Module):
    pass


def test_wrong_parts_are_refused_by_name(make, model_patch, comfy):
    import comfy.ops

    cases = [
        ({"audio_encoder": encoder_like(operations=comfy.ops.disable_weight_init)}, "wav2vec2 of 3 layers of width 16"),
        ({"audio_encoder": SimpleNamespace(model=Whisper())}, "audio_encoder is Whisper.*chinese-wav2vec2-base"),
        ({"model_patch": patcher_of(Whisper())}, r"model_patch \(Whisper\) has no audio layers of MultiTalk"),
        ({"audio": {"waveform": torch.zeros(2, 1, RATE), "sample_rate": RATE}}, "audio holds a batch of 2 sounds"),
        ({"audio": {"waveform": torch.zeros(1, 1, 0), "sample_rate": RATE}}, "has shape"),
        ({"audio": audio_of(0.2)}, "lasts 0.20 seconds"),
        ({"audio_cfg": float("nan")}, "audio_cfg is nan"),
        ({"audio_cfg": 21.0}, "use 0 to 20"),
    ]
    for parts, words in cases:
        with pytest.raises(ValueError, match=words):
            make(**parts)


def test_no_audio_is_refused(talk, audio_encoder, model_patch):
    with pytest.raises(ValueError, match="audio is empty"):
        talk.make_control(None, audio_encoder, model_patch, 5.0)


def test_layouts_and_models_that_do_not_fit_are_refused(make, core, model, comfy):
    control, layout = make(), core.layouts.LAYOUTS["Talk"]
    control.check(model, layout, 64, 64)
    with pytest.raises(ValueError, match="layout is 'Shot', but SVI Talk"):
        control.check(model, core.layouts.LAYOUTS["Shot"], 64, 64)
    with pytest.raises(ValueError, match="not a Wan 2.1 I2V"):
        control.check(loaded_video_model("t2v"), layout, 64, 64)
    one_block = patcher_of(tiny_talk_models.multitalk_module(1, blocks=LAYERS, channels=CHANNELS))
    with pytest.raises(
        ValueError, match="model has 2 blocks of width 80, but model_patch has audio layers for 1 blocks of width 80"
    ):
        make(model_patch=one_block).check(model, layout, 64, 64)
    narrow = patcher_of(tiny_talk_models.multitalk_module(2, 40, blocks=LAYERS, channels=CHANNELS))
    with pytest.raises(ValueError, match="width 80, .* of width 40"):
        make(model_patch=narrow).check(model, layout, 64, 64)
    other = model.clone()
    other.set_model_sampler_calc_cond_batch_function(lambda args: [])
    with pytest.raises(ValueError, match="carries a guidance function"):
        control.check(other, layout, 64, 64)


def test_a_talk_layout_without_sound_and_a_second_sound_are_refused(pack, talk, make, core, audio_encoder, model_patch):
    control = sys.modules[f"{pack.__name__}.nodes.bridge.control"]
    with pytest.raises(ValueError, match="layout 'Talk' follows a sound, but control has none: connect SVI Talk"):
        control.require_condition(core.layouts.LAYOUTS["Talk"], ())
    control.require_condition(core.layouts.LAYOUTS["Talk"], (make(),))
    with pytest.raises(ValueError, match="already has a sound"):
        talk.SVITalk.execute(audio_of(), audio_encoder, model_patch, 5.0, control=(make(),))
    other = SimpleNamespace(frame_rate=30.0)
    with pytest.raises(ValueError, match="have 25 and 30 frames per second"):
        control.frame_rate_of(core.layouts.LAYOUTS["Talk"], (make(), other))


def test_the_node_counts_the_clips_by_their_layout(talk, core, audio_encoder, model_patch):
    given = (audio_of(5.12), audio_encoder, model_patch, 5.0)
    assert talk.SVITalk.execute(*given)[1] == 2
    assert talk.SVITalk.execute(*given, layout=core.layouts.make_layout("Talk", 41))[1] == 4
    with pytest.raises(ValueError, match="layout is 'Film'"):
        talk.SVITalk.execute(*given, layout=core.layouts.LAYOUTS["Film"])


def test_silence_is_projected_once_for_clips_of_a_length(make, core, model_patch, monkeypatch):
    """A projection on the CPU takes half a second a clip at MultiTalk's real size."""
    counted, project = [], type(model_patch.model.audio_proj).forward
    monkeypatch.setattr(type(model_patch.model.audio_proj), "forward", lambda *inputs: counted.append(1) or project(*inputs))
    control, model = make(), loaded_video_model()
    silent = []
    for start, num_frames in ((0, 9), (8, 9), (16, 13)):
        patched = control.patched(model, request_at(core, start, num_frames), torch.zeros(1))
        silent.append(patched.model_options["transformer_options"]["patches"]["attn2_patch"][0].silence)
    assert len(counted) == 5 and silent[0] is silent[1] and silent[2].shape[1] == silent[0].shape[1] + 1
