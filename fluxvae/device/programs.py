"""Starting other programs: with no input, and what they print as text."""

import subprocess
from collections.abc import Callable, Mapping, Sequence

# As subprocess.run: raises OSError when the program cannot start.
Runner = Callable[..., "subprocess.CompletedProcess[str]"]


def run_captured(
    command: Sequence[str],
    *,
    runner: Runner | None = None,
    environment: Mapping[str, str] | None = None,
    timeout: float | None = None,
) -> "subprocess.CompletedProcess[str]":
    """Run a program to its end. ``environment``: all of it, by default this process's own.

    ``runner`` stands in for ``subprocess.run``. Raises OSError when the program cannot be started,
    TimeoutExpired after ``timeout`` seconds.
    """
    return (runner or subprocess.run)(
        command,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        stdin=subprocess.DEVNULL,
        env=None if environment is None else dict(environment),
        timeout=timeout,
    )
