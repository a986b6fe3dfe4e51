"""Names with patterns mean what they mean in ComfyUI's Save Image."""

import time

import pytest

from svi_core.files.name_pattern import at_time, folders_at_any_time, names_time, with_values
from svi_core.files.output_folder import check_output_prefix

MOMENT = time.struct_time((2026, 3, 9, 7, 5, 2, 0, 68, 0))


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("svi/%date:yyyy-MM-dd%/story", "svi/2026-03-09/story"),
        ("%date:yyyy-MM-ddThh-mm-ss%", "2026-03-09T07-05-02"),
        ("%date:d.M.yy_h-m-s%", "9.3.26_7-5-2"),
        ("%date:dMMyyyy%", "9032026"),
        ("%year%-%month%-%day% %hour%%minute%%second%", "2026-03-09 070502"),
        ("100%_a%b", "100%_a%b"),
        ("%batch_num%", "%batch_num%"),
        ("plain", "plain"),
    ],
)
def test_the_time_is_written_as_save_image_writes_it(prefix, expected):
    assert at_time(prefix, MOMENT) == expected
    assert names_time(prefix) == (prefix != expected)
    check_output_prefix(prefix)


def test_values_are_written_in_characters_that_names_may_have():
    values = {
        "width": 832,
        "height": 480,
        "Load A.name": 'a/b:c*"?<>|\\.safetensors',
        "KSampler.cfg": 2.0,
        "S.on": True,
        "S.x": 1.5,
    }
    prefix = "%width%x%height%/%Load A.name%_%KSampler.cfg%_%S.on%_%S.x%_%foo%_%date:yyyy/MM%"
    expected = "832x480/a_b_c_______.safetensors_2_true_1.5_%foo%_%date:yyyy%/%date:MM%"
    assert with_values(prefix, values.__getitem__) == expected
    check_output_prefix(prefix)


@pytest.mark.parametrize("prefix", ["%date:hh:mm%", "../%year%", "%date:../..%", "/%year%", "a/%date:yyyy%:", "%date%"])
def test_names_that_no_folder_can_have_are_refused(prefix):
    with pytest.raises(ValueError, match="filename_prefix"):
        check_output_prefix(prefix)


def test_the_folders_of_other_times_are_found(tmp_path):
    names = (
        "2026-03-09/story_7",
        "2025-12-31/story_23",
        "2025-12-31/story_123",
        "2025-1-31/story_7",
        "2026-03-09/tale_7",
        "x/story_7",
    )
    for name in names:
        (tmp_path / "a.b" / name).mkdir(parents=True)
    (tmp_path / "a.b" / "2026-03-10").touch()
    found = folders_at_any_time(tmp_path, "a.b/%date:yyyy-MM-dd%/story_%date:h%")
    assert sorted(path.relative_to(tmp_path / "a.b").as_posix() for path in found) == [
        "2025-12-31/story_23",
        "2026-03-09/story_7",
    ]
    assert list(folders_at_any_time(tmp_path, "none/%year%")) == []
