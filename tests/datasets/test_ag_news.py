import pytest

from mibench.datasets.ag_news import AgNews
from mibench.errors import DatasetNotFoundError, UserError


def test_the_official_items(data_root):
    try:
        corpus = AgNews(data_root=data_root).corpus()
    except DatasetNotFoundError as missing:
        pytest.skip(str(missing))
    assert len(corpus.texts) in (7600, 120000)
    counts = [corpus.labels.count(label) for label in range(4)]
    assert counts == [len(corpus.texts) // 4] * 4 and corpus.classes == ("World", "Sports", "Business", "Sci/Tech")
    assert bool(corpus.reading) == (len(corpus.texts) == 7600)
    if corpus.reading:
        assert corpus.texts[0].startswith("Fears for T N pension after talks Unions") and corpus.labels[0] == 2


def test_a_text_is_title_and_description_and_the_training_part_comes_first(tmp_path):
    folder = tmp_path / "ag_news_csv"
    folder.mkdir()
    (folder / "test.csv").write_text('"4","Second","Said ""so"", they say."\n"1","null","NA"\n')
    corpus = AgNews(data_root=tmp_path).corpus()
    assert corpus.texts == ['Second Said "so", they say.', "null NA"] and corpus.labels == [3, 0]
    assert corpus.reading == ("AG News: train.csv is not there, so the 2 items of test.csv are parted.",)
    (folder / "train.csv").write_text('"2","First","Won."\n')
    corpus = AgNews(data_root=tmp_path).corpus()
    assert corpus.texts == ["First Won."] and corpus.labels == [1] and not corpus.reading
    (folder / "train.csv").write_text('"0","First","Won."\n')
    with pytest.raises(UserError, match="label '0', which is none of 1, 2, 3, 4"):
        AgNews(data_root=tmp_path).corpus()
    (folder / "train.csv").write_text('"1","First"\n')
    with pytest.raises(UserError, match="2 columns instead of 3"):
        AgNews(data_root=tmp_path).corpus()
