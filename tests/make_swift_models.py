"""Models for the Swift tests of FluxVAE: demo decoders at 64 and 72 px, two that make tiles, and
what they must give.

Usage: python -m tests.make_swift_models FOLDER, from the repository's root. For each model and
size a latent and the image that our executor makes of it from Python, both NCHW float32, raw; and
``cases.json`` that lists them. The Swift side must come to the same bits.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np

from fluxvae.artifact.backends import Runner, make_runner
from fluxvae.artifact.open import open_artifact
from fluxvae.device.compile import compile_model
from fluxvae.mil.package import read_package
from fluxvae.networks.weights import Weights, load_weights
from fluxvae.recipes import Recipe, Size
from tests.artifacts import normal_latent, recipe, save
from tests.packages import edited
from tests.tiles import KL, TINY, kl_photo_latent, photo_latent, tiled

MODELS = {
    "fixed": recipe("flux2", "64"),
    "enumerated": recipe(
        "flux2", "64x72,64", layout="nhwc", shapes="enumerated", io_precision="float32"
    ),
    "multifunction": recipe("flux1", "64,72x64", precision="float32", shapes="multifunction"),
    "picture": recipe("flux1", "64", output="image"),
}
# Images in tiles; the tiny decoder's at two sizes that no recipe names.
TILED = {"tiles": TINY, "kl-tiles": KL}


def main(folder: Path) -> None:
    """Write every model into a folder of its own below ``folder``."""
    cases = [_make(name, made, folder / name) for name, made in MODELS.items()]
    cases.append(_foreign(cases[0], folder))
    cases += [_tiles(name, made, folder / name) for name, made in TILED.items()]
    (folder / "cases.json").write_text(json.dumps(cases, indent=1))


def _foreign(case: dict[str, object], folder: Path) -> dict[str, object]:
    """The same model without fluxvae's record, as another program would have made it."""
    path = Path(shutil.copytree(Path(str(case["path"])).parent, folder / "foreign"))
    (package,) = path.glob("*.mlpackage")
    with edited(package) as model:
        model.description.metadata.userDefined.clear()
    compiled = compile_model(package, overwrite=True)
    return {**case, "name": "foreign", "path": str(compiled)}


def _tiles(name: str, made: Recipe, folder: Path) -> dict[str, object]:
    """A tiled artifact with the images that Python puts together from its tiles."""
    folder.mkdir(parents=True)
    weights, path = tiled(made, folder)
    kl = made.decoder != "tiny"
    run = open_artifact(path).runner(None, "reference")
    sizes = []
    for size in made.sizes if kl else (Size(240, 304), Size(256, 240)):
        latent = kl_photo_latent(size) if kl else photo_latent(weights, size)
        sizes.append(_pair(run, latent, size, folder))
    return _case(name, made, weights, path, sizes)


def _make(name: str, made: Recipe, folder: Path) -> dict[str, object]:
    folder.mkdir(parents=True)
    weights = load_weights(made.variant, "demo")
    path = save(weights, made, folder)
    sizes = []
    for size in made.sizes if made.output == "tensor" else ():
        function = size.function if made.shapes == "multifunction" else None
        run = make_runner(read_package(path), function, made.layout, "reference")
        latent = normal_latent(weights.contract.channels, size)
        sizes.append(_pair(run, latent, size, folder))
    return _case(name, made, weights, path, sizes)


def _pair(run: Runner, latent: np.ndarray, size: Size, folder: Path) -> dict[str, object]:
    """A latent and its image as files, and where they are."""
    latent.tofile(folder / f"latent-{size}.f32")
    run(latent).astype(np.float32).tofile(folder / f"image-{size}.f32")
    files = {"latent": f"latent-{size}.f32", "image": f"image-{size}.f32"}
    return {"height": size.height, "width": size.width, **files}


def _case(
    name: str, made: Recipe, weights: Weights, path: Path, sizes: list[dict[str, object]]
) -> dict[str, object]:
    """A compiled model and what it was tried with, as the Swift side reads it."""
    return {
        "name": name,
        "path": str(compile_model(path)),
        "space": weights.contract.space,
        "channels": weights.contract.channels,
        "layout": made.layout,
        "sizes": sizes,
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
