import os
import shutil

import pytest

from svi_core.files.output_folder import check_output_prefix, is_file_name, run_folder


@pytest.mark.parametrize("prefix", ["video", "svi/story", "a b/ü 文", "v1.2/take-3"])
def test_plain_names_lie_below_the_output_folder(tmp_path, prefix):
    assert run_folder(tmp_path, prefix) == tmp_path / prefix
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "  ",
        "/etc/x",
        "../x",
        "a/../../x",
        "a\\..\\x",
        "C:x",
        "x\0y",
        "a\nb",
        "n" * 300,
        "~/x",
        ".",
        "con",
        "a/NUL.txt",
        "x.",
        "a\ud800b",
        "a" * 1_000_000,
    ],
    ids=lambda prefix: ascii(prefix[:20]),
)
def test_prefixes_that_leave_the_folder_or_break_elsewhere_are_refused(tmp_path, prefix):
    with pytest.raises(ValueError, match="filename_prefix is .*: use a relative name") as caught:
        check_output_prefix(prefix)
    assert len(str(caught.value)) < 600


def test_a_loop_of_links_and_a_path_longer_than_any_system_has_are_refused(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(ValueError, match="which cannot be followed .*: a link in it may lead to itself"):
        run_folder(tmp_path, "loop/run")
    with pytest.raises(ValueError, match=r"filename_prefix makes a path of \d+ bytes: use a shorter one, at most 3800"):
        run_folder(tmp_path, "/".join(["a" * 100] * 40))


def test_file_names_are_single_plain_names():
    assert all(map(is_file_name, ("story", "SVI 2.0 ü", "v1.2-take")))
    assert not any(map(is_file_name, ("", "a/b", "a\\b", "a:b", "..", ".", "nul", "x.", " x", "n" * 300)))


@pytest.mark.skipif(os.name == "nt", reason="symlinks need rights on Windows")
def test_a_symlink_out_of_the_folder_is_refused(tmp_path):
    outside, output = tmp_path / "outside", tmp_path / "output"
    outside.mkdir(), output.mkdir()
    (output / "link").symlink_to(outside)
    for prefix in ("link", "link/video"):
        with pytest.raises(ValueError, match="leads out"):
            run_folder(output, prefix)
    assert list(outside.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="symlinks need rights on Windows")
@pytest.mark.parametrize("name", ["clips", "set_aside", "run.json", "finished.jsonl", ".lock", "clips/0.keep", "set_aside/x"])
@pytest.mark.parametrize("target", ["file", "folder", "nothing", "circle", "another run"])
def test_a_link_in_a_run_folder_that_leads_elsewhere_is_refused(tmp_path, name, target):
    link = tmp_path / "output" / "run" / name
    link.parent.mkdir(parents=True)
    (tmp_path / "output" / "other").mkdir()
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    place = {"circle": link, "another run": tmp_path / "output" / "other"}.get(target, tmp_path / target)
    link.symlink_to(place)
    with pytest.raises(ValueError, match=f"{link} is a link that leads out of the run's folder.*remove the link"):
        run_folder(tmp_path / "output", "run")


@pytest.mark.skipif(os.name == "nt", reason="symlinks need rights on Windows")
def test_an_output_folder_on_another_disk_and_links_inside_the_run_are_fine(tmp_path):
    (tmp_path / "disk" / "svi" / "run" / "clips").mkdir(parents=True)
    (tmp_path / "output").symlink_to(tmp_path / "disk")
    run = tmp_path / "output" / "svi" / "run"
    (run / "video-1.mp4").touch()
    (run / "latest.mp4").symlink_to("video-1.mp4")
    assert run_folder(tmp_path / "output", "svi/run") == run
    shutil.rmtree(run)
    assert run_folder(tmp_path / "output", "svi/run") == run and not run.exists()
