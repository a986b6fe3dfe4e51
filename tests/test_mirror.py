"""Every module of the product has its test file in the same place below tests/, or stands here with the file that tests it."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TESTS_OF = {"svi_core": "core", "nodes": "nodes", "training": "training", "batch": "batch"}

TESTED_ELSEWHERE = {
    # Parts of one idea, which show what they do only together.
    "svi_core/clips/chain.py": "core/clips/test_clip_plan.py",
    "svi_core/clips/step_by_step.py": "core/clips/test_growing_video.py",
    "svi_core/clips/growing_file.py": "core/clips/test_growing_video.py",
    "svi_core/clips/run_video.py": "core/clips/test_growing_video.py",
    "svi_core/clips/video_settings.py": "core/clips/test_growing_video.py",
    "svi_core/dry_run/picture.py": "core/dry_run/test_dry_run.py",
    "svi_core/dry_run/text.py": "core/dry_run/test_dry_run.py",
    "svi_core/dry_run/warnings.py": "core/dry_run/test_dry_run.py",
    "svi_core/dry_run/disk_need.py": "core/dry_run/test_dry_run.py",
    "svi_core/dry_run/expected_clips.py": "core/dry_run/test_dry_run.py",
    "svi_core/dry_run/requested_run.py": "core/dry_run/test_dry_run.py",
    "svi_core/dry_run/run_estimate.py": "core/dry_run/test_dry_run.py",
    "svi_core/recycling/bank_storage.py": "core/recycling/test_error_bank.py",
    "svi_core/recycling/old_journal.py": "core/recycling/test_bank_file.py",
    "svi_core/schedule/live_file.py": "core/schedule/test_schedule.py",
    "svi_core/dry_run/storyboard.py": "nodes/storyboard/test_routes.py",
    "svi_core/schedule/rebuild.py": "core/schedule/test_edits.py",
    "svi_core/schedule/unit_text.py": "core/schedule/test_edits.py",
    "svi_core/schedule/written.py": "core/schedule/test_edits.py",
    "nodes/bridge/routes.py": "nodes/test_clip_panel.py",
    "nodes/storyboard/asked_run.py": "nodes/storyboard/test_routes.py",
    "nodes/storyboard/edit.py": "nodes/storyboard/test_routes.py",
    "nodes/storyboard/pictures.py": "nodes/storyboard/test_routes.py",
    "nodes/storyboard/places.py": "nodes/storyboard/test_routes.py",
    "nodes/storyboard/plan.py": "nodes/storyboard/test_routes.py",
    "nodes/storyboard/source.py": "nodes/storyboard/test_routes.py",
    "svi_core/schedule/spec.py": "core/schedule/test_schedule.py",
    "svi_core/schedule/storyline_actions.py": "core/schedule/test_storyline.py",
    "svi_core/schedule/text.py": "core/schedule/test_schedule.py",
    "svi_core/store/records.py": "core/store/test_run_store.py",
    "svi_core/systems/variants.py": "core/systems/test_layouts.py",
    "nodes/dry_run/read_controls.py": "nodes/dry_run/test_plan.py",
    "nodes/dry_run/read_graph.py": "nodes/dry_run/test_plan.py",
    "nodes/dry_run/graph_reader.py": "nodes/dry_run/test_plan.py",
    "nodes/dry_run/read_models.py": "nodes/dry_run/test_plan.py",
    "nodes/dry_run/read_schedule.py": "nodes/dry_run/test_plan.py",
    "nodes/dry_run/read_video.py": "nodes/dry_run/test_plan.py",
    # The batch command, tested as a whole.
    "batch/__main__.py": "e2e/test_batch.py",
    "batch/arguments.py": "batch/test_run.py",
    "batch/demo_environment.py": "e2e/test_batch.py",
    "batch/media.py": "batch/test_prepare.py",
    "batch/placement.py": "batch/test_run.py",
    "batch/records.py": "batch/test_run.py",
    "batch/outcome.py": "batch/test_run.py",
    "batch/ray_worker.py": "batch/test_ray_cluster.py",
    "batch/run_story.py": "batch/test_run.py",
    "batch/servers.py": "batch/test_run.py",
    "batch/story.py": "batch/test_table.py",
    "batch/make_table.py": "batch/tables/test_build.py",
    "batch/text_workflow.py": "batch/tables/test_build.py",
    "batch/tables/kept_prompts.py": "batch/tables/test_build.py",
    "batch/report/charts.py": "batch/report/test_page.py",
    "batch/report/tables.py": "batch/report/test_page.py",
    "batch/scoring/published.py": "batch/report/test_page.py",
    "batch/scoring/scores.py": "batch/test_score.py",
    "batch/workflow/addresses.py": "batch/test_prepare.py",
    "batch/workflow/node_inputs.py": "batch/workflow/test_convert.py",
    "batch/workflow/scopes.py": "batch/workflow/test_convert.py",
    "batch/workflow/typed_value.py": "batch/test_prepare.py",
    "batch/workflow/widget_values.py": "batch/workflow/test_convert.py",
    "training/data/clips.py": "training/data/test_dataset.py",
    "training/data/build_cache.py": "training/test_cache.py",
    "training/data/crops.py": "training/data/test_windows.py",
    "training/data/encoding.py": "training/test_cache.py",
    "training/data/index.py": "training/data/test_dataset.py",
    "training/data/report.py": "training/test_cache.py",
    "training/data/scan.py": "training/data/test_windows.py",
    "training/data/store.py": "training/test_cache_faults.py",
    "training/data/tables.py": "training/data/test_sources.py",
    "training/method/drops.py": "training/method/test_erft_step.py",
    "training/method/trainer.py": "training/method/test_erft_step.py",
    "training/model/block_memory.py": "training/model/test_backbone.py",
    "training/model/encoder_files.py": "training/model/test_encoders.py",
    "training/model/execution.py": "training/model/test_backbone.py",
    "training/model/loading.py": "training/model/test_backbone.py",
    "training/bank.py": "training/run/test_error_source.py",
    "training/settings/checks.py": "training/settings/test_reader.py",
    # Data alone, or a function of a few lines: those who read it are tested.
    "svi_core/flow/timestep_grid.py": "core/recycling/test_error_recycling.py",
    "svi_core/files/folder_lock.py": "core/store/test_run_store.py",
    "svi_core/look/plots.py": "core/dry_run/test_dry_run.py",
    "svi_core/recycling/config.py": "core/recycling/test_error_recycling.py",
    "svi_core/systems/lora_presets.py": "nodes/test_few_steps.py",
    "svi_core/systems/pose_keys.py": "training/model/test_pose_encoder.py",
    "nodes/bridge/validation.py": "nodes/test_schemas.py",
    "nodes/bridge/schemas.py": "nodes/test_schemas.py",
    "nodes/bridge/node_ids.py": "nodes/test_schemas.py",
    "nodes/lora_presets.py": "nodes/test_few_steps.py",
    "training/method/streams.py": "training/method/test_erft_step.py",
    "training/model/conditions.py": "training/method/test_erft_step.py",
    "training/settings/data.py": "training/data/test_windows.py",
    "training/settings/diagnosis.py": "training/settings/test_reader.py",
    "training/settings/lora.py": "training/settings/test_reader.py",
    "training/settings/sections.py": "training/settings/test_reader.py",
    # Needs ComfyUI's queue, models or server: tested in a graph.
    "nodes/bridge/clip_times.py": "nodes/dry_run/test_plan.py",
    "nodes/bridge/control.py": "nodes/test_talk.py",
    "nodes/bridge/queued_graph.py": "nodes/dry_run/test_plan.py",
    "nodes/bridge/expansion.py": "nodes/test_repeat_clips.py",
    "nodes/bridge/run_path.py": "nodes/dry_run/test_plan.py",
    "nodes/bridge/latents.py": "nodes/test_conditioning.py",
    "nodes/clip_sampler.py": "golden/test_layout_y.py",
    "nodes/output.py": "e2e/test_generate.py",
    "nodes/patched_models.py": "nodes/bridge/test_compiled.py",
    "nodes/generate.py": "e2e/test_generate.py",
    "nodes/step_by_step.py": "e2e/test_talk.py",
    # A training run, tested by stopping, resuming and distributing it.
    "training/erft.py": "training/test_three_commands.py",
    "training/diagnose.py": "training/test_three_commands.py",
    "training/report.py": "training/run/test_validation.py",
    "training/run/assembly.py": "training/model/test_speech_layers.py",
    "training/run/charts.py": "training/run/test_validation.py",
    "training/run/diagnosis_report.py": "training/run/test_diagnosis.py",
    "training/run/checkpoint.py": "training/run/test_resume.py",
    "training/run/dry_run.py": "training/model/test_pose_encoder.py",
    "training/run/loop.py": "training/run/test_resume.py",
    "training/run/progress.py": "training/run/test_resume.py",
    "training/run/report.py": "training/run/test_validation.py",
    "training/run/run_folder.py": "training/run/test_resume.py",
    "training/run/session.py": "training/run/test_resume.py",
    "training/run/sample_story.py": "training/run/test_samples.py",
    "training/run/stop_signal.py": "training/run/test_resume.py",
}


def modules() -> list[str]:
    files = [path for package in TESTS_OF for path in sorted((ROOT / package).rglob("*.py")) if path.name != "__init__.py"]
    return [path.relative_to(ROOT).as_posix() for path in files]


@pytest.mark.parametrize("module", modules())
def test_a_module_has_its_test_file(module: str):
    package, *folders, name = module.split("/")
    mirror = Path("tests", TESTS_OF[package], *folders, f"test_{name}")
    if module in TESTED_ELSEWHERE:
        assert not (ROOT / mirror).exists(), f"{mirror} is there now: take {module} out of TESTED_ELSEWHERE"
        assert (ROOT / "tests" / TESTED_ELSEWHERE[module]).is_file(), f"tests/{TESTED_ELSEWHERE[module]} is not there"
    else:
        assert (ROOT / mirror).is_file(), f"{module} has no {mirror}: write it, or name the test file in TESTED_ELSEWHERE"


def test_no_exception_outlives_its_module():
    assert TESTED_ELSEWHERE.keys() <= set(modules())
