"""Fixtures that tests of datasets share."""

import pytest

from mibench.errors import DatasetNotFoundError


@pytest.fixture
def real_people(data_root):
    """Makes a dataset of real people, and who they are; skips where its files are not there."""

    def make(kind, **options):
        dataset = kind(data_root=data_root, **options)
        try:
            return dataset, dataset.people()
        except DatasetNotFoundError as missing:
            pytest.skip(str(missing))

    return make
