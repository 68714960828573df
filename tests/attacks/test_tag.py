import dataclasses

import pytest
import torch
from exact import inside
from peer_texts import peer_model
from safetensors.torch import load_file, save_file

from mibench.attacks.tag import Tag
from mibench.data import InputSpec
from mibench.errors import UserError
from mibench.knowledge import Knowledge
from mibench.optim.input_space import Embeddings, present_tokens
from mibench.optim.row_adam import Adam, norm_at_most
from mibench.planning.composition import compose
from mibench.planning.plan import plan_cell
from mibench.running.cell import Cell
from mibench.targets.mlp import Mlp
from mibench.targets.transformer import Transformer
from mibench.tasks.instance import InstanceGoal

SPEC = InputSpec("text", (5,), 2, vocabulary=60, padding=0)


@pytest.fixture
def case(one_client):
    """Returns the view of one client with a text of five words, the text and its label."""

    def make(seed=0, init=0.1, batch=1):
        torch.manual_seed(seed)
        model = Transformer(spec=SPEC, depth=2, width=32, heads=2, hidden=64, init=init).eval()
        x, y = torch.randint(1, 60, (batch, 5)), torch.randint(2, (batch,))
        return one_client(model, x, y, SPEC), x, y

    return make


def words(attack, view, x, y=None, seed=0):
    knowledge = Knowledge() if y is None else Knowledge(facts={"labels": y})
    result = attack(view, knowledge, InstanceGoal(1, len(x)), seed=seed)
    return result.reconstruction, (result.reconstruction.values == x).float().mean().item()


def test_the_search_starts_small_and_steps_as_stated(case):
    """Clipped starts, the warm-up, the fall along a line, weight decay, and gradients of norm 1 at the most."""
    view, x, _ = case(1)

    def look(adam, objective, starts, found, steps, reshape):
        assert float(starts[0].abs().max()) == pytest.approx(0.1) and float(starts[0].std()) < 0.1
        clipped = reshape([torch.full((1, 3), 2.0), torch.full((1, 1), 2.0)])
        assert float(torch.cat([one.flatten() for one in clipped]).norm()) == pytest.approx(1.0)
        assert adam.decay == 0.01
        return [adam.rate(step) for step in (0, 49, 50, 525, 999)]

    rates = inside(Adam, "minimise", lambda: words(Tag(), view, x), look)
    assert rates == pytest.approx([0.001, 0.05, 0.05, 0.025, 0.05 / 950])


def test_every_word_comes_back_in_its_place(case):
    """Three of three texts with the label given; at an initial scale of 0.02 hardly a word."""
    assert [words(Tag(iterations=150), *case(seed))[1] for seed in (1, 2, 3)] == [1.0, 1.0, 1.0]
    assert words(Tag(iterations=150), *case(0, init=0.02))[1] <= 0.4


def test_the_label_is_found_with_the_words_and_given_ones_are_kept(case):
    view, x, y = case(3)
    result, share = words(Tag(iterations=150), view, x)
    assert share == 1.0 and torch.equal(result.labels, y)
    assert words(Tag(iterations=5), view, x, 1 - y)[0].labels.item() == 1 - y.item()


def test_its_distance_is_the_papers():
    ours = {"a": torch.tensor([[1.0, -2.0]]), "b": torch.tensor([[3.0]])}
    theirs = {name: torch.zeros_like(value) for name, value in ours.items()}
    assert Tag(alpha=0.1).distance_of(ours, theirs).item() == pytest.approx(0.5 * (5 + 0.1 * 1 * 3 + 9 + 0.1 * 0.5 * 3))
    assert Tag(alpha=0.1, ramp="flat").distance_of(ours, theirs).item() == pytest.approx(0.5 * (14 + 0.1 * 6))
    assert Tag(alpha=0.0).distance_of(ours, theirs).item() == pytest.approx(7.0)


