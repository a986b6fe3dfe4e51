"""The line that shows a run's LoRAs, and when one of SVI counts as missing."""

import pytest

from svi_core.systems.applied_loras import AppliedLora, ExpertLoras, loras_at_a_glance, missing_lora_warnings
from svi_core.systems.layouts import LAYOUTS
from svi_core.systems.lora_variant import variant_of_lora
from svi_core.systems.merged_files import Merged

NAME = "SVI_v2_PRO.safetensors"
SVI = AppliedLora(NAME, 1.0, variant_of_lora(NAME, {}), 400)
STYLE = AppliedLora("style.safetensors", 0.5)
UNNAMED = AppliedLora("", 0.8, None, 400)
MERGE = AppliedLora("", 0.3, None, 400, is_merge=True)
LOST = AppliedLora(NAME, 1.0, variant_of_lora(NAME, {}), 0)


def test_names_strengths_and_what_is_not_known_stand_on_one_line():
    experts = [ExpertLoras("high", (SVI, STYLE, UNNAMED)), ExpertLoras("low", (LOST, AppliedLora("", None), MERGE))]
    assert loras_at_a_glance(experts) == (
        "high noise: SVI_v2_PRO.safetensors at 1, style.safetensors at 0.5, a LoRA of another node at 0.8 (400 weights); "
        "low noise: SVI_v2_PRO.safetensors at 1 (changes nothing), a LoRA of another node, "
        "another model, merged at 0.3 (400 weights)"
    )
    assert loras_at_a_glance([ExpertLoras("model", ())]) == "model: none"


@pytest.mark.parametrize(
    ("merged", "loras", "words"),
    [
        (Merged(), (SVI,), None),
        (Merged(), (STYLE, SVI), None),
        (Merged(is_merge=True), (SVI,), None),
        (Merged(variant=SVI.variant), (), None),
        (Merged(), (), "no LoRA is on model, but layout '2.0 Pro' needs the LoRA of SVI"),
        (Merged(), (AppliedLora(NAME, 0.0, SVI.variant),), "no LoRA is on model"),
        (Merged(), (STYLE,), "nothing says that a LoRA of SVI is among style.safetensors at 0.5 on model"),
        (Merged(), (UNNAMED,), "is among a LoRA of another node at 0.8 (400 weights) on model"),
        (Merged(), (LOST,), "the node that applies SVI_v2_PRO.safetensors finds none of its weights on model"),
        (Merged(), (LOST, STYLE), "finds none of its weights on model"),
        (Merged(is_merge=True), (), "it cannot be told whether a LoRA of SVI is merged into model, but layout '2.0 Pro' needs"),
        (Merged(is_merge=True), (STYLE,), "it cannot be told whether a LoRA of SVI is merged into model"),
        (Merged(), (STYLE, MERGE), "it cannot be told whether a LoRA of SVI is merged into model"),
        (Merged(is_merge=True), (LOST,), "finds none of its weights on model"),
        (Merged(), (AppliedLora("", 0.0, None, 400, is_merge=True),), "no LoRA is on model"),
    ],
)
def test_a_missing_lora_of_svi_is_told_with_its_reason(merged, loras, words):
    warnings = list(missing_lora_warnings([ExpertLoras("model", loras, merged)], LAYOUTS["2.0 Pro"]))
    assert [words in warning for warning in warnings] == ([] if words is None else [True]), warnings


def test_experts_with_one_reason_share_a_warning():
    experts = [ExpertLoras("high", ()), ExpertLoras("low", ())]
    (warning,) = missing_lora_warnings(experts, LAYOUTS["Shot"])
    assert warning.startswith("no LoRA is on model and model_low_noise, but layout 'Shot'")
