"""Check inputs, schedule and LoRAs before the first step; a ValueError names the input, its value and the fix."""

from ..svi_core.clips.clip_plan import ClipPlan
from ..svi_core.flow.flow_matching import late_start_warning, num_high_noise_steps, require_sigmas
from ..svi_core.geometry import require_frame_size
from ..svi_core.schedule.spec import ClipSpec
from ..svi_core.systems.layouts import Layout
from ..svi_core.systems.lora_variant import require_lora_variants
from .bridge import latents, models, vaes
from .bridge.attention import require_attention_setting
from .bridge.browsers import warn
from .bridge.compiled import require_uncompiled
from .bridge.control import require_condition
from .bridge.decode_order import require_decode_setting
from .clip_sampler import ClipSampler


def check_run(sampler: ClipSampler, plan: ClipPlan) -> None:
    """Refuse a run that cannot work."""
    require_attention_setting()
    require_decode_setting()
    first_prompt = sampler.prompts.encode(plan.schedule.snapshot().at(0).prompt)
    for name, model in (("model", sampler.model), ("model_low_noise", sampler.model_low_noise)):
        if model is not None:
            models.require_i2v(model, name)
            models.require_vision_fits(model, name, sampler.clip_vision)
            models.require_text_fits(model, name, first_prompt, "prompts")
            models.require_text_fits(model, name, sampler.negative, "negative")
            require_uncompiled(name, model, sampler.control)
    if sampler.loras and sampler.model.patches:
        warn("SVI Generate", "model already carries LoRAs; those of the loras input are added on top.")
    vaes.require_wan_vae(sampler.vae)
    require_sigmas(sampler.sigmas)
    if warning := late_start_warning(sampler.sigmas):
        warn("SVI Generate", warning)
    num_high_noise_steps(sampler.sigmas, sampler.boundary)
    if not 0.0 <= sampler.cfg <= 100.0:
        raise ValueError(f"cfg is {sampler.cfg}: use 1 with a distilled LoRA, 4 to 5 without.")
    if sampler.recipe:
        _check_guider(sampler)
    for warning in vaes.hand_over_warnings(plan.layout, sampler.vae.vae_dtype, sampler.tiles):
        warn("SVI Generate", warning)
    _check_anchor("anchor", sampler.anchor, plan.layout)
    for name, anchor in sampler.anchors.items():
        _check_anchor(f"anchor {name!r}", anchor, plan.layout, like=sampler.anchor)
    width, height = latents.pixel_size(sampler.anchor)
    require_condition(plan.layout, sampler.control)
    for control in sampler.control:
        control.check(sampler.model, plan.layout, width, height)
    _check_schedule(sampler, plan)


def _check_guider(sampler: ClipSampler) -> None:
    """Refuse a guider that cannot guide this run, or whose further prompts its models cannot read."""
    named = {"model": sampler.model, "model_low_noise": sampler.model_low_noise}
    named = {name: model for name, model in named.items() if model is not None}
    sampler.recipe.check(named, sampler.control)
    if lost := sampler.recipe.left_out:
        what = ", ".join(lost)
        warn(
            "SVI Generate",
            f"the prompts of guider set {what}, which this run leaves out with them: it uses prompts and negative.",
        )
    for name, model in named.items():
        for prompt, conditioning in sampler.recipe.prompts.items():
            models.require_text_fits(model, name, conditioning, f"guider's {prompt} prompt")


def check_spec(sampler: ClipSampler, spec: ClipSpec, layout: Layout) -> None:
    """Refuse a clip whose spec names an input that is not connected, or whose LoRAs contradict `layout` or do not fit."""
    sampler.anchor_named(spec.anchor)
    if spec.end is not None and latents.FRAMES_KEY not in sampler.anchor_named(spec.end):
        raise ValueError(f"the end image {spec.end!r} holds only latents: make it from an image with SVI Anchor Encode.")
    if sampler.recipe:
        sampler.recipe.require_cfg(spec.cfg)
    require_lora_variants(layout, sampler.lora_variants(spec))
    sampler.require_loras(spec)


def _check_schedule(sampler: ClipSampler, plan: ClipPlan) -> None:
    """Refuse a schedule with lengths, names or strengths that do not fit this run."""
    schedule = plan.schedule.snapshot()
    plan.require_joints(schedule)
    for index in range(min(plan.num_clips, len(schedule))):
        check_spec(sampler, schedule.at(index), plan.layout)
    sampler.build_y(plan.request_for(0, schedule.at(0)), None)


def _check_anchor(name: str, anchor: dict, layout: Layout, like: dict | None = None) -> None:
    """Refuse an anchor that is not one image of a valid size, or lacks the frames that the layout needs."""
    batch, _, slots, height, width = latents.samples_of(anchor, name).shape
    if batch != 1 or slots != 1:
        raise ValueError(
            f"{name} holds {batch} images of {slots} latent slots, but SVI Generate makes one video from one anchor of 1 slot: "
            "encode one image with SVI Anchor Encode."
        )
    if not layout.in_latent_space and latents.FRAMES_KEY not in anchor:
        raise ValueError(
            f"{name} holds only latents, but layout {layout.name!r} is padded with frames: make it with SVI Anchor Encode."
        )
    require_frame_size(width * 8, height * 8, name)
    if like is not None and like["samples"].shape[-2:] != anchor["samples"].shape[-2:]:
        asked = " x ".join(str(side * 8) for side in reversed(like["samples"].shape[-2:]))
        raise ValueError(f"{name} is {width * 8} x {height * 8} pixels, but the video is {asked}: encode it at that size.")
