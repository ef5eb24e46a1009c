"""fluxvae: FLUX VAE decoders as proved Core ML models.

The package root stays import-free so that ``fluxvae --help`` is instant.
"""

__version__ = "0.1.0"
