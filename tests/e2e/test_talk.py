"""SVI Talk on a real ComfyUI process, with ComfyUI's own loaders: length, sound in sync, silence, reuse, refusals."""

import json
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from comfyui.client import ExecutionFailed
from comfyui.server import ComfyServer
from svi_core.video.source_video import SourceVideo, probe_video
from tests.e2e.graphs import WAN21, Graph, loop_graph, node
from tests.e2e.tiny_talk_models import MULTITALK, T2V_TALK, WAN21_TALK, WAV2VEC2
from tests.hearing import RATE, delay_and_likeness, heard

pytestmark = pytest.mark.e2e

SPEECH = Path("/work/shared/data/audio/0a2cda4f185353339eba0ee02ff536b0.wav")  # of the authors' toy data: 10.5 s, 16 kHz


@pytest.fixture(scope="module")
def server(comfy_server, talk_models) -> ComfyServer:
    """The server, with the models of SVI-Talk."""
    return comfy_server


def babble(path: Path, seconds: float, seed: int = 0, changed_from: float | None = None) -> Path:
    """Write noise that swells and fades at random, so that its place in time shows; from a second on it may be another one."""
    samples = _babble(seconds, seed)
    if changed_from is not None:
        samples[round(changed_from * RATE) :] = _babble(seconds, seed + 1)[round(changed_from * RATE) :]
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return path


