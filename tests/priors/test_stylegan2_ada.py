"""Against a small generator with the official names and an independent forward after the official one."""

import importlib.util
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from mibench.data import InputSpec
from mibench.errors import IncompatibleCellError, UserError
from mibench.planning.catalogue import entry
from mibench.planning.composition import compose
from mibench.planning.plan import own_files, plan_cell
from mibench.priors.stylegan2_ada import StyleGan2Ada, StyleGan2AdaNetworks

SCRIPT = Path(__file__).parents[2] / "scripts" / "export_stylegan2.py"
SPEC = InputSpec("image", (3, 16, 16), 5)


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("export_stylegan2", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Dense(nn.Module):
    def __init__(self, before, after, multiplier=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(after, before) / multiplier)
        self.bias = nn.Parameter(torch.randn(after) * 0.3 / multiplier)
        self.weight_gain, self.bias_gain = multiplier / math.sqrt(before), multiplier

    def forward(self, x):
        return x @ (self.weight * self.weight_gain).T + self.bias * self.bias_gain


def lrelu(x, clamp=None):
    x = torch.where(x > 0, x, 0.2 * x) * 2**0.5
    return x if clamp is None else x.clamp(-clamp, clamp)


def doubled(x, taps):
    """Zeros between the pixels, then the filter with the padding (2, 1) and four times its gain, pixel by pixel."""
    n, c, h, w = x.shape
    between = x.new_zeros(n, c, 2 * h, 2 * w)
    between[:, :, ::2, ::2] = x
    padded = functional.pad(between, (2, 1, 2, 1))
    out = torch.zeros_like(between)
    for i in range(4):
        for j in range(4):
            out += 4 * taps.flip((0, 1))[i, j] * padded[:, :, i : i + 2 * h, j : j + 2 * w]
    return out


def own_convolution(x, weight, style, demodulate, taps=None):
    """A kernel of each sample's own; with ``taps`` between zeros, filtered."""
    results = []
    for one, scale in zip(x, style, strict=True):
        kernel = weight * scale[None, :, None, None]
        if demodulate:
            kernel = kernel / (kernel.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if taps is None:
            results.append(functional.conv2d(one[None], kernel, padding=weight.shape[-1] // 2))
            continue
        grown = functional.conv_transpose2d(one[None], kernel.transpose(0, 1), stride=2)
        size = 2 * one.shape[-1]
        padded, out = functional.pad(grown, (1, 1, 1, 1)), grown.new_zeros(1, len(weight), size, size)
        for i in range(4):
            for j in range(4):
                out += 4 * taps.flip((0, 1))[i, j] * padded[:, :, i : i + size, j : j + size]
        results.append(out)
    return torch.cat(results)


class Layer(nn.Module):
    activation, use_noise = "lrelu", True

    def __init__(self, before, after, w_dim, size, taps, up, clamp):
        super().__init__()
        self.register_buffer("resample_filter", taps)
        self.affine = Dense(w_dim, before)
        self.affine.bias.data += 1
        self.weight = nn.Parameter(torch.randn(after, before, 3, 3))
        self.register_buffer("noise_const", torch.randn(size, size))
        self.noise_strength = nn.Parameter(torch.tensor(0.2))
        self.bias = nn.Parameter(0.1 * torch.randn(after))
        self.up, self.conv_clamp = up, clamp

    def forward(self, x, w):
        x = own_convolution(x, self.weight, self.affine(w), True, self.resample_filter if self.up else None)
        return lrelu(x + self.noise_const * self.noise_strength + self.bias[:, None, None], self.conv_clamp)


class Colours(nn.Module):
    def __init__(self, before, w_dim, channels, clamp):
        super().__init__()
        self.affine = Dense(w_dim, before)
        self.affine.bias.data += 1
        self.weight = nn.Parameter(torch.randn(channels, before, 1, 1))
        self.bias = nn.Parameter(0.1 * torch.randn(channels))
        self.conv_clamp = clamp

    def forward(self, x, w):
        style = self.affine(w) / math.sqrt(self.weight.shape[1])
        y = own_convolution(x, self.weight, style, False) + self.bias[:, None, None]
        return y if self.conv_clamp is None else y.clamp(-self.conv_clamp, self.conv_clamp)


class Block(nn.Module):
    architecture = "skip"

    def __init__(self, before, after, w_dim, size, taps, channels, clamp):
        super().__init__()
        self.register_buffer("resample_filter", taps)
        if before:
            self.conv0 = Layer(before, after, w_dim, size, taps, True, clamp)
        else:
            self.const = nn.Parameter(torch.randn(after, size, size))
        self.conv1 = Layer(after, after, w_dim, size, taps, False, clamp)
        self.torgb = Colours(after, w_dim, channels, clamp)


class Official(nn.Module):
    """A generator with the official names: its forward goes layer by layer, the last one's style is for colours."""

    def __init__(self, size=32, channels=3, z_dim=6, w_dim=5, depth=3, clamp=None):
        super().__init__()
        self.z_dim, self.c_dim, self.img_resolution = z_dim, 0, size
        taps = torch.outer(*[torch.tensor([1.0, 3, 3, 1]) / 8] * 2)
        self.synthesis, self.mapping = nn.Module(), nn.Module()
        self.synthesis.block_resolutions = [2**i for i in range(2, int(math.log2(size)) + 1)]
        before = 0
        for number, one in enumerate(self.synthesis.block_resolutions):
            after = 7 - number
            setattr(self.synthesis, f"b{one}", Block(before, after, w_dim, one, taps, channels, clamp))
            before = after
        for number in range(depth):
            setattr(self.mapping, f"fc{number}", Dense(w_dim if number else z_dim, w_dim, 0.01))
        self.mapping.register_buffer("w_avg", torch.randn(w_dim))
        self.depth, self.num_ws = depth, 2 * len(self.synthesis.block_resolutions)

    def styles(self, z, psi):
        x = z / (z.square().mean(1, keepdim=True) + 1e-8).sqrt()
        for number in range(self.depth):
            x = lrelu(getattr(self.mapping, f"fc{number}")(x))
        return self.mapping.w_avg + psi * (x - self.mapping.w_avg)

    def forward(self, ws):
        x, image, used = None, None, 0
        for one in self.synthesis.block_resolutions:
            block = getattr(self.synthesis, f"b{one}")
            if one == 4:
                x = block.const.expand(len(ws), -1, -1, -1)
            else:
                x, used = block.conv0(x, ws[:, used]), used + 1
            x, used = block.conv1(x, ws[:, used]), used + 1
            colours = block.torgb(x, ws[:, used])
            image = colours if image is None else doubled(image, block.resample_filter) + colours
        return image


def official(seed=0, **options):
    torch.manual_seed(seed)
    return Official(**options).requires_grad_(False)


@pytest.fixture
def saved(tmp_path, script):
    """Exports a generator as the script does and returns the file."""

    def save(generator, name="generator.safetensors", **said):
        tensors, words = script.exported(generator)
        save_file(tensors, tmp_path / name, metadata={**words, **said})
        return str(tmp_path / name)

    return save


def loaded(file, spec=SPEC, **options):
    return StyleGan2Ada(weights=file, **options).network(spec).eval().requires_grad_(False)


@pytest.mark.parametrize(("size", "channels", "clamp"), [(32, 3, None), (16, 1, None), (16, 3, 0.5)])
def test_it_computes_what_the_official_forward_computes(size, channels, clamp, saved):
    reference = official(size=size, channels=channels, clamp=clamp)
    network = loaded(saved(reference), InputSpec("image", (channels, size, size), 5))
    z = torch.randn(4, 6)
    for psi in (1.0, 0.5):
        ws = network.styles(z, psi)
        assert torch.allclose(ws, reference.styles(z, psi)[:, None].expand(-1, network.num_ws, -1), atol=1e-5)
    ws = torch.randn(4, network.num_ws, 5)  # another style in every layer: a wrong order would show
    assert network.num_ws == reference.num_ws == 2 * int(math.log2(size)) - 2
    expected = 0.5 + reference(ws) / 2
    assert torch.allclose(network.synthesise(ws), expected, atol=1e-4 * float(expected.abs().max()))
    assert not torch.allclose(network.synthesise(ws.flip(1)), expected, atol=1e-1)
    if clamp is None:  # a stub that forgets the noise is told apart
        for block in network.synthesis.blocks:
            for layer in block.layers:
                layer.strength.zero_()
        assert not torch.allclose(network.synthesise(ws), expected, atol=1e-2)


def test_the_clamp_counts(saved):
    ws = torch.randn(2, 6, 5)
    free, bound = (loaded(saved(official(size=16, clamp=clamp))).synthesise(ws) for clamp in (None, 0.5))
    assert not torch.allclose(free, bound, atol=1e-2)


def test_images_are_cropped_then_resized(saved):
    reference = official()
    ws = torch.randn(2, 8, 5)
    whole = 0.5 + reference(ws) / 2
    expected = functional.interpolate(whole[:, :, 6:26, 6:26], (16, 16), mode="bilinear", antialias=True)
    file = saved(reference)
    assert torch.allclose(loaded(file, crop=20).synthesise(ws), expected, atol=1e-4)
    assert not torch.allclose(loaded(file).synthesise(ws), expected, atol=1e-2)


def test_colours_become_grey_and_grey_becomes_colours(saved):
    grey = InputSpec("image", (1, 16, 16), 5)
    file, z = saved(official(size=16)), torch.randn(3, 6)
    expected = (
        loaded(file).synthesise(loaded(file).styles(z)) * torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    ).sum(1)
    assert torch.allclose(loaded(file, grey).synthesise(loaded(file).styles(z))[:, 0], expected, atol=1e-5)
    colours = loaded(saved(official(size=16, channels=1))).generate(z)
    assert colours.shape == (3, 3, 16, 16) and torch.equal(colours[:, 0], colours[:, 2])


def test_many_pixels_are_made_in_small_chunks(saved):
    assert loaded(saved(official(size=64))).chunk == 256
    assert loaded(saved(official(size=128))).chunk == 64


def test_a_critic_is_refused(saved):
    with pytest.raises(IncompatibleCellError, match="prior=stylegan2_ada has none"):
        loaded(saved(official(size=16))).critic(torch.rand(1, 3, 16, 16))


def broken(generator, what):
    """A generator that the export refuses."""
    if what == "class-conditional":
        generator.c_dim = 3
    elif what == "multiplier":
        generator.mapping.fc0.weight_gain *= 10
    elif what == "architecture":
        generator.synthesis.b8.architecture = "resnet"
    elif what == "activation":
        generator.synthesis.b8.conv1.activation = "relu"
    elif what == "filter":
        generator.synthesis.b8.resample_filter = torch.ones(4, 4) / 16
    elif what == "different sizes":
        generator.synthesis.b8.conv1.conv_clamp = 3
    return generator


@pytest.mark.parametrize(
    "what", ["class-conditional", "multiplier", "architecture", "activation", "filter", "different sizes"]
)
def test_the_export_refuses_what_could_not_be_computed(what, script):
    with pytest.raises(SystemExit, match=what):
        script.exported(broken(official(size=16), what))


def test_the_export_needs_nothing_of_mibench():
    assert "mibench" not in [line.split()[1] for line in SCRIPT.read_text().splitlines() if line.startswith("import ")]


@pytest.mark.parametrize(
    ("weights", "spec", "options", "words"),
    [
        (None, SPEC, {}, "needs the weights of a generator: .*export_stylegan2.py.*prior.weights=FILE"),
        ("missing.safetensors", SPEC, {}, "missing.safetensors is not a file"),
        ("pickle.pkl", SPEC, {}, "cannot be read as safetensors .*a pickle is never opened here"),
        ("gan.safetensors", SPEC, {}, r"holds no exported StyleGAN2-ADA generator \(but grow.0.weight"),
        ("conditional.safetensors", SPEC, {}, "class-conditional"),
        ("other.safetensors", SPEC, {}, "another architecture .*torgb|another architecture .*paint"),
        ("nothing.safetensors", SPEC, {}, "another architecture .*is missing"),
        ("good.safetensors", InputSpec("image", (3, 64, 64), 5), {}, "generates 32x32 .* fewer than the dataset's 64"),
        ("good.safetensors", SPEC, {"crop": 12}, "prior.crop leaves 12, fewer than the dataset's 16"),
        ("good.safetensors", SPEC, {"crop": 40}, "prior.crop=40 is more than the 32 pixels"),
        ("good.safetensors", InputSpec("image", (3, 16, 8), 5), {}, "needs square images"),
        ("good.safetensors", InputSpec("image", (4, 16, 16), 5), {}, "3 channels, which cannot become the dataset's 4"),
    ],
)
def test_a_wrong_file_or_size_is_one_sentence(weights, spec, options, words, tmp_path, saved, script):
    good = official()
    saved(good, "good.safetensors")
    (tmp_path / "pickle.pkl").write_bytes(b"\x80\x04K\x01.")
    save_file({"grow.0.weight": torch.zeros(2)}, tmp_path / "gan.safetensors")
    tensors, said = script.exported(good)
    save_file({**tensors, "mapping.embed.weight": torch.zeros(2)}, tmp_path / "conditional.safetensors", metadata=said)
    few = {name: value for name, value in tensors.items() if not name.startswith("synthesis.b8.torgb.")}
    save_file(few, tmp_path / "other.safetensors", metadata=said)
    save_file({"x": torch.zeros(2)}, tmp_path / "nothing.safetensors", metadata=said)
    with pytest.raises(UserError, match=words) as refusal:
        StyleGan2Ada(weights=None if weights is None else str(tmp_path / weights), **options).network(spec)
    assert str(refusal.value).endswith((".", "executed.")) and "\n" not in str(refusal.value)


def test_a_cell_is_identified_by_the_files_content_and_not_by_its_path(saved, tmp_path):
    one, other = saved(official()), saved(official(1), "other.safetensors")
    same = shutil.copy(one, tmp_path / "same.safetensors")  # a second file would have its words in any order
    plans = [
        plan_cell(compose(["attack=ppa", "prior=stylegan2_ada", f"prior.weights={file}"]))
        for file in (one, same, other)
    ]
    assert plans[0].cell_id == plans[1].cell_id != plans[2].cell_id
    assert own_files(plans[0]) == [f"prior.weights={one}"]


@pytest.fixture(scope="module")
def cell_of(make_cell, script, tmp_path_factory):
    """Makes cells with one small generator, which share a victim."""
    folder = tmp_path_factory.mktemp("styles")
    tensors, said = script.exported(official())
    save_file(tensors, folder / "generator.safetensors", metadata=said)

    def make(*words):
        prior = ["prior=stylegan2_ada", f"prior.weights={folder}/generator.safetensors", "prior.crop=24"]
        return make_cell(*prior, "dataset.size=8", "target.recipe.epochs=1", *words, folder=folder)

    return make


@pytest.mark.parametrize(
    ("attack", "options"),
    [
        ("ppa", ["attack.latents=40", "attack.candidates=4", "attack.iterations=2", "attack.rounds=2"]),
        ("mirror_white", ["attack.latents=40", "attack.iterations=2"]),
        ("ifgmi", ["attack.latents=40"]),
        ("random_prior", []),
    ],
)
def test_it_serves_attacks_of_styles(attack, options, cell_of):
    cell = cell_of(f"attack={attack}", *options)
    values = cell.result.reconstruction.values
    assert values.shape[1:] == (1, 8, 8) and bool(values.isfinite().all())
    (artifact,) = [one for one in cell.workshop.store.artifacts() if one.kind == "prior"]
    assert not (artifact.path / "tensors.safetensors").stat().st_size > 100, "the user's weights are not copied"
    assert "generator.safetensors" not in str(artifact.key) and (artifact.path / "samples.png").exists()


def test_an_attack_with_a_critic_is_refused_in_a_cell(cell_of):
    with pytest.raises(IncompatibleCellError, match="asks its prior for a critic"):
        cell_of("attack=gmi").result  # noqa: B018


def test_the_card_says_that_it_has_styles():
    assert entry("prior", "stylegan2_ada").card.spaces == ("latent", "style")
    assert issubclass(StyleGan2AdaNetworks, nn.Module) and StyleGan2Ada.pretrained
