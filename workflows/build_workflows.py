"""Write the workflows of this folder from a compact description.

    .runtime/venv/bin/python workflows/build_workflows.py [http://127.0.0.1:8188]

The address is that of a running ComfyUI with this pack in it; without one, one is started. Only the order and the types
of node inputs are taken from it. The demo's workflow is written a second time, in API format, to demo/ (by comfy-cli,
which the tests' environment has). A test holds that the committed files are what this gives.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from workflows.graph_layout import Column, GraphLayout, Node, ObjectInfo
from workflows.object_info import read_object_info

FOLDER = Path(__file__).resolve().parent
DEMO_API_FILE = FOLDER.parent / "demo" / "demo_workflow_api.json"
DEMO = "svi_tiny_demo"
DEMO_PROMPTS = FOLDER.parent / "demo" / "prompts.txt"
DEMO_IMAGE = "boat.png"  # of demo/images
WAN22 = "https://huggingface.co/Comfy-Org/Wan_2.2_ComfyUI_Repackaged/resolve/main/split_files"
WAN21 = "https://huggingface.co/Comfy-Org/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files"
SVI_FP16 = "https://huggingface.co/Kijai/WanVideo_comfy/resolve/main/LoRAs/Stable-Video-Infinity"
SVI_AUTHORS = "https://huggingface.co/vita-video-gen/svi-model"

HIGH = "wan2.2_i2v_high_noise_14B_fp8_scaled.safetensors"
LOW = "wan2.2_i2v_low_noise_14B_fp8_scaled.safetensors"
SVI_HIGH = "SVI_v2_PRO_Wan2.2-I2V-A14B_HIGH_lora_rank_128_fp16.safetensors"
SVI_LOW = "SVI_v2_PRO_Wan2.2-I2V-A14B_LOW_lora_rank_128_fp16.safetensors"
LIGHT_HIGH = "wan2.2_i2v_lightx2v_4steps_lora_v1_high_noise.safetensors"
LIGHT_LOW = "wan2.2_i2v_lightx2v_4steps_lora_v1_low_noise.safetensors"
WAN21_I2V = "wan2.1_i2v_480p_14B_fp16.safetensors"
SVI_SHOT = "svi-shot_lora_rank_128_fp16.safetensors"
CLIP_VISION = "clip_vision_h.safetensors"
TEXT_ENCODER = "umt5_xxl_fp8_e4m3fn_scaled.safetensors"
VAE = "wan_2.1_vae.safetensors"

URLS = {  # file name: (folder below models/, address)
    HIGH: ("diffusion_models", f"{WAN22}/diffusion_models/{HIGH}"),
    LOW: ("diffusion_models", f"{WAN22}/diffusion_models/{LOW}"),
    SVI_HIGH: ("loras", f"{SVI_FP16}/v2.0/{SVI_HIGH}"),
    SVI_LOW: ("loras", f"{SVI_FP16}/v2.0/{SVI_LOW}"),
    LIGHT_HIGH: ("loras", f"{WAN22}/loras/{LIGHT_HIGH}"),
    LIGHT_LOW: ("loras", f"{WAN22}/loras/{LIGHT_LOW}"),
    WAN21_I2V: ("diffusion_models", f"{WAN21}/diffusion_models/{WAN21_I2V}"),
    SVI_SHOT: ("loras", f"{SVI_FP16}/{SVI_SHOT}"),
    CLIP_VISION: ("clip_vision", f"{WAN21}/clip_vision/{CLIP_VISION}"),
    TEXT_ENCODER: ("text_encoders", f"{WAN21}/text_encoders/{TEXT_ENCODER}"),
    VAE: ("vae", f"{WAN21}/vae/{VAE}"),
}

NOTES, MODELS, REFERENCE, PROMPTS, SAMPLING, VIDEO = "#5b5f66", "#3f6a8e", "#4f7a4f", "#a0692f", "#6b5596", "#98484f"
EXAMPLE_IMAGE = "example.png"  # in the input folder of every ComfyUI

# Wan's own default negative prompts: the Chinese one of 2.2 (and SVI 2.x), the English translation that SVI 1.0 uses.
NEGATIVE_CHINESE = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，丑陋的，残缺的，"
    "多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，"
    "背景人很多，倒着走"
)
NEGATIVE_ENGLISH = (
    "Bright tones, overexposed, static, blurred details, subtitles, style, works, paintings, images, static, overall gray, "
    "worst quality, low quality, JPEG compression residue, ugly, incomplete, extra fingers, poorly drawn hands, poorly drawn "
    "faces, deformed, disfigured, misshapen limbs, fused fingers, still picture, messy background, three legs, many people in "
    "the background, walking backwards"
)
STORY = (
    "A young woman in a pink dress stands on a green hill under a blue sky, her arms spread wide. A warm wind lifts her blonde "
    "hair and the hem of her dress; small clouds drift from left to right. She smiles and slowly turns her face into the sun. "
    "The camera stays still.",
    "The young woman in the pink dress lowers her arms and walks towards the camera through the knee-high grass, brushing it "
    "with her fingertips. Her hair swings with each step. The camera slowly moves back in front of her.",
    "The young woman in the pink dress stops, laughs, and spins around once with open arms; the dress flares out and the "
    "clouds race behind her. The camera circles around her to the left.",
)
SHOT_STORY = (
    STORY[0],
    "The young woman in the pink dress looks up at the clouds, shades her eyes with one hand and waves with the other. Her "
    "hair flutters in the wind. The camera stays still.",
    "The young woman in the pink dress dances on the spot, swaying from side to side with raised arms. The grass waves in the "
    "wind. The camera stays still.",
)


def loop_2_0_pro(graph: GraphLayout) -> None:
    """Wan 2.2 with SVI 2.0 Pro: the whole loop in one node."""
    notes = graph.column(430).group("Read me", NOTES)
    notes.note("Start here", LOOP_2_0_PRO, 600)
    notes.note("Weight files", weight_files(HIGH, LOW, SVI_HIGH, SVI_LOW, LIGHT_HIGH, LIGHT_LOW, TEXT_ENCODER, VAE), 350)
    models = wan22_models(graph)
    middle = graph.column(400)
    clip, vae = encoders(middle)
    anchor = reference(middle, vae, 832, 480)
    words = graph.column(460).group("3 - Prompts", PROMPTS)
    prompts = words.add("SVIPromptStream", text_height=290, clip=clip, text=paragraphs(STORY), split="paragraphs")
    negative = words.add(
        "CLIPTextEncode", title="Negative prompt (not used at cfg 1)", text_height=90, clip=clip, text=NEGATIVE_CHINESE
    )
    last = graph.column(460)
    steps = last.group("4 - Sampling", SAMPLING)
    sampler = steps.add("KSamplerSelect", sampler_name="euler")
    sigmas = steps.add("BasicScheduler", model=models[0], scheduler="simple", steps=8, denoise=1.0)
    layout = steps.add("SVILayout", variant="2.0 Pro", num_frames=81, num_motion_frames=0)
    made = graph.column(520).group("5 - Video", VIDEO)
    video = made.add(
        "SVIGenerate",
        model=models[0],
        model_low_noise=models[1],
        prompts=prompts,
        negative=negative,
        vae=vae,
        anchor=anchor,
        sampler=sampler,
        sigmas=sigmas,
        layout=layout,
        num_clips=3,
        cfg=1.0,
        seed=42,
        seed_mode="per clip",
        boundary=0.9,
        filename_prefix="svi/2.0_pro",
    )
    save_video(made, video, "svi/2.0_pro")


def unrolled_2_0_pro(graph: GraphLayout) -> None:
    """Wan 2.2 with SVI 2.0 Pro: two clips of building blocks and stock samplers."""
    notes = graph.column(430).group("Read me", NOTES)
    notes.note("Start here", UNROLLED_2_0_PRO, 460)
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
        motion = {}
        if latents:
            motion["motion"] = before.add("SVIMotionLatent", num_motion_frames="4", samples=latents[-1])
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
        latents.append(latent)
        frames.append(sample.add("VAEDecode", samples=latent, vae=vae))
    made = graph.column(460).group("Join: clip 2 without its first 5 frames", VIDEO)
    rest = made.add("ImageFromBatch", title="Drop the 5 frames of overlap", image=frames[1], batch_index=5, length=76)
    joined = made.add("BatchImagesNode", **{"images.image0": frames[0], "images.image1": rest})
    video = made.add("CreateVideo", images=joined, fps=16.0, bit_depth=8)
    save_video(made, video, "svi/2.0_pro_unrolled")


def shot_loop(graph: GraphLayout) -> None:
    """Wan 2.1 with SVI-Shot: one scene, the loop in one node."""
    notes = graph.column(430).group("Read me", NOTES)
    notes.note("Start here", SHOT_LOOP, 490)
    notes.note("Weight files", weight_files(WAN21_I2V, SVI_SHOT, CLIP_VISION, TEXT_ENCODER, VAE), 300)
    column = graph.column(540)
    group = column.group("1 - Wan 2.1 image-to-video and the SVI LoRA", MODELS)
    unet = group.add("UNETLoader", models=downloads(WAN21_I2V), unet_name=WAN21_I2V, weight_dtype="default")
    row = lora_row(group, "SVI-Shot LoRA", SVI_SHOT, 1.0, "none", 1.0)
    stack = group.add("SVILoraStack", model=unet, loras=row)
    model = group.add("ModelSamplingSD3", title="Shift", model=stack, shift=5.0)
    features = column.group("CLIP vision (Wan 2.1 only)", REFERENCE)
    clip_vision = features.add("CLIPVisionLoader", models=downloads(CLIP_VISION), clip_name=CLIP_VISION)
    middle = graph.column(400)
    clip, vae = encoders(middle)
    anchor = reference(middle, vae, 832, 480)
    words = graph.column(460).group("3 - Prompts", PROMPTS)
    prompts = words.add("SVIPromptStream", text_height=290, clip=clip, text=paragraphs(SHOT_STORY), split="paragraphs")
    negative = words.add("CLIPTextEncode", title="Negative prompt", text_height=170, clip=clip, text=NEGATIVE_ENGLISH)
    steps = graph.column(460).group("4 - Sampling", SAMPLING)
    sampler = steps.add("KSamplerSelect", sampler_name="euler")
    sigmas = steps.add("BasicScheduler", model=model, scheduler="simple", steps=50, denoise=1.0)
    layout = steps.add("SVILayout", variant="Shot", num_frames=81, num_motion_frames=0)
    made = graph.column(520).group("5 - Video", VIDEO)
    video = made.add(
        "SVIGenerate",
        model=model,
        prompts=prompts,
        negative=negative,
        vae=vae,
        anchor=anchor,
        sampler=sampler,
        sigmas=sigmas,
        layout=layout,
        clip_vision=clip_vision,
        num_clips=3,
        cfg=5.0,
        seed=42,
        seed_mode="per clip",
        boundary=0.9,
        filename_prefix="svi/shot",
    )
    save_video(made, video, "svi/shot")


def tiny_demo(graph: GraphLayout) -> None:
    """The demo: tiny models that two CPU cores can run."""
    graph.column(400).group("Read me", NOTES).note("The demo", TINY_DEMO, 460)
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
    layout = steps.add("SVILayout", variant="2.0 Pro", num_frames=81, num_motion_frames=0)
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


# ------------------------------------------------------------------------------------------------- parts of a graph


def wan22_models(graph: GraphLayout) -> tuple[Node, Node]:
    """Add both Wan 2.2 experts with their LoRAs and shift; return (high noise, low noise)."""
    group = graph.column(600).group("1 - Wan 2.2 experts and LoRAs", MODELS)
    unets = [
        group.add("UNETLoader", title=title, models=downloads(name), unet_name=name, weight_dtype="default")
        for title, name in (("High-noise expert", HIGH), ("Low-noise expert", LOW))
    ]
    svi = lora_row(group, "SVI 2.0 Pro LoRA", SVI_HIGH, 1.0, SVI_LOW, 1.0)
    light = lora_row(group, "LightX2V LoRA: 8 steps instead of 50", LIGHT_HIGH, 0.6, LIGHT_LOW, 1.0, loras=svi)
    stack = group.add("SVILoraStack", model=unets[0], model_low_noise=unets[1], loras=light)
    high = group.add("ModelSamplingSD3", title="Shift, high noise", model=stack["model"], shift=5.0)
    low = group.add("ModelSamplingSD3", title="Shift, low noise", model=stack["model_low_noise"], shift=5.0)
    return high, low


def lora_row(group: Any, title: str, lora: str, strength: float, low_lora: str, low_strength: float, **links: Node) -> Node:
    """Add one row of a LoRA stack."""
    return group.add(
        "SVILora",
        title=title,
        models=downloads(lora, low_lora),
        lora=lora,
        strength=strength,
        lora_low_noise=low_lora,
        strength_low_noise=low_strength,
        **links,
    )


def encoders(column: Column) -> tuple[Node, Node]:
    """Add the text encoder and the VAE of the full-size models."""
    group = column.group("Text encoder and VAE", MODELS)
    clip = group.add("CLIPLoader", models=downloads(TEXT_ENCODER), clip_name=TEXT_ENCODER, type="wan", device="default")
    return clip, group.add("VAELoader", models=downloads(VAE), vae_name=VAE)


def reference(column: Column, vae: Node, width: int, height: int, image: str = EXAMPLE_IMAGE) -> Node:
    """Add the reference image and its anchor."""
    group = column.group("2 - Reference image", REFERENCE)
    picture = group.add("LoadImage", preview_height=260, image=image)
    return group.add("SVIAnchorEncode", vae=vae, image=picture, width=width, height=height, size_rule="exact", resize="crop")


def save_video(group: Any, video: Node, prefix: str) -> Node:
    """Add the node that saves the video and shows it."""
    return group.add("SaveVideo", preview_height=340, video=video, filename_prefix=prefix, format="auto", codec="auto")


def downloads(*names: str) -> list[dict[str, str]]:
    """Return what the front end offers to download for these weight files."""
    return [{"name": name, "url": URLS[name][1], "directory": URLS[name][0]} for name in names if name in URLS]


def paragraphs(prompts: tuple[str, ...]) -> str:
    """Return one text with one prompt per paragraph."""
    return "\n\n".join(prompts)


def weight_files(*names: str) -> str:
    """Return the links to weight files, by folder, in Markdown."""
    folders = dict.fromkeys(URLS[name][0] for name in names)
    parts = []
    for folder in folders:
        links = [f"- [{name}]({URLS[name][1]})" for name in names if URLS[name][0] == folder]
        parts.append("\n".join([f"**ComfyUI/models/{folder}**", "", *links]))
    parts.append(f"The authors' own SVI LoRAs: [vita-video-gen/svi-model]({SVI_AUTHORS}). SVI LoRA Stack reads both kinds.")
    return "\n\n".join(parts)


# ------------------------------------------------------------------------------------------------------------ notes

LOOP_2_0_PRO = """\
## A long video, clip by clip (SVI 2.0 Pro, Wan 2.2)

