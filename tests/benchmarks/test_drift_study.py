"""The drift study's mechanics: its world, codec, statistics and measures against independent values, and a small run of it all.

No claim is tested here: whether error recycling helps is for the study itself to say, benchmarks/DRIFT.md.
"""

import importlib
import json
import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from benchmarks.drift import arms, codec, folder, real_clips, report, statistics, vbench
from benchmarks.drift.__main__ import main as drift_command
from benchmarks.drift.errors import GaussianErrors, hand_made_error
from benchmarks.drift.world import NUM_FRAMES, SHOWN, draw_story, true_clips
from demo.world.scenes import HELD_OUT_SEED, render_story
from svi_core.recycling.config import ErrorRecyclingConfig
from svi_core.video.video_file import VideoCoding, write_video


@pytest.fixture(scope="module")
def clips():
    return [true_clips(draw_story(seed, 3)) for seed in range(6)]


@pytest.fixture(scope="module")
def fitted(clips):
    return codec.fit_codec(torch.cat([own.frames for own in clips]))


@pytest.fixture(scope="module")
def parts(comfy):
    """The modules that need ComfyUI."""
    names = ("data", "rollout", "scoring", "study", "work", "finetune", "base", "model")
    return {name: importlib.import_module(f"benchmarks.drift.{name}") for name in names}


def test_a_clip_shows_the_frames_of_the_demos_world_and_joins_the_next_at_rest(clips):
    story = draw_story(2, 3)
    whole = render_story(story)
    assert len(SHOWN) == NUM_FRAMES and SHOWN[:5] == (0, 1, 2, 3, 4) and SHOWN[-5:] == (76, 77, 78, 79, 80)
    for index in range(3):
        torch.testing.assert_close(clips[2].frames[index], whole[[76 * index + frame for frame in SHOWN]])
    torch.testing.assert_close(clips[2].frames[0, -5:], clips[2].frames[1, :5])  # the 5 frames that 2.0 Pro shares


def test_captions_say_that_camera_and_light_stay(clips):
    assert all("the camera stays still. the light stays." in text for own in clips for text in own.captions)


def test_encoding_what_was_decoded_changes_nothing(clips, fitted):
    latent = fitted.encode(clips[0].frames)
    assert latent.shape == (3, 16, 6, 8, 12)
    torch.testing.assert_close(fitted.encode(fitted.decode(latent)), latent, atol=1e-4, rtol=0)
    assert -10 * math.log10(float((fitted.decode(latent) - clips[0].frames).square().mean())) > 25


def test_the_codec_is_causal_and_its_first_slot_speaks_the_language_of_the_later_ones(clips, fitted):
    frames = clips[1].frames
    changed = frames.clone()
    changed[:, 9:] = 0.0
    torch.testing.assert_close(fitted.encode(changed)[:, :, :3], fitted.encode(frames)[:, :, :3])
    still = fitted.encode(frames[:, :1].expand(-1, 5, -1, -1, -1))
    torch.testing.assert_close(still[:, :, 0], still[:, :, 1], atol=1e-4, rtol=0)
    torch.testing.assert_close(still, fitted.at_rest(still[:, :, 0], 2), atol=1e-4, rtol=0)


def test_nothing_is_lost_where_the_last_frame_of_a_clip_becomes_the_first_of_the_next(clips, fitted):
    latent = fitted.encode(clips[0].frames)
    handed_over = fitted.encode(fitted.decode(latent)[:, -1:])[:, :, 0]
    torch.testing.assert_close(handed_over, latent[:, :, -1], atol=1e-4, rtol=0)  # every clip ends at rest


def test_errors_of_later_slots_add_to_a_first_slot_only_what_a_frame_could(clips, fitted):
    latent = fitted.encode(clips[0].frames)
    error = (latent[1, :, 2] - latent[0, :, 4])[:, None]  # of slots in which things move
    spoilt = latent.clone()
    spoilt[0, :, :1] += fitted.first_slot_error(error)
    torch.testing.assert_close(fitted.encode(fitted.decode(spoilt)), spoilt, atol=1e-4, rtol=0)
    spoilt[0, :, :1] = latent[0, :, :1] + error
    assert float((fitted.encode(fitted.decode(spoilt)) - spoilt).abs().max()) > 0.1
    at_rest = (latent[1, :, -1] - latent[0, :, -1])[:, None]
    torch.testing.assert_close(fitted.first_slot_error(at_rest), at_rest, atol=1e-4, rtol=0)


def test_latents_have_about_unit_variance(clips, fitted):
    latent = fitted.encode(torch.cat([own.frames for own in clips]))
    assert 0.7 < float(latent[:, :, 1:].std()) < 1.3


def test_saved_codec_is_the_same(tmp_path, clips, fitted):
    fitted.save(tmp_path / "codec.safetensors")
    loaded = codec.load_codec(tmp_path / "codec.safetensors")
    assert torch.equal(loaded.encode(clips[0].frames), fitted.encode(clips[0].frames))


