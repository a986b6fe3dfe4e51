"""A run that begins from a LoRA file begins with that file's change, or says why it cannot."""

import hashlib
import json
import logging
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from svi_core.files.safetensors_file import read_tensors
from tests.training.fakes import FakeDataset, make_trainer, settings, without_lora
from tests.training.wan_files import NUM_LAYERS, SIZES
from training.method.distributed import Group

pytestmark = pytest.mark.usefixtures("training_mode")
LAYERS = [
    f"blocks.{block}.{name}"
    for block in range(SIZES["num_layers"])
    for name in (*(f"{kind}_attn.{part}" for kind in ("self", "cross") for part in "qkvo"), "ffn.0", "ffn.2")
]
DIFFUSERS = {
    "self_attn": "attn1", "cross_attn": "attn2", ".q": ".to_q", ".k": ".to_k", ".v": ".to_v", ".o": ".to_out.0",
    "ffn.0": "ffn.net.0.proj", "ffn.2": "ffn.net.2",
}  # fmt: skip
AB = ("lora_A.weight", "lora_B.weight")
DIALECTS = {
    "ours": ("diffusion_model.{}", AB),
    "official 1.0": ("pipe.dit.{}", ("lora_A.default.weight", "lora_B.default.weight")),
    "official 2.0": ("{}", ("lora_A.default.weight", "lora_B.default.weight")),
    "kijai": ("diffusion_model.{}", ("lora_down.weight", "lora_up.weight")),
    "kohya": ("lora_unet_{flat}", ("lora_down.weight", "lora_up.weight")),
    "diffusers": ("transformer.{diffusers}", AB),
}


def sizes_of(layer: str) -> tuple[int, int]:
    out, into = SIZES["dim"], SIZES["dim"]
    return (SIZES["ffn_dim"], into) if layer.endswith("ffn.0") else (out, SIZES["ffn_dim"] if layer.endswith("ffn.2") else into)


def diffusers_name(layer: str) -> str:
    for ours, theirs in DIFFUSERS.items():
        if ours in layer and (ours[0] != "." or layer.endswith(ours)):
            layer = layer.replace(ours, theirs)
    return layer


def write_lora(
    path: Path, dialect: str = "ours", *, rank: int = 4, alpha: float | None = None, layers=LAYERS, dtype=torch.float32,
    metadata: dict[str, str] | None = None, **more: torch.Tensor,
) -> dict[str, torch.Tensor]:  # fmt: skip
    """Write a random LoRA file; return the change of each layer."""
    generator, (form, sides) = torch.Generator().manual_seed(7), DIALECTS[dialect]
    tensors, changes = dict(more), {}
    for layer in layers:
        out, into = sizes_of(layer)
        down, up = torch.randn(rank, into, generator=generator), 0.1 * torch.randn(out, rank, generator=generator)
        down, up = down.to(dtype), up.to(dtype)
        name = form.format(layer, flat=layer.replace(".", "_"), diffusers=diffusers_name(layer))
        tensors |= {f"{name}.{sides[0]}": down, f"{name}.{sides[1]}": up}
        if alpha is not None:
            tensors[f"{name}.alpha"] = torch.tensor(alpha)
        changes[layer] = (1.0 if alpha is None else alpha / rank) * up.double() @ down.double()
    save_file(tensors, path, metadata)
    return changes


def config_for(folder: Path, path: Path, run: Path | str = "", storage: str = "fp32", **lora):
    model = {"expert": "high", "path": str(folder / f"{storage}.safetensors")}
    return settings(run, model=model, lora={"start_from": str(path), **lora})


def begun(folder: Path, path: Path, storage: str = "fp32", **lora):
    """Return a trainer at step 0 that begins from the file `path`."""
    from training.run.assembly import assemble, load_configured_backbone, read_configured_start

    config = config_for(folder, path, folder / "run", storage, **lora)
    start = read_configured_start(config)
    config = start.settled(config)
    return assemble(config, load_configured_backbone(config), FakeDataset(), Group(), Path(config.run), start)


