"""dlib's face network: its files read by hand, its layers, and whether it tells real people apart."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d, conv2d

from mibench.datasets.lfw import Lfw
from mibench.errors import DatasetNotFoundError, WeightsMissingError
from mibench.nn.face_resnet import MEAN, FaceResNet, _Block, load, state_of, tensors_of
from mibench.nn.faces import embeddings, shown
from mibench.storage.judge_files import FACE_RESNET_MANIFEST, FACE_RESNET_WEIGHTS


def test_it_has_the_size_of_the_published_one_and_gives_unit_vectors():
    """5.61 million numbers; gradients reach the picture."""
    torch.manual_seed(0)
    network = FaceResNet().eval()
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(5.61e6, rel=0.01)
    x = torch.rand(2, 1, 32, 32, requires_grad=True)
    embedding = network(x)
    assert embedding.shape == (2, 128) and torch.allclose(embedding.norm(dim=1), torch.ones(2), atol=1e-5)
    assert torch.autograd.grad(embedding[0, 0], x)[0].abs().sum() > 0


def test_the_mean_colour_is_taken_off_before_the_first_layer(monkeypatch):
    network = FaceResNet((0.0, 0.0, 1.0, 1.0))
    seen = []
    network.conv32_down.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    network((torch.tensor(MEAN) / 255)[None, :, None, None].expand(1, 3, 8, 8))
    assert seen[0].shape == (1, 3, 150, 150) and float(seen[0].abs().max()) < 1e-5


def test_a_region_is_cut_and_beyond_the_picture_its_border_is_repeated():
    x = torch.zeros(1, 3, 64, 64)
    x[..., 32:] = 1
    assert float(shown(x, (0.0, 0.0, 0.5, 1.0), 10, 20)[..., :18].max()) < 0.01
    assert float(shown(x, (0.5, 0.0, 1.5, 1.0), 10, 20)[..., 2:].min()) > 0.99


@pytest.mark.parametrize(("before", "after", "side", "out"), [(2, 4, 17, 8), (2, 2, 8, 4)])
def test_a_block_that_halves_pads_channels_and_what_a_convolution_loses(before, after, side, out):
    """The shortcut is a mean over 2x2 pixels; what one of both lacks, channels or rows, is zero in it."""
    block = _Block(before, after, True)
    for weight in block.parameters():
        weight.data.zero_()
    block.conv2.bias.data.fill_(1.0)
    x = torch.rand(1, before, side, side)
    made = block(x)
    assert made.shape == (1, after, out, out)
    inner = (side - 3) // 2 + 1
    short = avg_pool2d(x, 2)
    assert torch.allclose(made[:, :before, :inner, :inner], 1 + short[..., :inner, :inner])
    assert torch.allclose(made[:, before:, :inner, :inner], torch.ones(1, after - before, inner, inner))
    assert torch.allclose(made[:, :before, inner:], short[..., inner:, :])


def test_a_block_that_keeps_the_side_adds_what_it_was_given():
    block = _Block(2, 2, False)
    for weight in block.parameters():
        weight.data.zero_()
    block.conv2.bias.data.fill_(-0.5)
    x = torch.rand(1, 2, 5, 5)
    assert torch.allclose(block(x), (x - 0.5).relu())


def test_tensors_are_read_in_the_order_of_their_manifest():
    """Quantised ones are scale times level plus the least value; the others are little-endian float32."""
    packed = {
        "name": "a",
        "shape": [2],
        "dtype": "float32",
        "quantization": {"dtype": "uint8", "scale": 0.5, "min": -1},
    }
    plain = {"name": "b", "shape": [1, 2], "dtype": "float32"}
    content = bytes([0, 255]) + np.array([1.5, -2.0], "<f4").tobytes()
    found = tensors_of([{"weights": [packed]}, {"weights": [plain]}], content)
    assert found["a"].tolist() == [-1.0, 126.5] and found["b"].tolist() == [[1.5, -2.0]]
    with pytest.raises(ValueError, match="10 bytes as its manifest says, but it has 11"):
        tensors_of([{"weights": [packed, plain]}], content + b"x")
    with pytest.raises(ValueError, match="'a' is of type int32"):
        tensors_of([{"weights": [{"name": "a", "shape": [1], "dtype": "int32"}]}], bytes(4))


def test_a_layers_scale_is_folded_into_its_convolution():
    draws = torch.Generator().manual_seed(0)
    kernel, bias, scale, offset = (torch.randn(*shape, generator=draws) for shape in ((3, 3, 2, 4), (4,), (4,), (4,)))
    name = "conv64_1/conv1"
    named = {f"{name}/conv/filters": kernel, f"{name}/conv/bias": bias}
    named |= {f"{name}/scale/weights": scale, f"{name}/scale/biases": offset, "fc": torch.zeros(5, 3)}
    state, x = state_of(named), torch.randn(1, 2, 6, 6, generator=draws)
    assert set(state) == {"fc.weight", "blocks.conv64_1.conv1.weight", "blocks.conv64_1.conv1.bias"}
    assert state["fc.weight"].shape == (3, 5)
    made = conv2d(x, state["blocks.conv64_1.conv1.weight"], state["blocks.conv64_1.conv1.bias"])
    plain = conv2d(x, kernel.permute(3, 2, 0, 1), bias)
    assert torch.allclose(made, plain * scale[:, None, None] + offset[:, None, None], atol=1e-5)


def test_missing_or_foreign_files_are_named(tmp_path):
    with pytest.raises(WeightsMissingError, match=r"face_recognition_model\.bin"):
        load(tmp_path)
    (tmp_path / FACE_RESNET_WEIGHTS.path).parent.mkdir()
    for one in (FACE_RESNET_WEIGHTS, FACE_RESNET_MANIFEST):
        (tmp_path / one.path).write_bytes(b"[]")
    with pytest.raises(WeightsMissingError, match="not the published network"):
        load(tmp_path)


def test_it_tells_real_people_apart(data_root):
    """Of 10 people of LFW at 64 pixels 4 pictures each: an area under the curve of 0.99 was measured for 60 people."""
    weights = Path(torch.hub.get_dir()) / "checkpoints"
    try:
        network = load(weights)
        split = Lfw(data_root=data_root, size=64, max_per_class=4, public_limit=2, private_people=10).load()
    except (WeightsMissingError, DatasetNotFoundError) as missing:
        pytest.skip(str(missing))
    x, y = split.private.train.x, split.private.train.y
    seen = embeddings(network, x)
    alike, upper = seen @ seen.T, torch.triu(torch.ones(len(y), len(y), dtype=torch.bool), 1)
    same = y[:, None] == y[None]
    one, two = alike[same & upper], alike[~same & upper]
    assert float((one[:, None] > two[None]).double().mean()) > 0.95
