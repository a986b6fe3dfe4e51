"""Workflows of SVI 2.0 Pro on Wan 2.2."""

from dev.workflows.five_nodes import System
from dev.workflows.graph_layout import GraphLayout
from dev.workflows.graph_nodes import Node
from dev.workflows.parts import (
    EXAMPLE_IMAGE,
    FEW_STEPS_BOUNDARY,
    NOTES,
    PROMPTS,
    REFERENCE,
    SAMPLING,
    VIDEO,
    encoders,
    generate,
    prompt_texts,
    reference,
    sampling,
    show_video,
    wan22_models,
)
from dev.workflows.texts import LONG_STORY, NEGATIVE_CHINESE, SEQUEL, STORY, note, paragraphs
from dev.workflows.weight_files import HIGH, LIGHT_HIGH, LIGHT_LOW, LOW, SVI_HIGH, SVI_LOW, TEXT_ENCODER, VAE, weight_files

EXAMPLE_VIDEO = "example.mp4"  # the user's own


def _models(graph: GraphLayout) -> dict[str, Node]:
    high, low = wan22_models(graph)
    return {"model": high, "model_low_noise": low}


PRO = System(
    name="SVI 2.0 Pro (Wan 2.2)",
    description="A long video from one image, a prompt per clip: SVI 2.0 Pro on Wan 2.2, eight distilled steps.",
    models=_models,
    sampling=lambda group, model: sampling(group, model, 8, "2.0 Pro"),
    text=paragraphs(STORY),
    negative=NEGATIVE_CHINESE,
    prefix="svi/2.0_pro",
    note="pro",
    files=(HIGH, LOW, SVI_HIGH, SVI_LOW, LIGHT_HIGH, LIGHT_LOW, TEXT_ENCODER, VAE),
    settings={"cfg": 1.0, "boundary": FEW_STEPS_BOUNDARY},
)


def loop_2_0_pro(graph: GraphLayout) -> None:
    """Wan 2.2 with SVI 2.0 Pro: the whole loop in one node."""
    links = _until_video(graph, "loop_2.0_pro", 650, paragraphs(STORY))
    generate(
        graph.column(520).group("5 - Video", VIDEO), links, "svi/2.0_pro", num_clips=3, cfg=1.0, boundary=FEW_STEPS_BOUNDARY
    )


def long_story(graph: GraphLayout) -> None:
    """A story of a minute with cuts, a held frame, an end image, a plan, a filmstrip and a report."""
    links = _until_video(graph, "long_story_2.0_pro", 560, LONG_STORY)
    scenes = graph.column(400)
    anchors: dict[str, Node] = {}
    for name, title in (("garden", "Picture of the second scene"), ("portrait", "Last picture")):
        group = scenes.group(f"Anchor: {name}", REFERENCE)
        picture = group.add("LoadImage", title=title, preview_height=290, image=EXAMPLE_IMAGE)
        encoded = group.add(
            "SVIAnchorEncode",
            vae=links["vae"],
            image=picture,
            width=832,
            height=480,
            size_rule="exact",
            resize="crop",
            megapixels=0.38,
        )
        anchors = {"anchors": group.add("SVINamedAnchor", name=name, anchor=encoded, **anchors)}
    made = graph.column(520).group("5 - Video", VIDEO)
    output = made.add("SVIOutput", **{**OUTPUT, "budget_gb": 20.0})
    video = generate(
        made, links | anchors | {"output": output}, "svi/long_story", num_clips=8, cfg=1.0, boundary=FEW_STEPS_BOUNDARY
    )
    seen = graph.column(560).group("6 - Plan, filmstrip, report", NOTES)
    plan = seen.add("SVIPlan", title="Plan: shown before anything loads", video=video, plan_only=True)
    seen.add("PreviewImage", title="The plan as a picture", preview_height=220, images=plan["picture"])
    strip = seen.add("SVIFilmstrip", video=video, columns=5, frame_width=240, clip_length=0)
    seen.add("PreviewImage", title="Filmstrip", preview_height=300, images=strip)
    report = seen.add("SVIDriftReport", video=video, clip_length=0)
    seen.add("PreviewAny", title="Drift and seams", preview_height=240, source=report["report"])