def changes_of(lora) -> dict[str, torch.Tensor]:
    return {name: pair.scale * pair.up.detach().double() @ pair.down.detach().double() for name, pair in lora.pairs.items()}


def require_close(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], tolerance: float) -> None:
    assert found.keys() == wanted.keys()
    for layer, value in wanted.items():
        assert float((found[layer] - value).norm()) <= tolerance * float(value.norm()), layer


def exported(trainer, path: Path, dtype: str = "fp32") -> dict[str, torch.Tensor]:
    """Return the change of each layer in the LoRA file that the trainer writes."""
    from training.model.lora_file import save_lora
    from training.run.loop import describe_lora

    save_lora(path, trainer.lora, trainer.backbone, describe_lora(trainer), dtype)
    tensors, metadata = read_tensors(path)
    scale = float(metadata["ss_network_alpha"]) / int(metadata["ss_network_dim"])
    return {
        layer: scale
        * tensors[f"diffusion_model.{layer}.lora_B.weight"].double()
        @ tensors[f"diffusion_model.{layer}.lora_A.weight"].double()
        for layer in LAYERS
    }


@pytest.mark.parametrize("dialect", DIALECTS)
def test_without_a_step_the_exported_file_makes_the_same_change(wan_folder, tmp_path, dialect):
    wanted = write_lora(tmp_path / "lora.safetensors", dialect, alpha=2.0 if dialect == "kohya" else None)
    trainer = begun(wan_folder, tmp_path / "lora.safetensors")
    require_close(changes_of(trainer.lora), wanted, 1e-12 if dialect != "kohya" else 1e-7)
    require_close(exported(trainer, tmp_path / "out.safetensors"), wanted, 1e-6)


@pytest.mark.parametrize("storage", ["bf16", "fp8", "fp8_scaled"])
def test_a_run_on_a_base_of_any_dtype_begins_with_the_change(wan_folder, tmp_path, storage):
    wanted = write_lora(tmp_path / "lora.safetensors", dtype=torch.bfloat16)
    trainer = begun(wan_folder, tmp_path / "lora.safetensors", storage)
    require_close(changes_of(trainer.lora), wanted, 1e-12)
    assert torch.equal(
        load_file(tmp_path / "lora.safetensors")["diffusion_model.blocks.1.ffn.2.lora_B.weight"].float(),
        trainer.lora.pairs["blocks.1.ffn.2"].up,
    )
    require_close(exported(trainer, tmp_path / "out.safetensors", "bf16"), wanted, 1e-12)


def test_a_higher_rank_is_cut_by_singular_values(wan_folder, tmp_path):
    wanted = write_lora(tmp_path / "lora.safetensors", rank=8)
    trainer = begun(wan_folder, tmp_path / "lora.safetensors")
    kept = whole = 0.0
    for layer, change in wanted.items():
        left, values, right = torch.linalg.svd(change, full_matrices=False)
        wanted[layer] = (left[:, :4] * values[:4]) @ right[:4]
        kept, whole = kept + float(values[:4].square().sum()), whole + float(values.square().sum())
    require_close(changes_of(trainer.lora), wanted, 1e-6)
    assert trainer.start.share_kept == pytest.approx(kept / whole, rel=1e-6) and 0.5 < kept / whole < 0.9
    assert f"rank 8 cut to 4, which keeps {100 * kept / whole:.4g} % of its squared norm" in str(trainer.start)


def test_a_lower_rank_is_extended_without_a_change_and_its_new_ranks_learn(wan_folder, tmp_path):
    from training.method.erft_step import training_step

    wanted = write_lora(tmp_path / "lora.safetensors")
    trainer = begun(wan_folder, tmp_path / "lora.safetensors", rank=8, alpha=8.0)
    require_close(changes_of(trainer.lora), wanted, 1e-12)
    assert "rank 4 extended to 8" in str(trainer.start)
    assert all(not pair.up[:, 4:].any() and pair.down[4:].any(1).all() for pair in trainer.lora.pairs.values())
    with closing(trainer.banks):
        training_step(trainer)
    assert all(pair.up[:, 4:].any(0).all() for pair in trainer.lora.pairs.values())