def test_sign_flip_p_by_hand():
    assert statistics.sign_flip_p([1.0] * 8) == 2 / 256
    assert statistics.sign_flip_p([1.0, -1.0]) == 1.0
    values = [0.3, -0.1, 0.5]
    means = [abs(sum(s * v for s, v in zip(signs, values, strict=True))) for signs in product((1, -1), repeat=3)]
    assert statistics.sign_flip_p(values) == sum(m >= 0.7 - 1e-9 for m in means) / 8 == 0.5
    with pytest.raises(ValueError, match="1 to 20"):
        statistics.sign_flip_p([])


def test_holm_by_hand():
    assert statistics.holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})
    assert statistics.holm({"a": 0.9, "b": 0.8}) == {"b": 1.0, "a": 1.0}


def test_the_interval_knows_that_runs_of_one_base_are_alike():
    values, groups = [1.0, 1.0, 1.0, 1.0, 3.0, 3.0, 3.0, 3.0], [0] * 4 + [1] * 4
    low, high = statistics.bootstrap_interval(values, groups)
    assert (low, high) == (1.0, 3.0)  # two bases: the mean may as well be that of either
    alone = statistics.bootstrap_interval(values, list(range(8)))
    assert 1.0 < alone[0] < 2.0 < alone[1] < 3.0
    uneven = statistics.bootstrap_interval([0.0, 5.0, 5.0, 5.0], ["a", "b", "b", "b"])
    assert uneven == (0.0, 5.0)  # bases count alike, whatever their runs


def test_arms_differ_from_the_full_method_in_one_thing_each():
    full = ErrorRecyclingConfig(clean_prob=0.2, capacity=100, num_grids=20, num_image_error_slots=1)
    made = arms.make_arms(full)
    assert made[arms.FULL].recycling == full and not made[arms.PLAIN].recycling.injects
    changed = {
        name: {key for key, value in vars(arm.recycling).items() if value != getattr(full, key)} for name, arm in made.items()
    }
    assert changed["without image error"] == {"image_prob"} and changed["without latent error"] == {"latent_prob"}
    assert changed["without noise error"] == {"noise_prob"} and changed["image error only"] == {"noise_prob", "latent_prob"}
    assert changed["bank of 1"] == changed["bank of 10"] == {"capacity"}
    assert changed["Gaussian noise"] == changed["frozen bank"] == set()
    assert changed[arms.OWN_CLIP] == changed[arms.OTHER_CLIP] == changed["image error only"]


def test_gaussian_errors_are_as_large_as_the_banks_own():
    class Bank:
        entry_shape, grid = (16, 6, 8, 12), None

        def sample_latent_error(self, sigma, generator):
            return torch.full(self.entry_shape, 0.25)

        def sample_noise_error(self, sigma, generator):
            return None

    errors = GaussianErrors(Bank())
    drawn = errors.sample_latent_error(0.5, torch.Generator().manual_seed(0))
    assert float(drawn.square().mean().sqrt()) == pytest.approx(0.25, rel=0.05) and abs(float(drawn.mean())) < 0.02
    assert errors.sample_noise_error(0.5, torch.Generator()) is None


@pytest.mark.parametrize("slot", [0, 2])
def test_hand_made_errors_soften_the_frames_they_are_added_to(clips, fitted, slot):
    latent = fitted.encode(clips[3].frames)[0]
    error = hand_made_error(fitted, latent[:, slot : slot + 1], slot == 0, torch.Generator().manual_seed(3))
    assert error.shape == (16, 1, 8, 12) and 0.01 < float(error.abs().mean()) < 1.0
    spoilt = latent.clone()
    spoilt[:, slot : slot + 1] += error
    before, after = fitted.decode(latent[None])[0], fitted.decode(spoilt[None])[0]
    frames = range(1) if slot == 0 else range(4 * slot - 3, 4 * slot + 1)
    edges = [float((x[frames, :, :, 1:] - x[frames, :, :, :-1]).abs().mean()) for x in (before, after)]
    assert edges[1] < edges[0]
    others = [frame for frame in range(NUM_FRAMES) if frame not in frames]
    torch.testing.assert_close(before[others], after[others])


def test_conditioning_is_that_of_the_packs_layouts(parts, clips, fitted):
    """One frame: the codec's latent of the frame, repeated. 2.0 Pro: anchor, the last slot of the clip before, zeros."""
    data = parts["data"]
    latents = fitted.encode(clips[0].frames)
    shown = fitted.decode(latents[1:2])[:, :1]  # the frame as the codec holds it
    own = data.condition(fitted, data.Chain.ONE_FRAME, latents[1:2, :, 0], None, latents[:1, :, 0])
    torch.testing.assert_close(own, fitted.encode(shown.expand(-1, NUM_FRAMES, -1, -1, -1)), atol=1e-4, rtol=1e-4)
    pro = data.condition(fitted, data.Chain.PRO, latents[1:2, :, 0], latents[:1, :, -1], latents[:1, :, 0])
    assert torch.equal(pro[0, :, 0], latents[0, :, 0]) and torch.equal(pro[0, :, 1], latents[0, :, -1])
    assert not pro[:, :, 2:].any()
    assert data.Chain.ONE_FRAME.layout.overlap == 1 and data.Chain.PRO.layout.overlap == 5


