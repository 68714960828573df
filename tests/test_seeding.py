import torch

from mibench.seeding import derive, generator, seeded


def test_seeds_depend_on_every_name_and_nothing_else():
    assert derive(0, "a", "b") == derive(0, "a", "b")
    assert len({derive(0, "a", "b"), derive(1, "a", "b"), derive(0, "a"), derive(0, "b", "a")}) == 4
    assert 0 <= derive(2**40, "x") < 2**63


def test_the_global_generator_is_restored():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    with seeded(9):
        inside = torch.rand(1)
    assert torch.equal(torch.rand(1), expected)
    with seeded(9):
        assert torch.equal(torch.rand(1), inside)


def test_generators_with_the_same_seed_agree():
    assert torch.equal(torch.rand(2, generator=generator(5)), torch.rand(2, generator=generator(5)))
