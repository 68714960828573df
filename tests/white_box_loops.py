"""The search loops of white-box attacks on classes, small: what placement and waiting of the host are checked on.

``test_placement.py`` says which are left out and why.
"""

from mibench.attacks.deepinversion import DeepInversion
from mibench.attacks.dmmia import Dmmia
from mibench.attacks.gmi import Gmi
from mibench.attacks.ifgmi import Ifgmi
from mibench.attacks.kedmi import Kedmi
from mibench.attacks.mi_face import MiFace, MiFaceDenoise
from mibench.attacks.mirror_white import MirrorWhite
from mibench.attacks.patchmi import PatchMi
from mibench.attacks.plgmi import PlgMi
from mibench.attacks.ppa import Ppa
from mibench.attacks.vmi import Vmi
from mibench.priors.flow import Flow
from mibench.priors.inpainting_gan import InpaintingGan
from mibench.priors.inversion_gan import InversionGan
from mibench.priors.projection_cgan import ProjectionCgan
from mibench.priors.style_gan import StyleGan
from mibench.priors.wgan_gp import WganGp

STYLES = {"latents": 8}

#: What makes an attack of so many steps, and its prior.
ATTACKS = {
    "gmi": (lambda n: Gmi(iterations=n, restarts=2), "wgan_gp"),
    "kedmi": (lambda n: Kedmi(iterations=n), "inversion_gan"),
    "vmi, gaussian": (lambda n: Vmi(family="gaussian", iterations=n, batch=2), "wgan_gp"),
    "vmi, mixture": (lambda n: Vmi(family="mixture", iterations=n, batch=2), "wgan_gp"),
    "vmi, flow": (lambda n: Vmi(family="flow", iterations=n, batch=2), "wgan_gp"),
    "plgmi": (lambda n: PlgMi(iterations=n), "projection_cgan"),
    "ppa": (lambda n: Ppa(iterations=n, candidates=2, selected=None, rounds=1, **STYLES), "style_gan"),
    "dmmia": (lambda n: Dmmia(iterations=n, candidates=2, rounds=1, **STYLES), "style_gan"),
    "mirror_white": (lambda n: MirrorWhite(iterations=n, **STYLES), "style_gan"),
    "ifgmi": (
        lambda n: Ifgmi(stages=2, first_steps=max(1, n - 1), later_steps=max(1, n - 1), starts=None, **STYLES),
        "style_gan",
    ),
    "patchmi": (lambda n: PatchMi(iterations=n, batch_size=2, generator_width=4, discriminator_width=4, patch=4), None),
    "deepinversion": (lambda n: DeepInversion(iterations=n, batch=4), None),
    "mi_face": (lambda n: MiFace(iterations=n), None),
    "mi_face_denoise": (lambda n: MiFaceDenoise(iterations=n, training_steps=2, every=1, hidden=(8,)), None),
}
PRIORS = {
    "wgan_gp": WganGp(iterations=1, width=4, latent_dim=8, batch_size=4, n_critic=1),
    "inversion_gan": InversionGan(iterations=1, width=4, latent_dim=8, batch_size=4, n_critic=1),
    "inpainting_gan": InpaintingGan(iterations=1, width=4, latent_dim=8, batch_size=4),
    "projection_cgan": ProjectionCgan(iterations=1, width=4, latent_dim=8, batch_size=4, n_critic=1, top=2),
    "style_gan": StyleGan(iterations=1, latent_dim=8, w_dim=8, layers=2, base=64, width=8, batch_size=4),
    "flow": Flow(iterations=1, batch_size=4),
}
