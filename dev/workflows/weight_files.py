"""The published weights that the workflows load, and their download addresses."""

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
SVI_FILM = "svi-film-opt-10212025.safetensors"
SVI_2_WAN21 = "SVI_Wan2.1-I2V-14B_lora_v2.0.safetensors"
SVI_2_HIGH = "SVI_Wan2.2-I2V-A14B_high_noise_lora_v2.0.safetensors"
SVI_2_LOW = "SVI_Wan2.2-I2V-A14B_low_noise_lora_v2.0.safetensors"
SVI_SHOT = "svi-shot_lora_rank_128_fp16.safetensors"
SVI_DANCE = "svi-dance.safetensors"
SVI_TALK = "svi-talk.safetensors"
MULTITALK = "multitalk.safetensors"
WAV2VEC2 = "wav2vec2-chinese-base_fp16.safetensors"  # chinese-wav2vec2-base
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
    SVI_FILM: ("loras", f"{SVI_AUTHORS}/resolve/main/version-1.0/{SVI_FILM}"),
    SVI_2_WAN21: ("loras", f"{SVI_AUTHORS}/resolve/main/version-2.0/{SVI_2_WAN21}"),
    SVI_2_HIGH: ("loras", f"{SVI_AUTHORS}/resolve/main/version-2.0/{SVI_2_HIGH}"),
    SVI_2_LOW: ("loras", f"{SVI_AUTHORS}/resolve/main/version-2.0/{SVI_2_LOW}"),
    SVI_SHOT: ("loras", f"{SVI_FP16}/{SVI_SHOT}"),
    SVI_DANCE: ("loras", f"{SVI_AUTHORS}/resolve/main/version-1.0/{SVI_DANCE}"),
    SVI_TALK: ("loras", f"{SVI_AUTHORS}/resolve/main/version-1.0/{SVI_TALK}"),
    MULTITALK: ("model_patches", f"https://huggingface.co/MeiGen-AI/MeiGen-MultiTalk/resolve/main/{MULTITALK}"),
    WAV2VEC2: ("audio_encoders", f"https://huggingface.co/Kijai/wav2vec2_safetensors/resolve/main/{WAV2VEC2}"),
    CLIP_VISION: ("clip_vision", f"{WAN21}/clip_vision/{CLIP_VISION}"),
    TEXT_ENCODER: ("text_encoders", f"{WAN21}/text_encoders/{TEXT_ENCODER}"),
    VAE: ("vae", f"{WAN21}/vae/{VAE}"),
}

GIGABYTES = {  # of the downloads; the authors publish their LoRAs with 16 or 32 bits a number
    HIGH: 14.3,
    LOW: 14.3,
    SVI_HIGH: 1.2,
    SVI_LOW: 1.2,
    LIGHT_HIGH: 1.2,
    LIGHT_LOW: 1.2,
    WAN21_I2V: 32.8,
    SVI_FILM: 2.5,
    SVI_2_WAN21: 2.5,
    SVI_2_HIGH: 2.5,
    SVI_2_LOW: 2.5,
    SVI_SHOT: 1.2,
    SVI_DANCE: 2.5,
    SVI_TALK: 2.5,
    MULTITALK: 10.0,
    WAV2VEC2: 0.2,
    CLIP_VISION: 1.3,
    TEXT_ENCODER: 6.7,
    VAE: 0.3,
}


def downloads(*names: str) -> list[dict[str, str]]:
    """Return the download list of these weight files for the front end."""
    return [{"name": name, "url": URLS[name][1], "directory": URLS[name][0]} for name in names if name in URLS]


def weight_files(*names: str) -> str:
    """Return the links to weight files and their sizes, by folder, in Markdown."""
    folders = dict.fromkeys(URLS[name][0] for name in names)
    parts = [f"About {sum(GIGABYTES[name] for name in names):.0f} GB in all. The page offers to download what is missing."]
    for folder in folders:
        links = [f"- [{name}]({URLS[name][1]}), {GIGABYTES[name]:g} GB" for name in names if URLS[name][0] == folder]
        parts.append("\n".join([f"**ComfyUI/models/{folder}**", "", *links]))
    parts.append(f"The authors' own SVI LoRAs: [vita-video-gen/svi-model]({SVI_AUTHORS}). SVI LoRA Stack reads both kinds.")
    return "\n\n".join(parts)