**Change first**

1. *Load Image*: your picture. 832 x 480 is what SVI was trained at; landscape works best.
2. *SVI Prompt Stream*: one prompt per clip, a blank line between two. Say who and where, then what moves and how. \
The last prompt holds for all clips after it.
3. *SVI Generate*: `num_clips`, `seed`.

**Length**: 76 x clips + 5 frames at 16 per second. 3 clips: 233 frames, 14.6 s.

**Where it goes**: `output/svi/2.0_pro/` keeps every clip and `video.mp4`, playable while it grows. Stopped? *Run* again: \
finished clips are reused. A new prompt for clip 3 makes clips 3 and later only.

| | fast (as set) | full quality |
|-|-|-|
| LightX2V LoRA | 0.6 high, 1.0 low | both strengths 0 |
| steps | 8 | 50 |
| cfg | 1 | 4 |
| shift | 5 | 5 |
| boundary | 0.9 | 0.9 |

- **Slow motion?** Lower LightX2V on the high-noise expert (0.5), ask for more motion, stay at 480p.
- Keep 81 frames a clip: more fades the colours.
- Keep `seed_mode` *per clip*: the same noise in all clips builds up artefacts.
- Prefer euler: samplers that add noise (ancestral, sde, lcm) drift.
"""

UNROLLED_2_0_PRO = """\
## Two clips of building blocks (SVI 2.0 Pro, Wan 2.2)

