"""Graphs in API format for the end-to-end tests: the loop as one node, and the same unrolled with stock samplers."""

from typing import Any

Graph = dict[str, Any]

HIGH = "wan2.2_i2v_high_noise_14B_fp8_scaled.safetensors"
LOW = "wan2.2_i2v_low_noise_14B_fp8_scaled.safetensors"
WAN21 = "wan2.1_i2v_480p_14B_fp16.safetensors"
T2V = "wan2.1_t2v_14B_fp16.safetensors"
PROMPTS = ["a cat walking on the grass", "a woman turns her head and smiles", "the camera pans left over a city"]
BOUNDARY = 0.9


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def parts(image: str, *, model: str = HIGH, low: str | None = LOW, steps: int = 3, scheduler: str = "simple") -> Graph:
    """Return what both forms of the loop share: models, anchor, prompts, sampler, sigmas. Sizes: 64 x 64 pixels."""
    graph = {
        "model": node("UNETLoader", unet_name=model, weight_dtype="default"),
        "vae": node("VAELoader", vae_name="wan_2.1_vae.safetensors"),
        "clip": node("CLIPLoader", clip_name="umt5_xxl_fp8_e4m3fn_scaled.safetensors", type="wan", device="default"),
        "negative": node("CLIPTextEncode", clip=["clip", 0], text="blurry, low quality"),
        "image": node("LoadImage", image=image),
        "anchor": node(
            "SVIAnchorEncode", vae=["vae", 0], image=["image", 0], width=64, height=64, size_rule="exact", resize="crop"
        ),
        "sampler": node("KSamplerSelect", sampler_name="euler"),
        "sigmas": node("BasicScheduler", model=["model", 0], scheduler=scheduler, steps=steps, denoise=1.0),
    }
    if low:
        graph["low"] = node("UNETLoader", unet_name=low, weight_dtype="default")
    return graph


def loop_graph(image: str, *, clips: int = 3, prompts: list[str] = PROMPTS, num_frames: int = 9, **options: Any) -> Graph:
    """Return the one-node loop; `options` go to :func:`parts` or, with their names, to SVI Generate and SVI Layout."""
    generate = {
        "num_clips": clips,
        "cfg": 2.0,
        "seed": 5,
        "seed_mode": "per clip",
        "boundary": BOUNDARY,
        "filename_prefix": "svi/test",
    }
    layout = {"variant": "2.0 Pro", "num_frames": num_frames, "num_motion_frames": 0}
    for known in (generate, layout):
        known.update({key: options.pop(key) for key in list(options) if key in known})
    graph = parts(image, **options)
    graph["prompts"] = node("SVIPromptStream", clip=["clip", 0], text="\n\n".join(prompts), split="paragraphs")
    graph["layout"] = node("SVILayout", **layout)
    links = {key: [key, 0] for key in ("model", "prompts", "negative", "vae", "anchor", "sampler", "sigmas", "layout")}
    if "low" in graph:
        links["model_low_noise"] = ["low", 0]
    graph["generate"] = node("SVIGenerate", **links, **generate)
    graph["saved"] = node("SaveVideo", video=["generate", 0], filename_prefix="video/loop", format="auto", codec="auto")
    graph["latent"] = node("SaveLatent", samples=["generate", 1], filename_prefix="latents/loop")
    return graph


def unrolled_graph(
    image: str,
    *,
    clips: int = 3,
    prompts: list[str] = PROMPTS,
    num_frames: int = 9,
    split: int = 2,  # of 3 simple steps at shift 8: sigmas 1, 0.94, 0.8, 0, of which two are above the boundary
    seed: int = 5,
    padding: str = "zero latent",
    num_motion_frames: str = "4",
    **options: Any,
) -> Graph:
    """Return the same clips made with SVI Conditioning and stock SamplerCustom nodes; every clip's latent is saved."""
    graph = parts(image, **options)
    graph["high_sigmas"] = node("SplitSigmas", sigmas=["sigmas", 0], step=split)
    for index in range(clips):
        extra: Graph = {"vae": ["vae", 0]} if padding != "zero latent" else {}
        if index and padding == "zero latent":
            extra["motion"] = [f"motion{index}", 0]
            graph[f"motion{index}"] = node(
                "SVIMotionLatent", samples=[f"low{index - 1}", 0], num_motion_frames=num_motion_frames
            )
        elif index:
            extra["motion"] = [f"motion{index}", 0]
            graph[f"decoded{index - 1}"] = node("VAEDecode", samples=[f"low{index - 1}", 0], vae=["vae", 0])
            graph[f"motion{index}"] = node(
                "SVIMotionLatent", images=[f"decoded{index - 1}", 0], vae=["vae", 0], num_motion_frames=num_motion_frames
            )
        text = prompts[min(index, len(prompts) - 1)]
        graph[f"positive{index}"] = node("CLIPTextEncode", clip=["clip", 0], text=text)
        graph[f"y{index}"] = node(
            "SVIConditioning",
            positive=[f"positive{index}", 0],
            negative=["negative", 0],
            anchor=["anchor", 0],
            num_frames=num_frames,
            padding=padding,
            **extra,
        )
        shared = {
            "noise_seed": seed + 42 * index,
            "cfg": 2.0,
            "positive": [f"y{index}", 0],
            "negative": [f"y{index}", 1],
            "sampler": ["sampler", 0],
        }
        one = "low" not in graph
        graph[f"low{index}" if one else f"high{index}"] = node(
            "SamplerCustom",
            model=["model", 0],
            add_noise=True,
            sigmas=["sigmas", 0] if one else ["high_sigmas", 0],
            latent_image=[f"y{index}", 2],
            **shared,
        )
        if not one:
            graph[f"low{index}"] = node(
                "SamplerCustom",
                model=["low", 0],
                add_noise=False,
                sigmas=["high_sigmas", 1],
                latent_image=[f"high{index}", 0],
                **shared,
            )
        graph[f"latent{index}"] = node("SaveLatent", samples=[f"low{index}", 0], filename_prefix=f"latents/unrolled{index}")
    return graph
