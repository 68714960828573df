import pytest

from mibench.leaderboard.build import build, write_study
from mibench.leaderboard.page import Reproduction


def around(lift):
    """Lifts of six targets with that mean."""
    return [lift + step / 100 for step in (-2, -1, 0, 0, 1, 2)]


def command(config):
    return Reproduction(f"python -m mibench attack={config['attack']['name']}")


@pytest.fixture(scope="module")
def results(tmp_path_factory, add_cell):
    """Four defended victims under one attack, another attack, a skipped cell, faces, and a shard that is none."""
    folder = tmp_path_factory.mktemp("page") / "results"
    for defense, lift, accuracy in [
        ("none", 0.8, 0.95),
        ("bido", 0.5, 0.9),
        ("bido_coco", 0.6, 0.85),
        ("dp_sgd", 0.1, 0.6),
    ]:
        for seed in (0, 1):
            add_cell(
                folder,
                f"defense={defense}",
                f"seed={seed}",
                lift=lift,
                gains=around(lift),
                accuracy=accuracy,
                picture=seed == 0,
            )
    add_cell(folder, "attack=mi_face", lift=0.05, accuracy=0.95)
    add_cell(folder, "dataset=att_faces", lift=0.3, picture=True)
    add_cell(folder, "attack=random_prior", "defense=bido", status="skipped", reason="Vacuous: it says.")
    write_study(folder, "first", [path.stem for path in (folder / "shards").iterdir()])
    (folder / "shards" / "odd.parquet").write_bytes(b"no parquet")
    build(folder, command)
    return folder


def test_committed_pages_come_from_studies_alone_and_the_same_bytes_every_time(results, add_cell, tmp_path):
    names = ["leaderboard.parquet", "README.md", "index.html", "page/numbers.js"]
    before = [(results / name).read_bytes() for name in names]
    local = [(results / "local" / name).read_bytes() for name in names]
    build(results, command)
    assert [(results / name).read_bytes() for name in names] == before
    assert [(results / "local" / name).read_bytes() for name in names] == local
    assert b"odd.parquet" in local[1] and b"odd.parquet" in local[3]
    assert not any(b"odd.parquet" in one for one in before[1:])
    add_cell(tmp_path, lift=0.5)
    assert [one.scope for one in build(tmp_path, command)] == ["local"]
    assert not (tmp_path / "index.html").exists()


def test_the_readme_has_a_table_per_dataset_and_task(results):
    text = (results / "README.md").read_text()
    assert "## digits, task `class`: attack_accuracy top1 vote" in text and "## att_faces" in text
    (line,) = [line for line in text.splitlines() if "| dp_sgd |" in line]
    assert "| 0.3 [0.285, 0.315] | 0.2 | +0.1 [0.0852, 0.115] | ● leak | 0.6 | 2 |" in line
