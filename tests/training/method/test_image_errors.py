"""Banks of another run that image errors cannot be drawn from are refused."""

from dataclasses import replace

import pytest

from svi_core.recycling.config import ErrorRecyclingConfig
from svi_core.recycling.exported_bank import BankFacts
from training.method.image_errors import require_fitting

FACTS = BankFacts(num_grids=4, shift=5.0, layout="2.0 Pro", model="abc", expert="low", step=7, window_slots=0)
RECYCLING = ErrorRecyclingConfig(num_grids=4, num_image_error_slots=2)
FILLS = {"16x3x4x6": [0, 0, 5, 1]}
SHAPES = [(16, 3, 4, 6)]


def test_fitting_banks_are_taken():
    require_fitting("runs/low", FACTS, FILLS, RECYCLING, "2.0 Pro", SHAPES)
    in_range = replace(RECYCLING, image_error_grids="range", image_error_range=(2, 4))
    require_fitting("runs/low", replace(FACTS, window_slots=2), FILLS, in_range, "2.0 Pro", SHAPES)


@pytest.mark.parametrize(
    ("facts", "recycling", "layout", "shapes", "message"),
    [
        ({}, {}, "Shot", SHAPES, r"runs/low were made with layout \(data.layout\) '2.0 Pro', not 'Shot'"),
        ({"num_grids": 8}, {}, "2.0 Pro", SHAPES, "recycling.num_grids 8, not 4"),
        ({"shift": 3.0}, {}, "2.0 Pro", SHAPES, "recycling.grid_shift 3.0, not 5.0"),
        ({"window_slots": 1}, {}, "2.0 Pro", SHAPES, "stores 1 slots of each error, fewer than .* = 2"),
        ({}, {}, "2.0 Pro", [*SHAPES, (16, 3, 6, 4)], "holds no errors of latents 16x3x6x4, only of 16x3x4x6"),
        ({}, {"image_error_grids": "current"}, "2.0 Pro", SHAPES, "is 'current'.*use 'all' or 'range'"),
        (
            {},
            {"image_error_grids": "range", "image_error_range": (0, 2)},
            "2.0 Pro",
            SHAPES,
            "holds no errors of latents 16x3x4x6 in cells 0 to 1",
        ),
    ],
)
def test_others_are_refused_with_the_value_that_differs(facts, recycling, layout, shapes, message):
    with pytest.raises(ValueError, match=message):
        require_fitting("runs/low", replace(FACTS, **facts), FILLS, replace(RECYCLING, **recycling), layout, shapes)
