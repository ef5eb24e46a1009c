"""Every decoder as data: where its weights are, what they must be, and which latent it wants.

Standard library only, so that the command line can offer its choices without torch.
Latent facts: https://github.com/madebyollin/taesd and https://github.com/black-forest-labs/flux2.
"""

from dataclasses import asdict, dataclass, replace

from fluxvae.errors import UsageError
from fluxvae.networks.names import resolved, why_unknown

PARTS = ("decoder", "encoder")


@dataclass(frozen=True)
class LatentContract:
    """Which latent a decoder wants and what it gives back.

    ``space`` is a stable identifier, written into every artifact and compared on use;
    ``wants`` says the same in a sentence. Output values lie in about [low, high]; photos
    overshoot by up to 0.1, so clamp when making pixels. ``tokens``: rows of a matrix, one for each
    pixel, row by row of the map, as a transformer gives them.
    """

    space: str
    wants: str
    channels: int
    scale: int  # image pixels per latent pixel, each way
    low: float = 0.0
    high: float = 1.0
    tokens: bool = False

    def shape(self, height: int, width: int, layout: str = "nchw") -> tuple[int, ...]:
        """Shape of the latent of an image of ``height`` x ``width`` pixels."""
        rows, columns = height // self.scale, width // self.scale
        if self.tokens:
            return (1, rows * columns, self.channels)
        if layout == "nhwc":
            return (1, rows, columns, self.channels)
        return (1, self.channels, rows, columns)

    def to_dict(self) -> dict[str, object]:
        """Plain data for JSON; ``tokens`` only where it is so, as older artifacts know none."""
        data = asdict(self)
        if not self.tokens:
            del data["tokens"]
        return data

    @property
    def span(self) -> tuple[float, float]:
        """The range of the output values."""
        return (self.low, self.high)

    @property
    def peak(self) -> float:
        """The largest difference of two values in the range: what PSNR is measured against."""
        return self.high - self.low

    def sentence(self, part: str = "decoder") -> str:
        """The contract in words, for model descriptions."""
        axes = f"H/{self.scale}, W/{self.scale}"
        shape = f"{self.channels}, {axes}"
        if self.tokens:
            shape = f"{axes.replace(', ', ' * ')}, {self.channels}"
        image = f"Output RGB in [{self.low:g}, {self.high:g}], slightly exceeded: clamp for pixels."
        if part == "encoder":
            image = f"Input RGB in [{self.low:g}, {self.high:g}]."
        return f"{self.wants} Shape (1, {shape}). {image}"


@dataclass(frozen=True)
class HubFile:
    """One file of the Hugging Face Hub, pinned by commit and, where it is known, by content.

    ``sha256`` None: nobody whom we could check published it, so the commit alone pins the file, and
    the digest that was seen goes into every artifact. ``gated``: fetching takes an account
    that has accepted the repository's conditions.
    """

    repo: str
    file: str
    revision: str
    sha256: str | None
    gated: bool = False

    @property
    def page(self) -> str:
        """Where a person can download exactly this file."""
        return f"https://huggingface.co/{self.repo}/resolve/{self.revision}/{self.file}"


@dataclass(frozen=True)
class KLForm:
    """Architecture of a KL autoencoder: the channels of its stages, image side first.

    ``quant_convs``: 1x1 convolutions on the latent's side and batch-norm statistics of the packed
    latent (FLUX.2). Every GroupNorm has ``groups`` groups.
    """

    widths: tuple[int, ...]  # the decoder's
    encoder_widths: tuple[int, ...]
    quant_convs: bool
    groups: int = 32


@dataclass(frozen=True)
class Decoder:
    """One decoder (and its encoder) of the catalogue.

    ``kind`` is ``tiny``, ``full`` or ``small``. ``pool``: GroupNorm branch of TAEF2. ``kl``: the
    form of a KL autoencoder; None for the tiny ones.
    """

    variant: str
    kind: str
    title: str
    author: str
    licence: str
    hub: HubFile
    contract: LatentContract
    pool: bool = False
    kl: KLForm | None = None

    def artifact_stem(self, part: str) -> str:
        """Start of every artifact name: ``flux2_tiny_decoder``."""
        return f"{self.variant}_{self.kind}_{part}"

    def title_of(self, part: str) -> str:
        """The title of one part. The small decoder's encoder is the full one's."""
        if part == "decoder":
            return self.title
        whole = find_decoder(self.variant, "full") if self.kind == "small" else self
        return whole.title.replace("decoder", "encoder")


def _tiny(
    variant: str, title: str, hub: HubFile, space: str, wants: str, channels: int, *, pool: bool
) -> Decoder:
    """An entry of https://github.com/madebyollin/taesd."""
    contract = LatentContract(space, wants, channels, scale=8)
    author = "Ollin Boer Bohan (madebyollin)"
    return Decoder(variant, "tiny", title, author, "MIT", hub, contract, pool)


