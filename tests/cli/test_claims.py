"""``mibench claims``: one line per claim, from committed rows."""

import shutil
from pathlib import Path

import pytest

from mibench.cli.main import main

STUDY = Path(__file__).parents[2] / "results" / "studies" / "image_inversion_targets.parquet"


@pytest.fixture
def results(tmp_path):
    (tmp_path / "claims").mkdir()
    (tmp_path / "studies").mkdir()
    shutil.copy(STUDY, tmp_path / "studies")
    for name, attack in (("a_measured", "ppa"), ("b_missing", "vmi")):
        left = f"{{attack: {attack}, target: mlp}}"
        (tmp_path / "claims" / f"{name}.yaml").write_text(f"statement: It leaks.\nkind: leak\nleft: {left}\n")
    return tmp_path


def test_every_claim_has_one_line(results, capsys):
    assert main(["claims", f"paths.results={results}"]) == 0
    head, measured, missing = capsys.readouterr().out.strip().splitlines()
    assert head.split() == ["claim", "verdict", "effect", "n", "seeds"]
    assert (
        measured.split()[:3] == ["a_measured", "undecided", "+0.412"]
        and "no values by target; measured with revision 1 of ppa" in measured
    )
    assert missing.split() == ["b_missing", "not", "tested", "no", "rows"]


def test_named_claims_alone_and_a_name_that_there_is_none_of(results, capsys):
    assert main(["claims", "b_missing", f"paths.results={results}"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.strip().splitlines()] == ["claim", "b_missing"]
    assert main(["claims", "c_unknown", f"paths.results={results}"]) == 2
    assert capsys.readouterr().err.strip().endswith(f"There is no claim 'c_unknown' below {results}/claims.")


def test_a_folder_without_claims_says_so(tmp_path, capsys):
    assert main(["claims", f"paths.results={tmp_path}"]) == 2
    assert f"There is no claim below {tmp_path}/claims." in capsys.readouterr().err
