"""Settings come from preset, files and command line in this order, and nothing wrong gets through."""

import re
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from svi_core.recycling.presets import PRESETS
from svi_core.systems.variants import VARIANTS
from tests.training.fakes import settings
from training.settings.reader import config_differences, config_from, config_table, load_config
from training.settings.sections import TrainingConfig

CONFIGS = Path(__file__).resolve().parents[3] / "training" / "configs"


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "my.toml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_preset_then_files_then_command_line(write):
    first = write('preset = "film"\n[optimizer]\nlearning_rate = 3e-5\nwarmup_steps = 7\n[lora]\nrank = 16\n')
    second = write("[lora]\nrank = 32\n", "second.toml")
    config = load_config([first, second], ["optimizer.learning_rate=5e-5", "run=runs/mine", "data.flip=true"])
    assert (config.recycling.clean_prob, config.data.layout, config.data.p_motion) == (0.5, "Film", 0.9)  # docs/METHOD.md, 9.8
    assert (config.lora.rank, config.lora.alpha) == (32, 128.0)
    assert (config.optimizer.learning_rate, config.optimizer.warmup_steps) == (5e-5, 7)
    assert (config.run, config.run_name, config.data.flip) == ("runs/mine", "mine", True)


def test_a_preset_on_the_command_line_does_not_undo_the_file(write):
    config = load_config(write("[recycling]\nclean_prob = 0.3\n"), ["preset=shot"])
    assert (config.recycling.clean_prob, config.data.layout) == (0.3, "Shot")


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_whole_config(name):
    config = config_from({"preset": name})
    assert config.preset == name
    loaded = load_config([], [f"preset={name}"])
    chosen = PRESETS[name]
    assert loaded.recycling == chosen.recycling and loaded.data.svi_layout.name == chosen.layout_name
    assert loaded.optimizer.learning_rate == chosen.learning_rate and loaded.loop.epochs == chosen.num_epochs
    assert (loaded.data.width, loaded.data.height) == (chosen.width, chosen.height)


def test_the_experts_of_pro_differ_in_their_noise_levels():
    assert load_config([], ["preset=pro-high"]).model.expert == "high"
    assert load_config([], ["preset=pro-low"]).model.expert == "low"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.learning_rat=1", "unknown setting 'optimizer.learning_rat': did you mean optimizer.learning_rate?"),
        ("optimiser.name=1", "unknown setting 'optimiser': did you mean optimizer?"),
        ("learning_rate=1", "unknown setting 'learning_rate': did you mean optimizer.learning_rate?"),
        ("data.learning_rate=1", "did you mean optimizer.learning_rate?"),
        ("bank.qqq=1", "known here are storage, folder, share"),
        ("lora.rank=big", "lora.rank is 'big': use a whole number"),
        ("lora.rank=1.5", "lora.rank is 1.5: use a whole number"),
        ("lora.rank=true", "lora.rank is True: use a whole number"),
        ("lora.rank=0", "lora.rank is 0: use 1 or more"),
        ("data.flip=1", "data.flip is 1: use true or false"),
        ("optimizer.learning_rate=nan", "optimizer.learning_rate is nan: use a finite number"),
        ("optimizer.schedule=linear", "optimizer.schedule is 'linear': use one of 'constant', 'cosine'"),
        ("recycling.clean_prob=2", r"\[recycling\] clean_prob is 2.0: use a number from 0 to 1"),
        ("recycling.image_error_range=[1]", "recycling.image_error_range is \\[1\\]: use a list of 2 values"),
        ("lora.targets=q", "lora.targets is 'q': use a list in square brackets"),
        ("lora=3", r"lora is 3, but it is a section: write settings below \[lora\]"),
        ("model.expert=medium", "model.expert is 'medium': use one of 'single', 'high', 'low'"),
        ("data.layout=Flim", "layout is 'Flim'"),
        ("preset=flim", "preset is 'flim': use one of 'shot', 'film'"),
        ("preset=['film']", "preset is .*: use one of 'shot'"),
        ("loop.keep_loras_every=150", "keep_loras_every is 150: use 0 or a multiple of loop.checkpoint_every = 100"),
        ("loop.keep_checkpoints=1", "loop.keep_checkpoints is 1: use 2 or more"),
        ("nonsense", "'nonsense' is not a setting: write section.key=value"),
    ],
)
def test_what_is_wrong_is_named(override, message):
    with pytest.raises(ValueError, match=message):
        load_config([], [override])


