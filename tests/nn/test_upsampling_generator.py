import torch

from mibench.nn.stacked import StackedNetworks
from mibench.nn.upsampling_generator import UpsamplingGenerator, overparameterised_width


def parameters(shape, width):
    return sum(one.numel() for one in UpsamplingGenerator(shape, 128, width).parameters())


def test_images_have_the_size_asked_for_and_lie_in_the_unit_interval():
    for shape in ((1, 8, 8), (3, 28, 28), (3, 40, 24), (1, 4, 4)):
        torch.manual_seed(0)
        images = UpsamplingGenerator(shape)(torch.randn(2, 128)).detach()
        assert images.shape == (2, *shape)
        assert 0 <= float(images.min()) < 0.45 and 0.55 < float(images.max()) <= 1


def test_the_width_doubles_until_there_are_more_parameters_than_asked_for_per_pixel():
    assert overparameterised_width((3, 32, 32), 16, 128, 32, 4.0) == 32
    for batch_size in (1, 64, 256):
        width = overparameterised_width((3, 32, 32), batch_size, 128, 32, 4.0)
        assert parameters((3, 32, 32), width) > 4 * batch_size * 32 * 32
        assert width == 32 or parameters((3, 32, 32), width // 2) <= 4 * batch_size * 32 * 32
    assert width > 32


def test_large_images_have_fewer_channels():
    generator = UpsamplingGenerator((3, 256, 256))
    assert [block[0].out_channels for block in generator.blocks] == [32, 32, 32, 32, 16, 8, 8]


def test_the_scale_of_a_convolution_before_a_batch_norm_does_not_matter():
    """Why the authors' spectral norm can be left out."""
    torch.manual_seed(0)
    generator, u = UpsamplingGenerator((1, 16, 16)), torch.randn(1, 128)
    before = generator(u).detach()
    for block in generator.blocks:
        for layer in (block[0], block[3]):
            layer.weight.data /= torch.linalg.matrix_norm(layer.weight.data.flatten(1), 2)
    assert float((generator(u).detach() - before).abs().max()) < 1e-3
    generator.image.weight.data *= 3
    assert float((generator(u).detach() - before).abs().max()) > 0.1


def test_stacked_networks_make_what_each_makes_alone():
    torch.manual_seed(0)
    networks = [UpsamplingGenerator((1, 8, 8), 16, 8) for _ in range(3)]
    u, stacked = torch.randn(3, 2, 16), StackedNetworks(networks)
    alone = torch.stack([network(x) for network, x in zip(networks, u, strict=True)])
    torch.testing.assert_close(stacked(stacked.weights, u), alone, atol=1e-5, rtol=0)
    one = stacked([weight[1:2] for weight in stacked.weights], u[1:2])
    torch.testing.assert_close(one, alone[1:2], atol=1e-5, rtol=0)
    assert not torch.allclose(alone[0], alone[1], atol=1e-2)
