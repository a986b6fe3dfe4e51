"""The workflow of the demo."""

from pathlib import Path

from workflows.graph_layout import GraphLayout
from workflows.parts import MODELS, NOTES, PROMPTS, SAMPLING, VIDEO, reference, save_video
from workflows.texts import note

DEMO = "svi_tiny_demo"
DEMO_PROMPTS = Path(__file__).resolve().parent.parent / "demo" / "prompts.txt"
DEMO_IMAGE = "boat.png"  # of demo/images


def tiny_demo(graph: GraphLayout) -> None:
    """The demo: tiny models that two CPU cores can run."""
    graph.column(400).group("Read me", NOTES).note("The demo", note("tiny_demo"), 460)
    column = graph.column(360)
    group = column.group("1 - Tiny models", MODELS)
    unets = [
        group.add("UNETLoader", title=title, unet_name=name, weight_dtype="default")
        for title, name in (
            ("High-noise expert", "tiny_wan22_i2v_high.safetensors"),
            ("Low-noise expert", "tiny_wan22_i2v_low.safetensors"),
        )
    ]
    high, low = (
        group.add("ModelSamplingSD3", title=f"Shift, {name} noise", model=unet, shift=5.0)
        for name, unet in zip(("high", "low"), unets, strict=True)
    )
    clip = group.add("CLIPLoader", clip_name="tiny_umt5.safetensors", type="wan", device="default")
    vae = group.add("VAELoader", vae_name="tiny_wan_vae.safetensors")
    middle = graph.column(360)
    anchor = reference(middle, vae, 96, 64, DEMO_IMAGE)
    right = graph.column(400)
    words = right.group("3 - Prompts", PROMPTS)
    prompts = words.add(
        "SVIPromptStream", text_height=170, clip=clip, text=DEMO_PROMPTS.read_text(encoding="utf-8").strip(), split="paragraphs"
    )
    negative = words.add("CLIPTextEncode", title="Negative prompt", text_height=60, clip=clip, text="")
    steps = right.group("4 - Sampling", SAMPLING)
    sampler = steps.add("KSamplerSelect", sampler_name="euler")
    sigmas = steps.add("BasicScheduler", model=high, scheduler="simple", steps=10, denoise=1.0)
    layout = steps.add("SVILayout", variant="2.0 Pro", num_frames=81, num_motion_frames=0, cut_to_8_bits=False)
    made = graph.column(480).group("5 - Video", VIDEO)
    video = made.add(
        "SVIGenerate",
        model=high,
        model_low_noise=low,
        prompts=prompts,
        negative=negative,
        vae=vae,
        anchor=anchor,
        sampler=sampler,
        sigmas=sigmas,
        layout=layout,
        num_clips=3,
        cfg=2.0,
        seed=0,
        seed_mode="per clip",
        boundary=0.9,
        filename_prefix="svi/demo",
    )
    save_video(made, video, "svi/demo")
