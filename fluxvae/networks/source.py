"""What a loaded checkpoint is, and where it came from."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from fluxvae.networks.catalog import LatentContract


@dataclass(frozen=True)
class WeightSource:
    """Where tensors came from; written into every artifact, so it never holds a local path.

    ``kind`` is ``hub``, ``file``, ``demo`` or ``random``. ``name`` is
    ``repo@revision/file``, the file's bare name, ``demo`` or ``random:SEED``.
    ``file_sha256`` is the digest of the file's bytes, for an index of several files as
    ``fluxvae.networks.sharded.checkpoint_sha256`` defines it; None for random weights.
    """

    kind: str
    name: str
    file_sha256: str | None


@dataclass(frozen=True, eq=False)  # tensors have no useful ==; compare digests
class Weights:
    """One network's parameters, checked: every key, every shape, all finite.

    ``part`` is ``decoder`` or ``encoder``; ``kind`` the catalogue's (``tiny``, ``full``,
    ``small``). ``tensors`` has upstream's names (tiny: taesd's Sequential, ``1.weight``, ...; KL:
    diffusers' without the leading ``decoder.``, ``up_blocks.0.resnets.0.conv1.weight``, ...) and
    float32 values on the CPU. ``digest`` is
    ``fluxvae.networks.digest.tensor_digest`` of them: equal for equal values, whatever the
    container, key style or (exactly representable) dtype they came in. FLUX.2's batch-norm
    statistics (``STATISTICS`` of ``fluxvae.networks.kl_keys``) may be absent, as from a file of the
    decoder alone: then only latents of the VAE's own space can be taken. ``notes`` say, for
    people, what was taken and what was passed over.
    """

    variant: str
    part: str
    tensors: Mapping[str, Tensor]
    source: WeightSource
    contract: LatentContract
    digest: str
    kind: str = "tiny"
    notes: tuple[str, ...] = ()