What *SVI Generate* does, with ComfyUI's own samplers: the same latents as the first two clips of \
`svi_2.0_pro_wan2.2_loop`.

1. *SVI Anchor Encode* encodes the picture once, for all clips.
2. *SVI Conditioning* puts anchor, motion and padding before the sampler.
3. High-noise expert, then low-noise expert: *Split Sigmas* at 3 of 8 steps, where sigma falls below 0.9.
4. *SVI Motion Latent* takes the last 4 frames of clip 1 as a latent: no decoding in between.
5. Clip 2 repeats 5 frames of clip 1: they are dropped before the join.

**Change first**: the picture, the two prompts, the seeds (each clip its own: 42, 84, ...).

**One more clip**: copy the column of clip 2, link its *SVI Motion Latent* to clip 2's low-noise sampler, and add its frames \
to *Batch Images* (again without the first 5).

**Settings**: LightX2V 0.6 / 1.0, 8 steps, cfg 1, shift 5. Without LightX2V: 50 steps, cfg 4, and *Split Sigmas* at the \
step where sigma falls below 0.9 (18).
"""

SHOT_LOOP = """\
## One scene of any length (SVI-Shot, Wan 2.1)

The picture fills the unknown part of every clip, so the scene and its people stay the same. Clips hand over one frame.

