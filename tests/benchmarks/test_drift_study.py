"""The drift study's mechanics: its world, codec, statistics and measures against independent values, and a small run of it all.

No claim is tested here: whether error recycling helps is for the study itself to say, benchmarks/DRIFT.md.
"""

import importlib
import json
from dataclasses import replace
from functools import partial
from itertools import pairwise, product

import numpy as np
import pytest
import torch

from benchmarks.drift import arms, codec, losses, scoring, statistics
from benchmarks.drift.__main__ import _units as drift_units
from benchmarks.drift.__main__ import main as drift_command
from benchmarks.drift.errors import GaussianErrors, hand_made_error
from benchmarks.drift.world import (
    CAMERAS,
    FLOWS,
    HEIGHT,
    NUM_SLOTS,
    STEP,
    WIDTH,
    World,
    draw_scenes,
    num_frames,
    to_parts,
)
from svi_core.conditioning.build_y import KnownPart, build_y
from svi_core.flow.flow_matching import shifted_sigmas
from svi_core.recycling.config import ErrorRecyclingConfig
from svi_core.systems.layouts import make_layout


def drawn(seed, world=World.ENDLESS, count=8, frames=NUM_SLOTS):
    return draw_scenes(world, count, frames, torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def fitted():
    return codec.fit_codec()


@pytest.fixture(scope="module")
def parts(comfy):
    """The modules that need ComfyUI, which is ready to train."""
    names = ("base", "data", "diagnosis", "finetune", "model", "report", "rollout", "study", "work")
    modules = {name: importlib.import_module(f"benchmarks.drift.{name}") for name in names}
    modules["model"].open_comfy()
    return modules


def test_scenes_follow_from_their_seed_and_differ():
    first, again, other = drawn(1), drawn(1), drawn(2)
    assert torch.equal(first.frames, again.frames) and not torch.equal(first.frames, other.frames)
    assert first.frames.shape == (8, 5, 3, HEIGHT, WIDTH) and 0 <= first.frames.min() and first.frames.max() <= 1


def test_the_river_flows_as_the_caption_says_and_the_camera_is_not_named():
    scenes = drawn(3, count=40, frames=4)
    assert {abs(step) for step in (*FLOWS, *CAMERAS[1:])} == {STEP} == {codec.PATCH}
    seen = set()
    for frames, caption in zip(scenes.frames, scenes.captions.tolist(), strict=True):
        banks, rivers = to_parts(frames)
        camera = next(step for step in CAMERAS if torch.equal(banks[1], banks[0].roll(step, 2)))
        for place in range(3):
            assert torch.equal(banks[place + 1], banks[place].roll(camera, 2))
            assert torch.equal(rivers[place + 1], rivers[place].roll(camera + FLOWS[caption], 2))
        seen.add((camera, caption))
    assert len(seen) == len(CAMERAS) * len(FLOWS)


def test_textures_have_the_spectrum_that_the_docstring_names():
    luminance = drawn(4, count=64, frames=1).frames[:, 0, :, : HEIGHT // 2].mean(1)
    power = torch.fft.fft2(luminance - luminance.mean((1, 2), keepdim=True)).abs().square().mean(0)
    octaves = [float(power[0, low : 2 * low].mean()) for low in (3, 6, 12)]
    slopes = [np.log2(b / a) for a, b in pairwise(octaves)]
    assert all(-3.4 < slope < -1.6 for slope in slopes)  # power falls by 2 * 1.5, less at the lowest ones


def place_of(texture, known):
    """Return (number, shift) of the texture among `known` on the torus, or None."""
    shifts = range(0, WIDTH, STEP)
    found = (
        (number, shift) for number, own in enumerate(known) for shift in shifts if torch.equal(texture, own.roll(shift, 2))
    )
    return next(found, None)


def test_five_textures_are_five_and_their_place_does_not_tell_the_camera():
    scenes = drawn(5, World.FEW, count=200, frames=9)
    banks, rivers = to_parts(scenes.frames)
    known, seen = ([], []), {}
    for bank, river in zip(banks, rivers, strict=True):
        camera = next(step for step in CAMERAS if torch.equal(bank[1], bank[0].roll(step, 2)))
        for part, own in zip((bank[8], river[8]), known, strict=True):
            if place_of(part, own) is None:
                own.append(part)
        places = place_of(bank[8], known[0]), place_of(river[8], known[1])
        assert places[0][0] == places[1][0]
        seen.setdefault(camera, set()).add(places[0])
    assert len(known[0]) == len(known[1]) == 5
    assert all(len(seen[camera]) > 15 for camera in CAMERAS)  # of 30; 5 if the place told it


def test_endless_textures_are_all_different():
    banks = to_parts(drawn(5, count=40, frames=1).frames[:, 0])[0]
    assert all((place_of(bank, banks[:number]) is None) for number, bank in enumerate(banks))


def test_clips_share_the_frames_of_their_layout():
    scenes = drawn(6, frames=num_frames(3, 1))
    assert torch.equal(scenes.clip(0, 1)[:, -1:], scenes.clip(1, 1)[:, :1]) and scenes.clip(2, 1).shape[1] == NUM_SLOTS
    scenes = drawn(6, frames=num_frames(3, 2))
    assert torch.equal(scenes.clip(0, 2)[:, -2:], scenes.clip(1, 2)[:, :2]) and scenes.clip(2, 2).shape[1] == NUM_SLOTS


def test_the_codec_loses_detail_only_when_it_is_told_to(fitted):
    latent = fitted.encode(drawn(7).frames)
    assert latent.shape == (8, 16, 5, 4, 6) and 0.8 < float(latent.std()) < 1.2
    torch.testing.assert_close(fitted.encode(fitted.decode(latent, lossy=False)), latent, atol=1e-4, rtol=0)
    once = fitted.encode(fitted.decode(latent))
    shares = (once * latent).sum((0, 2, 3, 4)) / latent.square().sum((0, 2, 3, 4))
    torch.testing.assert_close(shares, fitted.kept, atol=1e-4, rtol=0)
    assert float(fitted.kept[0]) > 0.98 and float(fitted.kept[-1]) < 0.6 and bool((fitted.kept.diff() <= 1e-6).all())


def test_what_is_handed_over_is_rounded_and_compressed():
    frame = drawn(8, count=2).frames[:, -1]
    assert torch.equal(losses.NONE.hand_over(frame), frame)
    rounded = losses.MAIN_LOSSES.hand_over(frame)
    assert torch.equal(rounded, (frame * 255).round() / 255)
    compressed = losses.Losses("", jpeg=True).hand_over(frame)
    assert 0.005 < float((compressed - rounded).abs().mean()) < 0.05


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
    full = ErrorRecyclingConfig(clean_prob=0.5, capacity=100, num_image_error_slots=1)
    made = arms.make_arms(full, (200, 800, 2400))
    assert made[arms.FULL].recycling == full and not made[arms.PLAIN].recycling.injects
    changed = {
        name: {key for key, value in vars(arm.recycling).items() if value != getattr(full, key)} for name, arm in made.items()
    }
    assert changed["without image error"] == {"image_prob"} and changed["without latent error"] == {"latent_prob"}
    assert changed["without noise error"] == {"noise_prob"} and changed["image error only"] == {"noise_prob", "latent_prob"}
    assert changed["bank of 1"] == changed["bank of 10"] == {"capacity"}
    assert changed["clean probability 0.2"] == changed["clean probability 0.8"] == {"clean_prob"}
    assert changed["Gaussian noise"] == changed["frozen bank"] == changed["ERFT, 200 steps"] == set()
    assert changed["image error of the own clip"] == changed["image error only"]
    assert {arm.num_steps for arm in made.values() if "steps" not in arm.name} == {800}
    assert [made[f"{name}, {steps} steps"].num_steps for name in (arms.PLAIN, arms.FULL) for steps in (200, 2400)] == [
        200,
        2400,
    ] * 2


def test_gaussian_errors_are_as_large_as_the_banks_own():
    class Bank:
        entry_shape, grid = (16, 5, 4, 6), None

        def sample_latent_error(self, sigma, generator):
            return torch.full(self.entry_shape, 0.25)

        def sample_noise_error(self, sigma, generator):
            return None

    errors = GaussianErrors(Bank())
    drawn = errors.sample_latent_error(0.5, torch.Generator().manual_seed(0))
    assert float(drawn.square().mean().sqrt()) == pytest.approx(0.25, rel=0.05) and abs(float(drawn.mean())) < 0.02
    assert errors.sample_noise_error(0.5, torch.Generator()) is None


def test_hand_made_errors_soften_the_frame_they_are_added_to(fitted):
    latent = fitted.encode(drawn(9).frames)[0, :, :1]
    error = hand_made_error(fitted, latent, torch.Generator().manual_seed(3))
    assert error.shape == (16, 1, 4, 6) and 0.01 < float(error.abs().mean()) < 1.0
    sharp, soft = (fitted.decode(own[None], lossy=False)[0, 0] for own in (latent, latent + error))
    edges = [float((own[:, 1:] - own[:, :-1]).abs().mean()) for own in (sharp, soft)]
    assert edges[1] < edges[0]


@pytest.mark.parametrize(("chain", "layout"), [("FILM", "Tom & Jerry"), ("SHOT", "Shot"), ("PRO", "2.0 Pro")])
def test_conditioning_is_that_of_the_packs_layouts(parts, fitted, chain, layout):
    frames = drawn(10, count=1).frames[0]
    first, anchor = (fitted.encode(frames[None, [place]])[:, :, 0] for place in (4, 0))
    found = parts["data"].condition(fitted, parts["data"].Chain[chain], first, first, anchor)
    pack = make_layout(layout, 4 * NUM_SLOTS - 3)
    parts_of = lambda place: (  # noqa: E731
        KnownPart(latent=fitted.encode(frames[None, [place]]))
        if pack.in_latent_space
        else KnownPart(frames=frames[[place]].movedim(1, -1))
    )
    zero = torch.zeros(1, 16, 1, 1, 1)
    encode = lambda shown: fitted.encode(shown[None, ::4].movedim(-1, 2))  # noqa: E731 - a slot is one frame here
    own = build_y(pack.padding, pack.num_frames, parts_of(0), parts_of(4), zero, encode)
    torch.testing.assert_close(found, own.latent, atol=1e-5, rtol=0)


def test_examples_with_the_clips_before_them(parts, fitted):
    for chain in parts["data"].Chain:
        batch = parts["data"].draw_batch(fitted, World.ENDLESS, chain, 6, torch.Generator().manual_seed(1), with_before=True)
        shared = chain.overlap
        assert torch.equal(batch.before.latent[:, :, -shared:], batch.latent[:, :, :shared])
        known = batch.latent[:, :, 1] if chain.in_latent_space else batch.latent[:, :, 0]
        slot = 1 if chain.in_latent_space else 0
        for index, later in enumerate(batch.later):
            assert torch.equal(batch.y_latent[index, :, slot], known[index]) == (later or not chain.in_latent_space)


def test_fading_is_seen_by_quality_and_not_by_identity(parts, fitted):
    """A grey picture has lost its contrast; a wrong one of the same world has not, though it is farther from the truth."""
    chain = parts["data"].Chain.FILM
    scenes, others = (drawn(seed, count=16, frames=num_frames(2, 1)) for seed in (11, 12))
    truth, wrong = ([own.clip(k, 1) for k in range(2)] for own in (scenes, others))
    grey = [0.5 * own + 0.5 * own.mean((2, 3, 4), keepdim=True) for own in truth]
    reference = scoring.make_reference(chain, truth)
    same, faded, other = (scoring.score(chain, reference, own, truth) for own in (truth, grey, wrong))
    assert same.loss == pytest.approx(0, abs=1e-3) and same.contrast == pytest.approx((1.0, 1.0), rel=0.1)
    assert faded.contrast == pytest.approx([0.5 * value for value in same.contrast], rel=0.1)
    assert faded.detail == pytest.approx([0.5 * value for value in same.detail], rel=0.1) and faded.loss > 2 * other.loss
    assert faded.pixels[-1] < other.pixels[-1] and other.contrast[-1] == pytest.approx(1.0, abs=0.15)


def test_pixels_are_compared_where_bank_and_river_went(parts):
    """Another choice of the camera is no error; a shift of both parts by less than a place is one."""
    chain = parts["data"].Chain.FILM
    truth = [drawn(13, count=16, frames=num_frames(2, 1)).clip(k, 1) for k in range(2)]
    reference = scoring.make_reference(chain, truth)
    panned, nudged = ([own.roll(step, -1) for own in truth] for step in (2 * STEP, 3))
    assert scoring.score(chain, reference, panned, truth).pixels == (0, 0)
    assert scoring.score(chain, reference, nudged, truth).pixels[0] > 0.05


def test_another_camera_in_each_clip_is_no_cheat_and_coming_back_is_one(parts):
    """The river goes on past the bank, so no clip of an honest chain shows an earlier one, wherever its camera went."""
    chain, random = parts["data"].Chain.FILM, torch.Generator().manual_seed(2)
    truth = [drawn(14, count=16, frames=num_frames(12, 1)).clip(k, 1) for k in range(12)]
    reference = scoring.make_reference(chain, truth)
    panned = [own.roll(STEP * int(torch.randint(6, (), generator=random)), -1) for own in truth]
    there_and_back = [truth[1 + k % 2] for k in range(12)]
    verdicts = [scoring.score(chain, reference, clips, truth).verdict for clips in (panned, there_and_back)]
    assert verdicts[0] == "valid" and "repeated" in verdicts[1], verdicts


@pytest.fixture(scope="module")
def small_run(parts, tmp_path_factory):
    """The small study: bases, two units, arms of each kind of error in Film, the main ones in the other layouts."""
    place = tmp_path_factory.mktemp("drift")
    study = parts["study"].STUDIES["small"]
    names = [*arms.MAIN, "blur and colour", "frozen bank", "image error of the own clip"]
    with pytest.MonkeyPatch.context() as patch:  # these need no precision here
        patch.setattr(parts["base"], "LOSS_BATCHES", 1)
        patch.setattr(parts["diagnosis"], "NUM_SCENES", 4)
        patch.setattr(importlib.import_module("benchmarks.drift.rollout"), "shifted_sigmas", lambda steps: shifted_sigmas(2))
        parts["work"].run_study(study, place / "work", list(parts["data"].Chain), names, 1)
    return study, place


def test_the_small_study_runs_and_reports_only_what_it_ran(parts, small_run):
    study, place = small_run
    text = parts["report"].write_report(study, place / "work", place / "report", {"processor": "a test"})
    assert "without latent error" not in text and text.count("Measured by the code of ") == 3
    stored = json.loads((place / "report" / "drift.json").read_text())
    ran = {"base", *arms.MAIN, "blur and colour", "frozen bank", "image error of the own clip"}
    assert set(stored["Film"]["arms"]) == ran and set(stored["Shot"]["arms"]) == {"base", arms.PLAIN, arms.FULL}
    injected = {name: [own["injected_rms"] for own in stored["Film"]["arms"][name].values()] for name in ran - {"base"}}
    assert injected["plain LoRA"] == [0.0, 0.0] and max(injected["blur and colour"]) > 0
    assert injected["without image error"] == [0.0, 0.0] and max(injected["image error of the own clip"]) > 0
    own = stored["Film"]["arms"]["ERFT"]["base 1, LoRA 1"]["chains"]
    assert {"VAE and 8 bits", "all losses", "no loss", "JPEG", "guidance 2", "4 steps", "strength 0.5"} <= set(own)
    main = own["VAE and 8 bits"]
    assert len(main["frechet"]) == study.num_clips and main["loss"] == pytest.approx(np.mean(main["frechet"][1:]))
    assert "No claim: the gates are closed" in text and set(stored["bases"]) == {"endless textures, 1", "five textures, 1"}
    for name in ("drift-film-frechet.png", "drift-film-contrast.png", "drift-pro-strips.png"):
        assert (place / "report" / name).stat().st_size > 1000


def test_the_truth_is_valid_and_what_only_looks_like_a_video_is_not(small_run):
    _, place = small_run
    for chain in ("film", "shot", "pro"):
        found = json.loads((place / "work" / "results" / chain / "cheats.json").read_text())
        truth, darker = found.pop("truth"), found.pop("truth, 3 % darker")
        others, faded = found.pop("truth of other scenes"), found.pop("truth, a third of the contrast")
        assert truth["verdict"] == darker["verdict"] == "valid" and truth["loss"] == pytest.approx(0, abs=1e-3)
        assert 0 < darker["loss"] < 2
        assert others["verdict"] == "valid" and others["loss"] < 1e-3 < 2 < faded["loss"]  # it does not see whose scene it is
        assert others["pixels"][0] > faded["pixels"][0]
        cheats = {name: own["verdict"] for name, own in found.items()}
        caught = {name for name, verdict in cheats.items() if verdict.startswith("INVALID")}
        # 2.0 Pro's clips go on by three of the world's six frames: there true clips come back every other time, too
        assert caught == cheats.keys() - ({"there and back"} if chain == "pro" else set()), cheats


def test_no_other_arm_starts_while_a_gate_is_closed(parts, small_run, monkeypatch):
    """The small study is too small for a claim and has no gates; as a study of eight pairs it would stop at them."""
    study, place = small_run
    results, work = importlib.import_module("benchmarks.drift.results"), parts["work"]
    check = partial(results.require_open_gates, study, place / "work")
    done: list[str] = []
    monkeypatch.setattr(work, "make_base", lambda workshop, world, seed: done.append("base"))
    monkeypatch.setattr(work, "run_arm", lambda workshop, chain, unit, name: done.append(name))
    for task in ("run_other_losses", "run_cheats"):
        monkeypatch.setattr(work, task, lambda *args, task=task, **options: done.append(task))
    run = partial(work.run_study, study, place / "work", [parts["data"].Chain.FILM], list(arms.MAIN), 1, check)
    run()
    assert {arms.FULL, "run_cheats", "run_other_losses"} <= set(done)
    done.clear()
    monkeypatch.setattr(results, "LEAST_PAIRS", 2)
    with pytest.raises(ValueError, match=r"no other arm is started, since gates are closed: .*at least 0\.85"):
        run()
    assert set(done) == {"base", arms.PLAIN}


def test_a_study_can_be_shared_out_by_its_bases(parts, monkeypatch, tmp_path):
    study, done = parts["study"].STUDIES["full"], []
    monkeypatch.setattr(parts["work"], "open_workshop", lambda study, folder: None)
    for task in ("make_base", "run_arm", "run_other_losses", "run_cheats"):
        monkeypatch.setattr(parts["work"], task, lambda *args, task=task, **options: done.append((task, options)))
    units = drift_units("2, 3", study.units)
    assert units == tuple(parts["study"].Unit(base, lora) for lora in (1, 2) for base in (2, 3))
    parts["work"].run_study(study, tmp_path, [parts["data"].Chain.FILM], list(study.arms), 1, units=units)
    assert {own["unit"] for _, own in done if "unit" in own} == set(units)
    assert [own["seed"] for task, own in done if task == "make_base"] == [2, 3]  # that of five textures goes with base 1
    frozen = [own["unit"] for task, own in done if task == "run_arm" and own["name"] == "frozen bank"]
    assert frozen == list(units[:2])  # the other pairs are of the claim's arms only


def test_what_cannot_be_run_is_told(tmp_path, capsys, comfy):
    work = str(tmp_path / "work")
    assert drift_command(["run", "--study", "small", "--arms", "frozen bank, warm bank", "--folder", work]) == 1
    assert "there is no arm 'warm bank'" in capsys.readouterr().err
    assert drift_command(["run", "--study", "small", "--bases", "1, 3", "--folder", work]) == 1
    assert "there is no base '3': choose all, or of 1." in capsys.readouterr().err
    assert not (tmp_path / "work" / "study.json").exists()  # what could not be run must not stand in the way of what can


def test_a_folder_of_another_study_is_refused(parts, small_run, tmp_path, capsys):
    study, place = small_run
    with pytest.raises(ValueError, match="holds another study .num_clips: 4 -> 3"):
        parts["work"].run_study(replace(study, num_clips=3), place / "work", [], [], 1)
    assert drift_command(["report", "--study", "full", "--folder", str(place / "work")]) == 1
    assert "holds another study" in capsys.readouterr().err
    (tmp_path / "bases").mkdir()
    assert drift_command(["report", "--study", "small", "--folder", str(tmp_path)]) == 1
    assert "does not say which study it holds" in capsys.readouterr().err


def test_running_again_does_nothing(parts, small_run, monkeypatch):
    study, place = small_run
    monkeypatch.setattr(parts["work"], "train_lora", None)
    monkeypatch.setattr(parts["work"], "train_base", None)
    parts["work"].run_study(study, place / "work", list(parts["data"].Chain), [arms.PLAIN], 1)


def test_a_base_goes_on_from_its_checkpoint_to_the_same_weights(parts, fitted, tmp_path):
    base, settings = parts["base"], parts["base"].BaseTraining(4, 2, save_every=2)
    whole = base.train_base(fitted, World.ENDLESS, 3, settings, tmp_path / "whole.pt")

    def stop(step, loss):
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        base.train_base(fitted, World.ENDLESS, 3, settings, tmp_path / "stopped.pt", stop)
    steps = []
    again = base.train_base(fitted, World.ENDLESS, 3, settings, tmp_path / "stopped.pt", lambda step, loss: steps.append(step))
    assert steps == [3, 4]
    for own, expected in zip(again.parameters(), whole.parameters(), strict=True):
        assert torch.equal(own, expected)


def subject(parts, fitted, chain, place):
    model = parts["model"].load_model(parts["study"].base_path(place / "work", World.ENDLESS, 1))
    return parts["finetune"].Subject(model, fitted, World.ENDLESS, chain)


def test_arms_see_the_same_data_noise_and_start(parts, fitted, small_run):
    """Without a single error injected, every arm trains the same LoRA bit for bit."""
    study, place = small_run
    never = ErrorRecyclingConfig(clean_prob=1.0, capacity=4, num_grids=4, num_image_error_slots=1)
    made = arms.make_arms(never, (1, 3, 4))
    trained = {}
    for name in (arms.PLAIN, arms.FULL, "blur and colour", "image error of the own clip"):
        own = subject(parts, fitted, parts["data"].Chain.PRO, place)
        out = parts["finetune"].train_lora(own, made[name], study.fine_tuning, 5)
        trained[name] = torch.cat([p.detach().flatten() for p in out.adapters.parameters()])
    assert all(torch.equal(trained[arms.PLAIN], own) for own in trained.values())


def test_the_clip_before_hands_its_own_error_over(parts, fitted, small_run, monkeypatch):
    """A model that sees its first frame and nothing else: its error in the last slot is what has changed since, by hand."""
    study, place = small_run
    data, finetune, model = parts["data"], parts["finetune"], parts["model"]
    arm = arms.make_arms(study.recycling, study.lengths)["image error of the own clip"]
    monkeypatch.setattr(
        model, "predict", lambda model, noisy, y, sigma, captions: (noisy - y[:, :, :1]) / sigma.view(-1, 1, 1, 1, 1)
    )
    trainer = finetune._Trainer(subject(parts, fitted, data.Chain.FILM, place), arm, study.fine_tuning, 5)
    batch = data.draw_batch(fitted, World.ENDLESS, data.Chain.FILM, 4, torch.Generator().manual_seed(1), with_before=True)
    found = trainer._handed_over_errors(batch, 1)
    expected = (batch.before.latent[:, :, 0] - batch.latent[:, :, 0])[:, :, None]
    assert float(expected.abs().max()) > 0.5
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_a_lora_of_strength_0_changes_no_roll_out(parts, fitted, small_run):
    _, place = small_run
    own = subject(parts, fitted, parts["data"].Chain.FILM, place)
    scenes = drawn(13, count=2, frames=num_frames(2, 1))
    frames = lambda: torch.stack([f for f, _ in parts["rollout"].roll_out(  # noqa: E731
        own.model, fitted, own.chain, scenes, losses.ALL, 2, 0)])  # fmt: skip
    plain = frames()
    adapters = parts["finetune"].LoraAdapters(own.model, rank=2, alpha=2, generator=torch.Generator().manual_seed(0))
    for pair in adapters.pairs.values():
        torch.nn.init.constant_(pair.up, 0.1)
    assert not torch.equal(frames(), plain)
    parts["finetune"].set_strength(adapters, 0.0)
    assert torch.equal(frames(), plain)


def test_what_a_chain_hands_over_is_what_conditions_the_next_clip(parts, fitted, monkeypatch):
    """A sampler that repeats its first slot, a little brighter each time: the chain's brightness follows by hand."""
    rollout, chain = parts["rollout"], parts["data"].Chain.FILM
    monkeypatch.setattr(rollout, "sample", lambda model, noise, y, captions, losses: y[:, :, :1].expand_as(y) * 0.9)
    scenes = drawn(14, count=2, frames=num_frames(3, 1))
    found = [latent for _, latent in rollout.roll_out(None, fitted, chain, scenes, losses.Losses("", vae=True), 3, 0)]
    first = fitted.encode(scenes.frames[:, :1])
    factor = fitted.kept.view(-1, 1, 1, 1)
    torch.testing.assert_close(found[0][:, :, :1], 0.9 * first, atol=1e-4, rtol=0)
    clamped = fitted.encode(fitted.decode(found[0][:, :, -1:]).clamp(0, 1))
    torch.testing.assert_close(found[1][:, :, :1], 0.9 * clamped, atol=1e-4, rtol=0)
    torch.testing.assert_close(clamped, factor * found[0][:, :, -1:], atol=0.1, rtol=0)


@pytest.mark.parametrize("shift", [0, 1])
def test_the_gain_of_a_random_error_is_what_arrives_wherever_the_camera_moves_it(parts, fitted, monkeypatch, shift):
    diagnosis = parts["diagnosis"]
    monkeypatch.setattr(diagnosis, "sample", lambda model, noise, y, captions, losses: 0.7 * y[:, :, :1].roll(shift, -1))
    assert diagnosis.random_gain(None, fitted, World.ENDLESS) == pytest.approx(0.7, rel=1e-3)


def made_up(losses_of, share=0.5, verdict="valid"):
    chain = {"verdict": verdict, "contrast": [1.0, share], "detail": [1.0, share], "motion": [1.0, share]}
    return {unit: {"chains": {losses.MAIN_LOSSES.name: {"loss": value, **chain}}} for unit, value in losses_of.items()}


def test_a_chain_that_loses_nothing_else_is_judged_by_a_truth_with_the_vaes_loss_or_without(
    parts, fitted, tmp_path, monkeypatch
):
    """A perfect chain has no quality loss with any of the losses; the other truth would give it 0.9."""
    work, study, chain = parts["work"], parts["study"].STUDIES["small"], parts["data"].Chain.FILM

    def perfect(model, codec, chain, scenes, losses, num_clips, seed):
        for index in range(num_clips):
            latent = codec.encode(scenes.clip(index, chain.overlap))
            yield codec.decode(latent, lossy=losses.vae).clamp(0, 1), latent

    monkeypatch.setattr(work, "roll_out", perfect)
    monkeypatch.setattr(work, "load_model", lambda path: None)
    work.run_other_losses(work.Workshop(study, tmp_path, "", fitted), chain, study.units[0], arms.BASE)
    (path,) = tmp_path.rglob("*.losses.json")
    found = {name: own["loss"] for name, own in json.loads(path.read_text())["chains"].items()}
    assert {"no loss", "VAE round trip", "JPEG"} <= set(found) and max(found.values()) < 1e-3


def test_a_claim_needs_gates_pairs_and_honest_videos(parts):
    report, unit = parts["report"], parts["study"].Unit
    units = [unit(base, lora) for base in range(4) for lora in (1, 2)]
    bases = {f"{World.ENDLESS}, 1": {"training loss": 1.0, "held-out loss": 1.0, "diagnosis": {"gain": {"value": 0.9}}}}
    results = {
        "base": made_up(dict.fromkeys(units, 5.0)),
        "plain LoRA": made_up(dict.fromkeys(units, 5.0)),
        "ERFT": made_up({u: 2.0 + 0.01 * i for i, u in enumerate(units)}, 0.9),
    }
    say = lambda: report.claim(results, bases)  # noqa: E731
    assert say().startswith("**Error recycling degrades less than plain fine-tuning here**") and "p = 0.0078, 8 pairs" in say()
    results["ERFT"] = made_up({u: 7.0 + 0.01 * i for i, u in enumerate(units)}, 0.9)
    assert say().startswith("**Error recycling degrades more than plain fine-tuning here**")
    results["ERFT"] = made_up({u: 5.0 + (-1) ** i for i, u in enumerate(units)}, 0.9)
    assert say().startswith("**No difference is shown**")
    results["ERFT"] = made_up(dict.fromkeys(units, 2.0), 0.9, "INVALID: 8 of 32 chains are static")
    assert say() == "**No claim: ERFT is INVALID in 8 of 8: 8 of 32 chains are static.**"
    results["ERFT"] = made_up(dict.fromkeys(units, 2.0), 0.9)
    results["plain LoRA"] = made_up(dict.fromkeys(units, 5.0), verdict="INVALID: 9 of 32 chains are static")
    assert say() == "**No claim: plain LoRA is INVALID in 8 of 8: 9 of 32 chains are static.**"
    results["plain LoRA"] = made_up(dict.fromkeys(units, 5.0))
    results["ERFT"] = made_up(dict.fromkeys(units[:6], 2.0), 0.9)
    assert say() == "**No claim yet: 6 of 8 pairs were run.**"
    results["base"] = made_up(dict.fromkeys(units, 5.0), 0.7)
    assert say().startswith("**No claim: the gates are closed** (base: contrast of the last clip is 0.70")


def test_the_report_names_the_code_of_the_other_losses_too(parts, tmp_path):
    report, study, chain = parts["report"], parts["study"].STUDIES["small"], parts["data"].Chain.FILM
    path = parts["study"].result_path(tmp_path, chain, study.units[0], arms.BASE)
    for place, name, commit in ((path, "a", "1111111"), (parts["study"].other_losses_path(path), "b", "2222222")):
        parts["study"].write_json(place, {"chains": {name: {}}, "commit": commit})
    (found,) = report.read_results(study, tmp_path, chain)[arms.BASE].values()
    assert found == {"chains": {"a": {}, "b": {}}, "commits": ["1111111", "2222222"]}


def test_a_mean_is_of_units_that_every_main_arm_has(parts):
    """A base that was measured on one unit more than its LoRAs counts as often as they do."""
    report, units = parts["report"], [parts["study"].Unit(base, 1) for base in (1, 2, 3)]
    results = {
        "base": made_up(dict.fromkeys(units, 5.0)),
        arms.PLAIN: made_up(dict.fromkeys(units[:2], 5.0)),
        "frozen bank": made_up(dict.fromkeys(units[2:], 5.0)),
    }
    found = report.of_whole_pairs(results)
    assert {name: list(own) for name, own in found.items()} == {
        "base": units[:2],
        arms.PLAIN: units[:2],
        "frozen bank": units[2:],
    }
    assert report.of_whole_pairs({"base": results["base"]})["base"] == results["base"]


def test_only_the_registered_pairs_are_tested_and_corrected(parts):
    report, units = parts["report"], [parts["study"].Unit(1, lora) for lora in range(6)]
    values = {"base": 5.0, arms.PLAIN: 5.0, arms.FULL: 2.0, "frozen bank": 2.5, "bank of 1": 3.0}
    results = {name: made_up(dict.fromkeys(units, value)) for name, value in values.items()}
    rows = [line[2:-2].split(" | ") for line in report._tests_table(results).splitlines()[2:]]
    assert [row[:4] for row in rows] == [
        ["registered", "ERFT, 2.00", "plain LoRA, 5.00", "6"],
        ["registered", "ERFT, 2.00", "base, 5.00", "6"],
        ["ablations", "frozen bank, 2.50", "ERFT, 2.00", "6"],
        ["ablations", "bank of 1, 3.00", "ERFT, 2.00", "6"],
    ]
    assert [row[4] for row in rows] == ["-3.00", "-3.00", "+0.50", "+1.00"]
    assert [row[6:] for row in rows] == [["0.0312", "0.0625"]] * 2 + [["", ""]] * 2  # 2 / 64, and twice that for two tests