def test_frechet_distance_by_hand(parts):
    """Between Gaussians with diagonal covariance it is (difference of means)^2 + sum of (difference of deviations)^2."""
    random = np.random.default_rng(0)
    normal = random.normal(size=(200_000, 3))
    ours, theirs = normal * [1, 2, 3] + [0, 0, 1], normal[::-1] * [2, 2, 1] + [1, 0, 1]
    found = parts["scoring"].frechet_distance(ours, theirs)
    assert found == pytest.approx(1 + 1 + 4, rel=0.02)
    assert parts["scoring"].frechet_distance(ours, ours) == pytest.approx(0, abs=1e-6)


@pytest.fixture(scope="module")
def small_run(parts, tmp_path_factory):
    """The small study: data, bases, two units in both layouts, arms of each kind of error."""
    place = tmp_path_factory.mktemp("drift")
    study = parts["study"].STUDIES["small"]
    names = [arms.PLAIN, arms.FULL, "Gaussian noise", "blur and colour", "frozen bank"]
    names += [arms.OWN_CLIP, arms.OTHER_CLIP]
    one_frame, pro = parts["data"].Chain
    parts["work"].run_study(study, place / "work", [one_frame], names, 1)
    parts["work"].run_study(study, place / "work", [pro], [arms.PLAIN, arms.FULL, "blur and colour"], 1)
    return study, place


def test_the_small_study_runs_and_reports_only_what_it_ran(parts, small_run):
    study, place = small_run
    text = report.write_report(study, place / "work", place / "report", {"processor": "a test"})
    assert text.count("**No claim: fewer than 8 pairs.**") == 2
    assert "without latent error" not in text
    stored = json.loads((place / "report" / "drift.json").read_text())
    run = {"base", "plain LoRA", "ERFT", "Gaussian noise", "blur and colour", "frozen bank"}
    run |= {arms.OWN_CLIP, arms.OTHER_CLIP}
    assert set(stored["one frame"]["arms"]) == run
    injected = {name: [own["injected_rms"] for own in stored["one frame"]["arms"][name].values()] for name in run - {"base"}}
    assert injected["plain LoRA"] == [0.0, 0.0] and max(injected["blur and colour"]) > 0 and max(injected["frozen bank"]) > 0
    row = next(line for line in text.splitlines() if line.startswith("| copied first frame |"))
    assert row.startswith("| copied first frame | INVALID: 6 of 6") and row.endswith("|  |  |  |  |  |")  # no model
    tested = [line for line in text.split("## 2.0 Pro")[0].splitlines() if line.endswith(" | explored |")]
    assert [line.split(",")[0] for line in tested] == [f"| {arms.OWN_CLIP}", f"| {arms.OWN_CLIP}"]  # no image error only here
    assert "| Gaussian noise, " in text and text.count("Measured by the code of ") == 2
    own = stored["2.0 Pro"]["arms"]["ERFT"]["base 1, LoRA 1"]
    assert len(own["object_place"]) == len(own["object_colour"]) == len(own["object_shape"]) == study.num_clips
    assert len(own["distance"]) == study.num_clips and own["drift"] == pytest.approx(
        np.mean(own["distance"][1:]) - own["distance"][0]
    )
    for name in ("drift-one_frame.png", "drift-pro-strips.png"):
        assert (place / "report" / name).stat().st_size > 1000


def test_the_truth_is_valid_and_what_only_looks_like_a_video_is_not(small_run):
    _, place = small_run
    for chain in ("one_frame", "pro"):
        found = json.loads((place / "work" / "results" / chain / "cheats.json").read_text())
        truth, darker = found.pop("truth"), found.pop("truth, 3 % darker")
        assert truth["verdict"] == darker["verdict"] == "valid" and truth["drift"] == 0.0 and abs(darker["drift"]) < 0.05
        assert truth["object_lost"] == truth["object_place"] == truth["object_colour"] == truth["object_shape"] == [0.0] * 3
        assert found["copied first frame"]["object_place"][-1] > 3 and darker["object_colour"][-1] > 0.01
        cheats = {name: own["verdict"] for name, own in found.items()}
        assert len(cheats) == 3 and all(verdict.startswith("INVALID") for verdict in cheats.values()), cheats


@pytest.fixture(scope="module")
def known_scenes(parts, fitted):
    """Eight held-out scenes of six clips, most of which rest at times, and their reference."""
    scenes = parts["rollout"].make_scenes(parts["data"].Source.TINY_WORLD, HELD_OUT_SEED, 8, 6)
    return scenes, parts["scoring"].make_reference(fitted, parts["data"].Chain.ONE_FRAME, scenes)


def test_clips_are_called_repeated_where_the_truth_differs_and_nowhere_else(parts, fitted, known_scenes):
    """The truth itself shows some clips twice, so that whether any two are alike says nothing."""
    scenes, reference = known_scenes
    chain, true = parts["data"].Chain.ONE_FRAME, list(parts["scoring"].true_chains(fitted, scenes))
    assert any("repeated" in own for own in reference.cheats)
    differ = int(np.triu(reference.apart[:, 0], 1).any(axis=(1, 2)).sum())
    assert differ >= 6

    def verdict(clips):
        return parts["scoring"].score(chain, scenes, reference, iter(clips)).verdict

    darker = [(0.97 * clip).astype(np.uint8) for clip in true]
    assert verdict(true) == "valid" and verdict(darker) == "valid"
    again = [*true[:4], true[1], true[5]]  # one clip of six, seen before
    assert f"{differ} of 8 chains are" in verdict([true[1]] * 6) and "repeated" in verdict([true[1]] * 6)
    assert "repeated" in verdict(again)
    assert "reversed" in verdict([*true[:4], true[2][:, ::-1], true[5]])


