import hashlib

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from mibench.access import Ledger, WhiteBoxView
from mibench.data import Examples, InputSpec
from mibench.errors import UserError
from mibench.targets.transformer import Transformer
from mibench.training import Recipe, Training

SPEC = InputSpec("text", (8,), 2, vocabulary=30, padding=0)
SMALL = {"depth": 2, "width": 16, "heads": 2, "hidden": 32}


def make(seed=0, **options):
    torch.manual_seed(seed)
    return Transformer(spec=SPEC, **{**SMALL, **options}).eval()


def test_it_keeps_the_contract_of_a_classifier():
    model, x = make(), torch.randint(30, (5, 8))
    logits, blocks = model.forward_with_blocks(x)
    assert logits.shape == (5, 2) and len(blocks) == 4 and blocks[1].shape == (5, 8, 16)
    assert torch.allclose(model.head(model.features(x)), logits, atol=1e-6)
    assert torch.allclose(model.predict_proba(x).sum(1), torch.ones(5), atol=1e-5)


def test_relaxed_inputs_enter_behind_the_embeddings():
    model, x = make(), torch.randint(30, (3, 8))
    logits, embedded = model(x), model.entry.table[x]
    model.entry.relaxing = True
    torch.testing.assert_close(model(embedded), logits)


def test_queries_are_counted_for_ids_and_for_embeddings():
    ledger, model = Ledger(), make()
    view = WhiteBoxView.of(model, SPEC, ledger, torch.device("cpu"))
    view.logits(torch.randint(30, (3, 8)))
    view.model.entry.relaxing = True
    view.logits(torch.rand(2, 8, 16, requires_grad=True))
    assert (ledger.queries, ledger.gradient_evals) == (5, 2)


def test_position_tells_two_orders_apart_and_the_initial_scale_is_the_options():
    x = torch.arange(1, 9)[None]
    model = make()
    assert not torch.allclose(model(x), model(x.roll(1, 1)), atol=1e-4)
    for scale in (0.02, 0.1):
        weight = make(init=scale).stages[1].up.weight.detach()
        assert float(weight.std()) == pytest.approx(scale, rel=0.15)
    with torch.no_grad():
        model.stages[0].positions.zero_()
    swapped = x.clone()
    swapped[0, [2, 5]] = x[0, [5, 2]]
    torch.testing.assert_close(model(swapped), model(x))


def test_it_learns_which_word_stands_there():
    draws = torch.Generator().manual_seed(0)
    x = torch.randint(4, 30, (400, 8), generator=draws)
    y = torch.randint(2, (400,), generator=draws)
    x[torch.arange(400), torch.randint(1, 8, (400,), generator=draws)] = 1 + y
    model = Training(make(), Examples(x[:300], y[:300]), Recipe(20, 32, 3e-3), 0, torch.device("cpu")).run()
    assert (model(x[300:]).argmax(1) == y[300:]).float().mean() > 0.85


def test_weights_of_ones_own_are_taken(tmp_path):
    model, file = make(seed=1), tmp_path / "weights.safetensors"
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, file)
    x = torch.randint(30, (2, 8))
    torch.testing.assert_close(make(weights=file)(x), model(x))
    with pytest.raises(UserError, match=r"target\.weights=.*are no weights of target=transformer"):
        make(weights=file, width=32)
    torch.manual_seed(0)
    other = InputSpec("text", (8,), 2, vocabulary=31, padding=0)
    with pytest.raises(
        UserError, match=r"weights for 30 tokens, but the dataset's vocabulary has 31; set dataset\.voc"
    ):
        Transformer(spec=other, **SMALL, weights=file)
    with pytest.raises(UserError, match=r"target\.starts_from one to be trained on; set one"):
        make(weights=file, starts_from=file)
    torch.testing.assert_close(make(starts_from=file)(x), model(x))
    with pytest.raises(UserError, match=r"SHA-256 of target\.starts_from="):
        make(starts_from=file, sha256="0" * 64)
    assert make(weights=file, sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    with pytest.raises(UserError, match="cannot be read"):
        make(weights=tmp_path / "none.safetensors")
    with pytest.raises(UserError, match=r"target\.heads=3"):
        make(heads=3)


def test_a_model_that_starts_from_weights_is_trained_and_a_finished_one_is_not(tmp_path):
    from mibench.planning.catalogue import entry
    from mibench.running.stage import blueprint

    file = tmp_path / "weights.safetensors"
    save_file({name: value.contiguous() for name, value in make().state_dict().items()}, file)
    node = OmegaConf.to_container(OmegaConf.load(entry("target", "transformer").file)) | SMALL
    given = ({}, {"starts_from": str(file)}, {"weights": str(file)})
    plain, begun, finished = (blueprint({**node, **more}) for more in given)
    assert (plain.pretrained, begun.pretrained, finished.pretrained) == (False, False, True)
    assert len({str(one.key) for one in (plain, begun, finished)}) == 3
    assert str(tmp_path) not in str(begun.key), "the content identifies it, not the path"
