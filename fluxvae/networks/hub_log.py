"""huggingface_hub's own log."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_hub() -> Iterator[None]:
    """Keep huggingface_hub's retry warnings off stderr, unless the user asked for its log."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    if logger.getEffectiveLevel() >= logging.WARNING:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