def test_drift_is_the_mean_of_the_scenes_own(parts, fitted, known_scenes):
    scenes, reference = known_scenes
    darker = [(clip * (1 - 0.05 * k)).astype(np.uint8) for k, clip in enumerate(parts["scoring"].true_chains(fitted, scenes))]
    found = parts["scoring"].score(parts["data"].Chain.ONE_FRAME, scenes, reference, iter(darker))
    assert len(found.scene_drift) == 8 and found.drift == pytest.approx(np.mean(found.scene_drift))
    assert found.drift == pytest.approx(np.mean(found.distance[1:]) - found.distance[0]) and found.drift > 0.1


def film(path, seed, num_frames=25):
    """A picture that slides to the left, 25 frames of it: one clip of 21, and the first frames of a second."""
    wide = np.random.default_rng(seed).integers(0, 255, (15, 40, 3), np.uint8).repeat(16, axis=0).repeat(16, axis=1)
    frames = [np.ascontiguousarray(wide[:, 4 * k : 4 * k + 432]) for k in range(num_frames)]
    write_video(path, iter([np.stack(frames)]), VideoCoding())
    path.with_suffix(".txt").write_text("a wall slides by.", encoding="utf-8")


def test_windows_of_real_clips_keep_what_is_learnt_from_apart(tmp_path, monkeypatch):
    monkeypatch.setenv(real_clips.FOLDER_VARIABLE, str(tmp_path))
    with pytest.raises(ValueError, match="holds no captioned clip of 21 frames"):
        real_clips.true_window(0, 3)
    left_red = np.zeros((61, 240, 432, 3), np.uint8)
    left_red[:, :, :258, 0] = 255  # three fifths, whole pixels at half the size
    left_red[:, :, 258:, 2] = np.arange(61, dtype=np.uint8)[:, None, None] * 4
    black = np.zeros_like(left_red[:2])
    write_video(tmp_path / "halves.mp4", iter([np.concatenate([black, left_red])]), VideoCoding(crf=0, pixel_format="yuv444p"))
    (tmp_path / "halves.txt").write_text("two colours", encoding="utf-8")
    for seed in range(12):
        learnt = real_clips.true_window(seed, 5)
        held_out = real_clips.true_window(HELD_OUT_SEED + seed, 5)
        assert learnt.frames.shape == held_out.frames.shape == (3, 21, 3, 64, 96)  # 61 frames: no more were filmed
        assert float(learnt.frames[:, :, 0].min()) > 0.9 and float(held_out.frames[:, :, 0].max()) < 0.1
        assert torch.equal(held_out.frames[0, -1], held_out.frames[1, 0]) and learnt.captions == ("two colours",) * 5
        expected = torch.arange(21) * 4 / 255
        torch.testing.assert_close(held_out.frames[0, :, 2].mean((1, 2)), expected, atol=0.02, rtol=0)


def test_the_study_runs_on_real_clips_of_which_few_seconds_are_known(parts, tmp_path, monkeypatch):
    monkeypatch.setenv(real_clips.FOLDER_VARIABLE, str(tmp_path / "clips"))
    (tmp_path / "clips").mkdir()
    for seed in range(2):
        film(tmp_path / "clips" / f"{seed}.mp4", seed)
    study = replace(parts["study"].STUDIES["small"], name="real", source=parts["data"].Source.REAL_CLIPS)
    parts["work"].run_study(study, tmp_path / "work", study.chains, [arms.PLAIN, arms.FULL], 1)
    learnt = parts["work"].open_workshop(study, tmp_path / "work").training
    assert learnt.latents.shape[:2] == (4, 1) and len(learnt.texts.tokens) == 4  # a caption for each clip that was filmed
    text = report.write_report(study, tmp_path / "work", tmp_path / "report", {"processor": "a test"})
    assert "## one frame" in text and "2.0 Pro" not in text
    head = next(line for line in text.splitlines() if line.startswith("| arm |"))
    assert "| PSNR | seam | motion | clean loss | bank RMS |" in head  # neither the thing nor a second clip is known
    own = json.loads((tmp_path / "report" / "drift.json").read_text())["one frame"]["arms"]["ERFT"]["base 1, LoRA 1"]
    assert len(own["distance"]) == len(own["frechet"]) == 3 and len(own["psnr"]) == 1 and not own["object_error"]
    assert "rolled_start_loss" not in own  # no clip is known that follows another one
    cheats = json.loads((tmp_path / "work" / "results" / "one_frame" / "cheats.json").read_text())
    assert set(cheats) == {"copied first frame", "repeated first clip", "there and back"}  # all of the truth is not known
    assert all(cheats[name]["verdict"].startswith("INVALID") for name in ("copied first frame", "repeated first clip"))
    assert (tmp_path / "report" / "drift-real-one_frame-strips.png").stat().st_size > 1000


