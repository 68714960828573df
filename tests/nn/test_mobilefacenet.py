"""The embedding tells people apart with the published weights, and a random network does not."""

from pathlib import Path

import pytest
import torch

from mibench.datasets.lfw import Lfw
from mibench.errors import DatasetNotFoundError, WeightsMissingError
from mibench.nn.mobilefacenet import FILE, MobileFaceNet, load


def test_it_has_the_size_of_its_paper():
    """About one million learned weights."""
    network = MobileFaceNet().eval()
    assert 0.98e6 < sum(p.numel() for p in network.parameters()) < 1.0e6
    embedding = network(torch.rand(2, 3, 64, 64))
    assert embedding.shape == (2, 256) and torch.allclose(embedding.norm(dim=1), torch.ones(2), atol=1e-5)
    assert network(torch.rand(2, 1, 32, 32)).shape == (2, 256)


def test_the_region_is_cut_and_scaled():
    """A picture whose left and right halves differ shows only the half that the region is."""
    x = torch.zeros(1, 3, 64, 64)
    x[..., 32:] = 1
    assert float(MobileFaceNet((0.0, 0.0, 0.5, 1.0)).shown(x)[..., :94].max()) < 0.01
    assert float(MobileFaceNet((0.5, 0.0, 1.0, 1.0)).shown(x)[..., 2:].min()) > 0.99
    whole = MobileFaceNet((0.0, 0.0, 1.0, 1.0)).shown(x)
    assert whole.shape == (1, 3, 112, 96) and abs(float(whole.mean()) - 0.5) < 0.01


def test_gradients_reach_the_picture_and_mirroring_changes_nothing_but_the_order():
    torch.manual_seed(0)
    network = MobileFaceNet((0.0, 0.0, 1.0, 1.0)).eval()
    x = torch.rand(1, 3, 64, 64, requires_grad=True)
    embedding = network(x)
    (gradient,) = torch.autograd.grad(embedding[0, 0], x)
    assert gradient.abs().sum() > 0
    first, second = network(x.flip(3)).chunk(2, 1)
    assert torch.allclose(torch.cat([second, first], 1), embedding, atol=1e-5)


def test_missing_or_foreign_weights_are_named(tmp_path):
    with pytest.raises(WeightsMissingError, match=r"068\.ckpt"):
        load(tmp_path)
    torch.save({"net_state_dict": {"a": torch.zeros(1)}}, tmp_path / FILE)
    with pytest.raises(WeightsMissingError, match="not the published network"):
        load(tmp_path)


def separation(network, x, y):
    """Returns the share of pairs of one person that are more alike than a pair of two (area under the curve)."""
    with torch.no_grad():
        embedding = torch.cat([network(part) for part in x.split(100)])
    alike = embedding @ embedding.T
    upper = torch.triu(torch.ones_like(alike, dtype=torch.bool), 1)
    same = y[:, None] == y[None]
    one, two = alike[same & upper], alike[~same & upper]
    return float((one[:, None] > two[torch.randperm(len(two))[:4000]][None]).double().mean())


def test_it_tells_real_people_apart(data_root):
    weights = Path(torch.hub.get_dir()) / "checkpoints"
    if not any((weights / name / FILE).is_file() for name in ("", "mobilefacenet")):
        pytest.skip(f"{FILE} is not in {weights}")
    try:
        split = Lfw(data_root=data_root, size=64, max_per_class=10, public_limit=2, private_people=20).load()
    except DatasetNotFoundError as missing:
        pytest.skip(str(missing))
    x, y = split.private.train.x, split.private.train.y
    torch.manual_seed(0)
    assert separation(load(weights), x, y) > 0.95
    assert separation(MobileFaceNet().eval(), x, y) < 0.75, "a random network"
