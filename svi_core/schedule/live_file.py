"""A schedule in a file that may change while the run goes on."""

import copy
import logging
from pathlib import Path

from .prompt_lists import PromptSplit
from .spec import ClipSpec, Requirement, Schedule
from .text import parse_schedule

_log = logging.getLogger(__name__)


class LiveSchedule:
    """A schedule in a file that is read again before each clip, so that a run can be steered while it goes.

    A file that cannot be read, or has a mistake, leaves the last good schedule in force and says so in the log. What a
    spec may name and ask for is known to the run only, which passes a function that raises ValueError.
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
        """Return the schedule at the last reading."""
        return self.schedule

    def for_run(self) -> "LiveSchedule":
        """Return one for a run of its own: what was in force last in another run may ask for what this one lacks."""
        return copy.copy(self)

    def at(self, clip_index: int, require: Requirement | None = None) -> ClipSpec:
        """Return what the file says now of clip `clip_index` (0-based), if `require` has nothing against it."""
        try:
            schedule = self._read()
            if require is not None:
                require(clip_index, schedule.at(clip_index))
            self.schedule = schedule
        except ValueError as error:
            _log.warning("SVI: %s; going on with the schedule as it was.", error)
        return self.schedule.at(clip_index)

    @property
    def prompts(self) -> list[str]:
        """The different prompts at the last reading."""
        return self.schedule.prompts

    def _read(self) -> Schedule:
        try:
            return parse_schedule(self.path.read_text(encoding="utf-8-sig"), self.split)
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"the schedule file {self.path} cannot be read as UTF-8 text ({error}): save it anew.") from error