def _babble(seconds: float, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    noise = np.convolve(generator.standard_normal(round(seconds * RATE) + 8), np.ones(9) / 9, "valid")
    loudness = np.repeat(generator.random(round(seconds * 10) + 1), RATE // 10)[: len(noise)]
    return np.clip(noise * loudness, -1, 1)


def talk_graph(server: ComfyServer, image: Path, sound: Path, *, audio_cfg: float = 5.0, **options) -> Graph:
    """Return the loop with SVI Talk in front; without `clips` the sound decides how many."""
    counted = "clips" not in options
    settings = {"model": WAN21_TALK, "low": None, "variant": "Talk", "prompts": ["a person is talking"], "steps": 2}
    graph = loop_graph(server.add_input(image), **(settings | options))
    graph["vision"] = node("CLIPVisionLoader", clip_name="clip_vision_h.safetensors")
    graph["sound"] = node("LoadAudio", audio=server.add_input(sound))
    graph["encoder"] = node("AudioEncoderLoader", audio_encoder_name=WAV2VEC2)
    graph["layers"] = node("ModelPatchLoader", name=MULTITALK)
    parts = {"audio": ["sound", 0], "audio_encoder": ["encoder", 0], "model_patch": ["layers", 0]}
    graph["talk"] = node("SVITalk", **parts, layout=["layout", 0], audio_cfg=audio_cfg)
    graph["generate"]["inputs"] |= {"clip_vision": ["vision", 0], "control": ["talk", 0]}
    if counted:
        graph["generate"]["inputs"]["num_clips"] = ["talk", 1]
    return graph


def made(server: ComfyServer, graph: Graph) -> tuple[SourceVideo, torch.Tensor]:
    """Run `graph`; return its saved video and the latent of its last clip."""
    outputs = server.run(graph)
    latent = load_file(server.saved_file(outputs["latent"]["latents"][0]))["latent_tensor"]
    return probe_video(server.saved_file(outputs["saved"]["images"][0])), latent


def clip_keys(server: ComfyServer, prefix: str) -> list[str]:
    manifest = json.loads((server.output_directory / prefix / "run.json").read_text(encoding="utf-8"))
    return [clip["key"] for clip in manifest["clips"]]


@pytest.mark.skipif(not SPEECH.is_file(), reason=f"needs the speech {SPEECH}")
def test_a_speech_becomes_a_video_of_its_length_with_the_sound_in_sync(server, reference_image):
    """10.496 s are 263 frames, the last not whole, which four clips of 81 cover: 321 frames, 12.84 s, with a silent end."""
    video, latent = made(server, talk_graph(server, reference_image, SPEECH, num_frames=81, filename_prefix="svi/speech"))
    assert (video.num_frames, video.frame_rate, video.sound_codec) == (4 * 80 + 1, 25.0, "aac")
    assert torch.isfinite(latent).all()
    found, source = heard(video.path), heard(SPEECH)
    assert len(source) == round(10.496 * RATE) and abs(len(found) - len(source)) <= 1024
    delay, likeness = delay_and_likeness(found, source)
    assert abs(delay) < 0.002 and likeness > 0.95
    assert 0.9 < np.linalg.norm(found) / np.linalg.norm(source) < 1.1  # its own loudness


def test_a_sound_that_changes_late_leaves_the_clips_before_and_a_longer_video_ends_in_silence(
    server, reference_image, tmp_path
):
    """Clips of 9 frames begin every 0.32 s. The sound changes at 0.8 s, frame 20, which clips 3 and later hear."""
    name = "svi/late change"
    first, _ = made(server, talk_graph(server, reference_image, babble(tmp_path / "a.wav", 1.0), filename_prefix=name))
    assert first.num_frames == 25 and len(clip_keys(server, name)) == 3
    before = clip_keys(server, name)
    other = babble(tmp_path / "b.wav", 1.0, changed_from=0.8)
    second, _ = made(server, talk_graph(server, reference_image, other, filename_prefix=name))
    after = clip_keys(server, name)
    assert before[:2] == after[:2] and before[2] != after[2]
    assert delay_and_likeness(heard(second.path)[round(0.8 * RATE) :], heard(other)[round(0.8 * RATE) :])[1] > 0.9
    longer, latent = made(server, talk_graph(server, reference_image, other, clips=5, filename_prefix=name))
    assert clip_keys(server, name)[:3] == after and longer.num_frames == 41 and torch.isfinite(latent).all()
    assert abs(len(heard(longer.path)) - RATE) <= 1024  # 1.64 s of video, 1 s of sound


def test_sound_and_its_scale_reach_the_picture(server, reference_image, tmp_path):
    sounds = [babble(tmp_path / f"{seed}.wav", 0.5, seed) for seed in (0, 5)]
    variants = [(sounds[0], 5.0), (sounds[1], 5.0), (sounds[0], 1.0), (sounds[0], 0.0)]
    latents = [
        made(server, talk_graph(server, reference_image, sound, audio_cfg=scale, clips=1, filename_prefix="svi/heard"))[1]
        for sound, scale in variants
    ]
    for index, latent in enumerate(latents):
        assert all((latent - other).abs().max() > 1e-3 for other in latents[:index])
    again = made(server, talk_graph(server, reference_image, sounds[0], clips=1, filename_prefix="svi/heard again"))[1]
    assert torch.equal(again, latents[0])


def test_begin_and_next_clip_follow_the_sound_as_the_one_node_does(server, reference_image, tmp_path):
    graph = talk_graph(server, reference_image, babble(tmp_path / "a.wav", 0.6), clips=2, filename_prefix="svi/one node")
    _, expected = made(server, graph)
    inputs = {name: value for name, value in graph["generate"]["inputs"].items() if name != "num_clips"}
    graph["begin"] = node("SVIBeginVideo", **(inputs | {"filename_prefix": "svi/taken apart"}))
    graph["one"], graph["two"] = (node("SVINextClip", state=[before, 0]) for before in ("begin", "one"))
    graph["finish"] = node("SVIFinishVideo", state=["two", 0])
    graph["saved"]["inputs"]["video"], graph["latent"]["inputs"]["samples"] = ["finish", 0], ["two", 2]
    del graph["generate"]
    video, latent = made(server, graph)
    assert torch.equal(latent, expected) and (video.num_frames, video.frame_rate) == (17, 25.0)
    assert abs(len(heard(video.path)) - 0.6 * RATE) <= 1024


def test_a_talk_goes_on_after_another_video_and_so_does_its_sound(server, reference_image, tmp_path):
    sounds = [babble(tmp_path / "a.wav", 0.68, 1), babble(tmp_path / "b.wav", 0.6, 2)]
    begun, _ = made(server, talk_graph(server, reference_image, sounds[0], filename_prefix="svi/begun"))
    assert begun.num_frames == 17
    graph = talk_graph(server, reference_image, sounds[1], clips=2, filename_prefix="svi/gone on talking")
    graph["loaded"] = node("LoadVideo", file=server.add_input(begun.path, "begun talk.mp4"))
    graph["start"] = node("SVIContinueVideo", video=["loaded", 0], run="", trim_end=0)
    graph["generate"]["inputs"]["continue_from"] = ["start", 0]
    video, _ = made(server, graph)
    assert (video.num_frames, video.frame_rate) == (17 + 2 * 8, 25.0)
    found, seam = heard(video.path), round(17 / 25 * RATE)
    for part, sound in ((found[:seam], sounds[0]), (found[seam:], sounds[1])):
        delay, likeness = delay_and_likeness(part, heard(sound)[: len(part)])
        assert abs(delay) < 0.005 and likeness > 0.8


def test_the_final_length_counts_in_25_frames_per_second(server, reference_image, tmp_path):
    graph = talk_graph(server, reference_image, babble(tmp_path / "a.wav", 1.0), clips=4, filename_prefix="svi/short talk")
    settings = {"codec": "h264", "crf": 18, "pixel_format": "yuv420p", "budget_gb": 0.0, "seam": "drop", "colour_match": 0.0}
    graph["output"] = node("SVIOutput", **settings, length_seconds=0.8)
    graph["generate"]["inputs"]["output"] = ["output", 0]
    video, _ = made(server, graph)
    assert video.num_frames == 20 and abs(len(heard(video.path)) - 0.8 * RATE) <= 1024


@pytest.mark.parametrize(
    ("options", "without", "words"),
    [
        ({"variant": "Shot"}, (), "layout is 'Shot', but SVI Talk is connected to control"),
        ({}, ("control",), "layout 'Talk' follows a sound, but control has none: connect SVI Talk"),
        ({"model": WAN21}, (), "model has 2 blocks of width 64, but model_patch has audio layers for 40 blocks of width 80"),
        ({"model": T2V_TALK}, (), "not a Wan 2.1 I2V model"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_before_the_first_step(server, reference_image, tmp_path, options, without, words):
    sound = babble(tmp_path / "a.wav", 0.5)
    graph = talk_graph(server, reference_image, sound, clips=1, filename_prefix="svi/refused talk", **options)
    for name in without:
        del graph["generate"]["inputs"][name]
    with pytest.raises(ExecutionFailed, match=words):
        server.run(graph)
    assert not (server.output_directory / "svi" / "refused talk").exists()


def test_a_sound_too_short_to_hear_is_refused(server, reference_image, tmp_path):
    with pytest.raises(ExecutionFailed, match="lasts 0.30 seconds"):
        server.run(talk_graph(server, reference_image, babble(tmp_path / "a.wav", 0.3)))
