"""Cora, and what both citation networks share."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mibench.datasets.citeseer import Citeseer
from mibench.datasets.cora import Cora
from mibench.datasets.families.planetoid import ARRAYS, write_graph
from mibench.errors import DatasetNotFoundError, UserError

KINDS = [Cora, Citeseer]


def tiny(kind, root):
    """Twenty nodes, five of them without a word and the last without a topic."""
    nodes, topics = 20, len(kind.topics)
    x = torch.eye(nodes)[:, :15] * 3
    x[:, 0] += (torch.arange(nodes) < 15).float()
    y = torch.arange(nodes) % topics
    y[-1] = -1
    edges = torch.tensor([[0, 4, 7, 7, 5], [4, 0, 3, 7, 6]])  # one twice, one to itself
    train, test = torch.arange(nodes) < topics, (torch.arange(nodes) >= topics) & (torch.arange(nodes) < 19)
    data = SimpleNamespace(x=x, edge_index=edges, y=y, train_mask=train, test_mask=test)
    write_graph(root / "planetoid" / f"{kind.card.name}.npz", data)
    return kind(data_root=root)


@pytest.mark.parametrize("kind", KINDS)
def test_the_layout_is_read(kind, tmp_path):
    split = tiny(kind, tmp_path).load()
    graph = split.private.graph
    assert graph.edges.tolist() == [[0, 3, 5], [4, 7, 6]], "each link once, the smaller id first"
    assert graph.features.shape == (20, 15)
    assert torch.allclose(graph.features.sum(1), (torch.arange(20) < 15).float())
    topics = len(kind.topics)
    assert (split.spec.shape, split.spec.vocabulary, split.spec.features) == ((), 20, 15)
    assert split.private.train.x.tolist() == split.private.train.y.tolist() == list(range(topics))
    assert split.private.test.x.tolist() == list(range(topics, 19))


@pytest.mark.parametrize("kind", KINDS)
def test_the_control_is_the_same_nodes_without_a_link(kind, tmp_path):
    split = tiny(kind, tmp_path).load()
    assert split.held_out.graph.edges.shape == (2, 0)
    assert torch.equal(split.held_out.graph.features, split.private.graph.features)
    assert torch.equal(split.held_out.train.x, split.private.train.x)
    assert split.held_out.seen != split.private.seen and split.public is None


def test_another_network_under_the_name_is_refused(tmp_path):
    tiny(Citeseer, tmp_path)
    (tmp_path / "planetoid" / "citeseer.npz").rename(tmp_path / "planetoid" / "cora.npz")
    with pytest.raises(UserError, match="does not hold Cora: its labels are not 7 topics"):
        Cora(data_root=tmp_path).load()


@pytest.mark.parametrize("lost", ARRAYS)
def test_a_missing_array_is_named(lost, tmp_path):
    dataset = tiny(Cora, tmp_path)
    file = tmp_path / "planetoid" / "cora.npz"
    with np.load(file) as archive:
        kept = {name: archive[name] for name in ARRAYS if name != lost}
    np.savez(file, **kept)
    with pytest.raises(UserError, match=f"no array '{lost}'"):
        dataset.load()


def test_a_file_that_is_none_and_one_of_objects_are_refused(tmp_path):
    dataset = tiny(Cora, tmp_path)
    file = tmp_path / "planetoid" / "cora.npz"
    file.write_bytes(b"no archive")
    with pytest.raises(UserError, match="no archive of NumPy arrays"):
        dataset.load()
    np.savez(file, **{name: np.array([print], dtype=object) for name in ARRAYS})
    with pytest.raises(UserError, match="no archive of NumPy arrays"):
        dataset.load()


def test_a_missing_file_says_how_to_make_it(tmp_path):
    with pytest.raises(DatasetNotFoundError, match="kimiyoung/planetoid"):
        Cora(data_root=tmp_path).load()


@pytest.mark.parametrize(("kind", "nodes", "words", "links"), [(Cora, 2708, 1433, 5278), (Citeseer, 3327, 3703, 4552)])
def test_the_real_network_has_the_published_numbers(kind, nodes, words, links, data_root):
    try:
        split = kind(data_root=data_root).load()
    except DatasetNotFoundError as missing:
        pytest.skip(str(missing))
    graph, topics = split.private.graph, len(kind.topics)
    assert graph.features.shape == (nodes, words) and graph.edges.shape == (2, links)
    assert split.private.train.y.bincount().tolist() == [20] * topics
    assert len(split.private.test) == 1000 and split.spec.classes == topics
