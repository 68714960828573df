import pytest
import torch

from mibench.datasets.families.texts import SPECIAL, WordPiece, made_vocabulary
from mibench.datasets.sst2 import Sst2
from mibench.errors import DatasetNotFoundError, UserError

pytest.importorskip("tokenizers", reason="pip install 'mibench[text]'")

WORDS = ("a fine film with wit", "the quick brown fox jumps over lazy dogs", "no plot at all to speak of")
SIZES = {"public": 20, "private_train": 10, "private_test": 6, "length": 16, "min_words": 3, "vocabulary": 90}


@pytest.fixture
def root(tmp_path):
    """Writes 40 short phrases, all different, as GLUE lays them out."""
    (tmp_path / "SST-2").mkdir()
    lines = [f"{WORDS[n % 3]} {chr(97 + n % 26)}{chr(97 + n // 26)}\t{n % 2}" for n in range(40)]
    (tmp_path / "SST-2" / "train.tsv").write_text(
        "\n".join(["sentence\tlabel", *lines, "short\t1", f"{'x ' * 30}\t0"]) + "\n"
    )
    return tmp_path


def load(root, **options):
    return Sst2(data_root=root, **{**SIZES, **options}).load()


def test_texts_are_ids_between_cls_and_sep(root):
    split = load(root)
    spec, x = split.spec, split.private.train.x
    assert (spec.modality, spec.shape, spec.classes, spec.padding) == ("text", (16,), 2, 0)
    assert x.shape == (10, 16) and x.dtype == torch.long and int(x.max()) < spec.vocabulary
    assert (x[:, 0] == 2).all() and ((x == 3).sum(1) == 1).all()
    assert split.class_names == ("negative", "positive")
    spec.check(x)
    text = spec.tokenizer.decode(x[0].tolist())
    assert any(text.startswith(words) for words in WORDS)
    assert spec.tokenizer.encode(text) == x[0][x[0] != 0].tolist()


def test_no_text_stands_in_two_parts_and_the_seed_parts_them(root):
    split = load(root)
    parts = [split.private.train.x, split.private.test.x, split.public.x]
    assert [len(part) for part in parts] == [10, 6, 20]
    assert len(torch.cat(parts).unique(dim=0)) == 36
    assert torch.equal(load(root).private.train.x, parts[0])
    other = load(root, seed=1)
    assert split.spec.tokenizer.decode(parts[0][0].tolist()) != other.spec.tokenizer.decode(
        other.private.train.x[0].tolist()
    )


def test_the_vocabulary_is_made_of_public_words_alone(root):
    split = load(root, vocabulary=400)
    private = [split.spec.tokenizer.decode(row.tolist()).split()[-1] for row in split.private.train.x]
    public = {split.spec.tokenizer.decode(row.tolist()).split()[-1] for row in split.public.x}
    assert not set(private) & public
    for row, word in zip(split.private.train.x, private, strict=True):
        pieces = split.spec.tokenizer.encode(word)[1:-1]
        assert len(pieces) == 2, "a word that no public text has is cut into its letters"
        assert split.spec.tokenizer.decode(row.tolist()).endswith(word)


def test_a_vocabulary_is_the_most_frequent_words_and_every_letter():
    pieces = made_vocabulary(["aa bb bb", "cc aa zz"], 17)
    assert pieces == [*SPECIAL, "##a", "##b", "##c", "##z", "a", "b", "c", "z", "aa", "bb", "cc", "zz"]
    assert made_vocabulary(["aa bb bb", "cc aa zz"], 13)[12:] == ["aa"]
    cutter = WordPiece(pieces)
    assert [pieces[one] for one in cutter.encode("AA bz qq")[1:-1]] == ["aa", "b", "##z", "[UNK]"]


def test_a_vocabulary_of_ones_own(root, tmp_path):
    file = tmp_path / "vocab.txt"
    letters = "abcdefghijklmnopqrstuvwxyz"
    file.write_text("\n".join([*SPECIAL, *letters, *(f"##{one}" for one in letters)]) + "\n")
    split = load(root, vocabulary_file=file, length=60)
    assert split.spec.vocabulary == 56
    file.write_text("a\nb\n")
    with pytest.raises(UserError, match=r"no line \[PAD\]"):
        load(root, vocabulary_file=file)
    with pytest.raises(UserError, match="is not there"):
        load(root, vocabulary_file=tmp_path / "none.txt")


def test_what_is_missing_is_said(root, tmp_path):
    with pytest.raises(DatasetNotFoundError, match=r"train\.tsv"):
        load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="add up to 5016 texts, but 40 are"):
        load(root, public=5000)
    (root / "SST-2" / "train.tsv").write_text("text\tclass\nab\t1\n")
    with pytest.raises(UserError, match="GLUE's"):
        load(root)