def extend_2_0_pro(graph: GraphLayout) -> None:
    """Two more clips after an existing video."""
    links = _until_video(graph, "extend_2.0_pro", 470, paragraphs(SEQUEL))
    before = graph.column(520).group("The video to continue", REFERENCE)
    loaded = before.add("LoadVideo", preview_height=640, file=EXAMPLE_VIDEO)
    start = before.add("SVIContinueVideo", video=loaded, run="", trim_end=0)
    made = graph.column(520).group("5 - Video", VIDEO)
    generate(made, links | {"continue_from": start}, "svi/extended", num_clips=2, cfg=1.0, boundary=FEW_STEPS_BOUNDARY)


def reroll_2_0_pro(graph: GraphLayout) -> None:
    """The loop with a filmstrip, to find a bad clip and give it another seed."""
    story = "\n\n".join((STORY[0], f"[seed 1234]\n{STORY[1]}", STORY[2]))
    links = _until_video(graph, "reroll_2.0_pro", 470, story)
    video = generate(
        graph.column(520).group("5 - Video", VIDEO), links, "svi/reroll", num_clips=3, cfg=1.0, boundary=FEW_STEPS_BOUNDARY
    )
    seen = graph.column(620).group("6 - Which clip went wrong?", NOTES)
    strip = seen.add("SVIFilmstrip", video=video, columns=5, frame_width=240, clip_length=0)
    seen.add("PreviewImage", title="One row per clip", preview_height=420, images=strip)


def processed_2_0_pro(graph: GraphLayout) -> None:
    """The loop in parts, with a stage that enlarges the frames of each clip before the next one is made."""
    links = _until_video(graph, "processed_2.0_pro", 690, paragraphs(STORY))
    settings = {"cfg": 1.0, "seed": 42, "seed_mode": "per clip", "boundary": FEW_STEPS_BOUNDARY}
    first = graph.column(460).group("5 - Begin", VIDEO)
    state = first.add("SVIBeginVideo", **links | settings, filename_prefix="svi/2.0_pro_processed")
    each = graph.column(400).group("6 - For each clip", SAMPLING)
    made = each.add("SVINextClip", state=state, is_last=False)
    frames = each.add("SVIClipFrames", state=made["state"], context_frames=0)
    large = each.add(
        "ImageScaleBy",
        title="Your stage: upscale, interpolate, correct",
        image=frames["images"],
        upscale_method="lanczos",
        scale_by=2.0,
    )
    written = each.add("SVIWriteFrames", state=frames["state"], images=large)
    last = graph.column(400).group("7 - Repeat and finish", VIDEO)
    repeated = last.add("SVIRepeatClips", state=written["state"], num_clips=3)
    finished = last.add("SVIFinishVideo", state=repeated)
    show_video(last, finished["processed"])


