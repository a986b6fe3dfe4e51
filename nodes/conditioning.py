"""Building blocks: anchor, motion tail, and the conditioning made of both."""

import re
from functools import partial

from comfy_api.latest import io

from ..svi_core.conditioning.build_y import build_y, motion_tail, motion_window
from ..svi_core.conditioning.images import (
    MAX_SIDE,
    TRAINED_MEGAPIXELS,
    ResizeMode,
    SizeRule,
    resize_images,
    size_text,
    video_size,
)
from ..svi_core.geometry import num_latent_slots, num_motion_latents
from ..svi_core.systems.layouts import Padding
from .bridge import latents, sampling, vaes
from .bridge.node_ids import ANCHOR_ENCODE
from .bridge.schemas import SUMMARY_KEY, num_frames_input, svi_schema
from .bridge.validation import complaint

Anchors = io.Custom("SVI_ANCHORS")


class SVIAnchorEncode(io.ComfyNode):
    """Encode each reference image into an anchor latent of its own."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return svi_schema(
            node_id=ANCHOR_ENCODE,
            display_name="SVI Anchor Encode",
            description="Resize a reference image to the video size and encode it as a video of one frame.",
            category="conditioning",
            search_aliases=["anchor latent", "reference image"],
            inputs=[
                io.Vae.Input("vae", tooltip="The Wan 2.1 VAE. Wan 2.2 14B uses it too."),
                io.Image.Input("image", tooltip="Reference image. A batch gives one anchor per image."),
                io.Int.Input("width", default=832, min=16, max=MAX_SIDE, step=16, tooltip="Width in pixels, a multiple of 16."),
                io.Int.Input(
                    "height", default=480, min=16, max=MAX_SIDE, step=16, tooltip="Height in pixels, a multiple of 16."
                ),
                io.Combo.Input(
                    "size_rule",
                    options=SizeRule,
                    default=SizeRule.EXACT,
                    tooltip="exact: width x height. fit width: the image's size, at most width (as in SVI 1.0). fit area: the "
                    "image's aspect ratio, about width x height pixels. megapixels: its aspect ratio at that many. The last "
                    "three give multiples of 16.",
                ),
                io.Combo.Input(
                    "resize",
                    options=ResizeMode,
                    default=ResizeMode.CROP,
                    tooltip="crop: crop the centre. stretch: scale each side, as the released code does.",
                ),
                io.Float.Input(
                    "megapixels",
                    default=TRAINED_MEGAPIXELS,
                    min=0.01,
                    max=16.0,
                    step=0.01,
                    optional=True,
                    tooltip="Size for size_rule megapixels, in units of 1024 x 1024 pixels. 0.38: 832 x 480, SVI's training "
                    "size. 0.88: 1280 x 720.",
                ),
            ],
            outputs=[
                io.Latent.Output("anchor", tooltip="One latent slot per image, [N, 16, 1, height / 8, width / 8]."),
                io.Image.Output("resized_image", display_name="image", tooltip="The images at the video size."),
                io.Int.Output("video_width", display_name="width", tooltip="Width of the video in pixels."),
                io.Int.Output("video_height", display_name="height", tooltip="Height of the video in pixels."),
            ],
        )

    @classmethod
    def execute(cls, vae, image, width, height, size_rule, resize, megapixels=TRAINED_MEGAPIXELS) -> io.NodeOutput:
        vaes.require_wan_vae(vae)
        given = image.shape[2], image.shape[1]
        width, height = video_size(*given, width, height, SizeRule(size_rule), megapixels)
        image = resize_images(image[..., :3], width, height, ResizeMode(resize))
        anchor = {"samples": vaes.encode_images(vae, image), latents.FRAMES_KEY: image}
        return io.NodeOutput(anchor, image, width, height, ui={SUMMARY_KEY: (size_text(*given, width, height),)})


class SVINamedAnchor(io.ComfyNode):
    """Name an anchor for use in a schedule."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return svi_schema(
            node_id="SVINamedAnchor",
            display_name="SVI Named Anchor",
            description="Name an anchor so that a schedule can refer to it: [cut, anchor garden] or [end garden].",
            category="conditioning",
            search_aliases=["several anchors", "scene change", "end image"],
            inputs=[
                io.String.Input(
                    "name",
                    default="garden",
                    tooltip="Name for the schedule (anchor NAME, end NAME): letters, digits, '_', '-', '.'. No SVI LoRA was "
                    "trained with end images.",
                ),
                io.Latent.Input("anchor", tooltip="From SVI Anchor Encode, at the video size."),
                Anchors.Input("anchors", optional=True, tooltip="Anchors named before this one."),
            ],
            outputs=[Anchors.Output("named", display_name="anchors", tooltip="All anchors named so far.")],
        )

    @classmethod
    def execute(cls, name, anchor, anchors=None) -> io.NodeOutput:
        name = anchor_name(name)
        if name in (anchors or {}):
            raise ValueError(f"name is {name!r}, but another anchor of this chain already has it: choose a different one.")
        return io.NodeOutput({**(anchors or {}), name: anchor})


def anchor_name(name: str) -> str:
    """Return the name that schedules use for an SVI Named Anchor.

    Raises:
        ValueError: characters that a schedule cannot write.
    """
    name = name.strip()
    if not re.fullmatch(r"[\w.-]+", name):
        raise ValueError(f"name is {name!r}: use letters, digits, '_', '-' or '.', as the schedule writes it.")
    return name


