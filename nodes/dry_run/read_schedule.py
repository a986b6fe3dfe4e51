"""Read a run's schedule and number of clips from the queued graph."""

from collections.abc import Iterator, Sequence

from ...svi_core.schedule.doubts import doubts
from ...svi_core.schedule.prompt_lists import PromptSplit
from ...svi_core.schedule.spec import Schedule
from ..bridge.queued_graph import Link
from ..generate import SVIGenerate
from ..num_clips import control_doubt, num_clips_of
from ..schedule import SVILiveSchedule, SVIPromptStream, live_schedule, read_prompts
from ..storyline import SVIStoryline, read_story, write_story
from .graph_reader import GraphReader
from .read_controls import RequestedControl


def read_schedule(reader: GraphReader, loop: str) -> tuple[Schedule, bool]:
    """Return the current schedule of the SVI Generate `loop`, and whether it runs until stopped.

    Raises:
        ValueError: a schedule from another node, or with a mistake.
    """
    if stream := reader.source(loop, "prompts", SVIPromptStream):
        return _read_stream(reader, stream), False
    if live := reader.source(loop, "prompts", SVILiveSchedule):
        schedule = reader.required(live, SVILiveSchedule, live_schedule).snapshot()
        return schedule, reader.required(live, SVILiveSchedule, lambda until_stopped: until_stopped)
    link = reader.graph.link(loop, "prompts")
    origin = reader.graph.title(link.node_id) if link else "nowhere"
    raise ValueError(f"prompts: comes from {origin}, so the clips are not known: use SVI Prompt Stream.")


def read_doubts(reader: GraphReader, loop: str) -> Iterator[str]:
    """Yield what may have been meant otherwise in the prompts and the number of clips of the SVI Generate `loop`."""
    is_typed = reader.graph.link(loop, "num_clips") is None
    has_control = reader.graph.link(loop, "control") is not None
    if is_typed and (doubt := reader.required(loop, SVIGenerate, lambda num_clips: control_doubt(num_clips, has_control))):
        yield doubt
    stream = reader.source(loop, "prompts", SVIPromptStream)
    if stream is not None and reader.source(stream, "text", SVIStoryline) is None:
        yield from reader.required(stream, SVIPromptStream, lambda text, split: list(doubts(text, PromptSplit(split))))


def read_num_clips(reader: GraphReader, loop: str, schedule: Schedule, controls: Sequence[RequestedControl]) -> int:
    """Return how many clips the SVI Generate `loop` will make.

    Raises:
        ValueError: another node decides.
    """
    link = reader.graph.link(loop, "num_clips")
    for control in controls:
        if control.clip_count == link:
            return control.num_clips
    if story := reader.source(loop, "num_clips", SVIStoryline):
        return reader.required(story, SVIStoryline, lambda num_clips: num_clips)
    prompts = reader.graph.link(loop, "prompts")
    if prompts is not None and link == Link(prompts.node_id, 1):
        return len(schedule)  # the prompt stream's count
    return reader.required(loop, SVIGenerate, lambda num_clips: num_clips_of(num_clips, len(schedule)))


def _read_stream(reader: GraphReader, stream: str) -> Schedule:
    """Return the schedule of an SVI Prompt Stream, whose text may come from templates of SVI Storyline."""
    story = reader.source(stream, "text", SVIStoryline)
    if story is None or reader.graph.link(story, "text_model"):
        return reader.required(stream, SVIPromptStream, read_prompts)
    text = write_story(reader.required(story, SVIStoryline, read_story))
    return reader.required(stream, SVIPromptStream, read_prompts, text)
