"""How many clips a run makes, and what of that the user may not expect."""

from ..svi_core.schedule.doubts import length_doubt
from ..svi_core.schedule.spec import MAX_CLIPS
from .bridge.browsers import inform, warn
from .schedule import EncodedPrompts


def tell_num_clips(num_clips: int, prompts: EncodedPrompts, control: object) -> int:
    """Return how many clips a run makes; say in log and page where prompts or `control` have another number."""
    if prompts.until_stopped:
        return MAX_CLIPS
    num_listed = len(prompts.schedule.snapshot())
    if doubt := control_doubt(num_clips, bool(control)):
        warn("SVI Generate", doubt)
    num_clips = num_clips_of(num_clips, num_listed)
    if doubt := length_doubt(num_clips, num_listed):
        (warn if num_clips < num_listed else inform)("SVI Generate", doubt)
    return num_clips


def num_clips_of(num_clips: int, num_listed: int) -> int:
    """Return how many clips a run makes: `num_clips`, or if that is 0 as many as its schedule lists."""
    return num_clips or num_listed


def control_doubt(num_clips: int, has_control: bool) -> str:
    """Return a warning if a typed `num_clips` of 0 ignores the length of a control; "" if not."""
    if num_clips != 0 or not has_control:
        return ""
    return (
        "num_clips is 0, so the prompts set the number of clips, not the sound or the poses: connect num_clips of SVI Talk "
        "or SVI Dance to it."
    )