class SVIMotionLatent(io.ComfyNode):
    """Take the tail of the previous clip from its latent or its frames."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return svi_schema(
            node_id="SVIMotionLatent",
            display_name="SVI Motion Latent",
            description="The last frames of the previous clip, which the next clip continues. A latent from the sampler is "
            "used as it is; images (an existing video) are encoded by the VAE.",
            category="conditioning",
            search_aliases=["last latent", "motion frames", "extend video"],
            inputs=[
                io.Combo.Input(
                    "num_motion_frames",
                    options=["4", "8", "12", "1", "5"],
                    default="4",
                    tooltip="Frames taken from the end. 2.0 Pro: 4, 8 or 12. Shot and 2.0: 1, Film: 5; both need images.",
                ),
                io.Latent.Input("samples", optional=True, tooltip="The previous clip's latent from the sampler."),
                io.Image.Input("images", optional=True, tooltip="Instead of samples: frames of a video, 16 per second."),
                io.Vae.Input("vae", optional=True, tooltip="The Wan 2.1 VAE; only needed with images."),
            ],
            outputs=[io.Latent.Output("motion", tooltip="The tail, [B, 16, 1 to 3, height / 8, width / 8].")],
        )

    @classmethod
    def execute(cls, num_motion_frames, samples=None, images=None, vae=None) -> io.NodeOutput:
        if (samples is None) == (images is None):
            raise ValueError("SVI Motion Latent needs either samples or images: connect exactly one of the two.")
        count = int(num_motion_frames)
        if samples is not None:
            return io.NodeOutput({"samples": motion_tail(latents.samples_of(samples, "samples"), count)})
        return io.NodeOutput(_motion_from_images(vae, images[..., :3], count))


class SVIConditioning(io.ComfyNode):
    """Concatenate anchor, motion and padding, and attach the result to a positive and a negative prompt."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return svi_schema(
            node_id="SVIConditioning",
            display_name="SVI Conditioning",
            description="Condition a clip on anchor, motion and padding, in this order; only slot 0 is marked as known. Works "
            "with any sampler. Use the padding that the SVI LoRA was trained with.",
            category="conditioning",
            search_aliases=["padding", "image to video", "svi pro"],
            inputs=[
                io.Conditioning.Input("positive", tooltip="The clip's encoded prompt."),
                io.Conditioning.Input("negative", tooltip="The encoded negative prompt."),
                io.Latent.Input("anchor", tooltip="From SVI Anchor Encode: one latent slot."),
                num_frames_input(),
                io.Combo.Input(
                    "padding",
                    options=Padding,
                    default=Padding.ZERO_LATENT,
                    tooltip="zero latent: 2.0 Pro. anchor frames: 2.0, Shot, Talk, Dance. grey frames: Film. Frames need vae.",
                ),
                io.Latent.Input("motion", optional=True, tooltip="From SVI Motion Latent; leave empty for the first clip."),
                io.Vae.Input("vae", optional=True, tooltip="The Wan 2.1 VAE; only needed for anchor and grey frames."),
                io.ClipVisionOutput.Input(
                    "clip_vision_output",
                    optional=True,
                    tooltip="Wan 2.1 only: CLIP vision features of the first known frame (crop none).",
                ),
            ],
            outputs=[
                io.Conditioning.Output("positive_out", display_name="positive", tooltip="For the sampler."),
                io.Conditioning.Output("negative_out", display_name="negative", tooltip="For the sampler."),
                io.Latent.Output("latent", tooltip="The empty latent of the clip, for the sampler."),
            ],
        )

    @classmethod
    def validate_inputs(cls, num_frames=None) -> bool | str:
        return complaint(num_latent_slots, num_frames)

    @classmethod
    def execute(
        cls, positive, negative, anchor, num_frames, padding, motion=None, vae=None, clip_vision_output=None
    ) -> io.NodeOutput:
        anchor, motion = (part and latents.known_part(part, name) for part, name in ((anchor, "anchor"), (motion, "motion")))
        encode = vae and partial(vaes.encode_frames, vae)
        if vae is not None and Padding(padding) is not Padding.ZERO_LATENT:
            anchor, motion = (vaes.near_vae(vae, part, num_frames) for part in (anchor, motion))
        y = build_y(Padding(padding), num_frames, anchor, motion, latents.zero_latent_slot(), encode)
        conditionings = [sampling.set_y(c, y, clip_vision_output) for c in (positive, negative)]
        return io.NodeOutput(*conditionings, latents.empty_latent(y))


def _motion_from_images(vae, images, count: int) -> dict:
    """Encode the tail of `images` [T, H, W, 3]: whole slots within the last clip's length, 1 and 5 frames alone.

    Raises:
        ValueError: fewer images than asked for.
    """
    vaes.require_wan_vae(vae)
    needed = count + (count % 4 == 0)
    if images.shape[0] < needed:
        raise ValueError(
            f"images holds {images.shape[0]} frame(s), but {count} motion frames need {needed}: use a longer video."
        )
    frames = images[-count:]
    if count % 4:
        return {"samples": vaes.encode_frames(vae, frames), latents.FRAMES_KEY: frames}
    encoded = vaes.encode_frames(vae, motion_window(images))
    return {"samples": encoded[:, :, -num_motion_latents(count) :].clone(), latents.FRAMES_KEY: frames}
