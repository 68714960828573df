"""What the citation networks of planetoid share: publications, who cites whom, and the words that they use.

Z. Yang, W. Cohen and R. Salakhutdinov, Revisiting semi-supervised learning with graph embeddings, ICML 2016;
https://github.com/kimiyoung/planetoid. A node's features are the words of a publication, each row scaled to sum to 1;
its class is the publication's topic. The split is the public one: 20 nodes of each class are learned, 1,000 are tested.
The features are public. The links are private: every node is in the graph, and a node is asked for by its id. The
control victim learns the same nodes without a link. There are no public data.

Layout: ``planetoid/NAME.npz`` of plain arrays: the features as CSR (``x_data``, ``x_indices``, ``x_indptr``,
``x_shape``), ``edges`` of shape ``(E, 2)``, each once, ``labels`` (-1: none), ``train_idx`` and ``test_idx``. The
originals are pickles, which could hold any code, so mibench does not read them. PyTorch Geometric does, and these lines
make the file of what it read::

    from torch_geometric.datasets import Planetoid
    from mibench.datasets.families.planetoid import write_graph

    write_graph("DIR/planetoid/cora.npz", Planetoid("SCRATCH", "Cora")[0])
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from mibench.data import Examples, Graph, InputSpec, Population, Split
from mibench.datasets.base import Dataset
from mibench.errors import UserError
from mibench.limits import GIB, check_inflation, plain_file, reason_of

#: What the file must hold.
ARRAYS = ("x_data", "x_indices", "x_indptr", "x_shape", "edges", "labels", "train_idx", "test_idx")


class Planetoid(Dataset):
    """A citation network: features, links, topics and the public split."""

    #: The topics by class id.
    topics: ClassVar[Sequence[str]]

    def load(self) -> Split:
        """Return the split, whose examples are node ids.

        Raises:
            DatasetNotFoundError: If the file is not there.
            UserError: If it is no such file.
        """
        file = self.first_file(f"planetoid/{self.card.name}.npz")
        arrays = read_arrays(file)
        graph, labels = graph_of(arrays), torch.from_numpy(arrays["labels"].astype(np.int64))
        train, test = (_examples(arrays[f"{part}_idx"], labels) for part in ("train", "test"))
        if int(labels.max()) + 1 != len(self.topics) or min(int(part.y.min()) for part in (train, test)) < 0:
            raise UserError(
                f"{file} does not hold {self.card.title}: its labels are not {len(self.topics)} topics, or a node of "
                "the split has none."
            )
        nodes, features = graph.features.shape
        return Split(
            spec=InputSpec("graph", (), len(self.topics), vocabulary=nodes, features=features),
            private=Population(train, test, graph),
            held_out=Population(train, test, graph.without_edges()),
            class_names=tuple(self.topics),
        )


def read_arrays(file: Path) -> dict[str, Any]:
    """Return the arrays of a file.

    Raises:
        UserError: If it is no archive of arrays, or one is not there.
    """
    try:
        with zipfile.ZipFile(plain_file(file, str(file), GIB)) as pack:
            check_inflation({one.filename: one.file_size for one in pack.infolist()}, file)
        with np.load(file, allow_pickle=False) as archive:
            if missing := [name for name in ARRAYS if name not in archive]:
                raise UserError(f"{file} has no array '{missing[0]}'; it is not laid out as mibench reads it.")
            return {name: archive[name] for name in ARRAYS}
    except UserError:
        raise
    except Exception as error:  # whatever a decoder raises for a damaged file
        raise UserError(f"{file} is no archive of NumPy arrays ({error}); make it again.") from error


#: Numbers of the features of a graph: those of PubMed have 10 million.
LARGEST = 1_000_000_000


def graph_of(arrays: dict[str, Any]) -> Graph:
    """Return features whose rows sum to 1 (of a node without a word: to 0), and edges ``(2, E)``, sorted."""
    from scipy.sparse import csr_matrix

    parts = tuple(arrays[name] for name in ("x_data", "x_indices", "x_indptr"))
    try:
        shape = tuple(int(size) for size in arrays["x_shape"])
        if len(shape) != 2 or min(shape) < 1 or math.prod(shape) > LARGEST:
            raise ValueError(f"features of shape {shape}, and at most {LARGEST:,} numbers are read")
        features = torch.from_numpy(csr_matrix(parts, shape=shape).toarray()).float()
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        raise UserError(
            f"The arrays of the graph hold no features ({reason_of(error)}); make its file again."
        ) from error
    features /= features.sum(1, keepdim=True).clamp_min(1e-12)
    pairs = np.sort(arrays["edges"].astype(np.int64), axis=1)
    edges = np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)
    return Graph(features, torch.from_numpy(edges).T.contiguous())


def write_graph(file: Path | str, data: Any) -> None:
    """Write a graph of PyTorch Geometric (``x``, ``edge_index``, ``y``, masks) in the layout that is read here."""
    from scipy.sparse import csr_matrix

    rows = csr_matrix(data.x.numpy())
    pairs = np.unique(np.sort(data.edge_index.numpy().T, axis=1), axis=0)
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        file,
        x_data=rows.data,
        x_indices=rows.indices,
        x_indptr=rows.indptr,
        x_shape=np.array(rows.shape),
        edges=pairs[pairs[:, 0] != pairs[:, 1]],
        labels=data.y.numpy(),
        train_idx=np.flatnonzero(data.train_mask.numpy()),
        test_idx=np.flatnonzero(data.test_mask.numpy()),
    )


def _examples(rows: Any, labels: torch.Tensor) -> Examples:
    nodes = torch.from_numpy(rows.astype(np.int64))
    return Examples(nodes, labels[nodes])
