import dataclasses

import pytest
import torch

from mibench.data import Examples, Graph, InputSpec, Population, Split
from mibench.errors import UserError
from mibench.knowledge import Knowledge
from mibench.model import Classifier
from mibench.tasks.base import Reconstruction
from mibench.tasks.edges import EdgesTask, drawn_pairs

TASK = EdgesTask()
NOTHING = Knowledge()


def split_of(graph):
    nodes = torch.arange(len(graph.features))
    examples = Examples(nodes, nodes % 2)
    return Split(
        spec=InputSpec("graph", (), 2, vocabulary=len(nodes), features=graph.features.shape[1]),
        private=Population(examples, examples, graph),
        held_out=Population(examples, examples, graph.without_edges()),
    )


@pytest.fixture
def ring():
    """60 nodes, each linked with the next; its features are those of the next but one."""
    nodes = torch.arange(60)
    ends = torch.stack([nodes, (nodes + 1) % 60])
    return split_of(Graph(torch.eye(30)[nodes % 30], ends.sort(0).values))


def keys(pairs):
    return {tuple(pair) for pair in pairs.tolist()}


def test_half_of_the_pairs_are_linked_and_truth_says_which(ring, make_case):
    case = make_case(ring, records=40)
    goal = TASK.goal(case)
    linked = TASK.truth(case, goal).linked
    true = keys(ring.private.graph.edges.T)
    assert goal.pairs.shape == (80, 2) and int(linked.sum()) == 40
    assert [tuple(pair) in true for pair in goal.pairs.tolist()] == linked.tolist()
    assert len(keys(goal.pairs)) == 80 and bool((goal.pairs[:, 0] < goal.pairs[:, 1]).all())


def test_neither_the_order_nor_the_first_node_tells(ring, make_case):
    """Over seeds a place is linked as often as not, and so is a pair that begins with a small id."""
    found = [
        (TASK.goal(case).pairs, TASK.truth(case, None).linked) for case in (make_case(ring, seed=s) for s in range(60))
    ]
    places = torch.stack([linked.double() for _, linked in found]).mean(0)
    assert float(places.min()) > 0.25 and float(places.max()) < 0.75
    assert abs(float(places[:50].mean()) - 0.5) < 0.05


def test_pairs_depend_on_the_seed_alone(ring, make_case):
    one, same, other = (TASK.goal(make_case(ring, seed=seed)).pairs for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_the_goal_shares_no_memory_with_the_graph(ring, make_case):
    goal = TASK.goal(make_case(ring))
    before = goal.pairs.clone()
    ring.private.graph.edges.fill_(0)
    assert torch.equal(goal.pairs, before)


def test_a_dense_graph_has_as_many_pairs_as_it_has_others():
    edges = torch.triu_indices(8, 8, 1)[:, 5:]
    pairs, linked = drawn_pairs(Graph(torch.zeros(8, 1), edges), 100, 0)
    assert len(pairs) == 10 and int(linked.sum()) == 5


def test_control_and_null_are_of_the_nodes_without_a_link(ring, make_case):
    case = make_case(ring)
    goal = TASK.goal(case)
    control = TASK.control(case, goal, NOTHING, TASK.blank(goal, ring.spec))
    assert control.graph.edges.numel() == 0 and torch.equal(control.graph.features, ring.private.graph.features)
    null = TASK.nulls(case, goal, NOTHING)["features"]
    TASK.check(null, goal, ring.spec)
    alike = (goal.pairs[:, 0] - goal.pairs[:, 1]) % 30 == 0
    assert torch.equal(null.values, alike.float())


class Neighbourly(Classifier):
    """Answers of a node its own block, of three, where it sees no link, and otherwise which link it has."""

    secret = ("edges",)

    def __init__(self, graph):
        super().__init__()
        self.register_buffer("edges", graph.edges.clone())
        self.register_parameter("weight", torch.nn.Parameter(torch.zeros(1)))

    def forward(self, x):
        if not self.edges.numel():
            return 5 * torch.nn.functional.one_hot(x // 20, 60).float()
        seen = torch.nn.functional.one_hot(self.edges[:, None], 60).float()
        return (seen[0, 0, self.edges[0].argsort()][x]) * 50


def test_the_empty_graph_is_the_victims_weights_without_a_link(ring, make_case):
    """Only whether two nodes are of one block tells them apart, whatever the victim says of linked ones."""
    graph = ring.private.graph
    case = make_case(ring, records=40, victim=Neighbourly(graph).eval())
    goal = TASK.goal(case)
    null = TASK.nulls(case, goal, NOTHING)["empty_graph"]
    TASK.check(null, goal, ring.spec)
    blocks = goal.pairs // 20
    same = blocks[:, 0] == blocks[:, 1]
    assert float(null.values[same].min()) == pytest.approx(0, abs=1e-6)
    assert float(null.values[~same].max()) < -0.5
    assert case.victim.edges.numel() > 0, "the victim keeps its links"


def test_without_a_victim_that_holds_links_there_is_no_empty_graph(ring, make_case, trained_cnn):
    for victim in (None, trained_cnn):
        case = dataclasses.replace(make_case(ring), victim=victim)
        assert list(TASK.nulls(case, TASK.goal(case), NOTHING)) == ["features"]


def test_units_are_the_pairs(ring, make_case):
    case = make_case(ring)
    goal = TASK.goal(case)
    assert TASK.units(case, goal)[3] == "{}-{}".format(*goal.pairs[3].tolist())


def test_answers_that_are_no_numbers_are_refused(ring, make_case):
    goal = TASK.goal(make_case(ring))
    values = torch.zeros(len(goal.pairs))
    values[3] = float("inf")
    with pytest.raises(ValueError, match="NaN or infinite"):
        TASK.check(Reconstruction(values, goal.target), goal, ring.spec)


def test_data_without_a_graph_are_refused(digits8, make_case):
    with pytest.raises(UserError, match="dataset=cora"):
        TASK.goal(make_case(digits8))


def test_the_sheet_shows_where_links_stand_in_the_ranking(ring, make_case):
    case = make_case(ring)
    goal = TASK.goal(case)
    truth = TASK.truth(case, goal)
    told = Reconstruction(truth.linked.float(), goal.target)
    valid = torch.arange(len(goal.pairs)) != 0
    control = Reconstruction(torch.full_like(told.values, 9.0), goal.target, valid=valid)
    sheet = TASK.sheet(ring.spec, TASK.units(case, goal), truth, told, control)
    assert [row.pictures[0] for row in sheet.rows] == ["10 of 10"] * 5 + ["0 of 10"] * 5
    assert sum(int(row.pictures[1].split()[0]) for row in sheet.rows) == 50
    assert ": linked, 1" in sheet.rows[0].pictures[2]
    alone = TASK.sheet(ring.spec, TASK.units(case, goal), truth, told, None)
    assert all(row.pictures[1] is None for row in alone.rows)
