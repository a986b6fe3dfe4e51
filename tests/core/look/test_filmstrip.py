import numpy as np

from svi_core.look.filmstrip import BACKGROUND, MARGIN, StripRow, draw_filmstrip, pick_frames, spread


def flat(level, height=64, width=96):
    return np.full((height, width, 3), level, np.uint8)


def test_spread_takes_the_first_and_the_last():
    assert spread(81, 3) == [0, 40, 80] and spread(76, 2) == [0, 75] and spread(1, 3) == [0, 0, 0]


def test_only_the_wanted_frames_are_kept():
    picked = pick_frames((flat(i) for i in range(100)), [3, 50])
    assert sorted(picked) == [3, 50] and picked[50][0, 0, 0] == 50


def test_frames_scaled_as_they_come_give_the_same_picture():
    random = np.random.default_rng(0)
    frames = [random.integers(0, 255, (50, 97, 3), np.uint8) for _ in range(3)]
    small = pick_frames(iter(frames), range(3), width=40)
    assert {frame.shape for frame in small.values()} == {(21, 40, 3)}  # 40 * 50 / 97 = 20.6
    pictures = [draw_filmstrip([StripRow(tuple(row), "t")], 40) for row in (frames, small.values())]
    assert np.array_equal(*pictures)


def test_every_frame_is_in_its_place():
    rows = [
        StripRow((flat(10), flat(120), flat(240)), "clip 1", "seed 0"),
        StripRow((flat(60),) * 3, "clip 2 " * 80, "seed 42"),
    ]
    picture = draw_filmstrip(rows, frame_width=96)
    bottom = picture.shape[0] - 2 * MARGIN - 10
    for column in range(3):
        x = MARGIN + column * (96 + MARGIN) + 48
        assert picture[bottom, x].tolist() == [60] * 3
    first_row = [picture[picture.shape[0] // 2 - 2 * MARGIN, MARGIN + c * (96 + MARGIN) + 48, 0] for c in range(3)]
    assert first_row == [10, 120, 240]
    assert tuple(picture[0, 0]) == BACKGROUND and picture.shape[1] == 3 * (96 + MARGIN) + MARGIN
    assert (picture[:, : -MARGIN // 2] != BACKGROUND).any() and (picture[:, -MARGIN // 2 :] == BACKGROUND).all()