def test_rank_0_keeps_rank_and_alpha_of_the_file(wan_folder, tmp_path):
    wanted = write_lora(tmp_path / "lora.safetensors", rank=6, alpha=3.0)
    trainer = begun(wan_folder, tmp_path / "lora.safetensors", rank=0, alpha=128.0)
    assert (trainer.lora.rank, trainer.lora.alpha) == (6, 3.0) == (trainer.config.lora.rank, trainer.config.lora.alpha)
    pair = trainer.lora.pairs["blocks.0.ffn.0"]
    assert torch.equal(pair.down, load_file(tmp_path / "lora.safetensors")["diffusion_model.blocks.0.ffn.0.lora_A.weight"])
    require_close(changes_of(trainer.lora), wanted, 1e-12)


def test_ranks_that_are_zero_in_both_matrices_can_learn(wan_folder, tmp_path):
    wanted = write_lora(tmp_path / "lora.safetensors")
    tensors = load_file(tmp_path / "lora.safetensors")
    for layer in LAYERS:  # as files are that a tool has padded with zeros
        down, up = (tensors[f"diffusion_model.{layer}.{side}"] for side in AB)
        down[2:], up[:, 2:] = 0.0, 0.0
        wanted[layer] = up.double() @ down.double()
    save_file(tensors, tmp_path / "lora.safetensors")
    trainer = begun(wan_folder, tmp_path / "lora.safetensors")
    require_close(changes_of(trainer.lora), wanted, 1e-12)
    assert all(pair.down.any(1).all() for pair in trainer.lora.pairs.values())


def test_layers_that_the_file_lacks_begin_at_zero_and_are_counted(wan_folder, tmp_path):
    write_lora(tmp_path / "lora.safetensors", layers=LAYERS[:10])
    trainer = begun(wan_folder, tmp_path / "lora.safetensors")
    assert not any(trainer.lora.pairs[layer].up.any() for layer in LAYERS[10:])
    assert f"10 layers, rank 4; {NUM_LAYERS - 10} layers are not in it and begin at zero" in str(trainer.start)


@pytest.mark.parametrize("dialect", ["ours", "kohya"])
def test_the_first_loss_is_that_of_comfyuis_model_with_the_lora(wan_folder, tmp_path, dialect):
    import comfy.lora
    import comfy.sd

    from svi_core.systems.lora import read_lora
    from training.method.erft_step import draw, predict, weighted_losses

    def loss(trainer) -> float:
        batch = [draw(trainer, trainer.data.example(0, 0, 0), 1, 0)]
        return float(weighted_losses(predict(trainer, batch), batch).sum())

    write_lora(tmp_path / "lora.safetensors", dialect, alpha=2.0)
    trainer = begun(wan_folder, tmp_path / "lora.safetensors")
    patcher = comfy.sd.load_diffusion_model(str(wan_folder / "fp32.safetensors"), disable_dynamic=True)
    key_map = comfy.lora.model_lora_keys_unet(patcher.model, {})
    loaded = comfy.lora.load_lora(read_lora(tmp_path / "lora.safetensors").tensors, key_map)
    assert len(patcher.add_patches(loaded, 1.0)) == NUM_LAYERS
    patcher.patch_model()
    merged = replace(trainer.backbone, transformer=patcher.model.diffusion_model, model=patcher.model)
    with torch.no_grad(), closing(trainer.banks):
        ours = loss(trainer)
        with without_lora(trainer.lora):
            base = loss(trainer)
        theirs = loss(replace(trainer, backbone=merged))
    assert theirs == pytest.approx(ours, rel=1e-5) and abs(ours - base) > 1e-2 * base


