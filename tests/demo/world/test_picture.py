"""The world's units and a picture's pixels."""

import torch

from demo.world import picture


def test_a_pixel_of_the_shipped_size_is_one_unit():
    assert torch.equal(picture.columns(), torch.arange(96.0)) and torch.equal(picture.rows(), torch.arange(64.0))


def test_pixels_are_where_their_centres_are(monkeypatch):
    """At 4/3 of the size and 80 rows, 60 units are seen: two are left out above and two below."""
    monkeypatch.setattr(picture, "SCALE", 4 / 3)
    monkeypatch.setattr(picture, "TOP", 2.0)
    x, y = picture.columns(0, 128), picture.rows(0, 80)
    assert float(x[0] + x[-1]) == 95.0 and float(y[0] + y[-1]) == 63.0
    back = picture.to_pixels(x, torch.zeros(128))[0], picture.to_pixels(torch.zeros(80), y)[1]
    assert all(torch.allclose(own, torch.arange(len(own)).float(), atol=1e-4) for own in back)
