"""Every error a user can meet, each with its exit code.

A message says what was expected, what came, and what to do next. The command line prints
it on one line and never shows a traceback for these.
"""


class FluxVAEError(Exception):
    """Base of every error that is shown to the user."""

    exit_code = 1


class UsageError(FluxVAEError):
    """Options that contradict each other or ask for what does not exist."""

    exit_code = 2


class WeightsError(FluxVAEError):
    """A checkpoint is missing, damaged, of another decoder, or not the pinned one."""


class DownloadError(FluxVAEError):
    """A file could not be fetched, and nothing usable is in the cache."""


class ConvertError(FluxVAEError):
    """coremltools refused the decoder, or what it made is not what was asked for."""


class ArtifactError(FluxVAEError):
    """A saved model cannot be read: truncated, foreign, or of an unsupported kind."""


class UnsupportedOpError(ArtifactError):
    """A program holds an operation, or a version of one, that the executor does not know."""


class LatentError(FluxVAEError):
    """Latents of the wrong shape, dtype or file format."""


class ImageError(FluxVAEError):
    """An image file that cannot be read, or is too small or too large to be used."""


class BundleError(FluxVAEError):
    """An I/O bundle is incomplete, damaged, or not of the model it is used with."""


class BenchError(FluxVAEError):
    """A benchmark record is damaged, or two of them cannot be compared."""


class ReportError(FluxVAEError):
    """A record of a round trip is damaged, or images for one cannot be used."""


class MatrixError(FluxVAEError):
    """A matrix cannot be run as asked, or its run folder is damaged or mixed."""


class OutputError(FluxVAEError):
    """An output exists already or cannot be written."""


class ToolError(FluxVAEError):
    """A program or framework this task needs is not on this machine."""


class ValidationError(FluxVAEError):
    """The artifact ran, and its numbers are outside the thresholds."""

    exit_code = 3


class CompressionError(FluxVAEError):
    """A decoder cannot be compressed as asked, or what was stored is not what was asked for."""


class PowerError(FluxVAEError):
    """Energy cannot be measured here and now, or a recording of it cannot be used."""


class PublishError(FluxVAEError):
    """Cells cannot be published, or the Hub cannot be reached or refuses them."""


def git_lfs_problem(start: bytes, what: str) -> str | None:
    """What is wrong with a file that begins with ``start``, if it is a Git LFS pointer; else None.

    ``what`` the file should be, as in "the weights". Pointers are text files that stand in for
    large ones in a clone made without Git LFS:
    https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md. Here, as `fluxvae.mil` may import
    nothing else of ours.
    """
    if not start.startswith(b"version https://git-lfs"):
        return None
    return (
        f"is a Git LFS pointer, not {what}: run `git lfs pull` there, or download the file itself"
    )
