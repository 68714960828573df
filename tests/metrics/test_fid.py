import hashlib

import pytest
import torch
from pytorch_fid import inception as published
from pytorch_fid.fid_score import calculate_frechet_distance
from torch import nn

from mibench.errors import NotMeasurableError, WeightsMissingError
from mibench.leaderboard.scoring import score
from mibench.metrics import fid as module
from mibench.metrics.fid import Fid, frechet_distance, inception_features, untrained_inception
from mibench.storage.fetching import checked_weights
from mibench.tasks.base import Reconstruction


def fitted(mean, deviation, count=50, seed=0):
    """Features whose sample mean and covariance are exactly those asked for."""
    x = torch.randn(count, len(mean), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = x - x.mean(0)
    white = x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / (count - 1))).T
    return white * torch.tensor(deviation).double() + torch.tensor(mean).double()


def test_closed_forms():
    """Means (0, 0) and (3, 4), covariances I and 4 I: 25 + 2; in one dimension the differences squared."""
    assert frechet_distance(fitted([0, 0], [1, 1]), fitted([3, 4], [2, 2], 70, 1)) == pytest.approx(27)
    assert frechet_distance(fitted([1], [0.5]), fitted([-1], [3], 30, 1)) == pytest.approx(4 + 6.25)


@pytest.mark.parametrize(("n", "m"), [(300, 200), (20, 300), (12, 9)])
def test_agrees_with_pytorch_fid_with_full_rank_and_without(n, m):
    draw = torch.Generator().manual_seed(0)
    mix = torch.randn(16, 16, generator=draw).double()
    one, other = torch.randn(n, 16, generator=draw).double() @ mix, torch.randn(m, 16, generator=draw).double() + 0.5
    moments = [f(x.numpy()) for x in (one, other) for f in (lambda x: x.mean(0), lambda x: torch.tensor(x).T.cov())]
    expected = calculate_frechet_distance(*(torch.as_tensor(moment).numpy() for moment in moments))
    assert frechet_distance(one, other) == pytest.approx(float(expected), rel=1e-3)


def test_a_set_has_no_distance_to_itself_in_any_order():
    x = torch.randn(30, 64, generator=torch.Generator().manual_seed(0))
    assert frechet_distance(x, x.flip(0)) < 1e-6


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_fails_is_never_zero(bad):
    x = torch.randn(30, 4)
    with pytest.raises(NotMeasurableError, match="not finite"):
        frechet_distance(x, x.index_fill(0, torch.tensor([3]), bad))
    with pytest.raises(NotMeasurableError, match="at least two"):
        frechet_distance(x, x[:1])


class Recorder(nn.Module):
    """In the place of the network: 16 coarse pixels, and what it was shown."""

    def __init__(self):
        super().__init__()
        self.shown = []

    def forward(self, x):
        self.shown.append((tuple(x.shape[1:]), float(x.min()), float(x.max())))
        return nn.functional.adaptive_avg_pool2d(x, 4)[:, 0].flatten(1)


@pytest.fixture
def fake():
    """A metric whose network is the recorder; it tests everything but the published features."""
    metric = Fid()
    metric.__dict__["_network"] = Recorder(), "0123456789abcdef"
    return metric


def test_real_images_are_nearest_and_noise_is_farthest(fake, digits8, class_truth, mean_of):
    """Test images, digits of other classes and noise, in this order."""
    train, test = digits8.private.train[torch.arange(0, 676, 6)], digits8.private.test[torch.arange(0, 225, 3)]
    truth = class_truth(train.x, train.y, [])
    noise = torch.rand(test.x.shape, generator=torch.Generator().manual_seed(0))
    values = []
    for images in (test.x, digits8.public.x[:75], noise):
        (one,) = fake.measure(Reconstruction(images, test.y), truth)
        values.append(float(one.values))
        assert one.variant == "113 real, 75 samples: biased"
        assert one.evaluator == "inception:0123456789ab"
    assert values[0] < values[1] / 3 < values[2] / 3


def test_the_network_is_shown_colour_images_from_minus_1_to_1_of_299_pixels(fake, class_truth):
    x = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    x[0, 0, :4], x[0, 0, 4:] = 0, 1
    fake.measure(Reconstruction(x, torch.zeros(40).long()), class_truth(x, torch.zeros(40).long(), []))
    shapes, lows, highs = zip(*fake._network[0].shown, strict=True)
    assert set(shapes) == {(3, 299, 299)}
    assert (min(lows), max(highs)) == pytest.approx((-1, 1))


def test_only_attacked_classes_are_compared_with(fake, digits8, class_truth):
    train = digits8.private.train
    ones = train[train.y == 1]
    (one,) = fake.measure(Reconstruction(ones.x, ones.y), class_truth(train.x, train.y, []))
    assert float(one.values) < 1e-6
    assert one.variant.startswith(f"{len(ones)} real")


def test_with_2048_images_on_either_side_nothing_is_said(fake, class_truth, monkeypatch):
    monkeypatch.setattr(module, "FEATURES", 30)
    x, y = torch.rand(40, 1, 8, 8), torch.zeros(40).long()
    assert fake.measure(Reconstruction(x, y), class_truth(x, y, []))[0].variant == ""
    assert (
        "30 real, 29 samples"
        in fake.measure(Reconstruction(x[:29], y[:29]), class_truth(x[:30], y[:30], []))[0].variant
    )


@pytest.fixture(scope="module")
def network_file(tmp_path_factory):
    """A network that nobody trained, under a name that promises its checksum: it tests the loading, not the values."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    torch.save(untrained_inception().state_dict(), folder / "file")
    checksum = hashlib.sha256((folder / "file").read_bytes()).hexdigest()
    return (folder / "file").rename(folder / f"inception-{checksum[:8]}.pth")


def test_loads_the_checked_file_itself_and_computes_what_pytorch_fid_does(network_file, monkeypatch):
    monkeypatch.setattr(module, "NETWORK", network_file.name)

    def refuse(*_arguments, **_options):
        raise AssertionError("a download was tried")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr(published, "load_state_dict_from_url", refuse)
    network, checksum = Fid(weights=network_file.parent)._network
    assert checksum.startswith(network_file.stem.rsplit("-", 1)[1])
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    features = inception_features(network, images)
    monkeypatch.setattr(published, "load_state_dict_from_url", lambda *_a, **_o: torch.load(network_file))
    with torch.no_grad():
        (expected,) = published.InceptionV3().eval()(images)
    assert features.shape == (2, 2048)
    assert features.numpy() == pytest.approx(expected[:, :, 0, 0].numpy(), rel=1e-4, abs=1e-5)


def test_another_file_is_refused_with_a_reason_and_no_number(tmp_path, class_truth):
    (tmp_path / module.NETWORK).write_bytes(b"something else")
    x, y = torch.rand(4, 1, 8, 8), torch.zeros(4).long()
    (row,) = score(Fid(weights=tmp_path), Reconstruction(x, y), None, class_truth(x, y, []))
    assert row.status == "skipped"
    assert "not the published network" in row.reason
    assert row.value != row.value


def test_the_published_network_is_the_one_to_fetch():
    (file,) = Fid.downloads
    assert (file.path, file.url) == (module.NETWORK, module.SOURCE + module.NETWORK)
    assert module.NETWORK.removesuffix(".pth").endswith(file.sha256)
    with pytest.raises(WeightsMissingError, match=file.path):
        checked_weights("FID", Fid().folder / "no folder" / module.NETWORK, module.SOURCE)
