"""Every decoder as data: where its weights are, what they must be, and which latent it wants.

Standard library only, so that the command line can offer its choices without torch.
Latent facts: https://github.com/madebyollin/taesd and https://github.com/black-forest-labs/flux2.
"""

from dataclasses import dataclass, replace

from fluxvae.errors import UsageError


@dataclass(frozen=True)
class LatentContract:
    """Which latent a decoder wants and what it gives back.

    ``space`` is a stable identifier, written into every artifact and compared on use;
    ``wants`` says the same in a sentence. Output values lie in about [low, high]; photos
    overshoot by up to 0.1, so clamp when making pixels.
    """

    space: str
    wants: str
    channels: int
    scale: int  # image pixels per latent pixel, each way
    low: float = 0.0
    high: float = 1.0

    def sentence(self) -> str:
        """The contract in words, for model descriptions."""
        return (
            f"{self.wants} Shape (1, {self.channels}, H/{self.scale}, W/{self.scale}). "
            f"Output RGB in [{self.low:g}, {self.high:g}], slightly exceeded: clamp for pixels."
        )


@dataclass(frozen=True)
class HubFile:
    """One file of the Hugging Face Hub, pinned by commit and by content."""

    repo: str
    file: str
    revision: str
    sha256: str

    @property
    def page(self) -> str:
        """Where a person can download exactly this file."""
        return f"https://huggingface.co/{self.repo}/resolve/{self.revision}/{self.file}"


@dataclass(frozen=True)
class Decoder:
    """One decoder (and its encoder) of the catalogue. ``pool``: GroupNorm branch of TAEF2."""

    variant: str
    kind: str
    title: str
    author: str
    licence: str
    hub: HubFile
    contract: LatentContract
    pool: bool

    def artifact_stem(self) -> str:
        """Start of every artifact name: ``flux2_tiny_decoder``."""
        return f"{self.variant}_{self.kind}_decoder"


CATALOG = {
    "flux1": Decoder(
        variant="flux1",
        kind="tiny",
        title="TAEF1, tiny decoder for FLUX.1",
        author="Ollin Boer Bohan (madebyollin)",
        licence="MIT",
        hub=HubFile(
            repo="madebyollin/taef1",
            file="diffusion_pytorch_model.safetensors",
            revision="b1b2d00e9e440cfbf3dedb34266864da86016ceb",
            sha256="47a6c2bff850da04b267cab70fe3553fef57255eb9a8e76852baa0a87850e54d",
        ),
        contract=LatentContract(
            space="flux1-sampler",
            wants=(
                "FLUX.1's latent exactly as the sampler leaves it "
                "(from the VAE's own space: (z - 0.1159) * 0.3611)."
            ),
            channels=16,
            scale=8,
        ),
        pool=False,
    ),
    "flux2": Decoder(
        variant="flux2",
        kind="tiny",
        title="TAEF2, tiny decoder for FLUX.2",
        author="Ollin Boer Bohan (madebyollin)",
        licence="MIT",
        hub=HubFile(
            repo="madebyollin/taef2",
            file="taef2.safetensors",
            revision="bd244ebfe4398c84fbf312a2f1c868c676b500e3",
            sha256="701d31c0ecbef3b609fe236e2e3a65ffb17f3a94237acdd771e8ea3194df557a",
        ),
        contract=LatentContract(
            space="flux2-sampler-unpatchified",
            wants=(
                "FLUX.2's normalised latent as the sampler leaves it, only unpatchified from 128 "
                "to 32 channels. No inverse batch-norm: that belongs to the full decoder."
            ),
            channels=32,
            scale=8,
        ),
        pool=True,
    ),
}


# sha256 of published files besides the pinned ones, so that `fluxvae weights show` can name
# them: https://github.com/madebyollin/taesd (MIT). TAEF1's are an earlier release than the Hub's.
KNOWN_FILES = {
    "bb41500b646d5b8b592b7f3ca5d20d888c3075e209d178d99af609cd7e02a1d4": (
        "taef1_decoder.safetensors of madebyollin/taesd"
    ),
    "19f5a854ce575fd0a1c0a52938410cf5fb4dc4b8ae71c8887533646d8fe47030": (
        "taef1_encoder.safetensors of madebyollin/taesd"
    ),
    "0a44a31e1ae59eb9dbf9359d24942fd3ef5928162c1800d97a28c61d51be0ab5": (
        "taef2_decoder.pth of madebyollin/taesd"
    ),
    "10a4e1021e89d7551eaf161352da8dbd0b1aa83872ae28b150c1df1ce2f147b6": (
        "taef2_encoder.pth of madebyollin/taesd"
    ),
}


def find_decoder(variant: str) -> Decoder:
    """The catalogue's entry. Raises UsageError with the known names."""
    if variant not in CATALOG:
        raise UsageError(f"unknown variant {variant!r}; known: {', '.join(sorted(CATALOG))}")
    return CATALOG[variant]


def demo_contract(decoder: Decoder) -> LatentContract:
    """The contract of the demo weights: shaped like the decoder's, in a space of their own."""
    return replace(
        decoder.contract,
        space=f"fluxvae-demo-{decoder.variant}",
        wants="A latent of fluxvae's demo encoder. NOT FLUX's latent space.",
    )


def random_contract(decoder: Decoder) -> LatentContract:
    """The contract of random weights: any latent of about unit variance, no meaning."""
    return replace(
        decoder.contract,
        space="random-weights",
        wants="Random weights for tests: any latent of about unit variance; the image is noise.",
    )
