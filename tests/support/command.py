"""The command, called in this process (quick) or in one of its own (real)."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from weighbridge import cli
from weighbridge.engine import budget

if TYPE_CHECKING:
    import os

    Argument = str | os.PathLike[str]

COMMAND = [str(Path(sys.executable).with_name("weighbridge"))]


@dataclass(frozen=True)
class Done:
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, as JSON is understood strictly."""
        return json.loads(self.out, parse_constant=_refuse)

    @property
    def rules(self) -> list[str]:
        """The rules that the lines on standard error name."""
        return [line.rpartition("[")[2].partition("]")[0] for line in self.err.splitlines()]


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def called(*arguments: Argument) -> Done:
    """Call the command in this process."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    code = 0
    with (
        # A process that has run many tests is larger than the command may be.
        mock.patch.object(budget, "resident_bytes", return_value=0),
        mock.patch.object(sys, "argv", ["weighbridge", *map(str, arguments)]),
        mock.patch.object(signal, "signal"),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 0
    return Done(code, *(stream.buffer.getvalue().decode() for stream in (out, err)))


def run(*arguments: Argument, **options: Any) -> Done:
    """Run the command as a user does."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)], check=False, capture_output=True, text=True, **options
    )
    return Done(done.returncode, done.stdout, done.stderr)
