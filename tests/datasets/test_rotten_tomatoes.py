import pytest

from mibench.datasets.rotten_tomatoes import RottenTomatoes
from mibench.errors import DatasetNotFoundError


def test_the_official_files(data_root):
    try:
        corpus = RottenTomatoes(data_root=data_root).corpus()
    except DatasetNotFoundError as missing:
        pytest.skip(str(missing))
    assert len(corpus.texts) == 10662 and sum(corpus.labels) == 5331
    label = dict(zip(corpus.texts, corpus.labels, strict=True))
    assert label["simplistic , silly and tedious ."] == 0
    assert label["effective but too-tepid biopic"] == 1


def test_the_authors_encoding_and_utf_8_are_read(tmp_path):
    folder = tmp_path / "rt-polaritydata"
    folder.mkdir()
    (folder / "rt-polarity.neg").write_bytes("a clich\xe9 of a film\n\n".encode("latin-1"))
    (folder / "rt-polarity.pos").write_bytes("no clich\xe9 at all\x85 fine\n".encode())
    corpus = RottenTomatoes(data_root=tmp_path).corpus()
    assert corpus.texts == ["a clich\xe9 of a film", "no clich\xe9 at all\x85 fine"] and corpus.labels == [0, 1]
    assert corpus.reading == ("Empty texts of rt-polaritydata left out: 1.",)
    (folder / "rt-polarity.pos").unlink()
    with pytest.raises(DatasetNotFoundError, match=r"rt-polarity\.pos"):
        RottenTomatoes(data_root=tmp_path).corpus()
