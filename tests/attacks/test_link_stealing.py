"""Link stealing on a stochastic block model, on which features tell nothing, and on the peer's part of Citeseer."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.spatial import distance
from sklearn.metrics import roc_auc_score

from mibench.access import Ledger, ScoresView
from mibench.attacks.link_stealing import LinkStealing
from mibench.data import Graph, InputSpec
from mibench.knowledge import Knowledge
from mibench.optim.posterior_distance import DISTANCES
from mibench.tasks.edges import EdgesGoal

CPU = torch.device("cpu")


def service(posteriors, budget=None):
    """A service that answers with rows of a table."""
    spec = InputSpec("graph", (), posteriors.shape[1], vocabulary=len(posteriors), features=1)
    return ScoresView(spec, Ledger(budget), CPU, lambda ids: posteriors[ids])


def steal(view, pairs, **options):
    return LinkStealing(**options)(view, Knowledge(), EdgesGoal(pairs), seed=0)


def drawn(rows=20, classes=5):
    draws = torch.Generator().manual_seed(0)
    posteriors = torch.randn(rows, classes, generator=draws).softmax(1)
    pairs = torch.randint(rows, (30, 2), generator=draws)
    return posteriors, pairs


@pytest.mark.parametrize("metric", DISTANCES)
def test_distances_are_those_of_scipy(metric):
    posteriors, pairs = drawn()
    made = steal(service(posteriors), pairs, metric=metric).reconstruction.values
    rows = posteriors.double().numpy()
    expected = [-getattr(distance, metric)(rows[i], rows[j]) for i, j in pairs.tolist()]
    assert made.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("metric", DISTANCES)
def test_posteriors_that_are_constant_or_withheld_give_a_number(metric):
    posteriors = torch.tensor([[0.25] * 4, [0.0] * 4, [1.0, 0.0, 0.0, 0.0]])
    pairs = torch.tensor([[0, 1], [0, 2], [1, 2], [1, 1]])
    assert bool(steal(service(posteriors), pairs, metric=metric).reconstruction.values.isfinite().all())


@pytest.mark.parametrize(("metric", "undefined"), [("correlation", [0, 1]), ("cosine", [1])])
def test_a_distance_that_is_not_defined_counts_as_0(metric, undefined):
    """A constant posterior has no correlation, and one of zeros no cosine either; two others have both."""
    posteriors = torch.tensor([[0.25] * 4, [0.0] * 4, [0.7, 0.1, 0.1, 0.1], [0.1, 0.2, 0.3, 0.4]])
    pairs = torch.tensor([[node, other] for node in undefined for other in (2, 3)] + [[2, 3]])
    made = steal(service(posteriors), pairs, metric=metric).reconstruction.values
    assert made[:-1].tolist() == [0.0] * (len(pairs) - 1) and float(made[-1]) < -0.3


def test_every_node_is_asked_once():
    posteriors, pairs = drawn()
    view = service(posteriors)
    steal(view, pairs, batch_size=3)
    assert view.ledger.queries == len(pairs.unique())


def test_a_spent_budget_leaves_the_pairs_that_are_known():
    posteriors, pairs = drawn()
    whole = steal(service(posteriors), pairs).reconstruction
    part = steal(service(posteriors, budget=12), pairs, batch_size=4)
    known = (pairs < pairs.unique()[12]).all(1)
    assert part.stopped and torch.equal(~part.reconstruction.missing, known) and 0 < int(known.sum()) < len(pairs)
    assert torch.equal(part.reconstruction.values[known], whole.values[known])


@pytest.fixture(scope="module")
def cell(graph_cell, tmp_path_factory):
    return graph_cell("attack=link_stealing", "budget.records=1000", folder=tmp_path_factory.mktemp("stealing"))


def auc(cell, values):
    return roc_auc_score(cell.truth.linked, values)


def test_links_are_told_where_the_model_saw_them_and_not_elsewhere(cell):
    """Features tell nothing here, and a model that never saw the graph no more than they do."""
    scores = {f"{one.metric} {one.variant}".strip(): one for one in cell.scores()}
    nulls = {name: auc(cell, null.values) for name, null in cell.nulls.items()}
    assert scores["edge_auc"].value > 0.85
    assert scores["edge_auc"].value == pytest.approx(auc(cell, cell.result.reconstruction.values))
    assert scores["edge_auc"].control < 0.65
    assert 0.4 < nulls["features"] < 0.6
    assert 0.6 < nulls["empty_graph"] < scores["edge_auc"].value - 0.1, "the weights tell blocks"
    assert scores["edge_auc"].null == pytest.approx(nulls["empty_graph"]) and scores["edge_auc"].evidence == "leak"
    assert scores["target_accuracy victim"].value > 0.8


def test_a_flipped_sign_and_a_constant_distance_are_found_out(cell, monkeypatch):
    honest = DISTANCES["correlation"]
    view = cell.observe(cell.victim, cell.split.private).view
    monkeypatch.setitem(DISTANCES, "correlation", lambda a, b: 2 - honest(a, b))
    assert auc(cell, steal(view, cell.goal.pairs).reconstruction.values) < 0.15
    monkeypatch.setitem(DISTANCES, "correlation", lambda a, b: torch.ones(len(a)))
    assert auc(cell, steal(view, cell.goal.pairs).reconstruction.values) == 0.5


def test_an_output_defense_lies_between(cell, graph_cell, tmp_path):
    """Of posteriors rounded to halves few distances are left."""
    rounded = graph_cell("attack=link_stealing", "defense=rounding", "defense.step=0.5", folder=tmp_path)
    assert rounded.result.reconstruction.values.unique().numel() < 20
    assert cell.result.reconstruction.values.unique().numel() > 100


def test_it_agrees_with_the_peer_on_a_part_of_citeseer(case_folder):
    """600 nodes, all pairs of 150 of them, the peer's own weights: its posteriors, and its AUC of 0.884."""
    pytest.importorskip("torch_geometric")
    from mibench.targets.gcn import Gcn

    folder = case_folder("graphmi_citeseer")
    case = load_file(folder / "graph_and_model.safetensors")
    rows, columns = case["features_rows_cols"].long().T
    words = torch.zeros(len(case["labels"]), len(case["feature_columns_in_planetoid"]))
    words[rows, columns] = 1
    spec = InputSpec("graph", (), 6, vocabulary=len(words), features=words.shape[1])
    model = Gcn(spec=spec).eval()
    model.hold(Graph(words, case["edges"].long().T))
    with torch.no_grad():
        for part, name in ((model.stages[0].lin.weight, "gc1.weight"), (model.head.weight, "gc2.weight")):
            part.copy_(case[f"gcn.{name}"].T)
        model.stages[0].bias.copy_(case["gcn.gc1.bias"])
        model.head.bias.copy_(case["gcn.gc2.bias"])
    everyone = torch.arange(len(words))
    assert torch.allclose(model.predict_proba(everyone), case["gcn_log_posteriors"].exp(), atol=1e-4)

    draw = np.load(folder / "draw0.npz")
    targets = torch.from_numpy(draw["targets"])
    pairs = targets[torch.triu_indices(len(targets), len(targets), 1).T]
    for table, low, high in (
        (model.predict_proba(everyone), 0.88, 0.89),
        (case["mlp_log_posteriors"].exp(), 0.5, 0.65),
    ):
        values = steal(service(table), pairs).reconstruction.values
        assert low < roc_auc_score(draw["truth"], values) < high
