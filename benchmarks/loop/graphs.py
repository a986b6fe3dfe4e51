"""The same job with our one node and with stock nodes, in API format."""

from dataclasses import dataclass
from typing import Any

Graph = dict[str, Any]

HIGH = "wan2.2_i2v_high_noise_14B_fp8_scaled.safetensors"
LOW = "wan2.2_i2v_low_noise_14B_fp8_scaled.safetensors"
LORA_HIGH = "wan2.2_i2v_lightx2v_4steps_lora_v1_high_noise.safetensors"
LORA_LOW = "wan2.2_i2v_lightx2v_4steps_lora_v1_low_noise.safetensors"
NEGATIVE = "blurry, low quality"
STEPS, STEPS_HIGH, BOUNDARY = 4, 2, 0.9  # at shift 8 the first two of four steps begin above sigma 0.9
MAX_BATCHED = 50  # images that one BatchImagesNode takes


@dataclass(frozen=True)
class Job:
    """The job of both graphs: clips, frames of each, side of the square picture in pixels, noise seed."""

    num_clips: int
    num_frames: int = 81
    side: int = 64
    seed: int = 0

    def prompt(self, clip: int) -> str:
        """Return the prompt of clip `clip`: ten in turn, so that cached texts do not hide the memory cost of clips."""
        return f"a cat walking on the grass, scene {clip % 10}"


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def models(image: str) -> Graph:
    """Return what both graphs load: two experts with a LoRA each, VAE, text encoder, picture."""
    graph = {
        "vae": node("VAELoader", vae_name="wan_2.1_vae.safetensors"),
        "clip": node("CLIPLoader", clip_name="umt5_xxl_fp8_e4m3fn_scaled.safetensors", type="wan", device="default"),
        "negative": node("CLIPTextEncode", clip=["clip", 0], text=NEGATIVE),
        "image": node("LoadImage", image=image),
    }
    for name, model, lora in (("high", HIGH, LORA_HIGH), ("low", LOW, LORA_LOW)):
        graph[f"{name}_file"] = node("UNETLoader", unet_name=model, weight_dtype="default")
        graph[name] = node("LoraLoaderModelOnly", model=[f"{name}_file", 0], lora_name=lora, strength_model=1.0)
    return graph


def our_graph(image: str, job: Job, name: str) -> Graph:
    """Return the job as SVI Generate, layout 2.0 Pro; `name` is the run's folder."""
    text = "\n\n".join(job.prompt(clip) for clip in range(job.num_clips))
    size = {"width": job.side, "height": job.side, "size_rule": "exact", "resize": "crop"}
    graph = models(image) | {
        "prompts": node("SVIPromptStream", clip=["clip", 0], text=text, split="paragraphs"),
        "anchor": node("SVIAnchorEncode", vae=["vae", 0], image=["image", 0], **size),
        "layout": node("SVILayout", variant="2.0 Pro", num_frames=job.num_frames, num_motion_frames=0),
        "sampler": node("KSamplerSelect", sampler_name="euler"),
        "sigmas": node("BasicScheduler", model=["high", 0], scheduler="simple", steps=STEPS, denoise=1.0),
    }
    links = {key: [key, 0] for key in ("prompts", "negative", "vae", "anchor", "sampler", "sigmas", "layout")}
    links |= {"model": ["high", 0], "model_low_noise": ["low", 0]}
    widgets = {"num_clips": job.num_clips, "cfg": 1.0, "seed": job.seed, "seed_mode": "per clip", "boundary": BOUNDARY}
    graph["video"] = node("SVIGenerate", **links, **widgets, filename_prefix=f"benchmark/{name}")
    graph["saved"] = save("video", name)
    return graph


def stock_graph(image: str, job: Job, name: str) -> Graph:
    """Return the job of stock nodes only: each clip starts from the last frame of the one before."""
    graph, shown = models(image), []
    for clip in range(job.num_clips):
        start = ["image", 0] if clip == 0 else [f"last{clip - 1}", 0]
        add_stock_clip(graph, job, clip, start)
        graph[f"last{clip}"] = node("ImageFromBatch", image=[f"frames{clip}", 0], batch_index=-1, length=1)
        if clip:  # its first frame is the last of the clip before
            part = {"batch_index": 1, "length": job.num_frames - 1}
            graph[f"new{clip}"] = node("ImageFromBatch", image=[f"frames{clip}", 0], **part)
        shown.append([f"new{clip}" if clip else "frames0", 0])
    graph["video"] = node("CreateVideo", images=batch(graph, shown), fps=16.0)
    graph["saved"] = save("video", name)
    return graph


def add_stock_clip(graph: Graph, job: Job, clip: int, start: list) -> None:
    """Add the nodes that make the frames of one clip from a start image."""
    size = {"width": job.side, "height": job.side, "length": job.num_frames, "batch_size": 1}
    shared = {"noise_seed": job.seed + 42 * clip, "steps": STEPS, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple"}
    shared |= {"positive": [f"y{clip}", 0], "negative": [f"y{clip}", 1]}
    first = {"add_noise": "enable", "start_at_step": 0, "end_at_step": STEPS_HIGH, "return_with_leftover_noise": "enable"}
    second = {
        "add_noise": "disable",
        "start_at_step": STEPS_HIGH,
        "end_at_step": 10000,
        "return_with_leftover_noise": "disable",
    }
    graph[f"positive{clip}"] = node("CLIPTextEncode", clip=["clip", 0], text=job.prompt(clip))
    known = {"positive": [f"positive{clip}", 0], "negative": ["negative", 0], "vae": ["vae", 0], "start_image": start}
    graph[f"y{clip}"] = node("WanImageToVideo", **known, **size)
    graph[f"high{clip}"] = node("KSamplerAdvanced", model=["high", 0], latent_image=[f"y{clip}", 2], **shared, **first)
    graph[f"low{clip}"] = node("KSamplerAdvanced", model=["low", 0], latent_image=[f"high{clip}", 0], **shared, **second)
    graph[f"frames{clip}"] = node("VAEDecode", samples=[f"low{clip}", 0], vae=["vae", 0])


def batch(graph: Graph, images: list[list]) -> list:
    """Add the nodes that make one IMAGE of `images` with the fewest copies, and return the link to it."""
    if len(images) == 1:
        return images[0]
    groups = [images[start : start + MAX_BATCHED] for start in range(0, len(images), MAX_BATCHED)]
    links = []
    for group in groups:
        name = f"batch{len(graph)}"
        graph[name] = node("BatchImagesNode", **{f"images.image{index}": link for index, link in enumerate(group)})
        links.append([name, 0])
    return batch(graph, links)


def save(video: str, name: str) -> dict[str, Any]:
    return node("SaveVideo", video=[video, 0], filename_prefix=f"video/{name}", format="auto", codec="auto")


GRAPHS = {"ours": our_graph, "stock": stock_graph}


def num_shown_frames(kind: str, job: Job) -> int:
    """Return the frames of the finished video."""
    shared = {"ours": 5, "stock": 1}[kind]
    return job.num_clips * (job.num_frames - shared) + shared
