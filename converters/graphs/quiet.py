"""Keeping transformers and the exporters from telling of their work."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

TALKATIVE = ("onnx_ir", "onnxscript", "torch.onnx", "torch.export", "transformers")
"""The loggers that tell of what is of no interest here."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Let nothing be told on standard output, in warnings, logs and bars of progress."""
    loggers = [logging.getLogger(name) for name in TALKATIVE]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), _without_bars():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    from transformers.utils import logging as theirs

    shown = theirs.is_progress_bar_enabled()
    theirs.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            theirs.enable_progress_bar()  # type: ignore[no-untyped-call]
