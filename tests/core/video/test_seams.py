from hypothesis import given
from hypothesis import strategies as st

from svi_core.video.seams import Seam, Showing


@given(st.integers(1, 30), st.integers(0, 5))
def test_a_final_length_cuts_holds_first_then_frames(limit, hold):
    whole = Showing(range(2, 12), 3, Seam.LINEAR, hold)
    short = whole.limited(limit)
    assert short.num_frames == min(limit, whole.num_frames)
    assert short.frames == whole.frames[: len(short.frames)] and short.num_blended == 3
    assert short.is_end == (limit >= 10)


def test_names_tell_showings_apart():
    variants = [Showing(range(5)), Showing(range(4)), Showing(range(5), hold=1), Showing(range(5), 2, Seam.LINEAR)]
    variants += [Showing(range(5), 2, Seam.EASED), Showing(range(5), 3, Seam.EASED)]
    assert len({showing.name for showing in variants}) == len(variants)
