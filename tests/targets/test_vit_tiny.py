"""ViT-Tiny is the published network: its size, and torchvision's logits where the weights are torchvision's."""

import pytest
import torch
from torchvision.models import VisionTransformer

from mibench.data import InputSpec
from mibench.errors import UserError
from mibench.targets.vit_tiny import VitTiny

SPEC = InputSpec("image", (3, 32, 32), 10)

#: torchvision's name of every part of a layer.
PARTS = {
    "norm1": "ln_1", "attention.qkv": "self_attention.in_proj", "attention.out": "self_attention.out_proj",
    "norm2": "ln_2", "mlp.0": "mlp.0", "mlp.2": "mlp.3",
}  # fmt: skip


def size(model):
    return sum(p.numel() for p in model.parameters())


def test_it_has_the_published_size():
    """5.7 million at DeiT-Ti's 224 pixels, patches of 16 and 1,000 classes; other tokens and another head here."""
    assert size(VitTiny(spec=InputSpec("image", (3, 224, 224), 1000), patch=16)) == 5_717_416
    assert size(VitTiny(spec=SPEC)) == 5_362_762


def test_the_logits_are_torchvisions():
    torch.manual_seed(0)
    plain = VisionTransformer(
        image_size=16, patch_size=4, num_layers=3, num_heads=2, hidden_dim=32, mlp_dim=128, num_classes=5
    ).eval()
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    theirs = plain.state_dict()
    names = {
        "stages.0.position.token": "class_token", "stages.0.position.embedding": "encoder.pos_embedding",
        "stages.0.project": "conv_proj", "norm": "encoder.ln", "head": "heads.head",
    }  # fmt: skip
    for index in range(3):
        there = f"encoder.layers.encoder_layer_{index}"
        names |= {f"stages.{index + 1}.{part}": f"{there}.{name}" for part, name in PARTS.items()}
    model = VitTiny(spec=InputSpec("image", (3, 16, 16), 5), dim=32, depth=3, heads=2).eval()
    own = {}
    for name in model.state_dict():
        if name.startswith("normalise"):
            own[name] = model.state_dict()[name]
        elif name in names:
            own[name] = theirs[names[name]]
        else:
            part, _, kind = name.rpartition(".")
            joint = "_" if names[part].endswith("in_proj") else "."
            own[name] = theirs[f"{names[part]}{joint}{kind}"]
    model.load_state_dict(own)
    x = torch.rand(4, 3, 16, 16)
    assert torch.allclose(model(x), plain(2 * x - 1), rtol=1e-4, atol=1e-5)


def test_stages_are_the_tokens_and_the_layers():
    model = VitTiny(spec=SPEC, depth=2, dim=24).eval()
    assert [tuple(block.shape[1:]) for block in model.blocks(torch.rand(1, 3, 32, 32))] == [(65, 24)] * 3


def test_an_untrained_model_gives_every_weight_a_gradient():
    """Also below the head, which torchvision begins at zero: that would leave a client nothing to send."""
    model = VitTiny(spec=SPEC, depth=2)
    loss = torch.nn.functional.cross_entropy(model(torch.rand(2, 3, 32, 32)), torch.tensor([1, 3]))
    parts = dict(zip(dict(model.named_parameters()), torch.autograd.grad(loss, list(model.parameters())), strict=True))
    assert not [name for name, part in parts.items() if not part.abs().sum() > 0]


def test_oblong_images_and_mistakes():
    assert VitTiny(spec=InputSpec("image", (1, 8, 12), 2), depth=1)(torch.rand(1, 1, 8, 12)).shape == (1, 2)
    with pytest.raises(UserError, match=r"patches of 5x5 pixels, but these have 32x32"):
        VitTiny(spec=SPEC, patch=5)
    with pytest.raises(UserError, match=r"multiple of target\.heads=5"):
        VitTiny(spec=SPEC, heads=5)
