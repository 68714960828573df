"""``mibench table``, ``plot`` and ``bib``: words in, files out, one sentence for every mistake."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """One committed study of digits alone."""
    folder = tmp_path_factory.mktemp("exports")
    (folder / "studies").mkdir()
    shutil.copy(ROOT / "results" / "studies" / "image_inversion_targets.parquet", folder / "studies")
    return f"paths.results={folder}"


def test_a_table_in_every_format(mibench, results, tmp_path):
    status, text, err = mibench(
        "table", "rows=attack", "columns=target", "dataset=att_faces", "attack=gmi,ppa", results
    )
    assert status == 0 and "| attack |" in text, err
    for ending, begins in ((".tex", "% mibench"), (".csv", "table,row,column"), (".md", "")):
        out = tmp_path / "deep" / f"table{ending}"
        status, text, err = mibench("table", "rows=attack", "columns=target", "attack=gmi", f"out={out}", results)
        assert status == 0 and text == f"written   {out}\n", err
        assert out.read_text().startswith(begins)
    status, text, _ = mibench(
        "table", "rows=attack", "columns=target", "attack=gmi", "format=latex", "cite=true", results
    )
    assert r"\cite{" in text and r"\toprule" in text


def test_why_there_are_several_tables_is_said_beside_them(mibench, results):
    status, text, err = mibench("table", "attack=gmi", "format=csv", results)
    assert status == 0 and "tables, because" in err and "tables, because" not in text


def test_a_plot_and_references(mibench, results, tmp_path):
    pytest.importorskip("matplotlib")
    out = tmp_path / "front.pdf"
    status, text, err = mibench("plot", "kind=matrix", "dataset=att_faces", "target=mlp", f"out={out}", results)
    assert (status, text) == (0, f"written   {out}\n"), err
    assert out.read_bytes().startswith(b"%PDF")
    status, text, err = mibench("bib", "attack=gmi", results)
    assert status == 0 and "@software{mibench," in text and "{gmi," in text and "kedmi" not in text, err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["table", "latex"], "table takes words like dataset=digits, but got 'latex'"),
        (["table", "row=attack"], "table has no option 'row'; did you mean rows?"),
        (["table", "rows=attak"], "did you mean attack?"),
        (["table", "format=word"], "Expected format to be one of markdown, latex, csv, but got 'word'."),
        (["table", "dataset=mnist"], "groups below"),
        (["table", "out=/dev/null/x.tex"], "/dev/null/x.tex cannot be written"),
        (["plot", "kind=pie"], "Expected kind to be one of front, matrix, queries, but got 'pie'."),
        (["plot", "kind=front", "out=a.gif"], "Expected out to end in .svg, .pdf, .png"),
        (["plot", "kind=front", "width=wide"], "width is that of the figure in inches"),
        (["bib", "colour=red"], "bib has no option 'colour'"),
    ],
)
def test_a_mistake_is_one_sentence(mibench, results, words, said):
    status, text, err = mibench(*words, results)
    assert status == 2 and said in err and len(err.strip().splitlines()) == 1 and not text


def test_a_folder_without_rows_says_so(mibench, tmp_path):
    status, _, err = mibench("bib", f"paths.results={tmp_path}")
    assert status == 2 and f"There are no rows below {tmp_path}" in err


def test_a_table_needs_neither_torch_nor_matplotlib(results, tmp_path):
    code = (
        "import sys; from mibench.cli.main import main; status = main(sys.argv[1:]); "
        "sys.exit(status or 'torch' in sys.modules or 'matplotlib' in sys.modules)"
    )
    words = ["table", "rows=attack", "columns=target", "attack=gmi", results, f"out={tmp_path / 'a.csv'}"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
