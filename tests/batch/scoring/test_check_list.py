"""The check list: a case passes if all four answers are yes; what is not answered or was said of other bytes does not count."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from batch.scoring.check_list import QUESTIONS, read_check_list
from batch.scoring.sample import Sample

YES = dict.fromkeys(QUESTIONS, True)


def sample(name: str) -> Sample:
    return Sample(name, Path(f"{name}.mp4"), f"sha of {name}", (), (1,))


def written(folder: Path, content: object) -> Path:
    (folder / "check_list.json").write_text(json.dumps(content))
    return folder / "check_list.json"


def case(name: str, answers: dict) -> dict:
    return {"sha256": f"sha of {name}", "answers": answers}


def test_the_pass_rate_is_over_judged_cases(tmp_path):
    cases = {
        "a": case("a", YES),
        "b": case("b", YES | {"seam": False}),
        "c": case("c", {"identity": True}),
        "d": case("d", {}),
        "e": case("other bytes", YES),
        "gone": case("gone", YES),
        "f": case("f", YES),
    }
    path = written(tmp_path, {"format": "svi check list 1", "cases": cases})
    found = replace(read_check_list(path, [sample(name) for name in "abcdef"]), cases=tuple("abcdef"))
    assert found.judged() == ["a", "b", "f"] and found.passed() == ["a", "f"] and found.outdated == ("e",)
    assert found.pass_rate() == pytest.approx(2 / 3)
    assert read_check_list(path, []).pass_rate() is None
    failed = replace(found, cases=tuple("abcdefg"), failed=("f", "g"))
    assert failed.passed() == ["a"] and failed.pass_rate() == 0.25  # of a, b, f and g
    assert replace(found, cases=("c", "d", "g"), failed=("g",)).pass_rate() is None
    assert replace(found, cases=("g",), failed=("g",)).pass_rate() == 0


@pytest.mark.parametrize(
    "content, complaint",
    [
        ([], "is no check list"),
        ({"cases": {}}, "is no check list"),
        ({"format": "svi check list 1", "cases": {"a": 3}}, "the case 'a' holds no answers"),
        ({"format": "svi check list 1", "cases": {"a": case("a", {"seam": 1})}}, "the answer 'seam' of 'a' is not yes or no"),
        (
            {"format": "svi check list 1", "cases": {"a": case("a", {"mood": True})}},
            "the answer 'mood' of 'a' is not yes or no",
        ),
    ],
)
def test_other_files_are_refused(tmp_path, content, complaint):
    with pytest.raises(ValueError, match=complaint):
        read_check_list(written(tmp_path, content), [sample("a")])
