import dataclasses

import torch

from mibench.nn.hourglass import UPSAMPLINGS, Architecture, Hourglass, depth, noise_shape


def build(architecture, shape=(1, 8, 8), channels=16):
    torch.manual_seed(0)
    return Hourglass(shape, architecture, channels)


def made(generator, count=2, shape=(1, 8, 8)):
    u = torch.randn(count, *noise_shape(shape, len(generator.sources)), generator=torch.Generator().manual_seed(1))
    return generator(u)


def skips(*rows):
    return tuple(tuple(bool(one) for one in row) for row in rows)


ALL = skips((1, 1), (1, 1))


def test_every_kind_of_up_sampling_makes_an_image_with_all_its_weights():
    assert len(UPSAMPLINGS) == len(set(UPSAMPLINGS)) == 285
    kinds = [kind for kind in UPSAMPLINGS if kind.activation == "leaky"]
    assert len(kinds) == 95
    for kind in kinds:
        generator = build(Architecture(kind, skips((0, 1), (1, 0))))
        images = made(generator)
        assert images.shape == (2, 1, 8, 8) and float(images.detach().std()) > 0.01
        assert float(images.detach().min()) >= 0 and float(images.detach().max()) <= 1
        torch.autograd.grad(images.sum(), list(generator.parameters()))  # raises where a weight is not used


def test_every_skip_matters_and_steps_that_none_takes_are_not_built():
    plain = Architecture(UPSAMPLINGS[0], skips((0, 0, 0), (0, 0, 0), (0, 0, 0)))
    before = build(plain, (1, 16, 16))
    assert len(before.skips) == 0
    for level in range(3):
        for source in range(3):
            rows = [[int((row, column) == (level, source)) for column in range(3)] for row in range(3)]
            generator = build(dataclasses.replace(plain, skips=skips(*rows)), (1, 16, 16))
            assert len(generator.skips) == max(1, abs(level - source))
            generator.load_state_dict(before.state_dict(), strict=False)
            assert (
                float((made(generator, shape=(1, 16, 16)) - made(before, shape=(1, 16, 16))).detach().abs().max())
                > 0.01
            )


def test_sizes_are_cut_out_of_one_that_can_be_halved():
    generator = build(Architecture(UPSAMPLINGS[0], ALL), (3, 30, 21))
    assert noise_shape((3, 30, 21), 2) == (3, 32, 24)
    assert made(generator, shape=(3, 30, 21)).shape == (2, 3, 30, 21)


def test_levels_leave_enough_to_normalise():
    assert [depth((3, 32, 32), batch, 5) for batch in (1, 3, 4, 64)] == [4, 4, 5, 5]
    assert depth((1, 8, 8), 1, 5) == 2
    assert depth((3, 256, 256), 1, 5) == 5
    levels = depth((1, 8, 8), 1, 5)
    images = made(build(Architecture(UPSAMPLINGS[0], skips(*[[1] * levels] * levels))), 1)
    assert float(images.detach().std()) > 0.01


def test_candidates_are_drawn_from_the_whole_space():
    draws = torch.Generator().manual_seed(0)
    drawn = [Architecture.draw(5, draws) for _ in range(400)]
    assert len({one.upsampling for one in drawn}) > 180
    assert len({one.skips for one in drawn}) == 400
    share = torch.tensor([one.skips for one in drawn]).float().mean(0)
    assert float(share.min()) > 0.38 and float(share.max()) < 0.62
    assert drawn[0] == Architecture.draw(5, torch.Generator().manual_seed(0))
