import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mibench.access import Ledger, WhiteBoxView
from mibench.data import InputSpec
from mibench.datasets.families.texts import SPECIAL
from mibench.errors import UserError
from mibench.planning.composition import compose
from mibench.targets import minilm
from mibench.targets.minilm import MiniLm, PaddedEntry, berts_name
from mibench.targets.transformer import EncoderLayer, Positions, ReadOut

TOKENS = 16


@pytest.fixture(scope="module")
def folder():
    """The folder of the published files, below ``$MIBENCH_WEIGHTS`` or ``paths.weights``."""
    usual = Path(os.environ.get("TORCH_HOME", "~/.cache/torch")).expanduser() / "hub" / "checkpoints"
    found = Path(os.environ.get("MIBENCH_WEIGHTS", usual)) / "minilm"
    if not (found / "model.safetensors").is_file():
        pytest.skip(f"{found} holds no model.safetensors; get it with python -m mibench fetch minilm")
    return found


def make(folder, tokens=TOKENS, **more):
    spec = InputSpec("text", (tokens,), 2, vocabulary=minilm.PIECES, padding=0)
    return MiniLm(
        spec=spec, model_file=folder / "model.safetensors", vocabulary_file=folder / "vocab.txt", **more
    ).eval()


@pytest.fixture(scope="module")
def model(folder):
    """The target, its head at random."""
    torch.manual_seed(0)
    return make(folder)


@pytest.fixture
def layers():
    """Positions, two layers and the read-out, small, with a mask."""
    torch.manual_seed(0)
    parts = [Positions(9, 8, 2, masked=True), *(EncoderLayer(8, 2, 16, masked=True) for _ in range(2)), ReadOut(8)]
    for part in parts:
        for value in part.parameters():
            torch.nn.init.normal_(value)
    return torch.nn.Sequential(*parts)


def test_padding_takes_no_part(layers):
    entry = PaddedEntry(12, 8, padding=0)
    torch.nn.init.normal_(entry.table)
    short = torch.tensor([[3, 5, 7, 2]])
    padded = torch.cat([short, torch.zeros(1, 5, dtype=torch.long)], 1)
    torch.testing.assert_close(layers(entry(padded)), layers(entry(short)))
    assert (layers[:3](entry(padded))[0, 4:] == 0).all() and (entry(padded)[0, 4:] == 0).all()
    loss = layers(entry(padded)).sum()
    assert (torch.autograd.grad(loss, entry.table)[0][0] == 0).all()


def test_the_first_segment_is_added_to_every_token(layers):
    embedded, positions = torch.randn(1, 4, 8), layers[0]
    wanted = positions.norm(embedded + positions.positions[:4] + positions.segments[0])
    torch.testing.assert_close(positions(embedded), wanted)
    torch.testing.assert_close(positions(embedded[:, 2:3], first=2), wanted[:, 2:3])


def test_every_parameter_has_a_name_of_berts():
    assert berts_name("stages.6.up.bias") == "encoder.layer.5.intermediate.dense.bias"
    assert berts_name("stages.0.norm.weight") == "embeddings.LayerNorm.weight"
    assert berts_name("stages.7.dense.weight") == "pooler.dense.weight"


def test_other_vocabularies_texts_that_are_too_long_and_missing_files_are_refused(tmp_path):
    files = {"model_file": tmp_path / "model.safetensors", "vocabulary_file": tmp_path / "vocab.txt"}
    with pytest.raises(UserError, match=r"has another one of 4000; set dataset\.vocabulary_file="):
        MiniLm(spec=InputSpec("text", (8,), 2, vocabulary=4000, padding=0), **files)
    spec = InputSpec("text", (600,), 2, vocabulary=minilm.PIECES, padding=0)
    with pytest.raises(UserError, match="at most 512 tokens"):
        MiniLm(spec=spec, **files)
    with pytest.raises(UserError, match="python -m mibench fetch minilm"):
        make(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"another file")
    with pytest.raises(UserError, match="not the published network"):
        make(tmp_path)


def test_a_dataset_of_texts_takes_the_vocabulary_of_its_target():
    assert compose(["dataset=sst2"]).dataset.vocabulary_file is None
    chosen = compose(["dataset=sst2", "target=minilm", "paths.weights=/w"])
    assert chosen.dataset.vocabulary_file == chosen.target.vocabulary_file == "/w/minilm/vocab.txt"
    given = compose(["dataset=sst2", "target=minilm", "dataset.vocabulary_file=/v/vocab.txt"])
    assert given.dataset.vocabulary_file == "/v/vocab.txt"


def test_it_keeps_the_contract_of_a_classifier_and_counts(model, folder):
    assert sum(value.numel() for value in model.parameters()) == 22_713_986
    x = torch.randint(1000, 2000, (3, TOKENS))
    with torch.no_grad():
        logits, blocks = model.forward_with_blocks(x)
        assert logits.shape == (3, 2) and len(blocks) == 8 and blocks[1].shape == (3, TOKENS, 384)
        torch.testing.assert_close(model.head(model.features(x)), logits)
    ledger = Ledger()
    WhiteBoxView.of(model, model.spec, ledger, torch.device("cpu")).logits(x)
    assert ledger.queries == 3
    pieces = (folder / "vocab.txt").read_text().splitlines()
    assert tuple(pieces.index(one) for one in SPECIAL) == minilm.SPECIAL and len(pieces) == minilm.PIECES


def test_a_frozen_one_trains_its_head_alone(folder):
    trained = [name for name, value in make(folder, frozen=True).named_parameters() if value.requires_grad]
    assert trained == ["head.weight", "head.bias"]


def test_the_peers_gradients_are_reproduced(folder, case_folder):
    """Query weights of the first two layers, as BERT's classifier of transformers gives them in float32.

    Ours are float64; 1.3e-6 is the rounding of the peer's (our own float32 gradients are as far from them).
    """
    case = case_folder("dager_minilm")
    stored, head = load_file(case / "grad_b1_d0.safetensors"), load_file(case / "classifier.safetensors")
    model = make(folder)
    model.head.load_state_dict({name.removeprefix("classifier."): value for name, value in head.items()})
    model = model.double()
    x = torch.zeros(1, TOKENS, dtype=torch.long)
    x[:, : stored["input_ids"].shape[1]] = stored["input_ids"]
    loss = torch.nn.functional.cross_entropy(model(x), stored["labels"].long())
    for layer in (0, 1):
        (ours,) = torch.autograd.grad(loss, model.get_parameter(f"stages.{layer + 1}.query.weight"), retain_graph=True)
        theirs = stored[f"bert.encoder.layer.{layer}.attention.self.query.weight"].double()
        assert float((ours - theirs).norm() / theirs.norm()) < 2e-6
