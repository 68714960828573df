import builtins

import pytest
import torch

from mibench.access import Ledger, WhiteBoxView
from mibench.data import Examples, Graph, InputSpec
from mibench.errors import UserError
from mibench.targets.gcn import Gcn, normalised

torch_geometric = pytest.importorskip("torch_geometric")

SPEC = InputSpec("graph", (), 3, vocabulary=12, features=5)


def made(edges=True, seed=0, **options):
    draws = torch.Generator().manual_seed(7)
    features = torch.rand(12, 5, generator=draws)
    links = (torch.rand(12, 12, generator=draws) < 0.3).triu(1).nonzero().T
    torch.manual_seed(seed)
    model = Gcn(spec=SPEC, **options).eval()
    torch.nn.init.normal_(model.head.bias)
    model.hold(Graph(features, links if edges else links[:, :0]))
    return model


def dense(model):
    a = torch.zeros(12, 12)
    a[model.edges[0], model.edges[1]] = 1
    return a + a.T


NODES = torch.tensor([3, 3, 0, 11])


def test_it_is_the_papers_formula():
    model = made()
    a = normalised(dense(model))
    hidden = (a @ model.nodes @ model.stages[0].lin.weight.T + model.stages[0].bias).relu()
    expected = a @ hidden @ model.head.weight.T + model.head.bias
    assert torch.allclose(model(NODES), expected[NODES], atol=1e-6)


def test_it_is_two_layers_of_pytorch_geometric():
    from torch_geometric.nn import GCNConv

    model = made()
    second = GCNConv(16, 3)
    second.lin.weight.data, second.bias.data = model.head.weight.data, model.head.bias.data
    both = torch.cat([model.edges, model.edges.flip(0)], 1)
    expected = second(model.stages[0](model.nodes, both).relu(), both)
    assert torch.allclose(model(NODES), expected[NODES], atol=1e-6)


def test_it_keeps_the_contract_of_a_classifier():
    model = made()
    logits, blocks = model.forward_with_blocks(NODES)
    assert logits.shape == (4, 3) and [tuple(block.shape) for block in blocks] == [(4, 16), (4, 16)]
    assert torch.allclose(model.head(model.features(NODES)), model(NODES))
    assert torch.allclose(model.predict_proba(NODES, batch_size=1), model.predict_proba(NODES))


def test_weights_depend_on_the_seed_alone():
    one, same, other = (made(seed=seed).stages[0].lin.weight for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_dropout_acts_in_training_alone():
    model = made()
    assert torch.equal(model(NODES), model(NODES))
    model.train()
    assert not torch.equal(model(NODES), model(NODES))
    still = made(dropout=0.0).train()
    assert torch.equal(still(NODES), still.eval()(NODES))


def test_a_blind_copy_has_no_link_and_answers_as_a_model_that_never_saw_one():
    model = made()
    blind = model.blind()
    assert blind.edges.shape == (2, 0) and model.edges.shape[1] > 0
    assert torch.equal(blind(NODES), made(edges=False)(NODES)) and not torch.allclose(blind(NODES), model(NODES))
    assert torch.equal(blind.nodes, model.nodes)


def test_the_links_are_a_copy():
    graph = Graph(torch.rand(12, 5), torch.tensor([[0, 1], [3, 2]]))
    model = made()
    model.hold(graph)
    before = model(NODES)
    graph.edges.fill_(0)
    assert torch.equal(model(NODES), before)


def test_another_adjacency_takes_the_links_place():
    model = made()
    on_links = model.with_adjacency(dense(model))
    assert on_links.edges.numel() == 0
    assert torch.allclose(on_links(NODES), model(NODES), atol=1e-6)
    assert torch.allclose(model.with_adjacency(torch.zeros(12, 12))(NODES), model.blind()(NODES), atol=1e-6)


def test_answers_are_differentiable_in_the_adjacency():
    model = made()
    start = (0.5 * dense(model)).requires_grad_(True)
    a = 2 * start  # part of a computation, which cannot be copied
    again = model.with_adjacency(a).with_adjacency(a)
    (gradient,) = torch.autograd.grad(again(NODES).square().sum(), start)
    assert bool(gradient.isfinite().all()) and float(gradient.abs().sum()) > 0
    assert again.blind().adjacency is None and again.adjacency is a


def test_a_view_counts_nodes_and_those_of_another_adjacency_too():
    ledger = Ledger()
    view = WhiteBoxView.of(made(), SPEC, ledger, torch.device("cpu"))
    view.logits(NODES)
    view.model.with_adjacency(torch.zeros(12, 12))(NODES)
    assert ledger.queries == 8 and view.model.edges.numel() == 0


def test_without_the_package_one_sentence_says_what_to_do(monkeypatch):
    honest = builtins.__import__

    def refuse(name, *rest, **more):
        if name.startswith("torch_geometric"):
            raise ModuleNotFoundError("No module named 'torch_geometric'")
        return honest(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(UserError, match=r"pip install 'mibench\[graph\]'"):
        Gcn(spec=SPEC)


def test_a_stored_victim_answers_as_the_fresh_one(graph_cell, tmp_path):
    """Its weights are stored without the links, which come back from the split."""
    words, nodes = ("attack=link_stealing", "defense=none"), torch.arange(0, 168, 5)
    fresh = graph_cell(*words, folder=tmp_path)
    before = fresh.victim.predict_proba(nodes)
    stored = graph_cell(*words, folder=tmp_path)
    assert fresh.victim.module is not stored.victim.module
    assert torch.equal(stored.victim.predict_proba(nodes), before)
    assert not torch.allclose(stored.victim.module.blind().predict_proba(nodes), before, atol=1e-2)


@pytest.mark.slow  # the whole of Cora, for all epochs of the paper
def test_cora_is_learned_as_well_as_in_the_paper(data_root):
    """The paper: 81.5 %."""
    from mibench.datasets.cora import Cora
    from mibench.errors import DatasetNotFoundError
    from mibench.planning.composition import compose, plain
    from mibench.training import Recipe, Training, is_correct

    try:
        split = Cora(data_root=data_root).load()
    except DatasetNotFoundError as missing:
        pytest.skip(str(missing))
    recipe = Recipe(**plain(compose(["dataset=cora"]).target)["recipe"])
    torch.manual_seed(0)
    model = Gcn(spec=split.spec)
    model.hold(split.private.graph)
    trained = Training(model, split.private.train, recipe, 0, torch.device("cpu")).run()
    test: Examples = split.private.test
    assert 0.79 < float(is_correct(trained.predict_proba, test).float().mean()) < 0.84
