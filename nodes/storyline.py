"""The storyline engine as a node: write a schedule about a subject."""

from comfy_api.latest import io

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
from .bridge.schemas import seed_input, svi_schema

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
            description="Write a prompt stream: one action and one camera move per clip, each starting where the previous one "
            "ended. Uses templates, or any text-generation model that ComfyUI can load.",
            category="prompts",
            search_aliases=["prompt generator", "story", "llm", "write prompts"],
            inputs=[
                io.String.Input(
                    "subject",
                    default="a young woman in a pink dress",
                    tooltip="Who or what, with its looks; every prompt names it. May be empty if text_model sees image.",
                ),
                io.Combo.Input("kind", options=SubjectKind, default=SubjectKind.PERSON, tooltip="For the templates."),
                io.String.Input("place", tooltip="Where, with its preposition: on a green hill. May be empty.", **line),
                io.String.Input("style", tooltip="Ends every prompt: watercolour, soft light. May be empty.", **line),
                io.Int.Input("num_clips", default=3, min=1, max=MAX_STORY_CLIPS, tooltip="Number of prompts to write."),
                seed_input("Selects the story. The same seed gives the same story."),
                io.String.Input("prefix", tooltip="Text before every prompt: a style or character line.", **line),
                io.String.Input("suffix", tooltip="Text after every prompt.", **line),
                io.Clip.Input(
                    "text_model",
                    optional=True,
                    tooltip="A text-generation model from Load CLIP (Qwen, Gemma; not umT5) that writes the prompts.",
                ),
                io.Image.Input("image", optional=True, tooltip="The reference image, for a text_model with vision."),
            ],
            outputs=[
                io.String.Output("text", tooltip="For text of SVI Prompt Stream. Preview as Text shows it."),
                io.Int.Output("num_prompts", tooltip="Number of prompts, for num_clips of SVI Generate."),
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
    """Return the story that the widgets of SVI Storyline describe."""
    looks = {"style": style, "place": place, "prefix": prefix, "suffix": suffix}
    return Storyline(subject=subject, kind=SubjectKind(kind), num_clips=num_clips, seed=seed, **looks)


def write_story(story: Storyline, text_model=None, image=None) -> str:
    """Return the text of a schedule, written by `text_model` or, without one, from templates.

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
    """Return the answer of `text_model`, called as ComfyUI's own text node does.

    Raises:
        ValueError: a text encoder that cannot write.
    """
    if not _writes_text(text_model):
        raise ValueError(
            f"text_model ({type(text_model.cond_stage_model).__name__}) is a text encoder that cannot write text: load a "
            "text-generation model with Load CLIP, or disconnect it to use templates."
        )
    tokens = text_model.tokenize(question, image=image, skip_template=False, min_length=1, thinking=False)
    length = TOKENS_PER_CLIP * story.num_clips + TOKENS_PER_CLIP
    settings = {"temperature": 0.7, "top_k": 64, "top_p": 0.95, "min_p": 0.05, "repetition_penalty": 1.05}
    return text_model.decode(text_model.generate(tokens, do_sample=True, max_length=length, seed=story.seed, **settings))


def _writes_text(text_model) -> bool:
    """Whether the network behind a CLIP can generate; every CLIP has the method, but few networks do."""
    stage = text_model.cond_stage_model
    encoder = getattr(stage, getattr(stage, "clip", ""), stage)
    network = getattr(encoder, "transformer", encoder)
    return callable(getattr(network, "generate", None))
