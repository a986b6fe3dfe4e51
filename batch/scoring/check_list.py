"""The check list that a person fills in on the report's page: four questions for each case.

The page saves ``check_list.json``; this reads it back. An answer counts only for the bytes that were looked at.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from batch.scoring.sample import Sample
from svi_core.files.strict_json import read_json

FILE = "check_list.json"
QUESTIONS = {
    "identity": "the subject stays who it is",
    "style": "style and colours stay",
    "seam": "no jump where clips meet",
    "prompt": "each prompt is followed",
}
PUBLISHED_PASS_RATE = 0.64  # 9 of 14 cases
PUBLISHED_SOURCE = "https://dev.to/atlas_cloud_ai/long-video-generation-blog-how-we-shipped-svi-in-production-5bln"
_FORMAT = "svi check list 1"


@dataclass(frozen=True)
class CheckList:
    """What a person said.

    Attributes:
        answers: name of a story -> question -> whether it is as it should be.
        outdated: stories whose video has changed since, so that their answers do not count.
        cases: the stories that the pass rate is of.
        failed: those of `cases` without a valid video: not passed, whatever was said.
    """

    answers: dict[str, dict[str, bool]]
    outdated: tuple[str, ...] = ()
    cases: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()

    def judged(self) -> list[str]:
        """Return the cases with a valid video and an answer to every question."""
        return [
            name for name in self.cases if name not in self.failed and self.answers.get(name, {}).keys() == QUESTIONS.keys()
        ]

    def passed(self) -> list[str]:
        """Return the cases where every answer is yes."""
        return [name for name in self.judged() if all(self.answers[name].values())]

    def pass_rate(self) -> float | None:
        """Return the share of judged and failed cases that passed; None before one of those that can be judged is."""
        judged = self.judged()
        decided = len(judged) + len(self.failed)
        if not decided or (not judged and decided < len(self.cases)):
            return None
        return len(self.passed()) / decided


def read_check_list(path: Path, samples: Iterable[Sample]) -> CheckList:
    """Return the answers in the file `path` about `samples`.

    Raises:
        ValueError: it is no check list.
    """
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != _FORMAT or not isinstance(content.get("cases"), dict):
        raise ValueError(f"{path} is no check list: save it from the report's page by its button")
    current = {sample.name: sample.sha256 for sample in samples}
    answers: dict[str, dict[str, bool]] = {}
    outdated = []
    for name, case in content["cases"].items():
        if not isinstance(case, dict) or not isinstance(case.get("answers"), dict):
            raise ValueError(f"{path}: the case {name!r} holds no answers: save the check list from the page again")
        said = case["answers"]
        if wrong := [key for key, value in said.items() if key not in QUESTIONS or not isinstance(value, bool)]:
            raise ValueError(f"{path}: the answer {wrong[0]!r} of {name!r} is not yes or no to one of {', '.join(QUESTIONS)}")
        if name in current and current[name] == case.get("sha256"):
            answers[name] = said
        elif name in current:
            outdated.append(name)
    return CheckList(answers, tuple(outdated))