**Change first**

1. *Load Image*: your picture, best at 832 x 480.
2. *SVI Prompt Stream*: one prompt per clip; a single prompt for the whole video works too.
3. *SVI Generate*: `num_clips`, `seed`.

**Length**: 80 x clips + 1 frames at 16 per second. 3 clips: 241 frames, 15.1 s.

**Settings**: LoRA 1.0, 50 steps, cfg 5, shift 5, euler.

- Wan 2.1 reads CLIP vision features: *Load CLIP Vision* must stay connected.
- **SVI-Film** (several scenes): its own LoRA, and variant *Film* in *SVI Layout*.
- Distilled LoRAs and quantised models cost quality here: SVI 1.0 was trained with neither.
- Keep 81 frames a clip and `seed_mode` *per clip*.
- A portrait: set `size_rule` of *SVI Anchor Encode* to *fit area*.
"""

TINY_DEMO = """\
## The demo: a long video on the CPU

From a clone of this pack, one command makes this video:

    make demo

With your own picture, prompts and number of clips:

    make demo IMAGE=my.png PROMPTS=my.txt CLIPS=5

The models are tiny ones of the real Wan 2.2 architectures, trained on a world of simple shapes (`demo/README.md`). They \
lie in `demo/models`. ComfyUI fixes the size of its text encoder, so the tiny one needs the small loader in \
`demo/tiny_encoders`; `make demo` links both into a server of its own.

