import dataclasses
import hashlib
from importlib.resources import files

import pytest
import torch
import torchvision
from torch.nn.functional import interpolate

from mibench.errors import WeightsMissingError
from mibench.leaderboard.scoring import score
from mibench.metrics import lpips as module
from mibench.metrics.lpips import BACKBONES, Lpips


@pytest.fixture
def two(paired):
    """Two different colour images of 64 pixels, guessed wrongly, as a reconstruction with its truth."""
    x, guess = torch.rand(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return paired(x, guess)


LAYERS = (1, 4, 7, 9, 11)  # AlexNet's five rectified layers


def lpips_by_hand(features, x, y):
    """The paper's formula on the images' own scale [0, 1]."""
    heads = torch.load(str(files("lpips") / "weights/v0.1/alex.pth"), map_location="cpu", weights_only=True)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    a, b = (((2 * t - 1) - shift[:, None, None]) / scale[:, None, None] for t in (x, y))
    total = torch.zeros(len(x))
    for index, layer in enumerate(features[: LAYERS[-1] + 1]):
        a, b = layer(a), layer(b)
        if index in LAYERS:
            weight = heads[f"lin{LAYERS.index(index)}.model.1.weight"]
            unit = (t / t.square().sum(1, keepdim=True).sqrt() for t in (a, b))
            total += ((next(unit) - next(unit)).square() * weight).sum(1).mean((1, 2))
    return total.detach()


def test_loads_the_checked_file_itself_and_follows_the_formula(backbone, two):
    path, features = backbone
    result, truth = two
    (one,) = Lpips(weights=path.parent).measure(result, truth)
    expected = lpips_by_hand(features, result.values, truth.x)
    assert one.values.numpy() == pytest.approx(expected.numpy(), rel=1e-4)
    assert (one.values > 1e-3).all()
    torch.manual_seed(4)
    another = torchvision.models.alexnet(weights=None).features.eval()
    assert (
        abs(lpips_by_hand(another, result.values, truth.x) / expected - 1).max() > 1e-3
    )  # the check tells files apart


def test_distances_of_embeddings_are_lpips(backbone, two):
    result, truth = two
    metric = Lpips(weights=backbone[0].parent)
    (one,) = metric.measure(result, truth)
    between = torch.cdist(metric.embeddings(result.values), metric.embeddings(truth.x)).square()
    assert between.diag().numpy() == pytest.approx(one.values.numpy(), rel=1e-4)
    (other,) = metric.measure(dataclasses.replace(result, values=result.values.flip(0)), truth)
    assert between.flip(0).diag().numpy() == pytest.approx(other.values.numpy(), rel=1e-4)


def test_records_the_checksum_of_the_file(backbone, two):
    path, _ = backbone
    (one,) = Lpips(weights=path.parent).measure(*two)
    assert one.evaluator == f"alex:{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
    assert one.variant == ""


def test_equal_images_have_distance_zero(backbone, paired):
    x = torch.rand(3, 3, 64, 80)
    (one,) = Lpips(weights=backbone[0].parent).measure(*paired(x, x.clone()))
    assert one.values.tolist() == [0, 0, 0]


def test_small_grey_images_are_enlarged_and_repeated(backbone, paired):
    path, features = backbone
    x, guess = torch.rand(2, 2, 1, 16, 20, generator=torch.Generator().manual_seed(0))
    (one,) = Lpips(weights=path.parent).measure(*paired(x, guess))
    big = [interpolate(t, (64, 80), mode="bilinear").repeat(1, 3, 1, 1) for t in (guess, x)]
    assert one.values.numpy() == pytest.approx(lpips_by_hand(features, *big).numpy(), rel=1e-4)
    assert one.variant == "upsampled64"


def test_images_of_32_pixels_are_seen_as_they_are(backbone, paired):
    path, features = backbone
    x, guess = torch.rand(2, 2, 3, 32, 40, generator=torch.Generator().manual_seed(0))
    (one,) = Lpips(weights=path.parent).measure(*paired(x, guess))
    assert one.values.numpy() == pytest.approx(lpips_by_hand(features, guess, x).numpy(), rel=1e-4)
    assert one.variant == ""


def test_measuring_leaves_the_random_state_alone(backbone, two):
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    Lpips(weights=backbone[0].parent).measure(*two)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_without_the_file_the_row_is_skipped_and_says_which_where_and_whence(tmp_path, two):
    result, truth = two
    (row,) = score(Lpips(net="vgg", weights=tmp_path), result, result, truth)
    assert row.status == "skipped"
    for said in ("vgg16-397923af.pth", str(tmp_path), "https://download.pytorch.org/models/vgg16-397923af.pth"):
        assert said in row.reason
    assert row.value != row.value


def test_a_wrong_file_under_the_right_name_is_refused(backbone, two, monkeypatch):
    path, _ = backbone
    disguised = path.rename(path.with_name("alexnet-owt-7be5be79.pth"))
    monkeypatch.setitem(BACKBONES, "alex", disguised.name)
    with pytest.raises(WeightsMissingError, match="not the published network"):
        Lpips(weights=disguised.parent).measure(*two)


def test_torch_hub_is_never_asked(backbone, two, monkeypatch):
    def refuse(*_args, **_options):
        raise AssertionError("a download was tried")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    Lpips(weights=backbone[0].parent).measure(*two)


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_the_published_networks_agree_with_torchmetrics(net, two):
    from torchmetrics.functional.image import learned_perceptual_image_patch_similarity

    result, truth = two
    metric = Lpips(net=net)
    if not (metric.folder / module.BACKBONES[net]).is_file():
        pytest.skip(f"{module.BACKBONES[net]} is not in {metric.folder}")
    (one,) = metric.measure(result, truth)
    expected = learned_perceptual_image_patch_similarity(result.values, truth.x, net_type=net, normalize=True)
    assert float(one.values.mean()) == pytest.approx(float(expected), rel=1e-4)


def test_the_box_around_a_hole_is_compared_as_an_image_of_its_own(backbone, completed, paired):
    metric = Lpips(weights=backbone[0].parent)
    x, guess = torch.rand(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    hole = torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    hole[..., 16:40, 8:48] = True
    whole, inside = metric.measure(*completed(x, guess, hole))
    (expected,) = metric.measure(*paired(x[..., 16:40, 8:48], guess[..., 16:40, 8:48]))
    assert torch.equal(inside.values, expected.values) and not torch.equal(whole.values, inside.values)
    assert (whole.variant, inside.variant) == ("", "hole_upsampled64")
