"""Sound beside clips: found, in time with the pictures, prepared as for generation, and part of an example's name."""

import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import torchaudio

from svi_core.conditioning.talk import prepared_speech
from tests.training.fake_encoders import FakeEncoders
from tests.training.synthetic_clips import picture, write_numbered
from training.data.build_cache import build_cache
from training.data.dataset import CachedDataset
from training.data.sound import read_speech, require_sound
from training.settings.data import DataConfig

RATE = 22_050


class HearingEncoders(FakeEncoders):
    """Speech features that say their frame, counted from 1, in two layers of three channels."""

    def __init__(self, audio_encoder: str = "wav2vec2 A"):
        super().__init__()
        self.fingerprints["audio_encoder"] = audio_encoder

    def speech(self, samples: torch.Tensor, num_frames: int) -> torch.Tensor:
        return torch.arange(1.0, num_frames + 1)[:, None, None].expand(-1, 2, 3).clone()


def settings(folder: Path, **more) -> DataConfig:
    small = {"width": 64, "height": 64, "min_crop": 1.0, "num_frames": 9, "max_held_frames": 1, "held_out": 0.0}
    values = {"folder": str(folder), "cache": str(folder.parent / "cache"), "layout": "Talk", "frame_rate": 25}
    return DataConfig(**{**values, **small, "default_caption": "the person is speaking", **more})


def noise(seconds: float, channels: int = 2, seed: int = 0) -> np.ndarray:
    """Return 16-bit samples [channels, n]."""
    draw = np.random.default_rng(seed)
    return (draw.standard_normal((channels, round(seconds * RATE))) * 3000).astype(np.int16)


def write_wav(path: Path, samples: np.ndarray) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(samples))
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.T.tobytes())
    return path


