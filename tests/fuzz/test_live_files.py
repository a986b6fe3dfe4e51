"""Live files: read, or refused at once with their path; later faults keep the last schedule."""

import logging

import pytest
from hypothesis import strategies as st

from svi_core.schedule.live_file import LiveSchedule
from tests.fuzz.campaign import require_sentence
from tests.fuzz.damage import DAMAGES, REPLACEMENTS, replace_file
from tests.fuzz.odd_texts import encoded, odd_texts

SOUND = "a cat\n\n[seed 7]\na dog\n"
CONTENTS = st.one_of(
    encoded(odd_texts("\n\n", "[seed 7]\n", "# ", "prompts = ['a']")),
    st.builds(lambda damage, text: damage.done_to(text), DAMAGES, encoded(st.just(SOUND + "ein Kätzchen"))),
    st.sampled_from(REPLACEMENTS),
    st.sampled_from((1, 17)).map(lambda count: b"a" * (count << 20)),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("live")


def test_live_files(campaign, folder, caplog):
    caplog.set_level(logging.CRITICAL)
    path = folder / "live.txt"

    def put(content: bytes | str) -> None:
        path.unlink(missing_ok=True) if not path.is_dir() or path.is_symlink() else path.rmdir()
        path.touch()
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            replace_file(path, content)

    def check(content: bytes | str) -> str:
        put(SOUND.encode())
        live = LiveSchedule(path)
        put(content)
        try:
            fresh = LiveSchedule(path)
        except ValueError as error:
            require_sentence(error, path.name)
            assert live.at(1).prompt == "a dog" and live.at(5).prompt == "a dog", "the schedule of before stays"
            return "refused"
        assert live.at(0) == fresh.at(0)
        return "read"

    assert campaign.run("live_files", CONTENTS, check, {"read", "refused"}, limit=20)
