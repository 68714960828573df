import functools

import pytest


@pytest.fixture(scope="module")
def make_cell(make_cell):
    """Cells of digits of 8x8 pixels, as they are published."""
    return functools.partial(make_cell, "dataset.size=8")
