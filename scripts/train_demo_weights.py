"""Train the demo pairs (encoder and decoder) from scratch on scikit-image's photos.

    python scripts/train_demo_weights.py --variant flux1 --minutes 60 --out /path/to/folder

Writes ``<variant>_demo_encoder.safetensors`` and ``..._decoder.safetensors`` (fp16, taesd key
names) and a JSON record of the run. The result maps real images to latents and back, but its
latent space is its own: it is not FLUX's.

The start is linear (``linear_start.py``): principal components of 8 x 8 patches, and the decoder's
chain of convolutions fitted to them. From there everything is trained. The loss is the mean over
crops of the logarithm of the mean squared error, which is what a mean PSNR measures: plain squared
error would hear the noisiest crops only. A small penalty keeps the latents' moments where the start
put them, so that seeded normal latents stay a fair test input. Weights are averaged over steps
(decay 0.999) and the learning rate falls as a cosine over the wall-clock budget. One process; CUDA
when present, else CPU (0.3 s a step of 8 crops of 64 pixels on two cores with bf16 arithmetic,
0.7 s on two without).
"""

import argparse
import json
import math
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from linear_start import (
    LATENT_STD,
    PATCH,
    LinearDecoder,
    embed_decoder,
    embed_encoder,
    patch_components,
)
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fluxvae.networks.tiny import WIDTH, Block, tiny_decoder, tiny_encoder

TRAINING_PHOTOS = (  # plus both views of stereo_motorcycle
    *("astronaut", "rocket", "retina", "immunohistochemistry", "hubble_deep_field", "colorwheel"),
    *("camera", "brick", "grass", "gravel", "coins", "moon", "page", "text", "clock", "cell"),
)
ARCHITECTURE = {"flux1": (16, False), "flux2": (32, True)}  # latent channels, GroupNorm branch