CATALOG = {
    "flux1": _tiny(
        "flux1",
        "TAEF1, tiny decoder for FLUX.1",
        HubFile(
            repo="madebyollin/taef1",
            file="diffusion_pytorch_model.safetensors",
            revision="b1b2d00e9e440cfbf3dedb34266864da86016ceb",
            sha256="47a6c2bff850da04b267cab70fe3553fef57255eb9a8e76852baa0a87850e54d",
        ),
        space="flux1-sampler",
        wants="FLUX.1's latent exactly as the sampler leaves it "
        "(from the VAE's own space: (z - 0.1159) * 0.3611).",
        channels=16,
        pool=False,
    ),
    "flux2": _tiny(
        "flux2",
        "TAEF2, tiny decoder for FLUX.2",
        HubFile(
            repo="madebyollin/taef2",
            file="taef2.safetensors",
            revision="bd244ebfe4398c84fbf312a2f1c868c676b500e3",
            sha256="701d31c0ecbef3b609fe236e2e3a65ffb17f3a94237acdd771e8ea3194df557a",
        ),
        space="flux2-sampler-unpatchified",
        wants="FLUX.2's normalised latent as the sampler leaves it, only unpatchified from 128 "
        "to 32 channels. No inverse batch-norm: that belongs to the full decoder.",
        channels=32,
        pool=True,
    ),
}


_BFL = "Black Forest Labs"
_FLUX1_KL = LatentContract(
    space="flux1-vae",
    wants=(
        "FLUX.1's latent in the VAE's own space, as the VAE encodes it "
        "(from the sampler's: x / 0.3611 + 0.1159)."
    ),
    channels=16,
    scale=8,
    low=-1.0,
)
_FLUX2_KL = LatentContract(
    space="flux2-vae-unpatchified",
    wants=(
        "FLUX.2's latent in the VAE's own space: after the inverse batch-norm, and unpatchified "
        "from 128 to 32 channels."
    ),
    channels=32,
    scale=8,
    low=-1.0,
)
_WIDTHS = (128, 256, 512, 512)

# Revisions and digests as other projects record them (several each); none could be fetched here.
KL_CATALOG = {
    ("flux1", "full"): Decoder(
        variant="flux1",
        kind="full",
        title="FLUX.1 VAE, full KL decoder",
        author=_BFL,
        licence="Apache-2.0",
        hub=HubFile(  # byte for byte the file of FLUX.1-dev, under a freer licence
            repo="black-forest-labs/FLUX.1-schnell",
            file="vae/diffusion_pytorch_model.safetensors",
            revision="741f7c3ce8b383c54771c7003378a50191e9efe9",
            sha256="f5b59a26851551b67ae1fe58d32e76486e1e812def4696a4bea97f16604d40a3",
            gated=True,
        ),
        contract=_FLUX1_KL,
        kl=KLForm(_WIDTHS, _WIDTHS, quant_convs=False),
    ),
    ("flux2", "full"): Decoder(
        variant="flux2",
        kind="full",
        title="FLUX.2 VAE, full KL decoder",
        author=_BFL,
        licence="Apache-2.0",  # of the autoencoder: https://github.com/black-forest-labs/flux2
        hub=HubFile(
            repo="black-forest-labs/FLUX.2-dev",
            file="vae/diffusion_pytorch_model.safetensors",
            revision="26afe3a78bb242c0a8bb181dcc8937bb16e5c66c",
            sha256=None,
            gated=True,
        ),
        contract=_FLUX2_KL,
        kl=KLForm(_WIDTHS, _WIDTHS, quant_convs=True),
    ),
    ("flux2", "small"): Decoder(
        variant="flux2",
        kind="small",
        title="FLUX.2 small decoder, a narrower KL decoder",
        author=_BFL,
        licence="Apache-2.0",
        hub=HubFile(
            repo="black-forest-labs/FLUX.2-small-decoder",
            file="full_encoder_small_decoder.safetensors",
            revision="a3efc24f613ef42d9428af62fdbd6f5fd8856c4a",
            sha256="ea4273f02d1fafbf8e1d1c2cf6018ed8748652eb0bf34f2dd91171f16f15ab62",
        ),
        contract=_FLUX2_KL,
        kl=KLForm((96, 192, 384, 384), _WIDTHS, quant_convs=True),
    ),
}
DECODERS = ("tiny", "full", "small")


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
    "f5b59a26851551b67ae1fe58d32e76486e1e812def4696a4bea97f16604d40a3": (
        "vae/diffusion_pytorch_model.safetensors of FLUX.1-dev and FLUX.1-schnell"
    ),
    "afc8e28272cd15db3919bacdb6918ce9c1ed22e96cb12c4d5ed0fba823529e38": (
        "ae.safetensors of FLUX.1-dev and FLUX.1-schnell"
    ),
    # Reported for FLUX.2-dev's own file too, which nobody here could check.
    "d64f3a68e1cc4f9f4e29b6e0da38a0204fe9a49f2d4053f0ec1fa1ca02f9c4b5": (
        "flux2-vae.safetensors of Comfy-Org/flux2-dev"
    ),
}


def all_decoders() -> tuple[Decoder, ...]:
    """Every entry: the tiny decoders by variant, then the KL ones."""
    return (*CATALOG.values(), *KL_CATALOG.values())


def find_decoder(variant: str, kind: str = "tiny") -> Decoder:
    """The catalogue's entry. Raises UsageError with the known names."""
    if variant not in CATALOG:
        known = ", ".join(sorted(CATALOG))
        if (own := resolved(variant)) != variant:
            raise UsageError(f"{variant} uses the VAE of {own}: give {own}")
        raise UsageError(why_unknown(variant) or f"unknown variant {variant!r}; known: {known}")
    if kind == "tiny":
        return CATALOG[variant]
    if (variant, kind) not in KL_CATALOG:
        kinds = [k for k in DECODERS if k == "tiny" or (variant, k) in KL_CATALOG]
        raise UsageError(f"{variant} has no {kind!r} decoder; it has {', '.join(kinds)}")
    return KL_CATALOG[variant, kind]


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