**In a ComfyUI of your own**: link `demo/tiny_encoders` into `custom_nodes`, the files of `demo/models` into \
`models/diffusion_models`, `models/text_encoders` and `models/vae`, and copy `demo/images/boat.png` to `input`.

3 clips of 81 frames: 233 frames, 14.6 s at 16 per second.

For real pictures open **svi_2.0_pro_wan2.2_loop**.
"""

WORKFLOWS: Mapping[str, Callable[[GraphLayout], None]] = {
    "svi_2.0_pro_wan2.2_loop": loop_2_0_pro,
    "svi_2.0_pro_wan2.2_unrolled": unrolled_2_0_pro,
    "svi_shot_wan2.1_loop": shot_loop,
    "svi_tiny_demo": tiny_demo,
}
GRAPH_IDS = {
    "svi_2.0_pro_wan2.2_loop": "5c1f6f0e-0b0e-4d52-9a51-2d6f1f5c1a01",
    "svi_2.0_pro_wan2.2_unrolled": "5c1f6f0e-0b0e-4d52-9a51-2d6f1f5c1a02",
    "svi_shot_wan2.1_loop": "5c1f6f0e-0b0e-4d52-9a51-2d6f1f5c1a03",
    "svi_tiny_demo": "5c1f6f0e-0b0e-4d52-9a51-2d6f1f5c1a04",
}


def build(name: str, object_info: ObjectInfo) -> str:
    """Return the text of workflow file `name`."""
    graph = GraphLayout(GRAPH_IDS[name], object_info)
    WORKFLOWS[name](graph)
    return json.dumps(graph.to_json(), indent=1, ensure_ascii=False) + "\n"


def build_demo_api(object_info: ObjectInfo) -> str:
    """Return the text of the demo's workflow in API format."""
    from comfy_cli.workflow_to_api import convert_ui_to_api

    graph = convert_ui_to_api(json.loads(build(DEMO, object_info)), dict(object_info))
    return json.dumps(graph, indent=1, ensure_ascii=False) + "\n"


def main(url: str | None = None) -> None:
    """Write all workflows, asking the ComfyUI at `url` what its nodes are."""
    object_info = read_object_info(url)
    for name in WORKFLOWS:
        (FOLDER / f"{name}.json").write_text(build(name, object_info), encoding="utf-8")
    DEMO_API_FILE.write_text(build_demo_api(object_info), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
