"""The former name of ``fluxvae.networks.weights``, for scripts that import it; goes with 0.2."""

from fluxvae.networks.weights import Weights as Weights
from fluxvae.networks.weights import find_encoder as find_encoder
from fluxvae.networks.weights import load_weights as load_weights