MANY = torch.ones(64)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"diffusion_model.blocks.0.self_attn.q.diff_b": MANY}, r"blocks.0.self_attn.q \(diff_b: no low-rank pair\)"),
        ({"diffusion_model.blocks.0.norm3.diff": MANY}, r"blocks.0.norm3 \(diff: no low-rank pair\)"),
        ({"diffusion_model.blocks.0.ffn.0.dora_scale": MANY[:, None]}, r"ffn.0 \(dora_scale: no low-rank pair\)"),
        (
            {f"diffusion_model.blocks.0.ffn.0.hada_{part}": torch.ones(4, 4) for part in ("w1_a", "w1_b", "w2_a", "w2_b")},
            r"ffn.0 \(hada_w1_a, hada_w1_b, hada_w2_a, hada_w2_b: no low-rank pair\)",
        ),
        (
            {f"lora_te1_layers_0.lora_{side}.weight": torch.ones(4, 4) for side in ("down", "up")},
            r"lora_te1_layers_0 \(no layer of the model's blocks\)",
        ),
        (
            {f"diffusion_model.blocks.0.cross_attn.k_img.{side}": torch.ones(4, 4) for side in AB},
            r"blocks.0.cross_attn.k_img \(no layer of the model's blocks\)",
        ),
        (
            {f"diffusion_model.blocks.0.time_projection.{side}": torch.ones(4, 4) for side in AB},
            r"blocks.0.time_projection \(no layer",
        ),
    ],
)
def test_parts_that_the_run_cannot_go_on_with_are_named(wan_folder, tmp_path, more, named):
    write_lora(tmp_path / "lora.safetensors", **more)
    with pytest.raises(ValueError, match=rf"{NUM_LAYERS} of the {NUM_LAYERS + 1} modules in lora.safetensors.*{named}"):
        begun(wan_folder, tmp_path / "lora.safetensors")


def test_layers_outside_the_targets_are_named(wan_folder, tmp_path):
    write_lora(tmp_path / "lora.safetensors")
    with pytest.raises(ValueError, match=r"24 of the 30 modules .*blocks.0.ffn.0 \(not in lora.targets\)"):
        begun(wan_folder, tmp_path / "lora.safetensors", targets=["q", "k", "v", "o"])


def test_a_lora_for_another_size_fits_nothing(wan_folder, tmp_path):
    tensors = {f"diffusion_model.blocks.0.ffn.0.{side}": torch.ones(4, 4) for side in AB}
    save_file(tensors, tmp_path / "lora.safetensors")
    with pytest.raises(ValueError, match=r"0 of the 1 modules .*blocks.0.ffn.0 \(4 x 4, but the model's is 96 x 64\)"):
        begun(wan_folder, tmp_path / "lora.safetensors")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "lora.start_from is .* there is no such file"),
        (lambda path: path.write_bytes(b"PK\x03\x04 a pickle"), "lora.start_from: .*pickle"),
        (lambda path: path.write_bytes(b"cut off"), "lora.start_from: .*cannot be read as safetensors"),
        (lambda path: save_file({}, path), "lora.start_from: 0 of the 0 modules .*an empty file"),
        (lambda path: save_file({"x.weight": torch.ones(2)}, path), r"x.weight \(an unknown ending: no low-rank pair\)"),
        (lambda path: write_lora(path, metadata={"svi.layout": "New"}), "lora.start_from: .*svi.layout 'New'"),
        (lambda path: write_lora(path, alpha=float("nan")), "lora.start_from: blocks.* holds NaN"),
        (
            lambda path: write_lora(path, **{"dwpose_embedding.0.weight": torch.ones(2)}),
            "holds a pose encoder, but data.layout",
        ),
    ],
)
def test_a_bad_file_is_refused_before_a_model_loads(wan_folder, tmp_path, monkeypatch, write, message):
    from training.run import assembly, session

    monkeypatch.setattr(assembly, "load_configured_backbone", lambda config: pytest.fail("a model was loaded"))
    write(tmp_path / "lora.safetensors")
    with pytest.raises(ValueError, match=message):
        session.run_training(
            config_for(wan_folder, tmp_path / "lora.safetensors", tmp_path / "run"),
            Group(),
            lambda *_: pytest.fail("data were opened"),
        )


