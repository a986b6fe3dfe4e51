"""Settings of the trainer: settings, or one sentence that names the file or key and what is wrong."""

from pathlib import Path

import pytest
from hypothesis import strategies as st

from tests.fuzz.campaign import require_sentence
from tests.fuzz.damage import DAMAGES
from tests.fuzz.odd_texts import NUMBERS, encoded, odd_texts
from training.settings.reader import config_from, config_table, load_config, merged_table

SHIPPED = sorted((Path(__file__).parents[2] / "training" / "configs").glob("*.toml"))
SOURCES = st.sampled_from([path.read_bytes() for path in SHIPPED])
KEYS = ("loop.steps", "optimizer.learning_rate", "data.folder", "data.width", "lora.targets", "optimizer.options", "preset",
        "recycling.noise_prob", "validation", "seed", "name", "nonsense.key", "loop", "a.b.c.d", "")  # fmt: skip
VALUES = st.one_of(
    NUMBERS,
    odd_texts(max_size=3),
    st.sampled_from(("true", "[]", "{}", "[[1]]", "{a = {b = 1}}", '"film"', "[" * 3000, "'''")),
    st.integers(1, 3000).map(lambda count: "0x" + "f" * count),
)  # fmt: skip
OVERRIDES = st.lists(st.builds("{}={}".format, st.sampled_from(KEYS), VALUES), max_size=3)
LINES = st.lists(st.builds("{} = {}".format, st.sampled_from(KEYS), VALUES), min_size=1, max_size=4).map("\n".join)
FILES = st.one_of(SOURCES, st.builds(lambda damage, data: damage.done_to(data), DAMAGES, SOURCES), encoded(LINES))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("configs") / "my.toml"


def test_configs(campaign, path):
    def check(example: tuple[bytes, list[str]]) -> str:
        data, overrides = example
        path.write_bytes(data)
        try:
            table = merged_table({}, [path], overrides)
        except ValueError as error:
            require_sentence(error)
            named = (path.name, *(override.partition("=")[0] for override in overrides))
            assert any(name and name in str(error) for name in named) or "section.key=value" in str(error), str(error)
            return "refused"
        try:
            config = load_config(path, overrides)
        except ValueError as error:
            require_sentence(error)
            assert any(key in str(error) for key in _keys(table)), str(error)
            return "refused"
        assert config_from(config_table(config)) == config
        return "read"

    assert campaign.run("configs", st.tuples(FILES, OVERRIDES), check, {"read", "refused"}, limit=10)


def _keys(table: dict) -> list[str]:
    """Return the keys of `table` and of the tables in it."""
    return [*table, *(key for value in table.values() if isinstance(value, dict) for key in _keys(value))]
