import pytest

from mibench.cli.main import main
from mibench.leaderboard.rows import CellFacts, make_row
from mibench.leaderboard.scoring import Score
from mibench.leaderboard.shards import write_shard

LEAK = Score(
    metric="attack_accuracy", variant="top1", evaluator="vote", value=0.6, control=0.1, lift=0.5, lift_low=0.4,
    higher_is_leakier=True,
)  # fmt: skip


@pytest.fixture
def results(tmp_path):
    for cell_id in ("aaa1", "bbb2"):
        facts = CellFacts(
            cell_id=cell_id, group_id="g", dataset="digits", modality="image", setting="central", target="cnn",
            attack="gmi", attack_family="generative", task="class", access="white_box", knowledge="", defense="none",
            defense_hooks="", seed=0, budget="smoke", fidelity="official",
        )  # fmt: skip
        write_shard(tmp_path, cell_id, [make_row(facts, LEAK)])
    return tmp_path


def test_report_writes_a_page_on_one_cell_or_several(results, capsys):
    assert main(["report", "aaa", f"paths.results={results}"]) == 0
    page = results / "reports" / "aaa1.html"
    assert str(page) in capsys.readouterr().out and "gives away private data" in page.read_text()
    assert main(["report", "aaa", "bbb", "aaa1", "name=both", f"paths.results={results}"]) == 0
    text = (results / "reports" / "both.html").read_text()
    assert "Cells: aaa1, bbb2" in text and text.count("recognised 60%") == 2


def test_a_mistake_is_one_sentence_and_status_2(results, capsys):
    assert main(["report"]) == 2
    assert "CELL_ID" in capsys.readouterr().err
    assert main(["report", "zzz", f"paths.results={results}"]) == 2
    assert "zzz" in capsys.readouterr().err
