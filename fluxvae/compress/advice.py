"""What a compression buys on a device, in sentences, each labelled with who measured it.

None of these times are ours: nothing of fluxvae's compression was timed on a device yet. Sources:
https://apple.github.io/coremltools/docs-guides/source/opt-quantization-perf.html (Apple: int8
weights with int8 activations run faster on A17 Pro and M4; on the CPU and some GPUs quantized
activations can run slower), https://github.com/drawthingsai/taesd (WORKLOG.md, LEARNINGS.md: a
TAEF at 1024 px, chip not stated: fp16 38.4 ms, palettes and int8 weights about 40 ms, 8-bit
palettes about 11% slower, W8A8 36.3 ms) and https://github.com/sbryngelson/ane-guide (single
convolutions).
"""

from collections.abc import Iterable

from fluxvae.recipes import Compression

WEIGHTS_ONLY = (
    "Compressed weights alone save bytes, not time: they are expanded to float16 before they are "
    "multiplied. Published palettized and int8-weight TAEF models were reported no faster than "
    "float16, 8-bit palettes 11% slower."
)
BOTH = (
    "int8 weights and activations (W8A8) can save time too, on the Neural Engine of A17 Pro, M4 "
    "and later: single convolutions were reported 1.4 to 1.9 times as fast, one published W8A8 "
    "TAEF as a whole 36.3 ms against 38.4. On the CPU and on some GPUs they can be slower (Apple)."
)
OTHERS = "These are others' measurements, not ours: time your own device with `fluxvae bench`."


def advice(compression: Compression) -> str:
    """What a compression can buy in bytes and time; a few sentences on one line."""
    return " ".join((_size(compression), *advice_on_time([compression])))


def advice_on_time(compressions: Iterable[Compression]) -> tuple[str, ...]:
    """What several compressions can buy in time, each stated once; empty for none."""
    quantized = {compression.kind == "w8a8" for compression in compressions}
    texts = [text for kind, text in ((False, WEIGHTS_ONLY), (True, BOTH)) if kind in quantized]
    return (*texts, OTHERS) if texts else ()


def _size(compression: Compression) -> str:
    """The weights' share of float16, by arithmetic: bits over 16, tables and scales on top."""
    bits = {"int8": 8, "w8a8": 8, "int4": 4, "palette": compression.bits}.get(compression.kind)
    if bits is None:
        return f"Weights of mixed bits, as the budget {compression.budget} asks."
    kept = "; the convolutions left in float16 on top" if compression.kind == "w8a8" else ""
    return f"Weights: {bits} of 16 bits, tables and scales on top{kept}."
