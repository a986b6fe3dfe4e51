"""The storyline engine as a node: subject and style in, the text of a schedule out."""

from comfy_api.latest import io

from ..svi_core.schedule.spec import MAX_SEED
from ..svi_core.schedule.storyline import (
    MAX_STORY_CLIPS,
    TOKENS_PER_CLIP,
    Storyline,
    instruction,
    read_answer,
    story_text,
    write_prompts,
)
from ..svi_core.schedule.storyline_actions import SubjectKind
from .bridge.schemas import svi_schema

BY_TEMPLATES = "Written by SVI Storyline from templates, without a language model"
BY_MODEL = "Written by the language model at text_model of SVI Storyline"


class SVIStoryline(io.ComfyNode):
    """Write one prompt per clip about a subject."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        line = {"default": "", "multiline": False}
        return svi_schema(
            node_id="SVIStoryline",
            display_name="SVI Storyline",
            description="Write a prompt stream: one action and one camera move per clip, each beginning where the one before "
            "ended. From templates, or by any text-generation model that ComfyUI can load. Edit the result as you like.",
            search_aliases=["prompt generator", "story", "llm", "write prompts"],
            inputs=[
                io.String.Input(
                    "subject",
                    default="a young woman in a pink dress",
                    tooltip="Who or what, with its looks; every prompt names it. May stay empty if text_model sees image.",
                ),
                io.Combo.Input(
                    "kind", options=SubjectKind, default=SubjectKind.PERSON, tooltip="Decides which actions templates use."
                ),
                io.String.Input(
                    "place", tooltip="Where, with its preposition: on a green hill under a blue sky. May be empty.", **line
                ),
                io.String.Input("style", tooltip="How it looks, at the end of every prompt. May be empty.", **line),
                io.Int.Input("num_clips", default=3, min=1, max=MAX_STORY_CLIPS, tooltip="Prompts to write."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    tooltip="Another seed, another story; the same seed, the same.",
                ),
                io.String.Input("prefix", tooltip="Put before every prompt as it is: a style or character line.", **line),
                io.String.Input("suffix", tooltip="Put after every prompt as it is.", **line),
                io.Clip.Input(
                    "text_model",
                    optional=True,
                    tooltip="A text-generation model from Load CLIP (Qwen, Gemma; not umT5), which then writes the prompts.",
                ),
                io.Image.Input("image", optional=True, tooltip="The reference image, for a text_model that can see."),
            ],
            outputs=[
                io.String.Output(
                    "text", tooltip="For text of SVI Prompt Stream; show it with Preview as Text and edit it there."
                ),
                io.Int.Output("num_prompts", tooltip="How many prompts; for num_clips of SVI Generate."),
            ],
        )

    @classmethod
    def execute(
        cls, subject, kind, place, style, num_clips, seed, prefix, suffix, text_model=None, image=None
    ) -> io.NodeOutput:
        story = read_story(subject, kind, place, style, num_clips, seed, prefix, suffix)
        return io.NodeOutput(write_story(story, text_model, image), num_clips)


def read_story(
    subject: str, kind: str, place: str, style: str, num_clips: int, seed: int, prefix: str, suffix: str
) -> Storyline:
    """Return the story that the widgets of SVI Storyline ask for."""
    looks = {"style": style, "place": place, "prefix": prefix, "suffix": suffix}
    return Storyline(subject=subject, kind=SubjectKind(kind), num_clips=num_clips, seed=seed, **looks)


def write_story(story: Storyline, text_model=None, image=None) -> str:
    """Return the text of a schedule, written by `text_model` where there is one, else from templates.

    Raises:
        ValueError: an image without a model, a model that writes no text, or an answer without enough prompts.
    """
    if text_model is None:
        if image is not None:
            raise ValueError("image is connected, but templates cannot see: connect a text_model that can, or remove image.")
        return story_text(write_prompts(story), f"{BY_TEMPLATES} (seed {story.seed})")
    answer = _ask(text_model, instruction(story, image is not None), image, story)
    return story_text(read_answer(answer, story), f"{BY_MODEL} (seed {story.seed})")


def _ask(text_model, question: str, image, story: Storyline) -> str:
    """Return what `text_model` answers, as ComfyUI's own text node asks it.

    Raises:
        ValueError: it is a text encoder that writes nothing.
    """
    if not _writes_text(text_model):
        raise ValueError(
            f"text_model ({type(text_model.cond_stage_model).__name__}) is a text encoder that writes no text: load a "
            "text-generation model with Load CLIP, or disconnect it for the templates."
        )
    tokens = text_model.tokenize(question, image=image, skip_template=False, min_length=1, thinking=False)
    length = TOKENS_PER_CLIP * story.num_clips + TOKENS_PER_CLIP
    settings = {"temperature": 0.7, "top_k": 64, "top_p": 0.95, "min_p": 0.05, "repetition_penalty": 1.05}
    return text_model.decode(text_model.generate(tokens, do_sample=True, max_length=length, seed=story.seed, **settings))


def _writes_text(text_model) -> bool:
    """Whether the network behind a CLIP can generate; every CLIP has the method, few have what it calls."""
    stage = text_model.cond_stage_model
    encoder = getattr(stage, getattr(stage, "clip", ""), stage)
    network = getattr(encoder, "transformer", encoder)
    return callable(getattr(network, "generate", None))