def write_talking(path: Path, samples: np.ndarray, num_frames: int = 50, late: float = 0.0) -> Path:
    """Write a numbered clip at 25 frames per second with its own sound, which begins `late` seconds after its pictures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1", rate=25)
        video.width = video.height = 64
        video.pix_fmt = "bgr0"
        audio = container.add_stream("pcm_s16le", rate=RATE, layout="stereo")
        for number in range(num_frames):
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
        sound = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T.reshape(1, -1)), format="s16", layout="stereo")
        sound.sample_rate, sound.time_base, sound.pts = RATE, Fraction(1, RATE), round(late * RATE)
        container.mux(audio.encode(sound))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    return path


def expected_speech(samples: np.ndarray) -> torch.Tensor:
    mono = torch.from_numpy(samples).float().mean(dim=0) / 32768
    return prepared_speech(torchaudio.functional.resample(mono, RATE, 16_000))


def test_a_sound_is_prepared_as_for_generation(tmp_path):
    samples = noise(2.0)
    expected = expected_speech(samples)
    for path in (write_wav(tmp_path / "a.wav", samples), write_talking(tmp_path / "a.mkv", samples)):
        torch.testing.assert_close(read_speech(path), expected, rtol=1e-4, atol=1e-5)


def test_a_sound_that_begins_late_is_heard_late(tmp_path):
    late = read_speech(write_talking(tmp_path / "late.mkv", noise(2.0), late=0.4))
    before = round(0.4 * 16_000)
    assert late[: before - 200].abs().max() < 1e-6 and late[before + 200 : before + 2000].abs().mean() > 1e-3
    assert len(late) == pytest.approx(2.4 * 16_000, abs=50)


def test_an_example_hears_the_sound_around_its_frames(tmp_path):
    """Frame f of the clip hears f - 2 .. f + 2; the first frame stands for what is before it, zeros for what is after."""
    write_talking(tmp_path / "clips/one.mkv", noise(1.0))  # 25 frames of sound for 50 pictures
    config = settings(tmp_path / "clips", variants=6)
    assert build_cache(config, HearingEncoders()).num_encoded == 6
    dataset = CachedDataset(config.cache_folder, config)
    starts = set()
    for step in range(6):
        example = dataset.example(0, step)
        first = round(float(example.latent[0, 0, 0, 0]))
        frames = [max(0, frame) for frame in range(first - 2, first + 9 + 2)]
        expected = [frame + 1.0 if frame < 25 else 0.0 for frame in frames]
        assert example.extras["sound"].shape == (13, 2, 3) and example.extras["sound"].dtype == torch.float32
        assert example.extras["sound"][:, 1, 2].tolist() == expected
        assert example.caption == "the person is speaking"
        starts.add(first)
    assert len(starts) > 2


def test_the_sound_beside_a_clip_goes_first_and_another_one_is_another_example(tmp_path):
    write_talking(tmp_path / "clips/one.mkv", noise(2.0))
    config = settings(tmp_path / "clips")
    hashes = set()

    def build(encoders) -> int:
        count = build_cache(config, encoders).num_encoded
        hashes.add(CachedDataset(config.cache_folder, config).content_hash)
        return count

    assert (build(HearingEncoders()), build(HearingEncoders())) == (1, 0)
    write_wav(tmp_path / "clips/one.wav", noise(2.0, seed=1))
    assert build(HearingEncoders()) == 1
    write_wav(tmp_path / "clips/one.wav", noise(2.0, seed=2))
    assert (build(HearingEncoders()), build(HearingEncoders("wav2vec2 B"))) == (1, 1)
    assert len(hashes) == 4


def test_a_clip_without_sound_is_named_and_other_layouts_do_not_ask(tmp_path):
    write_talking(tmp_path / "clips/one.mkv", noise(2.0))
    write_numbered(tmp_path / "clips/mute.mp4", 30, 25)
    report = build_cache(settings(tmp_path / "clips"), HearingEncoders())
    assert [(item.where, "has no sound" in item.reason) for item in report.rejected] == [("mute.mp4", True)]
    assert "put mute.wav next to it" in report.rejected[0].reason
    shot = settings(tmp_path / "clips", layout="Shot")
    assert build_cache(shot, FakeEncoders()).num_encoded == 2
    assert CachedDataset(shot.cache_folder, shot).example(0, 0).extras == {}


def test_broken_and_short_sounds_are_named(tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"RIFF no sound at all")
    with pytest.raises(ValueError, match="bad.wav cannot be read as a sound"):
        require_sound(tmp_path / "bad.wav")
    with pytest.raises(ValueError, match="lasts 0.10 seconds"):
        read_speech(write_wav(tmp_path / "short.wav", noise(0.1)))


def test_talk_has_25_frames_per_second(tmp_path):
    with pytest.raises(ValueError, match="data.frame_rate is 16: use 25 with sound"):
        settings(tmp_path, frame_rate=16)


@torch.no_grad()
def test_speech_is_brought_to_25_features_per_second_before_the_transformer(comfy):
    """Against linear interpolation by numpy: the first and the last feature stay where they are."""
    import comfy.model_patcher  # noqa: F401  the audio encoder takes it for imported
    from comfy.audio_encoders.audio_encoders import AudioEncoderModel

    from svi_core.conditioning.talk import encode_speech
    from tests.e2e import tiny_models

    sizes = {"embed_dim": 16, "num_heads": 2, "num_layers": 2}
    sizes |= dict.fromkeys(("conv_norm", "conv_bias", "do_normalize", "do_stable_layer_norm"), False)
    encoder = AudioEncoderModel({"model_type": "wav2vec2", **sizes})
    model = encoder.model
    model.load_state_dict({name: value.float() for name, value in tiny_models.fill_randomly(model, 43).items()})
    samples = expected_speech(noise(1.0))
    found = encode_speech(model, samples, 25)
    convolved = model.feature_extractor(samples[None])[0].numpy()
    places = np.linspace(0, len(convolved) - 1, 25)
    resampled = np.stack([np.interp(places, np.arange(len(convolved)), channel) for channel in convolved.T], axis=1)
    _hidden, layers = model.encoder(model.feature_projection(torch.from_numpy(resampled).float()[None]))
    assert len(convolved) == 49 and found.shape == (25, 2, 16)  # 50 per second, and what the last ones lack
    for layer in range(2):
        torch.testing.assert_close(found[:, layer], layers[layer + 1][0], rtol=1e-3, atol=1e-4)
    with torch.no_grad():
        model.feature_projection.projection.bias[0] = float("nan")
    with pytest.raises(ValueError, match="the speech encoder returned NaN or infinite values"):
        encode_speech(model, samples, 25)


def test_a_sound_that_begins_a_day_late_is_refused(tmp_path):
    clip = write_talking(tmp_path / "late.mkv", noise(1.0), late=86_400.0)
    with pytest.raises(ValueError, match=r"late.mkv has damaged time stamps of picture and sound: nothing changes from 0.00 s"):
        read_speech(clip)
