import pytest
import torch
from torchvision import models

from mibench.data import InputSpec
from mibench.errors import UserError
from mibench.targets.torchvision_model import TorchvisionModel

SPEC = InputSpec("image", (3, 64, 64), 5)
ARCHITECTURES = {
    "resnet18": 6,
    "densenet121": 10,
    "mobilenet_v3_small": 13,
    "shufflenet_v2_x0_5": 5,
    "vit_b_32": 2,
    "alexnet": 5,
    "mnasnet0_5": 1,
    "efficientnet_b0": 9,
}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_logits_are_torchvisions_own(arch):
    """The same seed draws the same weights, and cutting off the last layer changes nothing."""
    size = 224 if arch.startswith("vit") else None
    torch.manual_seed(0)
    model = TorchvisionModel(spec=SPEC, arch=arch, size=size).eval()
    torch.manual_seed(0)
    plain = models.get_model(arch, weights=None, num_classes=5).eval()
    x = torch.rand(2, 3, 64, 64)
    shown = torch.nn.functional.interpolate(x, (size, size), mode="bilinear", antialias=True) if size else x
    logits, blocks = model.forward_with_blocks(x)
    assert torch.allclose(logits, plain(2 * shown - 1), atol=1e-5)
    assert torch.allclose(logits, model.head(blocks[-1]), atol=1e-6) and blocks[-1].dim() == 2
    assert len(blocks) == ARCHITECTURES[arch] + 1


def test_a_grey_image_is_three_equal_channels():
    torch.manual_seed(0)
    grey = TorchvisionModel(spec=InputSpec("image", (1, 64, 64), 5), arch="resnet18").eval()
    torch.manual_seed(0)
    colour = TorchvisionModel(spec=SPEC, arch="resnet18").eval()
    x = torch.rand(2, 1, 64, 64)
    assert torch.allclose(grey(x), colour(x.expand(-1, 3, -1, -1)), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"arch": "resnet19"}, r"no torchvision classifier \(target\.arch\) 'resnet19'; did you mean .*resnet18"),
        ({"arch": "squeezenet1_0"}, "does not end in a linear layer"),
        ({"arch": "vit_b_16"}, r"cannot take images of 64x64 pixels .*target\.size=224"),
    ],
)
def test_mistakes_are_named(options, said):
    with pytest.raises(UserError, match=said):
        TorchvisionModel(spec=SPEC, **options)
