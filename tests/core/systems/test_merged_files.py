"""What a model's file says was merged into it, by its name and by the graph that ComfyUI's Save nodes put into its header."""

import json

import pytest

from svi_core.systems.merged_files import merged_into


def header(**loader) -> dict[str, str]:
    graph = {"1": {"class_type": "UNETLoader", "inputs": {"unet_name": "wan.safetensors", "is_changed": float("nan")}}}
    return {"prompt": json.dumps(graph | {"2": {"class_type": "LoraLoaderModelOnly", "inputs": loader}})}


@pytest.mark.parametrize(
    ("name", "metadata", "is_merge", "layout"),
    [
        ("wan2.2_i2v_high_noise_14B_fp8_scaled.safetensors", {}, False, None),
        ("wan_svi_pro_merged.safetensors", {}, False, "2.0 Pro"),
        ("mix.safetensors", header(lora_name="style.safetensors"), True, None),
        ("mix.safetensors", header(lora_name="SVI/SVI_v2_PRO_HIGH.safetensors"), True, "2.0 Pro"),
        ("mix.safetensors", header(lora_name="SVI\\svi-shot.safetensors"), True, "Shot"),
        ("mix.safetensors", {"prompt": ""}, False, None),  # saved with --disable-metadata, or by a script
        (None, {}, False, None),
    ],
)
def test_the_name_and_the_graph_in_the_header_are_read(name, metadata, is_merge, layout):
    merged = merged_into(name, metadata)
    assert (merged.is_merge, merged.variant and merged.variant.layouts[0]) == (is_merge, layout)
