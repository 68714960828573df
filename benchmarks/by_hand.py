"""Every white-box attack on images without mibench: one loop each, which yields the images that the victim was shown.

What a loop takes from mibench is what stands before the first step: untrained weights, starting points and the numbers
of the attack, so that both sides begin alike. Victim, DCGAN and critic are written here as anyone would write them and
take mibench's weights. The other generators and judges, the students and the denoising are mibench's, called directly.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import cross_entropy
from torchvision.models import resnet18

from mibench.access import WhiteBoxView
from mibench.attacks.emi import Networks
from mibench.attacks.patchmi import PatchDiscriminator, PatchGenerator
from mibench.attacks.secretgen import pseudo_label, selected
from mibench.model import StyleState
from mibench.optim.denoising import nl_means, sharpen
from mibench.optim.style_search import best_styles, random_styles
from mibench.seeding import seeded
from mibench.tasks.completion import CompletionGoal


@dataclass(frozen=True)
class Given:
    """What a loop starts from.

    Attributes:
        attack: mibench's attack, for its numbers, its random streams and its starting points.
        view: mibench's view, for the choice of starting points.
        prior: mibench's prior.
        own: The attack's own networks.
        public: Public images.
        targets: Class ids.
        samples: Images per class.
        companions: Views of further victims.
        masked: Masked images that are to be completed; None where classes are attacked.
    """

    attack: Any
    view: WhiteBoxView
    prior: Any
    own: nn.ModuleDict
    public: Tensor
    targets: Tensor
    samples: int
    companions: Sequence[WhiteBoxView] = ()
    masked: CompletionGoal | None = None

    @property
    def labels(self) -> Tensor:
        return self.targets.repeat_interleave(self.samples)

    def draws(self, *names: object) -> torch.Generator:
        return self.attack.draws(torch.device("cpu"), *names)


Loop = Callable[[Given], Iterator[Tensor]]


def loaded(ours: nn.Module, theirs: Sequence[nn.Module]) -> nn.Module:
    """Return our network with the weights of mibench's, taken in the order of the forward pass, and frozen."""
    state = dict(zip(ours.state_dict(), nn.ModuleList(theirs).state_dict().values(), strict=True))
    ours.load_state_dict(state)
    return ours.eval().requires_grad_(False)


def victim(g: Given, view: WhiteBoxView | None = None) -> nn.Module:
    model = (view or g.view).model
    return loaded(resnet18(num_classes=g.view.spec.classes), [model.stages, model.head])


def below_head(model: nn.Module) -> nn.Module:
    """Return what computes the features that the last layer of a ResNet sees."""
    return nn.Sequential(*list(model.children())[:-1], nn.Flatten())


