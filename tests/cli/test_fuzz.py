"""Whatever a person types: an exit status of 0, 1 or 2, no traceback, and where it is 2 one sentence on stderr."""

import pytest
from faults.command_lines import faults_of, keys_of_cells, shown, stubbed

#: Command lines of one test; ``python -m faults`` runs many more.
LISTS = 80


@pytest.fixture(autouse=True)
def stopped(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with stubbed():
        yield


@pytest.fixture(scope="module")
def keys():
    return keys_of_cells()


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))])
def test_no_command_line_ends_in_a_traceback(seed, keys):
    seen = set()
    for words, status, wrong in faults_of(seed, LISTS, keys):
        assert not wrong, f"{shown(words)}: {wrong}"
        seen.add(status)
    assert seen >= {0, 2}, "the draws are of one kind"