def test_files_that_cannot_be_read_are_named(write, tmp_path):
    with pytest.raises(ValueError, match=r"gone.toml cannot be read .* training/configs holds .*film"):
        load_config(tmp_path / "gone.toml")
    with pytest.raises(ValueError, match="my.toml is not TOML"):
        load_config(write("a = = 3"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = " + "[" * 100_000, "it is nested too deeply"),
        ("a" + ".a" * 500 + " = 1", "it is nested more than 16 levels deep"),
        ("loop.steps = " + "9" * 5000, "a number in it has thousands of digits"),
        ("loop.steps = 0x" + "f" * 5000, "a whole number in it has over 64 bits"),
        ("optimizer.learning_rate = 1" + "0" * 400, "a whole number in it has over 64 bits"),
        ("optimizer.options = {betas = [1_000_000_000_000_000_000_000]}", "a whole number in it has over 64 bits"),
    ],
    ids=lambda text: text[:20],
)
def test_hostile_toml_is_refused_in_one_sentence(write, text, message):
    with pytest.raises(ValueError, match=f"my.toml is not TOML: {message}") as caught:
        load_config(write(text))
    assert len(str(caught.value)) < 300
    key, _, value = text.partition(" = ")
    with pytest.raises(ValueError, match=f"^{re.escape(key[:80])}: {message}|is not a setting") as caught:
        load_config([], [f"{key}={value}"])
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "override", ["=0x{}", "a{}=1", "seed='{}'", "optimizer='{}'", "preset='{}'", "data.layout='{}'", "name=['{}']"]
)
def test_a_long_value_is_quoted_in_part(override):
    with pytest.raises(ValueError, match="use|write|known|is not a setting|did you mean") as caught:
        load_config([], [override.format("f" * 3000)])
    assert len(str(caught.value)) < 600


def test_a_config_may_be_utf_16_with_its_mark(tmp_path):
    (tmp_path / "my.toml").write_bytes('preset = "film"\nname = "Kätzchen"'.encode("utf-16"))
    assert load_config(tmp_path / "my.toml").name == "Kätzchen"
    (tmp_path / "my.toml").write_bytes('name = "Kätzchen"'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"my.toml is not TOML: it is not UTF-8 text \(byte 0xe4 at 9\): save it as UTF-8"):
        load_config(tmp_path / "my.toml")


def test_tables_go_round_and_differences_are_named():
    config = load_config([], ["preset=film", "optimizer.options={betas=[0.9, 0.95]}"])
    assert config_from(config_table(config)) == config
    other = load_config([], ["preset=film", "optimizer.options={betas=[0.9, 0.99]}", "seed=3"])
    assert config_differences(config, other) == ["optimizer.options.betas: [0.9, 0.95] -> [0.9, 0.99]", "seed: 0 -> 3"]
    assert config_differences(config, config) == []


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_config_loads(path):
    load_config([path])


def sections(kind=TrainingConfig):
    yield kind
    for item in fields(kind):
        if is_dataclass(item.type):
            yield from sections(item.type)


@pytest.mark.parametrize("kind", list(sections()), ids=lambda kind: kind.__name__)
def test_every_setting_is_explained(kind):
    for item in fields(kind):
        assert f"\n        {item.name}: " in kind.__doc__, f"{kind.__name__}.{item.name}"


@pytest.mark.parametrize("name", ["SVI 2.0/film", "My LoRA: v1", "nul"])
def test_a_name_that_no_file_can_have_is_refused_before_the_training(comfy, name):
    from training.run.session import require_trainable

    require_trainable(settings("runs/film 2"))
    with pytest.raises(ValueError, match=f"name is {name!r}, but LoRA files get that name"):
        require_trainable(settings("runs/film", name=name))


def test_sample_videos_switch_experts_where_the_authors_do():
    assert TrainingConfig().samples.boundary == VARIANTS["2.0 Pro"].boundary


def test_a_lora_of_rank_0_needs_a_file_that_tells_its_rank():
    assert settings(lora={"rank": 0, "start_from": "svi.safetensors"}).lora.rank == 0
    with pytest.raises(ValueError, match="lora.rank is 0: use 1 or more.*0 needs lora.start_from"):
        settings(lora={"rank": 0})
