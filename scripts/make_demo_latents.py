"""Encode the evaluation photos with a demo encoder: latents to try a demo decoder on.

The latents are of fluxvae's demo space, NOT FLUX's; the file says so, and other decoders refuse
it. Example: python scripts/make_demo_latents.py latents.safetensors --variant flux2 --size 256
"""

from pathlib import Path

import click
import torch
from safetensors.torch import save_file

from fluxvae.data.latents import space_metadata
from fluxvae.data.photos import EVALUATION_PHOTOS, photo_image
from fluxvae.files import write_file
from fluxvae.networks.build import build_encoder
from fluxvae.networks.catalog import CATALOG
from fluxvae.networks.weights import load_weights
from fluxvae.recipes import parse_sizes


def encode_photos(variant: str, size: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Latents (1, C, h, w), float32, by photo name, and the metadata that names their space."""
    weights = load_weights(variant, "demo", part="encoder")
    encoder = build_encoder(weights)
    (pixels,) = parse_sizes(size)
    latents = {
        photo.name: encoder(torch.from_numpy(photo_image(photo, pixels.height, pixels.width)))
        for photo in EVALUATION_PHOTOS
    }
    return latents, space_metadata(weights.contract)


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--variant", type=click.Choice(sorted(CATALOG)), default="flux2", show_default=True)
@click.option("--size", default="256", show_default=True, help="Image size: 256 or 256x320.")
def main(out: Path, variant: str, size: str) -> None:
    """Write the photos' demo latents to OUT, a safetensors file, replacing it."""
    latents, metadata = encode_photos(variant, size)
    write_file(out, lambda path: save_file(latents, path, metadata), overwrite=True)
    click.echo(f"{out}: {', '.join(latents)}")


if __name__ == "__main__":
    main()
