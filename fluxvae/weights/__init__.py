"""Weights of decoders and encoders: find or fetch, verify, and bring to one form.

Takes what ``--weights`` takes (the pinned Hub file, a file or folder in either key style and any
float dtype, ``demo``, ``random[:SEED]``) and gives float32 tensors under upstream's names. Builds
no module: that is ``fluxvae.models.build``.
"""

from fluxvae.weights.describe import FileReport, describe_file
from fluxvae.weights.hub import fetch_file, fetch_weights
from fluxvae.weights.load import find_encoder, load_entry, load_weights
from fluxvae.weights.source import Weights, WeightSource

__all__ = [
    "FileReport",
    "WeightSource",
    "Weights",
    "describe_file",
    "fetch_file",
    "fetch_weights",
    "find_encoder",
    "load_entry",
    "load_weights",
]