@pytest.mark.parametrize(
    ("metadata", "name", "warning"),
    [
        (
            {"svi.layout": "Film"},
            "a",
            "a.safetensors is for SVI Film (its header says so), but this run trains layout '2.0 Pro'",
        ),
        (None, "svi-shot", "svi-shot.safetensors is for SVI Shot (its name says so), but this run trains"),
        ({"svi.expert": "low"}, "a", "a.safetensors says it is for the low-noise expert, but model.expert is 'high'"),
    ],
)
def test_what_a_file_says_of_itself_is_a_warning(wan_folder, tmp_path, caplog, metadata, name, warning):
    write_lora(tmp_path / f"{name}.safetensors", metadata=metadata)
    with caplog.at_level(logging.WARNING):
        begun(wan_folder, tmp_path / f"{name}.safetensors")
    assert warning in caplog.text and caplog.text.count("WARNING") == 1


def test_a_file_that_fits_has_no_warning(wan_folder, tmp_path, caplog):
    write_lora(tmp_path / "SVI_v2_PRO_Wan2.2-I2V-A14B_HIGH_lora.safetensors", metadata={"svi.layout": "2.0 Pro"})
    with caplog.at_level(logging.WARNING):
        begun(wan_folder, tmp_path / "SVI_v2_PRO_Wan2.2-I2V-A14B_HIGH_lora.safetensors")
    assert not caplog.records


def test_a_resumed_run_does_not_need_the_file_any_more(wan_folder, tmp_path):
    """The run ends as one that was not interrupted, and report and header still say what it began from."""
    from training.run.report import write_report
    from training.run.run_folder import resumed_config
    from training.run.session import run_training

    path = tmp_path / "lora.safetensors"
    write_lora(path, rank=6, alpha=3.0)
    whole = config_for(wan_folder, path, tmp_path / "whole", rank=0)
    assert run_training(whole, Group(), lambda *_: FakeDataset()) == 0
    part = replace(whole, run=str(tmp_path / "part"), name="whole", loop=replace(whole.loop, steps=2))
    assert run_training(part, Group(), lambda *_: FakeDataset()) == 0
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    path.unlink()
    again = resumed_config(Path(part.run), (), ["loop.steps=6", "lora.rank=0"])
    assert (again.lora.rank, again.lora.alpha) == (6, 3.0)
    assert run_training(again, Group(), lambda *_: FakeDataset(), resume=True) == 0
    (tensors, metadata), (expected, _) = (read_tensors(tmp_path / run / "whole.safetensors") for run in ("part", "whole"))
    assert tensors.keys() == expected.keys() and all(torch.equal(tensors[key], expected[key]) for key in tensors)
    assert metadata["svi.start_from"] == "lora.safetensors" and metadata["svi.start_sha256"] == sha256
    assert f"Began from lora.safetensors (sha256 {sha256[:16]})" in write_report(Path(part.run)).read_text(encoding="utf-8")


def test_a_fresh_run_says_nothing_of_a_start(wan_folder, tmp_path):
    from training.run.checkpoint import newest_start, save_checkpoint
    from training.run.loop import describe_lora

    trainer = make_trainer(wan_folder, settings(tmp_path / "run"))
    with closing(trainer.banks):
        (tmp_path / "run").mkdir()
        folder = save_checkpoint(trainer, tmp_path / "run")
    assert newest_start(tmp_path / "run") is None and "start" not in json.loads((folder / "state.json").read_text())
    assert not any(key.startswith("svi.start") for key in describe_lora(trainer).metadata(trainer.lora, trainer.backbone))


def test_a_checkpoint_says_what_the_run_began_from(wan_folder, tmp_path):
    from training.run.checkpoint import newest_start, save_checkpoint

    write_lora(tmp_path / "lora.safetensors", rank=8)
    trainer = begun(wan_folder, tmp_path / "lora.safetensors")
    with closing(trainer.banks):
        (tmp_path / "run").mkdir()
        save_checkpoint(trainer, tmp_path / "run")
    assert asdict(newest_start(tmp_path / "run")) == asdict(trainer.start)
