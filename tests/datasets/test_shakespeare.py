from collections import Counter

import pytest

from mibench.datasets.shakespeare import FILE, Shakespeare, spoken

pytest.importorskip("tokenizers", reason="pip install 'mibench[text]'")


@pytest.fixture(scope="module")
def split():
    return Shakespeare().load()


def test_the_embedded_lines_are_all_there_and_small_enough():
    assert FILE.stat().st_size <= 450_000
    corpus = Shakespeare().corpus()
    assert len(corpus.texts) == 25555 and len(corpus.classes) == 8
    assert corpus.classes[:2] == ("GLOUCESTER", "DUKE VINCENTIO")
    assert Counter(corpus.roles)["private"] == 5592
    line = corpus.texts.index("But, soft! what light through yonder window breaks?")
    assert corpus.classes[corpus.labels[line]] == "ROMEO" and corpus.roles[line] == "private"


def test_private_persons_speak_no_public_line_and_no_line_of_the_control(split):
    lines = {}
    for person, line in spoken(_text()):
        lines.setdefault(_words(split, line), set()).add(person)
    private = set(split.class_names)
    assert len(private) == split.spec.classes == 8
    for part, own in ((split.private.train, True), (split.public, False), (split.held_out.train, False)):
        for row, label in zip(part.x[:200], part.y[:200], strict=True):
            speakers = lines[split.spec.tokenizer.decode(row.tolist())]
            assert bool(speakers & private) >= own
            if own:
                assert split.class_names[label] in speakers
            else:
                assert speakers - private, "somebody else says it too"


def test_the_control_is_of_as_many_other_persons(split):
    assert split.held_out.train.y.unique().tolist() == list(range(8))
    assert (
        (len(split.held_out.train), len(split.held_out.test))
        == (2000, 400)
        == (
            len(split.private.train),
            len(split.private.test),
        )
    )
    assert Shakespeare(held_out=0, public=400, private_train=100, private_test=50).load().held_out is None
    assert Shakespeare(persons=3, public=400, private_train=400, private_test=60, held_out=50).load().spec.classes == 3


def _text():
    import bz2

    return bz2.decompress(FILE.read_bytes()).decode()


def _words(split, line):
    tokenizer = split.spec.tokenizer
    return tokenizer.decode(tokenizer.encode(line))
