import pytest

from mibench.datasets.cola import Cola
from mibench.errors import DatasetNotFoundError, UserError

pytest.importorskip("tokenizers", reason="pip install 'mibench[text]'")


def test_the_official_training_part(data_root):
    try:
        corpus = Cola(data_root=data_root).corpus()
    except DatasetNotFoundError as missing:
        pytest.skip(str(missing))
    assert len(corpus.texts) == 8551 and corpus.classes == ("unacceptable", "acceptable")
    assert corpus.labels.count(1) == 6023, "70 % are acceptable"
    assert corpus.texts[0] == "Our friends won't buy this analysis, let alone the next one we propose."
    marked = corpus.texts.index("They drank the pub.")
    assert corpus.labels[marked] == 0 and corpus.labels[0] == 1


def test_label_and_sentence_are_the_second_and_the_last_column(tmp_path):
    folder = tmp_path / "cola_public" / "raw"
    folder.mkdir(parents=True)
    file = folder / "in_domain_train.tsv"
    file.write_text('gj04\t1\t\tShe said "no to him.\ngj04\t0\t*\tShe him said no.\n')
    corpus = Cola(data_root=tmp_path).corpus()
    assert list(zip(corpus.texts, corpus.labels, strict=True)) == [('She said "no to him.', 1), ("She him said no.", 0)]
    file.write_text("gj04\t2\t\tShe said no to him.\n")
    with pytest.raises(UserError, match=r"label '2', which is none of 0, 1 \(unacceptable, acceptable\)"):
        Cola(data_root=tmp_path).corpus()
    file.write_text("sentence\tlabel\nShe said no.\t1\n")
    with pytest.raises(UserError, match="2 columns between tabs instead of 4"):
        Cola(data_root=tmp_path).corpus()