def unrolled_2_0_pro(graph: GraphLayout) -> None:
    """Wan 2.2 with SVI 2.0 Pro: two clips from building blocks and stock samplers."""
    notes = graph.column(430).group("Read me", NOTES)
    notes.note("Start here", note("unrolled_2.0_pro"), 460)
    notes.note("Weight files", weight_files(HIGH, LOW, SVI_HIGH, SVI_LOW, LIGHT_HIGH, LIGHT_LOW, TEXT_ENCODER, VAE), 350)
    high, low = wan22_models(graph)
    middle = graph.column(400)
    clip, vae = encoders(middle)
    anchor = reference(middle, vae, 832, 480)
    shared = graph.column(400)
    steps = shared.group("3 - Sampling, for both clips", SAMPLING)
    sampler = steps.add("KSamplerSelect", sampler_name="euler")
    sigmas = steps.add("BasicScheduler", model=high, scheduler="simple", steps=8, denoise=1.0)
    split = steps.add("SplitSigmas", title="High noise: steps at sigma 0.9 and above", sigmas=sigmas, step=3)
    words = shared.group("4 - Negative prompt", PROMPTS)
    negative = words.add(
        "CLIPTextEncode", title="Negative prompt (not used at cfg 1)", text_height=190, clip=clip, text=NEGATIVE_CHINESE
    )
    latents: list[Node] = []
    frames: list[Node] = []
    for index, colour in enumerate((SAMPLING, VIDEO)):
        column = graph.column(420)
        before = column.group(f"Clip {index + 1}: prompt and conditioning", PROMPTS)
        positive = before.add("CLIPTextEncode", text_height=150, clip=clip, text=STORY[index])
        motion = {"motion": before.add("SVIMotionLatent", num_motion_frames="4", samples=latents[-1])} if latents else {}
        known = before.add(
            "SVIConditioning",
            positive=positive,
            negative=negative,
            anchor=anchor,
            num_frames=81,
            padding="zero latent",
            **motion,
        )
        sample = column.group(f"Clip {index + 1}: high noise, low noise, frames", colour)
        latent = known["latent"]
        for name, model, part in (("high", high, "high_sigmas"), ("low", low, "low_sigmas")):
            latent = sample.add(
                "SamplerCustom",
                title=f"Clip {index + 1}: {name} noise",
                model=model,
                positive=known["positive"],
                negative=known["negative"],
                sampler=sampler,
                sigmas=split[part],
                latent_image=latent,
                add_noise=name == "high",
                noise_seed=42 + 42 * index,
                cfg=1.0,
            )
            graph.form.append((latent, "noise_seed"))
        graph.form.append((positive, "text"))
        latents.append(latent)
        frames.append(sample.add("VAEDecode", samples=latent, vae=vae))
    made = graph.column(460).group("Join: clip 2 without its first 5 frames", VIDEO)
    rest = made.add("ImageFromBatch", title="Drop the 5 frames of overlap", image=frames[1], batch_index=5, length=76)
    joined = made.add("BatchImagesNode", **{"images.image0": frames[0], "images.image1": rest})
    video = made.add("CreateVideo", images=joined, fps=16.0, bit_depth=8)
    saved = {"filename_prefix": "svi/2.0_pro_unrolled", "format": "auto", "codec": "auto"}
    made.add("SaveVideo", preview_height=340, video=video, **saved)  # no node of ours has made a file


OUTPUT = {
    "codec": "h264",
    "crf": 18,
    "pixel_format": "yuv420p",
    "budget_gb": 0.0,
    "seam": "auto",
    "colour_match": 0.0,
    "length_seconds": 0.0,
    "decode_tiles": "auto",
}


def _until_video(graph: GraphLayout, note_name: str, note_height: int, text: str) -> dict[str, Node]:
    """Add everything up to SVI Generate; return its links."""
    notes = graph.column(430).group("Read me", NOTES)
    notes.note("Start here", note(note_name), note_height)
    notes.note("Weight files", weight_files(HIGH, LOW, SVI_HIGH, SVI_LOW, LIGHT_HIGH, LIGHT_LOW, TEXT_ENCODER, VAE), 350)
    high, low = wan22_models(graph)
    middle = graph.column(400)
    clip, vae = encoders(middle)
    links = {"model": high, "model_low_noise": low, "vae": vae, "anchor": reference(middle, vae, 832, 480)}
    words = graph.column(460).group("3 - Prompts", PROMPTS)
    links |= prompt_texts(words, clip, text, NEGATIVE_CHINESE, (290, 90), "Negative prompt (not used at cfg 1)")
    return links | sampling(graph.column(460).group("4 - Sampling", SAMPLING), high, 8, "2.0 Pro")
