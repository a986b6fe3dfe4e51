"""The workflow of the demo."""

from dev.environment import REPOSITORY
from dev.workflows.graph_layout import GraphLayout
from dev.workflows.parts import MODELS, NOTES, PROMPTS, SAMPLING, VIDEO, generate, prompt_texts, reference, sampling
from dev.workflows.texts import note

DEMO = "svi_tiny_demo"
DEMO_PROMPTS = REPOSITORY / "demo" / "prompts.txt"
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
    links = {"model": high, "model_low_noise": low, "vae": vae, "anchor": anchor}
    text = DEMO_PROMPTS.read_text(encoding="utf-8").strip()
    links |= prompt_texts(right.group("3 - Prompts", PROMPTS), clip, text, "", heights=(170, 60))
    links |= sampling(right.group("4 - Sampling", SAMPLING), high, 10, "2.0 Pro")
    generate(
        graph.column(480).group("5 - Video", VIDEO), links, "svi/demo", num_clips=3, cfg=2.0, seed=0, boundary=0.9
    )  # as its models were trained
