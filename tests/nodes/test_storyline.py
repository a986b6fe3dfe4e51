"""SVI Storyline: from templates, and by a language model through ComfyUI's CLIP interface."""

import sys
from types import SimpleNamespace

import pytest
import torch

from tests.e2e.graphs import node

WIDGETS = {
    "subject": "a red fox",
    "kind": "animal",
    "place": "",
    "style": "",
    "num_clips": 2,
    "seed": 7,
    "prefix": "",
    "suffix": "",
}


class FakeWriter:
    """A CLIP whose network generates: it notes what it is asked and gives a fixed answer."""

    def __init__(self, answer="1. A red fox sits.\n2. The red fox runs."):
        network = SimpleNamespace(generate=lambda *args: None)
        self.cond_stage_model = SimpleNamespace(clip="gemma", gemma=SimpleNamespace(transformer=network))
        self.answer, self.asked = answer, {}

    def tokenize(self, text, **options):
        self.asked = {"text": text, **options}
        return "tokens"

    def generate(self, tokens, **options):
        self.asked |= {"tokens": tokens, **options}
        return [1, 2, 3]

    def decode(self, ids):
        assert ids == [1, 2, 3]
        return self.answer


def run(pack, **changes):
    return pack.nodes.SVIStoryline.execute(**{**WIDGETS, **changes}).args


def test_templates_need_no_model_and_say_so(pack):
    text, num_prompts = run(pack)
    assert text.startswith("# Written by SVI Storyline from templates, without a language model (seed 7).")
    assert num_prompts == 2 and len(sys.modules[f"{pack.__name__}.svi_core.schedule.text"].parse_schedule(text)) == 2
    assert run(pack) == (text, 2) and run(pack, seed=8)[0] != text


def test_a_language_model_writes_through_comfyuis_interface(pack):
    writer = FakeWriter()
    text, _ = run(pack, text_model=writer, prefix="Anime")
    assert text.splitlines()[0].startswith("# Written by the language model at text_model")
    assert text.split("\n\n", 1)[1] == "Anime. A red fox sits.\n\nAnime. The red fox runs.\n"
    assert "Subject: a red fox" in writer.asked["text"] and writer.asked["tokens"] == "tokens"
    assert writer.asked["seed"] == 7 and writer.asked["max_length"] == 360 and writer.asked["image"] is None


def test_an_image_goes_to_the_model_and_is_not_ignored_without_one(pack):
    writer, image = FakeWriter(), torch.zeros(1, 8, 8, 3)
    run(pack, text_model=writer, image=image, subject="")
    assert writer.asked["image"] is image and "main subject of the picture" in writer.asked["text"]
    with pytest.raises(ValueError, match="templates cannot see"):
        run(pack, image=image)


def test_a_short_answer_is_no_silent_fallback(pack):
    with pytest.raises(ValueError, match="wrote 1 of 2 prompts"):
        run(pack, text_model=FakeWriter("1. A red fox sits."))


def test_a_text_encoder_that_writes_nothing_is_refused_by_name(pack, comfy):
    """umT5's CLIP has the method `generate` as every CLIP has, but its network has not."""
    import comfy.text_encoders.t5

    stage = SimpleNamespace(clip="umt5xxl", umt5xxl=SimpleNamespace(transformer=object.__new__(comfy.text_encoders.t5.T5)))
    with pytest.raises(ValueError, match="text encoder that cannot write text"):
        run(pack, text_model=SimpleNamespace(cond_stage_model=stage))


def test_a_plan_knows_a_story_from_templates(pack):
    read_graph = sys.modules[f"{pack.__name__}.nodes.dry_run.read_graph"]
    text, _ = run(pack)
    graph = {
        "story": node("SVIStoryline", **WIDGETS),
        "prompts": node("SVIPromptStream", text=["story", 0], split="paragraphs"),
        "generate": node("SVIGenerate", prompts=["prompts", 0], num_clips=["story", 1], seed_mode="per clip"),
        "plan": node("SVIPlan", video=["generate", 0], plan_only=True),
    }
    plan = read_graph.read_requested_run(graph, "plan", True).plan
    assert plan.num_clips == 2 and plan.request(0).spec.prompt in text and plan.request(1).spec.prompt in text
    graph["story"]["inputs"]["text_model"] = ["clip", 0]
    with pytest.raises(ValueError, match="text: comes from"):
        read_graph.read_requested_run(graph, "plan", True)
