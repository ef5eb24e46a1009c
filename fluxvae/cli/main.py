"""The command group, and where errors become lines and exit codes."""

import importlib
import sys
from typing import Any, NoReturn

import click

from fluxvae import __version__
from fluxvae.cli.interrupt import CtrlC
from fluxvae.errors import FluxVAEError

# command -> (module, one-line help); the module's `command`, or what a colon names. It is
# imported only when its command runs.
COMMANDS = {
    "convert": ("fluxvae.cli.convert", "Turn a decoder or encoder into a Core ML model."),
    "qat": ("fluxvae.cli.qat", "Train a network for int8 or small tables: a checkpoint."),
    "validate": ("fluxvae.cli.validate", "Compare a saved model with the PyTorch network."),
    "encode": ("fluxvae.cli.encode", "Encode images with a saved model, on any OS."),
    "decode": ("fluxvae.cli.decode", "Decode latents with a saved model, on any OS."),
    "inspect": ("fluxvae.cli.inspect", "Say what is inside a saved model."),
    "census": ("fluxvae.cli.census", "List the largest activations, and what float16 cannot hold."),
    "weights": ("fluxvae.cli.weights", "List, fetch and look at decoder weights."),
    "cache": ("fluxvae.cli.cache", "Show and clear what fluxvae keeps to be quicker."),
    "compare-variants": (
        "fluxvae.cli.compare_variants",
        "Compress a network in several ways; one table.",
    ),
    "roundtrip": ("fluxvae.cli.roundtrip", "Images through every variant: see and measure them."),
    "report": ("fluxvae.cli.report", "Make the pages of a round trip or matrix again."),
    "data": ("fluxvae.cli.data", "Fetch images to look at."),
    "compile": ("fluxvae.cli.compile", "Compile a saved model to .mlmodelc, on any OS."),
    "export-io": ("fluxvae.cli.export_io", "Write a latent and its image as plain files."),
    "validate-swift": ("fluxvae.cli.validate_swift", "Validate a compiled model through Swift."),
    "bench": ("fluxvae.cli.bench", "Time a compiled model, and compare two such records."),
    "plan": ("fluxvae.cli.harness:plan", "Say which operation runs where (macOS)."),
    "drift": ("fluxvae.cli.harness:drift", "Say whether a model gives the same bits every time."),
    "mac-report": ("fluxvae.cli.mac_report", "On a Mac: all of this for a list of models."),
    "matrix": ("fluxvae.cli.matrix", "Measure a matrix of artifacts: resumable, verifiable."),
    "publish": ("fluxvae.cli.publish", "Publish measured models on the Hugging Face Hub."),
    "power": ("fluxvae.cli.power", "On a Mac: say whether energy can be measured."),
    "doctor": ("fluxvae.cli.doctor", "Say what this machine can and cannot do."),
}


class LazyGroup(click.Group):
    """Imports a command's module when the command is used, so that help stays instant."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name][0].partition(":")
        found = importlib.import_module(module)
        command: click.Command = getattr(found, attribute or "command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="fluxvae")
def group() -> None:
    """FLUX VAE decoders as Core ML models, proved right on any OS.

    \b
    Example, without network or Mac:
      fluxvae convert --variant flux2 --weights demo --size 256 --validate
    """
    from fluxvae.device.host import keep_freed_memory

    keep_freed_memory()  # of this process, whichever command runs


def main(arguments: list[str] | None = None) -> Any:
    """Entry point. Every FluxVAEError becomes one line on stderr and its exit code."""
    with CtrlC() as ctrl_c:
        _run(arguments, ctrl_c)


def _run(arguments: list[str] | None, ctrl_c: CtrlC) -> NoReturn:
    try:
        result = group.main(arguments, "fluxvae", standalone_mode=False, obj=ctrl_c)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except (click.exceptions.Abort, KeyboardInterrupt):
        _end("interrupted; nothing half-written was kept")
    except BrokenPipeError:
        sys.exit(1)
    except Exception as error:
        if ctrl_c.pressed:  # a library swallowed the interrupt and failed because of it
            _end("interrupted; nothing half-written was kept")
        _report(error)
    sys.exit(result if isinstance(result, int) else 0)


def _report(error: Exception) -> NoReturn:
    """One line on stderr and the exit code; a traceback only in Python's development mode."""
    if isinstance(error, click.ClickException):
        error.show()
        sys.exit(error.exit_code)
    if isinstance(error, FluxVAEError):
        _end(str(error), error.exit_code)
    if isinstance(error, OSError | MemoryError):
        _end(describe_os_error(error))
    if sys.flags.dev_mode:
        raise error
    _end(
        f"this is a defect of fluxvae ({type(error).__name__}: {error}); please report it with "
        "the traceback that the same command prints as `python -X dev -m fluxvae ...`"
    )


def _end(text: str, code: int = 1) -> NoReturn:
    click.echo(f"fluxvae: {' '.join(text.split())}", err=True)
    sys.exit(code)


def describe_os_error(error: OSError | MemoryError) -> str:
    """One line for an error of the operating system that no stage has named better."""
    if isinstance(error, MemoryError):
        return "out of memory: use a smaller --size, or a machine with more memory"
    where = f": {error.filename}" if error.filename else ""
    return f"{error.strerror or type(error).__name__}{where}"
