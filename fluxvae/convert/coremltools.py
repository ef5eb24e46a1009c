"""coremltools as conversions use it: silenced, its errors translated, its passes chosen, timed."""

import contextlib
import errno
import gc
import io
import logging
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any

from fluxvae.errors import ConvertError
from fluxvae.files import scratch
from fluxvae.recipes import Recipe

CAST = "common::add_fp16_cast"
PASSES = tuple(
    f"common::{name}"
    for name in (
        "update_output_dtypes",
        "cast_optimization",
        "noop_elimination",
        "const_elimination",
        "sanitize_input_output_names",
        "divide_to_multiply",
        "const_deduplication",
        "reduce_transposes",
        "fuse_conv_scale",
        "merge_consecutive_transposes",
        "fuse_transpose_matmul",
        "remove_redundant_ops",
        "dedup_op_and_var_names",
        "add_fp16_cast",  # ``fluxvae.convert.fp16_cast`` stands in for it
        "update_output_dtypes",
        "const_elimination",
        "dead_code_elimination",
        "cast_optimization",
        "dead_code_elimination",
        "const_deduplication",
        "noop_elimination",
        "reduce_transposes",
        "topological_reorder",
        "dead_code_elimination",
    )
)
# A context variable and no argument: the steps lie five calls below the one that wants to know.
_TIMINGS: ContextVar[dict[str, float] | None] = ContextVar("timings", default=None)


@contextlib.contextmanager
def coremltools(verbose: bool) -> Iterator[Any]:
    """coremltools, with its notices, warnings and progress bars suppressed unless verbose.

    On import it logs missing macOS frameworks and untested torch versions; while converting it
    draws four progress bars and warns of renamed outputs.
    """
    logger = logging.getLogger("coremltools")
    with contextlib.ExitStack() as quiet:
        if not verbose:
            quiet.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.ERROR)
            quiet.enter_context(warnings.catch_warnings())
            quiet.enter_context(contextlib.redirect_stderr(io.StringIO()))
            quiet.enter_context(contextlib.redirect_stdout(io.StringIO()))
            warnings.simplefilter("ignore")
        with no_garbage_collection(), _without_unused():
            import coremltools as ct

        yield ct


@contextlib.contextmanager
def _without_unused() -> Iterator[None]:
    """For importing coremltools 9.0, which imports scikit-learn (to find that it is too new) and
    its own ``optimize.torch`` (for training): we use neither, and they are 2 of its 3 seconds.

    Afterwards both can be imported as ever. To be removed when coremltools imports them lazily.
    """
    stubs = {"sklearn": None, "coremltools.optimize.torch": ModuleType("torch")}
    hidden = {name: stub for name, stub in stubs.items() if name not in sys.modules}
    if "coremltools" in sys.modules:
        hidden = {}
    sys.modules.update(hidden)  # type: ignore[arg-type]  # None: as if it were not installed
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
        if hidden:
            vars(sys.modules.get("coremltools.optimize", ModuleType(""))).pop("torch", None)


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
    """For importing coremltools and for one function's conversion: both make millions of objects
    that live on, and looking at them again and again takes 0.6 of 1.8 seconds, and 1.3 of 22 for a
    KL decoder at 1024 px. Memory peaks 10 MB higher without.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


@contextlib.contextmanager
def translate_errors(recipe: Recipe, folder: Path) -> Iterator[None]:
    """coremltools' errors as ConvertError, and those of its C++ file code as OSError.

    coremltools 9.0 says "[MIL FileWriter]: Unknown error" of a full disk when it writes weights,
    and "filesystem error: cannot copy: Input/output error" when it copies them; neither has a
    number. ``folder`` is on the disk where it was writing; what it wrote must still be there.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # many kinds, all from coremltools' own depths
        text = str(error)
        if "[MIL FileWriter]" in text or text.startswith("filesystem error"):
            full = "FileWriter" in text or shutil.disk_usage(folder).free < 1 << 20
            number = errno.ENOSPC if full else errno.EIO
            raise OSError(number, os.strerror(number), str(folder)) from error
        raise ConvertError(
            f"coremltools could not convert {recipe.name()}: {_first_line(error)} "
            "(-v shows its messages)"
        ) from error


@contextlib.contextmanager
def temporary_files_in(folder: Path) -> Iterator[None]:
    """Let coremltools 9.0 put its temporary packages into ``folder``, and remove them.

    It leaves them behind when it fails half-way or is interrupted. torch must not see this: it
    would remember the path as its cache (TORCHINDUCTOR_CACHE_DIR).
    """
    before = tempfile.tempdir
    with scratch(folder) as hidden:
        tempfile.tempdir = str(hidden)
        try:
            yield
        finally:
            tempfile.tempdir = before


@contextlib.contextmanager
def step_timings() -> Iterator[dict[str, float]]:
    """Seconds by name of every ``step`` inside; durations of one name are summed."""
    timings: dict[str, float] = {}
    token = _TIMINGS.set(timings)
    try:
        yield timings
    finally:
        _TIMINGS.reset(token)


@contextlib.contextmanager
def step(name: str) -> Iterator[None]:
    """One step of that name, timed inside ``step_timings``."""
    timings = _TIMINGS.get()
    began = time.monotonic()
    try:
        yield
    finally:
        if timings is not None:
            timings[name] = timings.get(name, 0.0) + time.monotonic() - began


def pass_pipeline(
    ct: Any,
    recipe: Recipe,
    to_float16: Callable[[Any], bool] | None = None,
    *,
    every: bool = False,
) -> Any:
    """Those of coremltools' default passes that find something in our programs, in its order.

    After each pass coremltools validates the whole program, 16 ms for a KL decoder at 1024 px; 70
    of its 95 change nothing here. ``to_float16`` tells which operations become float16 (default:
    all) when the recipe's precision is. ``every`` takes all but the harmful: the package must have
    the same bytes (tests/test_converter_passes.py). An old neural network gets every one.
    """
    pipeline = ct.PassPipeline.DEFAULT
    cast = CAST
    if not every and recipe.format == "mlprogram":
        import fluxvae.convert.fp16_cast

        cast = fluxvae.convert.fp16_cast.NAME
        pipeline.passes = [cast if name == CAST else name for name in PASSES]
    if recipe.precision == "float32":  # coremltools leaves out its own, not ours
        pipeline.remove_passes({cast})
    elif to_float16 is not None:
        pipeline.set_options(cast, {"op_selector": to_float16})
    pipeline.remove_passes(_harmful(recipe))
    return pipeline


def _harmful(recipe: Recipe) -> set[str]:
    """Default passes of coremltools 9.0 that must not run.

    ``fuse_elementwise_to_batchnorm`` turns GroupNorm's ``x * gamma + beta`` into a batch_norm with
    epsilon 1e-5 and variance 1, so each gain is off by -5e-6: 1.7e-5 and 1.3e-5 at the output of
    the two KL decoders (tests/test_convert_kl.py), seven times the error of float32 itself. We
    found no report of it upstream; remove when coremltools passes epsilon 0 there.
    ``reduce_transposes`` would undo an NHWC graph. ``fuse_conv_scale`` would move an image
    output's factor into the last convolution's weight, which is to be replaced by its compressed
    form, or (full decoders, halves) to be found again in the package.
    """
    passes = {"common::fuse_elementwise_to_batchnorm"}
    if recipe.nhwc_model:
        passes.add("common::reduce_transposes")
    if recipe.compression is not None or recipe.decoder != "tiny" or recipe.chunks != 1:
        passes.add("common::fuse_conv_scale")
    return passes


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