def test_after_what_was_filmed_chains_are_compared_with_its_mean(parts, fitted, tmp_path, monkeypatch):
    monkeypatch.setenv(real_clips.FOLDER_VARIABLE, str(tmp_path))
    film(tmp_path / "one.mp4", 0, num_frames=45)
    scenes = parts["rollout"].make_scenes(parts["data"].Source.REAL_CLIPS, HELD_OUT_SEED, 3, 4)
    assert scenes.num_clips == 4 and scenes.num_known == 2
    reference = parts["scoring"].make_reference(fitted, parts["data"].Chain.ONE_FRAME, scenes)
    first, second = reference.known[:, 0], reference.known[:, 1]
    assert np.abs(first - second).max() > 1e-3
    for clip in range(4):  # the known ones too: a first clip that is measured otherwise would make all others drift
        assert np.allclose(reference.features[:, clip], (first + second) / 2)


def test_real_clips_are_refused_in_a_layout_that_needs_more_overlap(capsys):
    assert drift_command(["run", "--study", "real", "--chain", "pro"]) == 1
    assert "the study 'real' has only one frame" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["diagnose"], "holds no base"),
        (["run", "--arms", "frozen bank, warm bank"], "there is no arm 'warm bank'"),
        (["run", "--study", "real"], "holds no captioned clip of 21 frames"),
    ],
)
def test_what_cannot_be_run_is_told(arguments, message, tmp_path, monkeypatch, capsys, comfy):
    monkeypatch.setenv(real_clips.FOLDER_VARIABLE, str(tmp_path / "no clips"))
    study = [] if "--study" in arguments else ["--study", "small"]
    assert drift_command([*arguments, *study, "--folder", str(tmp_path / "work")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "work" / "study.json").exists()  # what could not be run must not stand in the way of what can


def test_a_folder_of_another_study_is_refused(parts, small_run):
    study, place = small_run
    with pytest.raises(ValueError, match="holds another study .base_steps: 2 -> 3"):
        parts["work"].run_study(replace(study, base_steps=3), place / "work", list(parts["data"].Chain), [arms.PLAIN], 1)


def test_results_of_another_study_or_of_nobody_knows_which_are_not_reported(parts, small_run, tmp_path, capsys):
    _, place = small_run
    assert drift_command(["report", "--study", "full", "--folder", str(place / "work")]) == 1
    assert "holds another study" in capsys.readouterr().err
    (tmp_path / "bases").mkdir()
    assert drift_command(["report", "--study", "small", "--folder", str(tmp_path)]) == 1
    assert "does not say which study it holds" in capsys.readouterr().err


def test_the_clip_befores_error_is_what_is_injected(parts, fitted):
    recycling = ErrorRecyclingConfig(image_prob=1, clean_prob=0, capacity=2, num_grids=2)
    arm, chain = arms.make_arms(recycling)["image error of the clip before"], parts["data"].Chain.ONE_FRAME
    example, error = parts["base"].Example(0, 1, False, torch.zeros(16, 6, 8, 12)), torch.ones(16, 1, 8, 12)
    random = torch.Generator().manual_seed(0)
    for own in (error, None):
        drawn = parts["finetune"]._draw(fitted, None, chain, arm, example, own, 0.5, random)
        assert drawn.image_error is own and drawn.noise_error is drawn.latent_error is None and not drawn.is_clean
    never = replace(arm, recycling=replace(recycling, clean_prob=1))
    assert parts["finetune"]._draw(fitted, None, chain, never, example, error, 0.5, random).image_error is None


def test_the_control_gets_the_same_errors_at_the_same_examples_but_another_clips(parts, small_run, monkeypatch):
    study, place = small_run
    shop, finetune = parts["work"].open_workshop(study, place / "work"), parts["finetune"]
    chain, inject, given = parts["data"].Chain.ONE_FRAME, finetune.inject, []

    def labelled(model, codec, data, chain, examples, levels, random):
        return [torch.full((16, 1, 8, 12), float(k)) if k % 3 else None for k in range(len(examples))]

    def watched(latent, noise, y, injection, slots):
        given.append(None if injection.image_error is None else float(injection.image_error[0, 0, 0, 0]))
        return inject(latent, noise, y, injection, slots)

    monkeypatch.setattr(finetune, "handed_over_errors", labelled)
    monkeypatch.setattr(finetune, "inject", watched)
    always = arms.make_arms(replace(study.recycling, clean_prob=0.0, image_prob=1.0))
    out = {}
    for name in (arms.OWN_CLIP, arms.OTHER_CLIP):
        given.clear()
        model = parts["model"].load_base(parts["study"].base_path(place / "work", chain, 1))
        settings = replace(study.fine_tuning, num_steps=1, batch_size=6)
        trained = finetune.train_lora(model, shop.codec, shop.training, chain, always[name], settings, 5)
        out[name] = list(given), trained.injected_rms
    assert out[arms.OWN_CLIP][0] == [None, 1.0, 2.0, None, 4.0, 5.0]
    assert out[arms.OTHER_CLIP][0] == [None, 2.0, 4.0, None, 5.0, 1.0]
    assert out[arms.OWN_CLIP][1] == out[arms.OTHER_CLIP][1] == pytest.approx((46 / 4) ** 0.5)
    lone = finetune.ErrorInjection(None, None, torch.ones(1), is_clean=False)
    assert finetune.exchanged([finetune.NOTHING, lone])[1].image_error is None and finetune.exchanged([]) == []


def test_a_base_is_diagnosed_on_validation_stories(parts, small_run, monkeypatch):
    """In a model that lets the first frame stand its errors arrive, as far as colours can show them; in a blind one none."""
    study, place = small_run
    diagnosis = importlib.import_module("benchmarks.drift.diagnosis")
    monkeypatch.setattr(diagnosis, "NUM_SCENES", 6)
    monkeypatch.setattr(diagnosis, "NUM_DRAWS", 300)
    text = parts["work"].diagnose_bases(study, place / "work")
    kept = json.loads((place / "work" / "diagnosis.json").read_text())["bases"]["1"]
    row = f"| 1 | {kept['codec_loss']:.3f} | {kept['last_frame_error']:.3f} | {kept['bank_error']:.3f} |"
    assert text.startswith("| base | codec's loss |") and row in text
    shop = parts["work"].open_workshop(study, place / "work")

    def diagnosis_of(share):
        def towards_the_first_frame(model, noisy, y, sigma, texts):
            return (noisy - share * y) / sigma.view(-1, 1, 1, 1, 1)

        for name in ("rollout", "finetune"):
            monkeypatch.setattr(parts[name], "predict", towards_the_first_frame)
        return diagnosis.diagnose(None, shop.codec, study.source, shop.training, study.recycling, 4)

    standing, blind = diagnosis_of(1.0), diagnosis_of(0.0)
    assert standing.own > 0.95 and blind.own > 0.95  # four steps or one, such a model always ends at the same place
    scenes = parts["rollout"].make_scenes(study.source, diagnosis.VALIDATION_SEED, 6, 1)
    truth = shop.codec.encode(torch.stack([own.frames[0, -1:] for own in scenes.truth]))[:, :, 0]
    assert blind.common == pytest.approx(diagnosis.common_share(-truth), abs=0.02)
    assert standing.codec_loss == blind.codec_loss < 0.05 < standing.last_frame_error < blind.last_frame_error
    assert 0.6 < standing.gain < 1.0 and blind.gain == 0.0
    assert standing.missing < blind.missing == pytest.approx(1.0, abs=0.05)
    latents = shop.training.latents.flatten(0, 1)  # a blind model's one-step errors: all that it does not predict
    slots = torch.stack([shop.codec.first_slot_error(own) for own in latents])
    assert 0.0 < standing.bank_error < blind.bank_error == pytest.approx(float(latents.square().mean().sqrt()), rel=0.1)
    assert blind.injected_error == pytest.approx(float(slots.square().mean().sqrt()), rel=0.1)


def test_what_errors_have_in_common_is_told_from_what_each_has_for_itself(comfy):
    share = importlib.import_module("benchmarks.drift.diagnosis").common_share
    assert share(torch.ones(5, 3)) == pytest.approx(1.0)
    assert share(torch.eye(4)) == pytest.approx((4 * 1 / 16 - 1 / 4) / (3 / 4)) == 0.0  # four that share no place
    drawn = torch.randn(40, 5000, generator=torch.Generator().manual_seed(0))
    assert share(drawn) == pytest.approx(0.0, abs=0.005)
    assert share(2 * drawn + torch.randn(5000, generator=torch.Generator().manual_seed(1))) == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize(("chain", "mended"), [("ONE_FRAME", True), ("PRO", False)])
def test_image_errors_of_a_first_slot_are_what_a_frame_can_bring(parts, clips, fitted, chain, mended):
    recycling = ErrorRecyclingConfig(noise_prob=0, latent_prob=0, image_prob=1, clean_prob=0, capacity=2, num_grids=2)
    bank = parts["finetune"].make_bank((16, 6, 8, 12), recycling)
    random = torch.Generator().manual_seed(0)
    for sigma in bank.grid.sigmas:
        bank.add(torch.randn(16, 6, 8, 12, generator=random), sigma, random)
    own, arm = parts["data"].Chain[chain], arms.make_arms(recycling)[arms.FULL]
    example = parts["base"].Example(0, 1, True, fitted.encode(clips[0].frames)[1])
    error = parts["finetune"]._draw(fitted, bank, own, arm, example, None, 0.5, random).image_error
    assert torch.allclose(fitted.first_slot_error(error), error, atol=1e-4) is mended


def test_gaussian_noise_comes_in_place_of_the_banks_errors(parts, clips, fitted):
    recycling = ErrorRecyclingConfig(noise_prob=1, latent_prob=1, image_prob=1, clean_prob=0, capacity=2, num_grids=2)
    bank = parts["finetune"].make_bank((16, 6, 8, 12), recycling)
    for sigma in bank.grid.sigmas:
        bank.add(torch.full((16, 6, 8, 12), 0.5), sigma, torch.Generator().manual_seed(0))
    example = parts["base"].Example(0, 1, True, fitted.encode(clips[0].frames)[1])
    for name, varies in ((arms.FULL, False), ("Gaussian noise", True)):
        arm, random = arms.make_arms(recycling)[name], torch.Generator().manual_seed(1)
        drawn = parts["finetune"]._draw(fitted, bank, parts["data"].Chain.PRO, arm, example, None, 0.5, random)
        for error in (drawn.noise_error, drawn.latent_error, drawn.image_error):
            assert bool(error.std() > 0.05) is varies


def test_a_frozen_bank_holds_what_it_was_filled_with_and_another_grows(parts, small_run):
    _, place = small_run
    results = place / "work" / "results" / "one_frame" / "1-1"
    fill = {name: sum(json.loads((results / f"{name}.json").read_text())["bank_fill"]) for name in ("ERFT", "frozen-bank")}
    assert fill["ERFT"] > 0 and fill["frozen-bank"] == 4  # two batches of two before training, and none of its errors


@pytest.mark.parametrize("chain", ["ONE_FRAME", "PRO"])
def test_the_clip_before_hands_its_own_error_over(parts, small_run, monkeypatch, chain):
    """A model that sees its first frame and nothing else: its error in the last slot is what has changed since, by hand."""
    study, place = small_run
    shop, own = parts["work"].open_workshop(study, place / "work"), parts["data"].Chain[chain]
    one_frame, finetune, unused = chain == "ONE_FRAME", parts["finetune"], torch.zeros(16, 6, 8, 12)
    moved = (shop.training.latents[:, 1:3, :, 0] - shop.training.latents[:, 1:3, :, -1]).abs().amax((2, 3, 4))
    story, before = divmod(int(moved.argmax()), 2)
    before += 1  # the one of clips 1 and 2 of all stories in which most happens
    examples = [parts["base"].Example(1, 0, False, unused), parts["base"].Example(story, before + 1, not one_frame, unused)]

    def towards_the_first_frame(model, noisy, y, sigma, texts):
        return (noisy - y[:, :, :1]) / sigma.view(-1, 1, 1, 1, 1)

    monkeypatch.setattr(finetune, "predict", towards_the_first_frame)
    arguments = (None, shop.codec, shop.training, own, examples, [0.3, 0.6], torch.Generator().manual_seed(1))
    first, later = finetune.handed_over_errors(*arguments)
    latents = shop.training.latents[story]
    expected = (latents[before if one_frame else 0, :, 0] - latents[before, :, -1])[:, None]
    expected = shop.codec.first_slot_error(expected) if one_frame else expected
    assert first is None and float(expected.abs().max()) > 0.1
    torch.testing.assert_close(later, expected, atol=1e-4, rtol=0)


def test_running_again_does_nothing(parts, small_run, monkeypatch):
    study, place = small_run
    monkeypatch.setattr(parts["work"], "train_lora", None)
    monkeypatch.setattr(parts["work"], "train_base", None)
    parts["work"].run_study(study, place / "work", list(parts["data"].Chain), [arms.PLAIN], 1)


def test_arms_see_the_same_data_noise_and_start(parts, small_run):
    """Without a single error injected, every arm trains the same LoRA bit for bit."""
    study, place = small_run
    shop = parts["work"].open_workshop(study, place / "work")
    chain = parts["data"].Chain.PRO
    never = ErrorRecyclingConfig(clean_prob=1.0, capacity=4, num_grids=4)
    made = arms.make_arms(never)
    trained = {}
    for name in (arms.PLAIN, arms.FULL, "blur and colour"):
        model = parts["model"].load_base(parts["study"].base_path(place / "work", chain, 1))
        out = parts["finetune"].train_lora(model, shop.codec, shop.training, chain, made[name], study.fine_tuning, 5)
        trained[name] = torch.cat([p.detach().flatten() for pair in out.pairs.values() for p in pair.parameters()])
    assert torch.equal(trained[arms.PLAIN], trained[arms.FULL])
    assert torch.equal(trained[arms.PLAIN], trained["blur and colour"])


def test_a_lora_of_zeros_changes_no_roll_out(parts, small_run):
    study, place = small_run
    shop = parts["work"].open_workshop(study, place / "work")
    chain = parts["data"].Chain.ONE_FRAME
    model = parts["model"].load_base(parts["study"].base_path(place / "work", chain, 1))
    scenes = parts["rollout"].make_scenes(parts["data"].Source.TINY_WORLD, 77, 2, 2)
    plain = [own.frames for own in parts["rollout"].roll_out(model, shop.codec, chain, scenes, 2, 0)]
    pairs = parts["model"].attach_lora(model, 2, torch.Generator().manual_seed(0))
    for own, expected in zip(parts["rollout"].roll_out(model, shop.codec, chain, scenes, 2, 0), plain, strict=True):
        assert np.array_equal(own.frames, expected)
    for pair in pairs.values():
        torch.nn.init.constant_(pair.up, 0.1)
    changed = next(iter(parts["rollout"].roll_out(model, shop.codec, chain, scenes, 2, 0)))
    assert not np.array_equal(changed.frames, plain[0])


def made_up(drifts, verdict="valid", clean=1.0, start_gap=0.4):
    same = {"verdict": verdict, "clean_loss": clean, "bank_rms": [0.1, 0.6], report.START_GAP: start_gap}
    return {unit: {"drift": value, "scene_drift": [value - 0.1, value + 0.1], **same} for unit, value in drifts.items()}


def test_a_claim_needs_pairs_a_drifting_base_and_honest_videos(parts):
    unit = parts["study"].Unit
    units = [unit(base, lora) for base in range(4) for lora in (1, 2)]
    results = {
        "base": made_up(dict.fromkeys(units, 1.0)),
        "plain LoRA": made_up(dict.fromkeys(units, 0.9)),
        "ERFT": made_up({u: 0.5 + 0.01 * i for i, u in enumerate(units)}, start_gap=0.3),
    }
    say = lambda: " ".join(report._claim(results))  # noqa: E731
    assert "drifts less" in say() and "p = 0.0078" in say()
    assert "reach 0.60 (RMS; the latents' own is about 1), too large" in say()
    assert "Over the 2 scenes instead, mean of all units: 95 % interval -0.365 to -0.365" in say()
    assert "(rolled - true start): -0.100 (95 % interval -0.100 to -0.100, p = 0.0078)" in say()
    assert "Base 2 alone: -0.355, from -0.360 to -0.350 over 2 LoRA seeds" in say()
    results["ERFT"] = made_up(dict.fromkeys(units, 0.5), clean=1.05)
    assert "not a valid win: clean loss 5.0 % above" in say()
    for drift in (0.5, 1.5):
        results["ERFT"] = made_up(dict.fromkeys(units, drift), verdict="INVALID: motion is 0.10 of the truth's")
        assert "No claim: INVALID in 8 of 8" in say() and "Error recycling" not in say()
    results["ERFT"] = made_up(dict.fromkeys(units, 1.5))
    assert "drifts more" in say()
    results["ERFT"] = made_up(dict.fromkeys(units[:6], 0.5))
    assert "No claim" in say()
    results["base"] = made_up({u: (-1.0) ** i for i, u in enumerate(units)})
    results["ERFT"] = made_up(dict.fromkeys(units, 0.5))
    assert "not shown to drift" in say() and "No claim: the gate is closed" in say() and "Error recycling" not in say()


def test_a_figure_is_the_mean_of_the_runs_that_kept_it():
    runs = [{"a": 1.0, "b": [1.0, 5.0]}, {"a": 3.0, "b": []}, {}]
    assert report._mean(runs, "a", ".1f") == "2.0" and report._ends(runs, "b", ".1f") == "1.0 -> 5.0"
    assert report._mean(runs, "c", ".1f") == report._ends(runs, "c", ".1f") == ""
    assert report._mean([{"a": -1e-9}], "a", ".3f") == "0.000" and report._mean([{"a": -0.1}], "a", "+.1f") == "-0.1"


def test_ablations_share_holms_correction_and_what_is_only_explored_has_none(parts):
    units = [parts["study"].Unit(1, lora) for lora in range(6)]
    drifts = {"base": 1.0, arms.PLAIN: 0.9, arms.FULL: 0.5, "frozen bank": 0.6, "bank of 1": 0.7, arms.OWN_CLIP: 0.8}
    results = {name: made_up(dict.fromkeys(units, value)) for name, value in drifts.items()}
    rows = [line.strip("| ").split(" | ") for line in report._tests_table(results).splitlines()[2:]]
    assert [row[:3] for row in rows] == [
        ["frozen bank, 0.600", "ERFT, 0.500", "6"],
        ["bank of 1, 0.700", "ERFT, 0.500", "6"],
        [f"{arms.OWN_CLIP}, 0.800", "plain LoRA, 0.900", "6"],
    ]
    assert [row[3] for row in rows] == ["+0.100", "+0.200", "-0.100"] and {row[5] for row in rows} == {"0.0312"}
    assert [row[6] for row in rows] == ["0.062", "0.062", "explored"]  # two ablations: twice 2 / 64


def test_any_folder_of_videos_is_scored_and_absent_models_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path / "models"))
    random = np.random.default_rng(0)
    wide = random.integers(0, 255, (48, 400, 3), np.uint8).repeat(2, axis=0)
    frames = [np.ascontiguousarray(wide[:, 4 * k : 4 * k + 96]) for k in range(20)]
    write_video(tmp_path / "pan.mp4", iter([np.stack(frames)]), VideoCoding())
    write_video(tmp_path / "still.mp4", iter([np.stack(frames[:1] * 20)]), VideoCoding())
    text = folder.score_folder(tmp_path, 10, tmp_path / "out")
    assert "| pan.mp4 | valid | 2 |" in text and "| still.mp4 | INVALID (static) | 2 |" in text
    assert text.count("not run: ") == len(vbench.DIMENSIONS)
    with pytest.raises(ValueError, match="give --clip-length"):
        folder.score_folder(tmp_path, 0, tmp_path / "out")
    with pytest.raises(ValueError, match="holds no mp4"):
        folder.score_folder(tmp_path / "out", 0, tmp_path / "out")


def test_vbench_judges_only_where_its_models_are(tmp_path, monkeypatch):
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(vbench.importlib.util, "find_spec", lambda name: object())
    model = tmp_path / "raft_model" / "models" / "raft-things.pth"
    model.parent.mkdir(parents=True)
    model.touch()
    asked = []

    def evaluate(dimension, videos, output):
        asked.append(dimension)
        return {dimension: [0.25, []]}

    found = vbench.measure(tmp_path, tmp_path, evaluate)
    assert asked == ["dynamic_degree"] and found["dynamic_degree"] == 0.25
    assert found["motion_smoothness"] == f"not run: amt_model/amt-s.pth not in {tmp_path}"