def dcgan(g: Given, wide: Sequence[int] = (512, 256, 128, 64)) -> nn.Module:
    up: list[nn.Module] = [nn.Linear(100, 512 * 16, bias=False), nn.BatchNorm1d(512 * 16), nn.ReLU()]
    up.append(nn.Unflatten(1, (512, 4, 4)))
    for before, after in pairwise(wide):
        up += [nn.ConvTranspose2d(before, after, 5, 2, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    ours = nn.Sequential(*up, nn.ConvTranspose2d(64, 3, 5, 2, 2, 1), nn.Sigmoid())
    return loaded(ours, [g.prior.seed_map, g.prior.grow])


def critic(g: Given, wide: Sequence[int] = (64, 128, 256, 512)) -> nn.Module:
    down: list[nn.Module] = [nn.Conv2d(3, 64, 5, 2, 2), nn.LeakyReLU(0.2)]
    for before, after in pairwise(wide):
        down += [nn.Conv2d(before, after, 5, 2, 2), nn.InstanceNorm2d(after, affine=True), nn.LeakyReLU(0.2)]
    return loaded(nn.Sequential(*down, nn.Conv2d(512, 1, 4)), [g.prior.judge])


def seen(images: Tensor) -> Tensor:
    """Return images as the victim wants them."""
    return (images - 0.5) / 0.5


def moved(
    images: Tensor, draws: torch.Generator, least: float = 1.0, mirror: float = 0.0, degrees: float = 0.0
) -> Tensor:
    """Return images cropped, mirrored and turned at random."""
    area, _, left, top, flip, angle = torch.rand(6, len(images), generator=draws)
    side = (least + (1 - least) * area).sqrt()
    left, top = (2 * left - 1) * (1 - side), (2 * top - 1) * (1 - side)
    angle, sign = (2 * degrees * angle - degrees) * (math.pi / 180), torch.where(flip < mirror, -1.0, 1.0)
    cos, sin = side * angle.cos(), side * angle.sin()
    rows = torch.stack([sign * cos, -sin, left, sign * sin, cos, top], 1)
    grid = functional.affine_grid(rows.reshape(-1, 2, 3), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def poincare(logits: Tensor, labels: Tensor) -> Tensor:
    u = logits / logits.abs().sum(1, keepdim=True)
    v = (functional.one_hot(labels, logits.shape[1]) - 1e-4).clamp(0, 1)
    inside = (1 - u.square().sum(1)).clamp_min(1e-6) * (1 - v.square().sum(1)).clamp_min(1e-6)
    return torch.arccosh(1 + 2 * (u - v).square().sum(1) / inside)


def momentum_step(z: Tensor, velocity: Tensor, lr: float = 0.02) -> tuple[Tensor, Tensor]:
    ahead = 0.9 * velocity - lr * z.grad
    return (z.detach() - 0.9 * velocity + 1.9 * ahead).clamp(-1, 1), ahead


def gmi(g: Given) -> Iterator[Tensor]:
    target, generate, judge, labels = victim(g), dcgan(g), critic(g), g.labels
    z = torch.randn(len(labels), 100, generator=g.draws("latents"))
    velocity = torch.zeros_like(z)
    while True:
        images = generate(z.requires_grad_(True))
        loss = 100 * cross_entropy(target(seen(images)), labels, reduction="sum") - judge(images).sum()
        (loss / 100).backward()
        z, velocity = momentum_step(z, velocity)
        yield images.detach()


def completion(g: Given, z: Tensor, labels: Tensor, lr: float, batch: int) -> Iterator[Tensor]:
    target, windows = victim(g), g.draws("windows")
    velocity = torch.zeros_like(z)
    while True:
        images = g.prior.fill(g.masked.images, g.masked.hole, z.requires_grad_(True))
        loss = 100 * cross_entropy(target(seen(images)), labels, reduction="sum")
        ((loss - g.prior.realism(images, windows).sum()) / batch).backward()
        z, velocity = momentum_step(z, velocity, lr)
        yield images.detach()


def gmi_masked(g: Given) -> Iterator[Tensor]:
    z = torch.randn(len(g.labels), 100, generator=g.draws("latents"))
    yield from completion(g, z, g.labels, 0.02, 100)


def secretgen(g: Given) -> Iterator[Tensor]:
    said = g.attack.candidates_of(g.view.narrow(), g.prior, g.masked, g.public.mean((0, 2, 3), keepdim=True))
    latents, plain, mean = said
    labels = pseudo_label(plain, mean)
    yield from completion(g, selected(latents, plain, labels, 1), labels, 0.01, 64)


def lomma(g: Given) -> Iterator[Tensor]:
    target, generate, judge, labels = victim(g), dcgan(g), critic(g), g.labels
    below = below_head(target)
    students, mean = list(g.own["students"]), g.own["reference"].mean
    z = torch.randn(len(labels), 100, generator=g.draws("latents"))
    velocity = torch.zeros_like(z)
    while True:
        images = generate(z.requires_grad_(True))
        hidden = below(seen(images))
        said = [target.fc(hidden), *(student(images) for student in students)]
        identity = torch.stack([-one.gather(1, labels[:, None]).sum() for one in said]).mean()
        loss = 100 * (identity + (hidden - mean).square().mean(1).sum()) - judge(images).sum()
        (loss / 100).backward()
        z, velocity = momentum_step(z, velocity)
        yield images.detach()


def kedmi(g: Given) -> Iterator[Tensor]:
    target, generate, labels, noise = victim(g), dcgan(g), g.targets, g.draws("noise")
    features, head = g.prior.judge["features"], g.prior.judge["head"]
    weight = head.weight[:, : features(g.public[:1]).shape[1]]  # in use no image has others close to it
    mean = torch.zeros(len(labels), 100, requires_grad=True)
    log_variance = torch.ones(len(labels), 100, requires_grad=True)
    adam = torch.optim.Adam([mean, log_variance], lr=0.02)
    while True:
        images = generate(mean + (log_variance / 2).exp() * torch.randn(mean.shape, generator=noise))
        real = functional.logsigmoid(functional.linear(features(images), weight, head.bias).logsumexp(1))
        loss = 100 * cross_entropy(target(seen(images)), labels, reduction="sum") - real.sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
        yield images.detach()


def vmi(g: Given, draw: Callable[..., tuple[Tensor, Tensor]]) -> Iterator[Tensor]:
    target, generate, noise, labels = victim(g), dcgan(g), g.draws("noise"), g.labels
    family = g.attack.distributions(len(g.targets), 100, torch.device("cpu"))
    given = {name: value.detach().clone().requires_grad_(True) for name, value in family.named_parameters()}
    given |= dict(family.named_buffers())
    adam = torch.optim.Adam([value for value in given.values() if value.requires_grad], lr=1e-3)
    while True:
        z, divergence = draw(list(given.values()), g.samples, noise)
        images = generate(z.flatten(0, 1))
        identity = cross_entropy(target(seen(images)), labels, reduction="sum") / g.samples
        adam.zero_grad()
        (identity + 1e-3 * divergence.sum()).backward()
        adam.step()
        yield images.detach()


def log_normal(z: Tensor) -> Tensor:
    return -(z.square().sum(-1) + z.shape[-1] * math.log(2 * math.pi)) / 2


def gaussian(given: list[Tensor], count: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    mean, factor = given[0], given[1].tril()
    noise = torch.randn(len(mean), count, 100, generator=draws)
    energy = factor.square().sum((1, 2)) + mean.square().sum((1, 2)) - 100
    return mean + noise @ factor.mT, energy / 2 - factor.diagonal(dim1=1, dim2=2).abs().log().sum(1)


def mixture(given: list[Tensor], count: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    means, factors, weights = given[0], given[1].tril(), given[2]
    groups, components, dim = means.shape
    gumbel = -torch.log(-torch.log(torch.rand(groups, count, components, generator=draws)))
    soft = (weights[:, None] + gumbel).softmax(2)
    choice = functional.one_hot(soft.argmax(2), components) + soft - soft.detach()
    of_each = means[:, :, None] + torch.randn(groups, 1, count, dim, generator=draws) @ factors.mT
    z = torch.einsum("gnc,gcnd->gnd", choice, of_each)
    whitened = torch.linalg.solve_triangular(factors, (z[:, None] - means[:, :, None]).mT, upper=False).mT
    densities = log_normal(whitened) - factors.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)[..., None]
    density = (weights.log_softmax(1)[..., None] + densities).logsumexp(1)
    return z, (density - log_normal(z)).mean(1)


def flow(given: list[Tensor], count: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    scales, shifts, inner, inner_bias, outer, outer_bias, shuffles = given
    noise = torch.randn(len(scales), count, 100, generator=draws)
    z, log_det = noise, torch.zeros(len(scales), count)
    for block, shuffle in enumerate(shuffles):
        z = (z * scales[:, block].exp() + shifts[:, block])[..., shuffle]
        first, second = z.chunk(2, 2)
        hidden = torch.tanh(first @ inner[:, block] + inner_bias[:, block])
        log_scale, shift = (hidden @ outer[:, block] + outer_bias[:, block]).chunk(2, 2)
        log_scale = 2 * torch.tanh(log_scale / 2)
        z = torch.cat([first, second * log_scale.exp() + shift], 2)
        log_det = log_det + scales[:, block].sum(2) + log_scale.sum(2)
    return z, (log_normal(noise) - log_det - log_normal(z)).mean(1)


def plgmi(g: Given) -> Iterator[Tensor]:
    target, labels, draws = victim(g), g.labels, g.draws("views")
    own = labels[:, None]
    z = torch.randn(len(labels), g.prior.latent_dim, generator=g.draws("latents")).requires_grad_(True)
    adam = torch.optim.Adam([z], lr=0.1)
    while True:
        h = g.prior.seed_map(z).unflatten(1, (-1, 4, 4))
        for block in g.prior.grow:
            h = block(h, labels)
        images, losses, shown = ((g.prior.paint(h) + 1) / 2).clamp(0, 1), [], []
        for _ in range(2):
            one = moved(images, draws, 0.8, 0.5, 5.0)
            one = (one * (0.8 + 0.4 * torch.rand(len(one), generator=draws)).reshape(-1, 1, 1, 1)).clamp(0, 1)
            middle = one.mean((1, 2, 3), keepdim=True)
            contrast = (0.8 + 0.4 * torch.rand(len(one), generator=draws)).reshape(-1, 1, 1, 1)
            one = (middle + (one - middle) * contrast).clamp(0, 1)
            logits = target(seen(one))
            others = logits.scatter(1, own, -torch.inf).amax(1)
            losses.append(others - logits.gather(1, own)[:, 0])
            shown.append(one.detach())
        adam.zero_grad()
        sum(losses).sum().backward()
        adam.step()
        yield torch.cat(shown)


def styles(g: Given) -> tuple[Tensor, Tensor]:
    """Return the pool of random styles and those that the search starts at."""
    attack = g.attack
    pool = random_styles(g.prior, attack.latents, attack.psi, attack.cutoff, g.draws("latents"))
    return pool, best_styles(g.view, g.prior, pool, g.targets, g.samples)


def ppa(g: Given) -> Iterator[Tensor]:
    target, labels, draws, synthesis = victim(g), g.labels, g.draws("views"), g.prior.synthesis
    w = styles(g)[1].requires_grad_(True)
    adam = torch.optim.Adam([w], lr=0.005, betas=(0.1, 0.1))
    while True:
        state = synthesis(w[:, None].expand(-1, g.prior.num_ws, -1), None, 0, g.prior.num_blocks)
        images = moved(0.5 + state.image / 2, draws, 0.9)
        adam.zero_grad()
        poincare(target(seen(images)), labels).sum().backward()
        adam.step()
        yield images.detach()


def dmmia(g: Given) -> Iterator[Tensor]:
    target, labels, draws, synthesis = victim(g), g.labels, g.draws("views"), g.prior.synthesis
    below, classes = below_head(target), range(len(g.targets))
    w = styles(g)[1].requires_grad_(True)
    adam = torch.optim.Adam([w], lr=0.005, betas=(0.1, 0.1))
    starts = [torch.randn(800, 512, generator=g.draws("prototypes", label)) for label in g.targets.tolist()]
    centres = (0.01 * torch.stack(starts)).requires_grad_(True)
    sgd = torch.optim.SGD([centres], lr=1e-5, momentum=0.9, weight_decay=5e-4)
    place, memory = torch.tensor(classes).repeat_interleave(g.samples), None

    def scattered(hidden: Tensor, centres: Tensor) -> Tensor:
        near = hidden.reshape(len(centres), -1, 512) @ centres.transpose(1, 2) / 0.1
        return near.logsumexp(2) - near.amax(2)

    while True:
        state = synthesis(w[:, None].expand(-1, g.prior.num_ws, -1), None, 0, g.prior.num_blocks)
        images = moved(0.5 + state.image / 2, draws, 0.9)
        features = below(seen(images))
        hidden = functional.normalize(features, dim=1)
        sgd.zero_grad()
        scattered(hidden.detach(), centres).mean(1).sum().backward()
        sgd.step()
        met = hidden.detach().reshape(len(centres), -1, 512).mean(1)
        memory = met if memory is None else 0.7 * memory + 0.3 * met
        loss = poincare(target.fc(features), labels) + 0.1 * scattered(hidden, centres.detach()).flatten()
        loss = loss + 0.1 * cross_entropy(hidden @ memory.T / 0.1, place, reduction="none")
        adam.zero_grad()
        loss.sum().backward()
        adam.step()
        yield images.detach()


def mirror_white(g: Given) -> Iterator[Tensor]:
    target, labels, draws, synthesis = victim(g), g.labels, g.draws("views"), g.prior.synthesis
    pool, w = styles(g)
    p = functional.leaky_relu(pool, 5.0)
    low, high = (functional.leaky_relu(p.mean(0) + side * p.std(0), 0.2) for side in (-1, 1))
    w = w.clamp(low, high).requires_grad_(True)
    best, least = w.detach().clone(), torch.full((len(w),), torch.inf)
    adam, total = torch.optim.Adam([w], lr=0.25), g.attack.iterations
    for step in range(total):
        left = min(1.0, (1 - step / total) / 0.25)
        adam.param_groups[0]["lr"] = 0.25 * (0.5 - 0.5 * math.cos(math.pi * left)) * min(1.0, step / total / 0.05)
        state = synthesis(w[:, None].expand(-1, g.prior.num_ws, -1), None, 0, g.prior.num_blocks)
        images = moved(0.5 + state.image / 2, draws, mirror=0.5)
        losses = 10 * cross_entropy(target(seen(images)), labels, reduction="none")
        adam.zero_grad()
        losses.sum().backward()
        better = losses.detach() < least
        best, least = torch.where(better[:, None], w.detach(), best), torch.where(better, losses.detach(), least)
        adam.step()
        w.data.clamp_(low, high)
        yield images.detach()


def inside_ball(values: Tensor, centre: Tensor, radius: float) -> Tensor:
    away = (values - centre).flatten(1)
    sums = away.abs().sort(1, descending=True).values.cumsum(1)
    theta = ((sums - radius) / torch.arange(1, away.shape[1] + 1)).amax(1, keepdim=True).clamp_min(0)
    shrunk = away.sign() * (away.abs() - theta).clamp_min(0)
    return centre + torch.where(sums[:, -1:] <= radius, away, shrunk).reshape(values.shape)


def ifgmi(g: Given) -> Iterator[Tensor]:
    """Its first stage has one step, so that the steps compared are those of the second, which moves features too."""
    target, labels, draws, synthesis = victim(g), g.labels, g.draws("views"), g.prior.synthesis
    moving, image = [styles(g)[1].requires_grad_(True)], None
    for stage, radius in enumerate((1000.0, 2000.0)):
        centres = [one.detach().clone() for one in moving]
        adam = torch.optim.Adam(moving, lr=0.005, betas=(0.1, 0.1))
        for _ in range(g.attack.later_steps if stage else g.attack.first_steps):
            ws = moving[0][:, None].expand(-1, g.prior.num_ws, -1)
            entered = StyleState(moving[1], image) if stage else None
            images = moved(0.5 + synthesis(ws, entered, stage, g.prior.num_blocks).image / 2, draws, 0.9)
            adam.zero_grad()
            poincare(target(seen(images)), labels).sum().backward()
            adam.step()
            for one, centre in zip(moving, centres, strict=True):
                one.data = inside_ball(one.data, centre, radius * one.shape[1] / 512)
            yield images.detach()
        with torch.no_grad():
            first = synthesis(moving[0][:, None].expand(-1, g.prior.num_ws, -1), None, 0, 1)
        moving, image = [moving[0], first.hidden.requires_grad_(True)], first.image


def patchmi(g: Given) -> Iterator[Tensor]:
    target, attack, shape = victim(g), g.attack, g.view.spec.shape
    sizes = (attack.patch, attack.stride, attack.padding, attack.discriminator_width)
    classes = []
    for label in g.targets.tolist():
        draws = g.draws("training", label)
        generator = PatchGenerator(shape, attack.latent_dim, attack.generator_width)
        discriminator = PatchDiscriminator(shape, *sizes)
        for module in (*generator.modules(), *discriminator.modules()):
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(module.weight, 0, 0.02, generator=draws)
                nn.init.zeros_(module.bias)
        adams = [torch.optim.Adam(net.parameters(), lr=1e-3, betas=(0.5, 0.999)) for net in (generator, discriminator)]
        classes.append((label, draws, generator, discriminator, *adams))
    real_label, none, sure = (torch.full((attack.batch_size,), value) for value in (0.4, 0.0, 1.0))
    bce = functional.binary_cross_entropy_with_logits
    while True:
        shown = []
        for label, draws, generator, discriminator, adam_g, adam_d in classes:
            real = g.public[torch.randint(len(g.public), (attack.batch_size,), generator=draws)]
            fake = generator(torch.randn(len(real), attack.latent_dim, generator=draws))
            loss = bce(discriminator(real), real_label) + bce(discriminator(fake.detach()), none)
            adam_d.zero_grad()
            loss.backward()
            adam_d.step()
            both = torch.cat([fake, moved(fake, draws, 0.85, 0.0, 20.0)])
            loss = 30 * cross_entropy(target(seen(both)), torch.full((len(both),), label))
            loss = bce(discriminator(fake), sure) + loss
            adam_g.zero_grad()
            loss.backward(inputs=list(generator.parameters()))
            adam_g.step()
            shown.append(both.detach())
        yield torch.cat(shown)


def emi(g: Given) -> Iterator[Tensor]:
    attack, draws = g.attack, g.draws("training")
    targets = [victim(g, view) for view in (g.view, *g.companions)]
    below = [below_head(target) for target in targets]
    with seeded(attack._seed):
        made = Networks(g.view.spec.shape, 100, attack.width, len(g.targets)).train()
    adam_g = torch.optim.Adam(made.makers.parameters(), lr=1e-3, betas=(0.5, 0.999))
    adam_d = torch.optim.Adam(made.judge.parameters(), lr=1e-3, betas=(0.5, 0.999))
    while True:
        z = torch.randn(attack.batch_size, 100, generator=draws)
        entities = torch.randint(len(g.targets), (attack.batch_size,), generator=draws)
        images = made.paint(z, entities)
        real, fake = g.public[torch.randint(len(g.public), (len(z),), generator=draws)], images.detach()
        alpha = torch.rand(len(z), 1, 1, 1, generator=draws)
        between = (alpha * real + (1 - alpha) * fake).requires_grad_(True)
        (slope,) = torch.autograd.grad(made.critic(between.clone()).sum(), between, create_graph=True)
        steep = (slope.flatten(1).norm(dim=1) - 1).square().mean()
        adam_d.zero_grad()
        (made.critic(fake).mean() - made.critic(real).mean() + 10 * steep).backward()
        adam_d.step()
        features = [one(seen(images)) for one in below]
        said = [target.fc(one) for target, one in zip(targets, features, strict=True)]
        loss = torch.stack([cross_entropy(one, g.targets[entities]) for one in said]).mean()
        loss = loss - 0.1 * torch.stack([one.abs().mean() for one in features]).mean() - made.critic(images).mean()
        adam_g.zero_grad()
        loss.backward(inputs=list(made.makers.parameters()))
        adam_g.step()
        yield images.detach()


def deepinversion(g: Given) -> Iterator[Tensor]:
    target, labels, count = victim(g), g.labels, g.attack.iterations
    terms: list[Tensor] = []

    def record(layer: nn.Module, inputs: tuple[Tensor]) -> None:
        mean, variance = inputs[0].mean((0, 2, 3)), inputs[0].var((0, 2, 3), unbiased=False)
        terms.append((mean - layer.running_mean).norm() + (variance - layer.running_var).norm())

    for layer in target.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.register_forward_pre_hook(record)
    rolls = torch.randint(-2, 3, (count, 2), generator=g.draws("rolls")).tolist()
    flips = torch.randint(0, 2, (count,), generator=g.draws("flips")).tolist()
    x = torch.randn(len(labels), *g.view.spec.shape, generator=g.draws("pixels")).clamp(-2, 2).requires_grad_(True)
    best, least = x.detach().clone(), torch.tensor(torch.inf)
    adam = torch.optim.Adam([x], lr=0.05)
    for (right, down), mirrored in zip(rolls, flips, strict=True):
        terms.clear()
        turned = x.roll((down, right), (2, 3))
        turned = turned.flip(3) if mirrored else turned
        images = 0.5 + 0.25 * turned
        loss = cross_entropy(target(seen(images)), labels)
        apart = (
            turned[..., 1:] - turned[..., :-1],
            turned[..., 1:, :] - turned[..., :-1, :],
            turned[..., 1:, 1:] - turned[..., :-1, :-1],
            turned[..., 1:, :-1] - turned[..., :-1, 1:],
        )
        loss = loss + 10 * torch.stack(terms).sum() + 2.5e-5 * torch.stack([one.norm() for one in apart]).sum()
        better = loss.detach() < least
        best, least = torch.where(better, x.detach(), best), torch.where(better, loss.detach(), least)
        adam.zero_grad()
        (loss * len(x)).backward()
        adam.step()
        x.data.clamp_(-2, 2)
        yield images.detach()


def mi_face(g: Given, coded: bool = False) -> Iterator[Tensor]:
    target, labels, attack = victim(g), g.labels, g.attack
    own = copy.deepcopy(g.own).requires_grad_(False)
    encode, decode = (own["encoder"], own["decoder"]) if coded else (nn.Identity(), nn.Identity())
    shape = (attack.hidden[-1],) if coded else g.view.spec.shape
    x = attack.start * torch.rand(len(labels), *shape, generator=g.draws("latents"))
    alive = torch.ones(len(x), dtype=torch.bool)
    recent = torch.full((attack.patience, len(x)), torch.inf)
    best, least = decode(x).detach(), torch.full((len(x),), torch.inf)
    for step in range(attack.iterations + 1):
        images = decode(x.requires_grad_(True))
        p = target(seen(images)).log_softmax(1).gather(1, labels[:, None])[:, 0].exp()
        (-p.sum()).backward()
        x, gradient, p, shown = x.detach(), x.grad, p.detach(), images.detach()
        cost = 1 - p
        better = cost < least
        best, least = torch.where(better[:, None, None, None], shown, best), torch.where(better, cost, least)
        alive = alive & (p < 0.99) & (cost < recent.amax(0))
        recent[step % attack.patience] = cost
        after = (x - 0.1 * gradient).clamp(0, 1)
        if coded and (step + 1) % attack.every == 0:
            with torch.no_grad():
                after = encode(sharpen(nl_means(decode(after), 0.1), 0.5))
        x = torch.where(alive.reshape(-1, *[1] * len(shape)), after, x)
        yield shown


def wgan_gp(public: Tensor, batch: int) -> Iterator[Tensor]:
    """The training of the prior of that name at 64 px: five steps of the critic and one of the generator."""
    up: list[nn.Module] = [nn.Linear(100, 512 * 16, bias=False), nn.BatchNorm1d(512 * 16), nn.ReLU()]
    up.append(nn.Unflatten(1, (512, 4, 4)))
    down: list[nn.Module] = [nn.Conv2d(3, 64, 5, 2, 2), nn.LeakyReLU(0.2)]
    for before, after in pairwise((64, 128, 256, 512)):
        up += [nn.ConvTranspose2d(8 * 64 * 64 // before, 8 * 64 * 64 // after, 5, 2, 2, 1, bias=False)]
        up += [nn.BatchNorm2d(8 * 64 * 64 // after), nn.ReLU()]
        down += [nn.Conv2d(before, after, 5, 2, 2), nn.InstanceNorm2d(after, affine=True), nn.LeakyReLU(0.2)]
    generate = nn.Sequential(*up, nn.ConvTranspose2d(64, 3, 5, 2, 2, 1), nn.Sigmoid())
    judge = nn.Sequential(*down, nn.Conv2d(512, 1, 4))
    adam_g, adam_d = (torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999)) for net in (generate, judge))
    while True:
        for _ in range(5):
            real = public[torch.randint(len(public), (batch,))]
            with torch.no_grad():
                fake = generate(torch.randn(batch, 100))
            alpha = torch.rand(batch, 1, 1, 1)
            between = (alpha * real + (1 - alpha) * fake).requires_grad_(True)
            (slope,) = torch.autograd.grad(judge(between.clone()).sum(), between, create_graph=True)
            steep = (slope.flatten(1).norm(dim=1) - 1).square().mean()
            adam_d.zero_grad()
            (judge(fake).mean() - judge(real).mean() + 10 * steep).backward()
            adam_d.step()
        images = generate(torch.randn(batch, 100))
        adam_g.zero_grad()
        (-judge(images).mean()).backward(inputs=list(generate.parameters()))
        adam_g.step()
        yield images.detach()