def training_photos(device: torch.device) -> list[Tensor]:
    """Every training photo and its reductions to 1/2 and 1/4, each (3, H, W) in [0, 1]."""
    import skimage.data

    arrays = [getattr(skimage.data, name)() for name in TRAINING_PHOTOS]
    arrays += list(skimage.data.stereo_motorcycle()[:2])
    photos = []
    for array in arrays:
        rgb = np.repeat(array[..., None], 3, 2) if array.ndim == 2 else array[..., :3]
        photo = (
            torch.from_numpy(np.ascontiguousarray(rgb)).to(device).permute(2, 0, 1).float() / 255
        )
        while min(photo.shape[1:]) >= 128:
            photos.append(photo)
            half = (photo.shape[1] // 2, photo.shape[2] // 2)
            photo = F.interpolate(photo[None], half, mode="area")[0]
    return photos


def sample_crop(
    photos: list[Tensor], weights: Tensor, size: int, random: np.random.Generator
) -> Tensor:
    """One augmented crop (3, size, size): scale, flips, turns, channel order, tint and gamma."""
    photo = photos[int(random.choice(len(photos), p=weights.numpy()))]
    largest = min(photo.shape[1:]) / size
    zoom = 1.0 if random.random() < 0.5 else float(np.exp(random.uniform(-0.2, 0.6)))
    zoom = min(zoom, largest)
    side = round(size * zoom)
    y = int(random.integers(photo.shape[1] - side + 1))
    x = int(random.integers(photo.shape[2] - side + 1))
    crop = photo[:, y : y + side, x : x + side]
    if side != size:
        crop = F.interpolate(crop[None], (size, size), mode="bicubic", antialias=True)[0].clamp(
            0, 1
        )
    crop = torch.rot90(crop, int(random.integers(4)), (1, 2))
    if random.random() < 0.5:
        crop = crop.flip(2)
    return recolour(crop, random) if random.random() < 0.75 else crop


def recolour(crop: Tensor, random: np.random.Generator) -> Tensor:
    """Random colours for a crop (3, H, W): most of the photos are grey or of one palette.

    Without this the pair loses chroma on photos unlike the training ones: half of its error on
    held-out photos was a colour cast.
    """
    if bool((crop[0] == crop[1]).all()):  # grey: between two random colours
        dark, light = random.random((2, 3, 1, 1))
        low, span = dark, light - dark
    else:  # mix the channels, then stretch or invert each within the cube
        mix = random.dirichlet((0.5, 0.5, 0.5), 3)
        keep = random.random() < 0.5
        mixed = (
            crop
            if keep
            else torch.einsum(
                "ij,jhw->ihw", torch.as_tensor(mix, dtype=crop.dtype).to(crop.device), crop
            )
        )
        order = torch.from_numpy(random.permutation(3)).to(crop.device)
        crop = mixed[order]
        low = random.uniform(0, 0.5, (3, 1, 1)) * random.integers(0, 2, (3, 1, 1))
        span = random.uniform(0.4, 1.0, (3, 1, 1)) * (1 - low)
    low_t, span_t = (torch.as_tensor(v, dtype=crop.dtype).to(crop.device) for v in (low, span))
    return (low_t + span_t * crop).clamp(0, 1)


def initialise(encoder: nn.Sequential, decoder: nn.Sequential) -> None:
    """Variance-preserving start (He et al. 2015), residual branches damped, output mid-grey.

    torch's default start shrinks the signal at every layer of so deep a network: after 250 steps
    it was 1.8 dB behind this one, and the gap grew.
    """
    for network in (encoder, decoder):
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in network.modules():
            if isinstance(module, Block):
                nn.init.normal_(module.conv[4].weight, std=0.1 * math.sqrt(2 / (9 * WIDTH)))
                if module.pool is not None:
                    nn.init.normal_(module.pool[3].weight, std=0.1 * math.sqrt(2 / (4 * WIDTH)))
    with torch.no_grad():
        encoder[-1].weight.mul_(0.7)  # latents of about unit variance
        decoder[-1].weight.mul_(0.1)
        decoder[-1].bias.fill_(0.5)


def loss_of(encoder: nn.Module, decoder: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """(training loss, mean PSNR in dB) of one batch (B, 3, H, W)."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=_fast_bf16(images.device)):
        latent = encoder(images)
        decoded = decoder(latent)
    mse = (decoded.float() - images).square().mean((1, 2, 3))
    mean, variance = latent.float().mean((0, 2, 3)), latent.float().var((0, 2, 3))
    spread = (variance.clamp_min(1e-6) / LATENT_STD**2).log().square().mean()
    # 2e-4 is 37 dB: nearly flat crops are good enough there
    loss = (mse + 2e-4).log().mean() + 0.003 * (mean.square().mean() + spread)
    return loss, -10 * mse.detach().clamp_min(1e-6).log10().mean()


def _fast_bf16(device: torch.device) -> bool:
    """CPUs without bf16 arithmetic emulate it three times slower than float32 is."""
    return device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()


def linear_start(
    encoder: nn.Sequential,
    decoder: nn.Sequential,
    crops: Tensor,
    steps: int,
) -> None:
    """Embed the patch code of ``crops`` (N, 3, H, W), and the linear decoder fitted to it."""
    channels = encoder[-1].out_channels
    mean, components = patch_components(crops, channels)
    embed_encoder(encoder, mean, components)
    kernel = components.T.reshape(channels, 3, PATCH, PATCH).float()
    latents = F.conv2d(crops, kernel, -(mean @ components).float(), stride=PATCH)
    if not torch.allclose(encoder(crops[:2]), latents[:2], atol=1e-3):
        raise AssertionError("the embedded encoder is not the patch code")
    linear = fit_linear_decoder(latents, crops, steps)
    embed_decoder(decoder, linear)
    if not torch.allclose(decoder(latents[:2]), linear(latents[:2]), atol=1e-3):
        raise AssertionError("the embedded decoder is not the linear one")


def fit_linear_decoder(latents: Tensor, crops: Tensor, steps: int) -> LinearDecoder:
    """Adam on random batches of 16, cosine rate from 5e-3, the loss of ``loss_of``."""
    linear = LinearDecoder(latents.shape[1]).to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(linear.parameters(), betas=(0.9, 0.99))
    for step in range(steps):
        rate = 5e-3 * min(1.0, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimiser.param_groups[0]["lr"] = rate
        chosen = torch.randint(len(crops), (16,))
        with torch.enable_grad():
            error = (linear(latents[chosen]) - crops[chosen]).square().mean((1, 2, 3))
            loss = (error + 2e-4).log().mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(linear.parameters(), 1.0)
        optimiser.step()
        if (step + 1) % 500 == 0:
            print(f"linear step {step + 1} loss {loss:.3f}", file=sys.stderr, flush=True)
    return linear


def train(
    variant: str,
    minutes: float,
    rate: float,
    batch: int,
    seed: int,
    device: torch.device,
    start_from: Path | None,
    linear_steps: int,
    on_checkpoint: Callable[[dict[str, Tensor], int], None],
) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Returns (averaged tensors of both networks, record) after ``minutes`` of wall-clock time."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    channels, pool = ARCHITECTURE[variant]
    encoder, decoder = tiny_encoder(channels, pool=pool), tiny_decoder(channels, pool=pool)
    initialise(encoder, decoder)
    photos = training_photos(device)
    weights = torch.tensor(
        [math.sqrt(p.shape[1] * p.shape[2]) for p in photos], dtype=torch.float64
    )
    weights /= weights.sum()
    if start_from is None:
        crops = [sample_crop(photos, weights, 64, random).cpu() for _ in range(2000)]
        with torch.no_grad():
            linear_start(encoder, decoder, torch.stack(crops), linear_steps)
    else:
        for part, network in (("encoder", encoder), ("decoder", decoder)):
            earlier = load_file(start_from / f"{variant}_demo_{part}.safetensors")
            network.load_state_dict({name: value.float() for name, value in earlier.items()})
    pair = nn.ModuleDict({"encoder": encoder, "decoder": decoder})
    pair.to(device, memory_format=torch.channels_last)
    average = {k: v.clone() for k, v in pair.state_dict().items()}
    optimiser = torch.optim.Adam(pair.parameters(), lr=rate, fused=device.type == "cuda")

    start, step, smooth = time.monotonic(), 0, 0.0
    while (progress := (time.monotonic() - start) / (60 * minutes)) < 1:
        for group in optimiser.param_groups:
            group["lr"] = (
                rate * min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * progress))
            )
        size, count = (128, batch) if step % 8 == 7 else (64, 2 * batch)
        crops = torch.stack([sample_crop(photos, weights, size, random) for _ in range(count)])
        loss, psnr = loss_of(
            pair["encoder"], pair["decoder"], crops.contiguous(memory_format=torch.channels_last)
        )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(pair.parameters(), 1.0)
        optimiser.step()
        decay = min(0.999, (step + 1) / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(
                list(average.values()), list(pair.state_dict().values()), 1 - decay
            )
        step += 1
        smooth += (float(psnr) - smooth) / min(step, 100)
        if step % 100 == 0:
            line = f"{variant} step {step} {progress:.0%} training PSNR {smooth:.2f} dB"
            print(line, file=sys.stderr, flush=True)
        if step % 250 == 0:
            on_checkpoint(average, step)
    record = {
        "variant": variant,
        "minutes": minutes,
        "steps": step,
        "crops_of_128_px_a_step": batch,
        "seed": seed,
        "learning_rate": rate,
        "linear_steps": 0 if start_from else linear_steps,
        "device": torch.cuda.get_device_name()
        if device.type == "cuda"
        else platform.processor() or "cpu",
        "torch": torch.__version__,
        "training_photos": [*TRAINING_PHOTOS, "stereo_motorcycle (left, right)"],
    }
    return average, record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", choices=sorted(ARCHITECTURE), required=True)
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--rate", type=float, default=1e-4, help="peak learning rate")
    parser.add_argument("--start-from", type=Path, help="folder with the same pair, earlier")
    parser.add_argument("--linear-steps", type=int, default=4000, help="steps of the linear fit")
    parser.add_argument(
        "--batch",
        type=int,
        default=0,
        help="crops of 128 px a step (default: 4 on CPU, 32 on CUDA)",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batch = options.batch or (32 if device.type == "cuda" else 4)
    options.out.mkdir(parents=True, exist_ok=True)

    def save(average: dict[str, Tensor], record: dict[str, object]) -> None:
        for part in ("encoder", "decoder"):
            tensors = {
                name.removeprefix(f"{part}."): value.half().cpu().contiguous()
                for name, value in average.items()
                if name.startswith(f"{part}.")
            }
            metadata = {"format": "pt", "fluxvae": json.dumps({**record, "part": part})}
            path = options.out / f"{options.variant}_demo_{part}.safetensors"
            save_file(tensors, path.with_suffix(".part"), metadata)
            path.with_suffix(".part").replace(path)

    average, record = train(
        options.variant,
        options.minutes,
        options.rate,
        batch,
        options.seed,
        device,
        options.start_from,
        options.linear_steps,
        lambda average, step: save(average, {"variant": options.variant, "unfinished": step}),
    )
    save(average, record)
    (options.out / f"{options.variant}_demo_training.json").write_text(
        json.dumps(record, indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
