"""``python -m batch score`` on a folder as `batch run` leaves it: order, verdicts, files, check list, and problems."""

import csv
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from batch import score
from batch.arguments import command_line
from batch.records import DONE, FAILED, QUEUED, OutputFolder, Record
from batch.scoring import scores as scores_module
from batch.scoring.check_list import QUESTIONS
from svi_core.files.fingerprint import file_sha256
from svi_core.files.sealed_json import write_sealed
from tests.batch.scored_videos import moving, save, still

CLIPS = 3
GRAPH = {"1": {"class_type": "SVILayout", "inputs": {"num_frames": 13}}}
NAMES = ("consistent-50s-002-fox", "consistent-50s-001-cat", "production-001-turn", "production-002-walk")


def made_as(video: Path) -> dict[str, str]:
    """Return what a record says of a video."""
    return {"file": video.name, "sha256": file_sha256(video)}


def remake(folder: Path, name: str, seed: int) -> None:
    """Make a story again, with other frames."""
    output = OutputFolder(folder)
    record = output.record(name)
    assert record
    output.write_record(name, replace(record, video=made_as(save(folder / f"{name}.mp4", moving(seed, 31)))))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder of four made stories of 13, 9 and 9 frames; the second stands still."""
    folder = tmp_path_factory.mktemp("videos")
    output = OutputFolder(folder)
    for number, name in enumerate(NAMES):
        frames = still(31) if number == 1 else moving(number, 31)
        save(folder / f"{name}.mp4", frames)
        values = {"prompts": "# Written\n\na cat <b>\n\na dog\n"}
        output.write_record(name, Record(DONE, "key", values, num_clips=CLIPS, video=made_as(folder / f"{name}.mp4")))
        output.write_graph(name, GRAPH)
    write_sealed(folder / "batch.json", {"stories": [{"name": name} for name in NAMES]})
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "videos")


def run(folder: Path, *more: object) -> int:
    return score.main(command_line().parse_args(["score", str(folder), *map(str, more)]))


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / "scores" / name).read_text(encoding="utf-8"))))


def facts(folder: Path) -> dict:
    return json.loads((folder / "scores" / "scores.json").read_text(encoding="utf-8"))


def test_a_batch_is_scored_in_its_order(folder, capsys):
    assert run(folder) == 0
    assert [row["name"] for row in rows(folder, "samples.csv")] == list(NAMES)
    assert {row["clips"] + " of " + row["frames"] for row in rows(folder, "samples.csv")} == {"3 of 31"}
    said = capsys.readouterr().err
    assert "INVALID: consistent-50s-001-cat (static)" in said and "look at" in said
    assert "absent: subject_consistency, background_consistency" in said and "Sync-C" not in said  # nobody asked for it
    assert "VBench: " not in said
    assert sorted(path.name for path in (folder / "scores").iterdir()) == [
        "clips.csv",
        "measured",
        "report.html",
        "samples.csv",
        "scores.json",
    ]


def test_an_invalid_video_has_no_number_anywhere(folder):
    run(folder)
    invalid = rows(folder, "samples.csv")[1]
    assert invalid["verdict"] == "INVALID: static"
    assert not any(invalid[column] for column in ("colour drift", "sharpness drift", "motion x255", "largest seam"))
    assert {row["name"] for row in rows(folder, "clips.csv")} == set(NAMES) - {NAMES[1]}
    known = facts(folder)
    video = known["videos"][NAMES[1]]
    assert video["invalid"] == ["static"] and video["values"] == {} and video["per_clip"] == {}
    means = known["benchmarks"]["consistent-50s"]
    assert (means["videos"], means["invalid"]) == (2, 1)
    values = known["videos"][NAMES[0]]["values"]  # those of the one valid video
    assert means["means"] == values | {"sharpness drift": abs(values["sharpness drift"])}


def test_blur_does_not_make_up_for_sharpening(folder, monkeypatch):
    summary = scores_module.VideoLook.summary
    drifts = iter((-0.4, 0.2, 0.4))
    monkeypatch.setattr(scores_module.VideoLook, "summary", lambda look: summary(look) | {"sharpness drift": next(drifts)})
    run(folder)
    known = facts(folder)
    assert known["videos"][NAMES[0]]["values"]["sharpness drift"] == -0.4
    assert known["benchmarks"]["production"]["means"]["sharpness drift"] == pytest.approx(0.3)
    assert known["benchmarks"]["consistent-50s"]["means"]["sharpness drift"] == 0.4


def test_per_clip_values_stand_beside_their_clips(folder):
    run(folder)
    mine = [row for row in rows(folder, "clips.csv") if row["name"] == NAMES[0]]
    assert [row["clip"] for row in mine] == ["1", "2", "3"] and mine[0]["seam"] == "" and float(mine[1]["seam"]) > 0
    assert float(mine[2]["colour drift"]) == facts(folder)["videos"][NAMES[0]]["values"]["colour drift"]


def test_vbench_and_true_videos_where_they_are(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(scores_module, "judge", lambda dimension, samples, kept: {sample.name: 0.5 for sample in samples})
    monkeypatch.setattr(scores_module.truth, "missing_for_pairs", lambda truth: None)
    monkeypatch.setattr(scores_module.truth, "missing_for_fvd", lambda truth: None if truth else "no true videos")
    monkeypatch.setattr(scores_module.truth, "psnr_and_ssim", lambda ours, true: (20.0, 0.75, 3))
    monkeypatch.setattr(scores_module.truth, "frechet_video_distance", lambda ours, true, _: 100.0 * len(ours))
    truth = tmp_path / "truth"
    for name in NAMES[:2]:
        save(truth / f"{name}.mp4", moving(0, 3))
    assert run(folder, "--references", truth) == 0
    first, second, third, _ = rows(folder, "samples.csv")
    assert (first["subject_consistency"], first["PSNR"], first["SSIM"]) == ("0.5", "20.0", "0.75")
    assert (second["PSNR"], third["PSNR"], third["subject_consistency"]) == ("", "", "0.5")
    assert facts(folder)["videos"][NAMES[0]]["frames_compared"] == 3
    assert facts(folder)["benchmarks"]["consistent-50s"]["means"]["FVD"] == 100.0  # the INVALID video is left out
    assert facts(folder)["benchmarks"]["consistent-50s"]["videos_of_means"]["PSNR"] == 1
    page = (folder / "scores" / "report.html").read_text()
    assert "<td>50.00</td>" in page and "<th>PSNR ↑</th>" in page and "PSNR over 3 of 31 frames" in page
    monkeypatch.setattr(scores_module.truth, "psnr_and_ssim", lambda ours, true: pytest.fail("it is kept"))
    assert run(folder, "--references", truth) == 0
    assert (
        facts(folder)["videos"][NAMES[0]]["values"]["PSNR"] == 20.0
        and facts(folder)["videos"][NAMES[0]]["frames_compared"] == 3
    )


def test_a_metric_that_fails_is_absent_and_the_others_are_there(folder, tmp_path, capsys, monkeypatch):
    def judge(dimension, samples, kept):
        if dimension == "imaging_quality":
            raise RuntimeError("CUDA out of memory.\nTried to allocate")
        return {sample.name: 0.5 for sample in samples}

    def fails(*_):
        raise NotImplementedError

    monkeypatch.setattr(scores_module, "judge", judge)
    monkeypatch.setattr(scores_module.truth, "missing_for_pairs", lambda truth: None)
    monkeypatch.setattr(scores_module.truth, "missing_for_fvd", lambda truth: None)
    monkeypatch.setattr(scores_module.truth, "psnr_and_ssim", fails)
    monkeypatch.setattr(scores_module.truth, "frechet_video_distance", fails)
    monkeypatch.setattr(scores_module.lip_sync, "missing", lambda: None)
    monkeypatch.setattr(scores_module.lip_sync, "confidence_and_distance", fails)
    talk = "talk-300s-001-cat"
    save(folder / f"{talk}.mp4", moving(5, 31))
    save(tmp_path / "truth" / f"{NAMES[0]}.mp4", moving(0, 3))
    assert run(folder, "--references", tmp_path / "truth", "--clip-length", 9) == 0
    known = facts(folder)
    assert known["absent"] == {
        "imaging_quality": "RuntimeError: CUDA out of memory. Tried to allocate",
        "PSNR": f"of {NAMES[0]}: NotImplementedError",
        "SSIM": f"of {NAMES[0]}: NotImplementedError",
        "Sync-C": f"of {talk}: NotImplementedError",
        "Sync-D": f"of {talk}: NotImplementedError",
        "FVD": "NotImplementedError",
    }
    assert known["videos"][NAMES[0]]["values"]["subject_consistency"] == 0.5
    said = capsys.readouterr().err
    assert "absent: imaging_quality: RuntimeError: CUDA" in said and f"absent: PSNR, SSIM: of {NAMES[0]}: NotImpl" in said


@pytest.mark.parametrize("option, content", [("--check-list", "nothing"), ("--references", None)])
def test_the_files_of_options_are_read_before_anything_is_measured(folder, tmp_path, capsys, option, content):
    if content:
        (tmp_path / "given").write_text(content)
    assert run(folder, option, tmp_path / "given") == 2
    assert str(tmp_path / "given") in capsys.readouterr().err and not (folder / "scores").exists()


def test_a_check_list_is_read_back(folder, capsys):
    def case(name: str, **wrong: bool) -> dict:
        return {"sha256": file_sha256(folder / f"{name}.mp4"), "answers": dict.fromkeys(QUESTIONS, True) | wrong}

    cases = {NAMES[2]: case(NAMES[2]), NAMES[3]: case(NAMES[3], style=False)}
    (folder / "check_list.json").write_text(json.dumps({"format": "svi check list 1", "cases": cases}))
    assert run(folder) == 0
    assert "50% of 2 judged cases passed; published for 14 cases: 64%" in capsys.readouterr().err
    assert facts(folder)["check_list"]["pass_rate"] == 0.5
    remake(folder, NAMES[3], 77)
    assert run(folder) == 0
    said = capsys.readouterr().err
    assert f"the answers about {NAMES[3]} do not count: its video has changed since" in said and "100% of 1" in said
    assert run(folder, "--check-list", folder / "nowhere.json") == 2


def test_stories_without_a_video_are_named_and_have_not_passed(folder, capsys):
    """Of four production cases one passed, one is INVALID, one was never made, and one has the video of an older row."""
    unmade, old = "production-003-rise", "production-004-still"
    save(folder / f"{old}.mp4", moving(8, 31))
    stories = [{"name": name, "reason": ""} for name in NAMES]
    stories += [{"name": unmade, "reason": "LoRA missing"}, {"name": old, "reason": "no such image"}]
    write_sealed(folder / "batch.json", {"stories": stories})
    still_case = folder / f"{NAMES[3]}.mp4"
    save(still_case, still(31))
    OutputFolder(folder).write_record(NAMES[3], Record(DONE, "key", num_clips=CLIPS, video=made_as(still_case)))
    judged = {name: file_sha256(folder / f"{name}.mp4") for name in (NAMES[0], NAMES[2], NAMES[3])}
    yes = dict.fromkeys(QUESTIONS, True)
    cases = {name: {"sha256": sha256, "answers": yes} for name, sha256 in judged.items()}
    (folder / "check_list.json").write_text(json.dumps({"format": "svi check list 1", "cases": cases}))
    assert run(folder) == 1
    known = facts(folder)
    assert known["unscored"] == {unmade: "LoRA missing", old: "not made from this row yet: no such image"}
    assert known["check_list"]["failed"] == [NAMES[3], unmade, old]
    assert known["check_list"]["pass_rate"] == 0.25  # the consistent video that passed is no case
    assert "25% of 4 judged cases passed (3 INVALID or not scored: not passed)" in capsys.readouterr().err
    assert "<b>production-003-rise</b>: LoRA missing" in (folder / "scores" / "report.html").read_text()


def test_only_the_video_that_was_made_from_the_row_is_scored(folder):
    output = OutputFolder(folder)
    for name, changes in ((NAMES[0], {"status": QUEUED}), (NAMES[1], {"status": FAILED, "error": "no memory"})):
        record = output.record(name)
        assert record
        output.write_record(name, replace(record, **changes))
    save(folder / f"{NAMES[2]}.mp4", moving(9, 31))
    (folder / f"{NAMES[3]}.mp4").unlink()
    for suffix in ("mp4", "webm"):
        (folder / f"twice.{suffix}").touch()
    assert run(folder) == 1
    assert facts(folder)["unscored"] == {
        NAMES[0]: "not made from this row yet: queued",
        NAMES[1]: "not made from this row yet: no memory",
        NAMES[2]: f"not made from this row yet: {NAMES[2]}.mp4 is not the file that the batch made",
        NAMES[3]: "not made from this row yet: its video is not in the folder",
        "twice": "twice.mp4 and twice.webm have one name: keep one of them",
    }


def test_a_video_that_cannot_be_scored_is_named_and_the_others_are(folder, capsys):
    (folder / "broken.mp4").write_bytes(b"no video")
    save(folder / "stranger.mp4", moving(5, 20))
    assert run(folder) == 1
    said = capsys.readouterr().err
    assert "not scored: stranger: where its clips begin is not known: give --clip-length" in said
    assert "not scored: broken: " in said
    assert [row["name"] for row in rows(folder, "samples.csv")] == [*NAMES, "broken", "stranger"]
    assert facts(folder)["unscored"].keys() == {"broken", "stranger"}
    assert "<h2>Not scored</h2>" in (folder / "scores" / "report.html").read_text()


def test_any_folder_of_videos_is_scored_with_a_clip_length(tmp_path):
    save(tmp_path / "b.mp4", moving(1, 20))
    save(tmp_path / "a.mp4", moving(2, 20))
    assert run(tmp_path, "--clip-length", 8, "--output", tmp_path / "elsewhere") == 0
    known = json.loads((tmp_path / "elsewhere" / "scores.json").read_text())
    assert list(known["videos"]) == ["a", "b"] and known["benchmarks"].keys() == {"other"}
    assert len(known["videos"]["a"]["per_clip"]["seam"]) == 2  # clips of 12 and 8 frames
    assert 'href="../a.mp4"' in (tmp_path / "elsewhere" / "report.html").read_text()


def test_a_folder_without_videos_is_refused(tmp_path, capsys):
    assert run(tmp_path) == 2 and "holds no video (.mp4" in capsys.readouterr().err
    assert run(tmp_path / "nowhere") == 2 and "is no folder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
