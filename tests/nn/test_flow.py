import torch
from torch.autograd.functional import jacobian

from mibench.nn.flow import CouplingFlow


def scrambled(groups=3, dim=4):
    """A flow whose weights are far from the identity that it starts as."""
    draws = torch.Generator().manual_seed(0)
    flow = CouplingFlow(groups, dim, blocks=4, width=8, draws=draws)
    for parameter in flow.parameters():
        parameter.data = 0.5 * torch.randn(parameter.shape, generator=draws)
    return flow.double().requires_grad_(False)


def noise(groups=3, count=5, dim=4):
    return torch.randn(groups, count, dim, generator=torch.Generator().manual_seed(1)).double()


def test_it_is_invertible():
    for dim in (2, 4, 7):
        flow, e = scrambled(dim=dim), noise(dim=dim)
        z, _ = flow(e)
        assert float((z - e).abs().max()) > 0.5
        torch.testing.assert_close(flow.inverse(z), e, atol=1e-5, rtol=0)


def test_the_log_determinant_is_that_of_the_jacobian():
    flow, e = scrambled(), noise()
    _, log_det = flow(e)
    assert float(log_det.std()) > 0.1
    for group in range(3):
        for row in range(5):

            def one(x, group=group, row=row):
                return flow(torch.cat([e[:, :row], x.expand(3, 1, 4), e[:, row + 1 :]], 1))[0][group, row]

            exact = torch.linalg.slogdet(jacobian(one, e[group, row])).logabsdet
            torch.testing.assert_close(log_det[group, row], exact, atol=1e-4, rtol=0)


def test_it_starts_as_the_identity_but_for_the_order():
    flow = CouplingFlow(2, 6, blocks=3, width=8, draws=torch.Generator().manual_seed(0)).requires_grad_(False)
    e = noise(2, 5, 6).float()
    z, log_det = flow(e)
    torch.testing.assert_close(z.sort(2).values, e.sort(2).values)
    assert float(log_det.abs().max()) == 0


def test_groups_know_nothing_of_each_other():
    flow, e = scrambled(), noise()
    before, _ = flow(e)
    flow.inner.data[1] += 1
    after, _ = flow(e)
    assert torch.equal(before[[0, 2]], after[[0, 2]]) and not torch.equal(before[1], after[1])