def test_what_the_embedding_table_learns_takes_no_part_unless_asked(case):
    view, x, _ = case(2)
    poisoned = dict(view.messages[0])
    poisoned["normalise.table"] = torch.randn_like(poisoned["normalise.table"])
    other = dataclasses.replace(view, messages=[poisoned])
    attack = Tag(iterations=20)
    assert torch.equal(words(attack, view, x)[0].values, words(attack, other, x)[0].values)
    present = present_tokens(view)
    assert sorted(torch.nonzero(present[0]).flatten().tolist()) == sorted(set(x.flatten().tolist()))
    made = words(Tag(iterations=1, embedding_rows=True), view, x)[0].values
    assert set(made.flatten().tolist()) <= set(x.flatten().tolist())


def test_the_step_size_rises_and_falls_and_gradients_are_clipped(case):
    view, x, _ = case(0)
    assert words(Tag(iterations=40, warmup=0), view, x)[0].loss < words(Tag(iterations=40, lr=1e-4), view, x)[0].loss
    gradients = [torch.tensor([[3.0, 0.0], [0.3, 0.0]]), torch.tensor([[4.0], [0.4]])]
    clipped = norm_at_most(1.0)(gradients)
    torch.testing.assert_close(clipped[0], torch.tensor([[0.6, 0.0], [0.3, 0.0]]))
    torch.testing.assert_close(clipped[1], torch.tensor([[0.8], [0.4]]))


def test_tokens_are_read_off_by_the_cosine():
    table = torch.tensor([[0.0, 0.0], [1.0, 0.0], [5.0, 5.0], [-1.0, 1.0]])
    space = Embeddings(table)
    points = torch.tensor([[[[0.2, 0.01], [0.1, 0.1], [-3.0, 2.0]]]])
    assert space.decode(points).tolist() == [[[1, 2, 3]]]
    barred = Embeddings(table, torch.tensor([[True, True, False, True]]))
    assert barred.decode(points).tolist() == [[[1, 1, 3]]]


def test_a_target_without_embeddings_is_refused(digits_view):
    view, _ = digits_view(Mlp, 1)
    with pytest.raises(UserError, match="target=transformer"):
        Embeddings.of(view)


@pytest.mark.slow
def test_the_reference_case_is_read_word_for_word(one_client, case_folder, tmp_path):
    """Every word in its place, as the peer's own code does; from the stored update, through ``setting=captured``."""
    folder = case_folder("tag_lamp_sst2")
    stored = load_file(folder / "grad_b1_d0.safetensors")
    x, y = stored["input_ids"].reshape(1, -1).long(), stored["labels"].reshape(1).long()
    model, spec, mapped = peer_model(folder, x.shape[1])
    update = {}
    for name, value in model.named_parameters():
        if name == "normalise.table":
            update[name] = torch.zeros_like(value)
            update[name][stored["word_embedding_rows"].long()] = stored["word_embedding_gradient_of_rows"].float()
        else:
            update[name] = stored[mapped[name]].float()[: len(value)]
    view = one_client(model, x, y, spec)
    torch.testing.assert_close(dict(view.messages[0]), update, rtol=1e-3, atol=1e-6)
    for name, tensors in (("w", model.state_dict()), ("u", update), ("t", {"tokens": x, "labels": y})):
        save_file(
            {key: value.detach().contiguous() for key, value in tensors.items()}, tmp_path / f"{name}.safetensors"
        )
    sizes = {"depth": 2, "width": 96, "heads": 4, "hidden": 256}
    cell = Cell(plan_cell(compose([
        "attack=tag", "setting=captured", "dataset=captured_update", f"dataset.file={tmp_path}/u.safetensors",
        f"dataset.truth={tmp_path}/t.safetensors", f"dataset.vocabulary={spec.vocabulary}", "dataset.classes=2",
        "target=transformer", *(f"target.{name}={value}" for name, value in sizes.items()),
        f"target.weights={tmp_path}/w.safetensors", "attack.iterations=600", "device=cpu",
        f"paths.store={tmp_path}/store", f"paths.results={tmp_path}/results",
    ])))  # fmt: skip
    assert torch.equal(cell.result.reconstruction.values[:, 1:-1], x[:, 1:-1])
    accuracy = {one.variant: one.value for one in cell.scores() if one.metric == "token_accuracy"}
    assert accuracy[""] >= (x.shape[1] - 2) / x.shape[1] and cell.facts().modality == "text"
