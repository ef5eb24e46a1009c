"""Ctrl-C that cannot get lost inside a library."""

import signal
from types import FrameType, TracebackType


class _Pressed(KeyboardInterrupt):
    """Python ends with the signal instead of our exit code when a plain KeyboardInterrupt
    passes through ``exec`` (CPython ``run_eval_code_obj``), even where it is caught later."""


class CtrlC:
    """Raises KeyboardInterrupt on SIGINT, and remembers it.

    coremltools and torch swallow about one in ten, in bare ``except:`` around optional imports:
    ask ``check`` before anything is made final. Does nothing where SIGINT is ignored (``nohup``)
    or has a handler already, and outside the main thread.
    """

    pressed = False

    def __enter__(self) -> "CtrlC":
        self._installed = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        try:
            if self._installed:
                signal.signal(signal.SIGINT, self._press)
        except ValueError:  # not the main thread
            self._installed = False
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def check(self) -> None:
        """Raise KeyboardInterrupt when Ctrl-C was pressed at any time since the start."""
        if self.pressed:
            raise _Pressed

    def _press(self, number: int, frame: FrameType | None) -> None:
        self.pressed = True
        raise _Pressed
