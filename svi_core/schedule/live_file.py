"""A schedule file that may change during the run."""

import copy
import logging
from pathlib import Path

from ..files.text_file import read_text
from .prompt_lists import PromptSplit
from .spec import ClipSpec, Requirement, Schedule
from .text import parse_schedule

_log = logging.getLogger(__name__)


class LiveSchedule:
    """A schedule file that is read again before each clip, so that it can steer a run.

    If the file cannot be read or has a mistake, the last good schedule stays in force and the log says so.
    """

    def __init__(self, path: Path, split: PromptSplit = PromptSplit.PARAGRAPHS):
        """Read the file for the first time.

        Raises:
            ValueError: the file cannot be read or holds no schedule.
        """
        self.path = path
        self.split = split
        self.schedule = self._read()

    def __len__(self) -> int:
        return len(self.schedule)

    def snapshot(self) -> Schedule:
        """Return the schedule as last read."""
        return self.schedule

    def for_run(self) -> "LiveSchedule":
        """Return a copy for one run: the schedule in force in another run may ask for what this run lacks."""
        return copy.copy(self)

    def at(self, clip_index: int, require: Requirement | None = None) -> ClipSpec:
        """Return what the file now says of clip `clip_index` (0-based), unless `require` raises ValueError."""
        try:
            schedule = self._read()
            if require is not None:
                require(clip_index, schedule.at(clip_index))
            self.schedule = schedule
        except ValueError as error:
            _log.warning("SVI: %s; continuing with the last valid schedule.", error)
        return self.schedule.at(clip_index)

    @property
    def prompts(self) -> list[str]:
        """The different prompts as last read."""
        return self.schedule.prompts

    def _read(self) -> Schedule:
        name = f"the schedule file {self.path}"
        text = read_text(self.path, name)
        try:
            return parse_schedule(text, self.split)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
