"""Which bounds on an image's error, or on its time, can tell a good artifact from a bad one."""

from fluxvae.errors import UsageError

# The largest of each; the least is above 0. An error as large as the image's range is 0 dB. Above
# 200 dB, far below a rounding of float32 (about 155 dB), only equal images pass. A decoder's image
# spans 2 at most (-1..1): no image within it is further off. An hour is what a matrix gives a cell.
# The Swift harness has the same rule: swift/Sources/HarnessCore/Numbers/Limit.swift.
LARGEST = {
    "psnr_db": (200.0, "dB"),
    "max_abs": (2.0, "of image range"),
    "latency_ms": (3.6e6, "ms"),
}


def check_bound(metric: str, bound: float, where: str) -> float:
    """``bound`` on ``metric``, one of ``LARGEST``, if it can be crossed.

    ``where`` begins the message of the UsageError for any other, NaN and infinity included: such a
    bound passes everything or nothing.
    """
    largest, unit = LARGEST[metric]
    if not 0 < bound <= largest:
        raise UsageError(
            f"{where}: expected a bound on {metric} above 0 and up to {largest:g} {unit}, got "
            f"{str(bound)[:40]}: it would pass everything or nothing"
        )
    return float(bound)
