"""A model that carries private data shows them to nobody: not in a view, in the store, or in what an attacker brings.

The links of a graph network are such data. The checks are also made on a model that names no secret, and fail there.
"""

import dataclasses
import itertools

import pytest
import torch
from torch import nn

from mibench.access import Ledger
from mibench.data import Graph
from mibench.running.cell import Cell
from mibench.targets.gcn import Gcn

ACCESSES = ("white_box", "scores", "labels", "explanations", "none")


def tensors(thing, seen=None):
    """Yields every tensor that is reached from a thing without looking into what is private to it."""
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, torch.Tensor):
        yield thing
    elif isinstance(thing, nn.Module):
        yield from itertools.chain(thing.parameters(), thing.buffers())
        for module in thing.modules():
            yield from (value for value in vars(module).values() if isinstance(value, torch.Tensor))
    elif isinstance(thing, dict):
        for value in thing.values():
            yield from tensors(value, seen)
    elif isinstance(thing, list | tuple):
        for value in thing:
            yield from tensors(value, seen)
    elif dataclasses.is_dataclass(thing):
        for field in dataclasses.fields(thing):
            if not field.name.startswith("_"):
                yield from tensors(getattr(thing, field.name), seen)


def told(found, graph):
    """Returns the tensors that list links (in any order, either node first) or are an adjacency."""
    links = {frozenset(pair) for pair in graph.edges.T.tolist()}
    nodes = len(graph.features)
    telling = []
    for tensor in found:
        lists = [
            one for one in (tensor, tensor.mT if tensor.dim() > 1 else tensor) if one.dim() == 2 and one.shape[1] == 2
        ]
        if tuple(tensor.shape) == (nodes, nodes) or any(
            len(links & {frozenset(pair) for pair in one.tolist()}) > len(one) / 2 for one in lists
        ):
            telling.append(tensor)
    return telling


@pytest.fixture
def cell(graph_cell):
    return graph_cell("attack=link_stealing")


@pytest.fixture
def careless(graph_cell, tmp_path, monkeypatch):
    """The same cell, in a store of its own, with a graph network that says it has no secret."""
    monkeypatch.setattr(Gcn, "secret", ())
    return graph_cell("attack=link_stealing", folder=tmp_path)


def seen_by(cell, access):
    """Returns all tensors of the view of an attacker with that access."""
    private = cell.split.private
    scene = cell.scene_of(cell.victim)
    view = cell.setting.observe(scene, cell.victim, private, access, 0, Ledger()).view
    return list(tensors(view))


@pytest.mark.parametrize("access", ACCESSES)
def test_no_view_holds_a_link(access, cell):
    assert cell.victim.module.edges.shape[1] > 100
    assert not told(seen_by(cell, access), cell.split.private.graph)


def test_a_view_of_a_careless_model_is_found_out(careless):
    assert told(seen_by(careless, "white_box"), careless.split.private.graph)


def view_of(cell, edges):
    """Returns the white-box view and what the service answers, of the cell's weights on other links."""
    model = cell.victim.module
    model.hold(Graph(cell.split.private.graph.features, edges))
    scene = cell.scene_of(cell.victim)
    view = cell.setting.observe(scene, cell.victim, cell.split.private, "white_box", 0, Ledger()).view
    return view.logits(torch.arange(50)), model(torch.arange(50))


@pytest.mark.parametrize("kind", ["cell", "careless"])
def test_what_a_view_computes_does_not_depend_on_the_links(kind, request):
    cell = request.getfixturevalue(kind)
    edges = cell.split.private.graph.edges
    (seen, answered), (seen_poisoned, answered_poisoned) = view_of(cell, edges), view_of(cell, edges // 2)
    assert not torch.allclose(answered, answered_poisoned, atol=1e-3)
    assert torch.equal(seen, seen_poisoned) == (kind == "cell")


def stored_links(folder, graph):
    """Returns the files below a folder that hold the links: the bytes of either end of all, or of all pairs."""
    listings = []
    for kind in (torch.int64, torch.int32, torch.int16, torch.float32):
        edges = graph.edges.to(kind)
        listings += [edges[0].numpy().tobytes(), edges[1].numpy().tobytes(), edges.T.contiguous().numpy().tobytes()]
    texts = [str(edge).encode() for edge in (graph.edges.tolist(), graph.edges.T.tolist())]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [path for path in files if any(one in path.read_bytes() for one in [*listings, *texts])]


def test_no_file_holds_the_links_after_a_cell(graph_cell, tmp_path):
    """Victim, control victim, reconstructions, rows, logs and sheets."""
    cell = graph_cell("attack=link_stealing", folder=tmp_path)
    cell.run()
    assert len(list((tmp_path / "store" / "victim").glob("*/*.safetensors"))) == 2
    assert not stored_links(tmp_path, cell.split.private.graph)


def test_a_stored_careless_model_is_found_out(careless, tmp_path):
    assert careless.victim.module is not None
    (file,) = stored_links(tmp_path, careless.split.private.graph)
    assert file.parent.parent.name == "victim"


def test_a_stored_model_says_by_a_digest_which_links_it_saw(cell):
    assert cell.victim.facts["secret"] == cell.split.private.graph.digest()


def test_what_the_attacker_brings_holds_no_link(cell):
    assert not told(tensors(cell.knowledge), cell.split.private.graph)
    assert not told(tensors(cell.method), cell.split.private.graph)


def test_the_goal_holds_as_many_other_pairs(cell):
    """The links in it are what is asked for; they are half of it and stand anywhere."""
    linked = cell.truth.linked
    assert int(linked.sum()) == len(linked) / 2 == 200
    assert 60 < int(linked[:200].sum()) < 140
    assert not told(tensors(cell.goal.target), cell.split.private.graph)
    rows = cell.goal.pairs.double()
    spread = [float(torch.corrcoef(torch.stack([rows[:, end], linked.double()]))[0, 1]) for end in (0, 1)]
    assert all(abs(one) < 0.2 for one in spread), "the ids of nodes do not tell"


@pytest.mark.parametrize("kind", ["cell", "careless"])
def test_no_companion_holds_a_link(kind, monkeypatch, request):
    """An attacker's further models of the same graph come as views as well."""
    cell = request.getfixturevalue(kind)
    monkeypatch.setattr(Cell, "companions", ["gcn"])
    views = cell.ensemble(cell.split.private)(Ledger())
    assert len(views) == 1
    assert bool(told(tensors(views), cell.split.private.graph)) == (kind == "careless")


def test_the_control_victim_never_saw_a_link(cell):
    control = cell.setting.train(cell.scene(control=True), cell.split.held_out, "control victim")
    assert control.module.edges.numel() == 0 and control.key["data"] != cell.victim.key["data"]
