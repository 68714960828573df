import json

import pytest
import torch

from mibench.datasets.text_file import TextFile
from mibench.errors import UserError

pytest.importorskip("tokenizers", reason="pip install 'mibench[text]'")

SIZES = {"public": 20, "private_train": 12, "private_test": 6, "length": 16, "min_words": 3, "vocabulary": 120}
TEXTS = [f"the text of number {n} here" for n in range(45)]


def load(file, **options):
    return TextFile(file=str(file), **{**SIZES, **options}).load()


def written(path, content):
    path.write_text(content) if isinstance(content, str) else path.write_bytes(content)
    return path


def test_every_kind_of_file_gives_the_same_texts(tmp_path):
    lines = written(tmp_path / "a.txt", "\n".join(TEXTS) + "\n")
    objects = written(tmp_path / "a.jsonl", "\n".join(json.dumps({"said": one, "who": "x"}) for one in TEXTS))
    comma = written(tmp_path / "a.csv", "who,said\n" + "".join(f'y,"{one}"\n' for one in TEXTS))
    tab = written(tmp_path / "a.tsv", "who\tsaid\r\n" + "".join(f"y\t{one}\r\n" for one in TEXTS))
    plain = load(lines)
    assert plain.spec.classes == 1 and not plain.private.train.y.any() and plain.reading == ()
    for file in (objects, comma, tab):
        assert torch.equal(load(file, column="said").private.train.x, plain.private.train.x)


def test_labels_are_numbered_in_sorted_order(tmp_path):
    file = written(
        tmp_path / "a.csv",
        "text,mood\n" + "".join(f"{one},{'sad' if n % 2 else 'gay'}\n" for n, one in enumerate(TEXTS)),
    )
    split = load(file, label_column="mood")
    assert split.class_names == ("gay", "sad")
    for row, label in zip(split.private.train.x, split.private.train.y, strict=True):
        number = int(split.spec.tokenizer.decode(row.tolist()).split()[4].replace(" ", ""))
        assert label == number % 2
    file = written(
        tmp_path / "b.jsonl", json.dumps({"text": "a b c", "mood": 1}) + "\n" + json.dumps({"text": "d e f"})
    )
    with pytest.raises(UserError, match=r"1 texts of .* have no 'mood'"):
        load(file, label_column="mood")


def test_what_is_left_out_is_counted(tmp_path):
    long = [f"{'far too long ' * 8}{n}" for n in range(3)]
    file = written(tmp_path / "a.txt", "\n".join(["", *long, *TEXTS[:40], "  ", "\t"]) + "\n")
    split = load(file, public=25, private_train=8, private_test=4)
    assert split.reading == (
        f"Empty texts of dataset.file={file} left out: 3.",
        "Texts longer than dataset.length=16 tokens left out: 3.",
    )


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"good\nb\xe9d\n", r"is not UTF-8 \(byte 0xe9 in line 2\); convert it"),
        ("a.txt", "\n \n", "holds no text"),
        ("a.jsonl", '{"text": "a"}\n{"text"\n', "no JSON in line 2"),
        ("a.jsonl", '["a"]\n', "no object in line 1"),
        ("a.csv", "", "cannot be read as a table"),
        ("a.csv", 'text\n"open', "cannot be read as a table"),
        ("a.csv", "texts,label\na,1\n", r"no column 'text' \(dataset.column\); did you mean texts\?"),
        ("a.json", "{}", r"to end in \.txt, \.jsonl, \.csv, \.tsv, but got 'a.json'"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_sentence(name, content, said, tmp_path):
    with pytest.raises(UserError, match=said) as error:
        load(written(tmp_path / name, content))
    assert "\n" not in str(error.value)


def test_options_that_say_too_little_or_too_much_are_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"needs dataset\.file"):
        TextFile()
    file = written(tmp_path / "a.txt", "\n".join(TEXTS))
    with pytest.raises(UserError, match=r"label_column=mood names a column, but a \.txt file has none"):
        load(file, label_column="mood")
    with pytest.raises(UserError, match=r"add up to 76 texts, but 45 are .* dataset\.public=11 dataset"):
        load(file, private_train=50)
    with pytest.raises(UserError, match="a number of texts to train and test on, but got 1"):
        load(file, held_out=1)
    written(tmp_path / "vocab.txt", "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "a"]))
    with pytest.raises(UserError, match="has the piece 'a' on two lines"):
        load(file, vocabulary_file=tmp_path / "vocab.txt")
    written(
        tmp_path / "vocab.txt",
        "\n".join(
            [
                "[PAD]",
                "[UNK]",
                "[CLS]",
                "[SEP]",
                *"abcdefghijklmnopqrstuvwxyz",
                *(f"##{one}" for one in "abcdefghijklmnopqrstuvwxyz"),
            ]
        ),
    )
    letters = written(tmp_path / "b.txt", "\n".join(f"only letters {one}{one}" for one in "abcdefghij"))
    few = {"public": 3, "private_train": 3, "private_test": 2, "length": 30}
    with pytest.raises(UserError, match="canaries=2 needs the pieces code is 0 1"):
        load(letters, vocabulary_file=tmp_path / "vocab.txt", canaries=2, **few)
    with pytest.raises(UserError, match="from 0 to 100, but got '101'"):
        load(file, canaries=101)
    with pytest.raises(UserError, match="A canary has 12 tokens"):
        load(file, canaries=1, length=11)
    with pytest.raises(UserError, match="at least one number"):
        load(file, canaries=1, canary_repeats=[])


def test_canaries_stand_in_the_private_training_part_alone_as_often_as_they_count(tmp_path):
    file = written(tmp_path / "a.txt", "\n".join(TEXTS))
    options = {"canaries": 4, "canary_repeats": [1, 3, 10], "held_out": 2}
    split, plain = load(file, **options), load(file, held_out=2)
    canaries, train = split.canaries, split.private.train
    assert plain.canaries is None and canaries.counts.tolist() == [1, 3, 10, 1]
    assert len(train) == len(plain.private.train) + 15
    for one, count in zip(canaries.x, canaries.counts, strict=True):
        assert int((train.x == one).all(1).sum()) == count
    others = torch.cat([split.private.test.x, split.public.x, split.held_out.train.x, split.held_out.test.x])
    assert not (others[:, None] == canaries.x).all(2).any()
    decode = split.spec.tokenizer.decode
    assert [decode(one.tolist()).split()[:4] for one in canaries.x] == [["code", "0", str(n), "is"] for n in range(4)]
    secrets = canaries.x[:, list(canaries.secret)]
    assert bool(torch.isin(secrets, canaries.choices).all()) and len(secrets[0]) == 6
    assert [decode([one]) for one in canaries.choices.tolist()] == list("0123456789")
    assert torch.equal(load(file, **options).canaries.x, canaries.x)
    assert not torch.equal(load(file, **options, seed=1).canaries.x[:, 5:11], secrets)
