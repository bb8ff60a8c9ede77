"""The command: inspect, convert, diff, verify, quantize-error, formats, bench.

Exit codes: 0 when all went well, 1 when a comparison failed, 2 for bad input, 130 when it was
interrupted; a traceback is a bug.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

import weighbridge
from weighbridge import registry, show
from weighbridge.errors import Error, InvalidInput, InvalidPlan, SystemRefusal
from weighbridge.steps import problem_json

if TYPE_CHECKING:
    from collections.abc import Iterator

app = typer.Typer(
    name="weighbridge",
    help="Open, convert and compare safetensors, GGUF and ONNX models.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

INTERRUPTED = 128 + signal.SIGINT

USAGE_ERROR: Any = typer.BadParameter.__base__
"""What any misuse of an option or an argument raises; typer has no name of its own for it."""

Source = Annotated[Path, typer.Argument(help="A model file or a checkpoint directory.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"weighbridge {weighbridge.__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version


@app.command()
def inspect(
    source: Source,
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor.")] = False,
    as_json: Json = False,
) -> None:
    """Show what a model holds; only its header is read."""
    with _reporting(as_json), weighbridge.open(source) as model:
        if as_json:
            _print_json(show.model_json(model, tensors=tensors))
        else:
            show.print_model(model, tensors=tensors)


def _tensor_types(options: list[str]) -> dict[str, str]:
    """Return pattern -> encoding; only the last equals sign counts.

    Raises:
        InvalidInput: (rule ``tensor-type``) for an option without one.
    """
    pairs = [option.rpartition("=") for option in options]
    for option, (pattern, _, encoding) in zip(options, pairs, strict=True):
        if not pattern or not encoding:
            raise InvalidInput(
                "says no encoding for a pattern",
                rule="tensor-type",
                got=option,
                expected="PATTERN=TYPE",
            )
    return {pattern: encoding for pattern, _, encoding in pairs}


@app.command()
def convert(
    source: Source,
    target: Annotated[Path, typer.Argument(help="The file or directory to write.")],
    to: Annotated[
        str | None,
        typer.Option(metavar="FORMAT", help="The target's format; by default its suffix tells."),
    ] = None,
    quantize: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE",
            help="A file type of llama-quantize, as Q4_K_M, or the encoding of all matrices.",
        ),
    ] = None,
    pure: Annotated[
        bool, typer.Option("--pure", help="Give all matrices the file type's main encoding.")
    ] = False,
    tensor_type: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN=TYPE",
            help="Another encoding for matrices whose names hold a regular expression; repeatable.",
        ),
    ] = None,
    imatrix: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="An importance matrix, as llama-imatrix writes it."),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(metavar="TYPE", help="The dtype of all weights: float32, bfloat16, float16."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan and write nothing.")
    ] = False,
    weights_only: Annotated[
        bool,
        typer.Option("--weights-only", help="Move tensors under their own names, nothing else."),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing target.")
    ] = False,
    shard_size: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="The most bytes of weights in one file, as 5GB."),
    ] = None,
    external: Annotated[
        bool | None,
        typer.Option(
            "--external/--embedded", help="ONNX: weights beside the header file, or in it."
        ),
    ] = None,
    pre_tokenizer: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="GGUF's name of a pre-tokenizer that is not recognised."),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(metavar="TASK", help="ONNX: what it is to do; by default its class tells."),
    ] = None,
    fuse: Annotated[
        str | None,
        typer.Option(metavar="cpu|cuda", help="ONNX: use this provider's own, faster operators."),
    ] = None,
    link_weights: Annotated[
        bool,
        typer.Option("--link-weights", help="ONNX: leave weights in the checkpoint's files."),
    ] = False,
    onnx_quantized: Annotated[
        str | None,
        typer.Option(
            metavar="exact|small|fast|none",
            help="ONNX: how quantised weights are kept, or that they are decoded.",
        ),
    ] = None,
    memory: Annotated[
        str, typer.Option(metavar="SIZE", help="The most memory to have resident.")
    ] = "1GB",
    threads: Annotated[
        int | None, typer.Option(metavar="N", help="How many threads work; by default one a core.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a model in another format or precision.

    The target appears when it is complete, or not at all.
    """
    with _reporting(as_json):
        with show.waiting("planning", shown=not as_json):
            plan = weighbridge.plan(
                source,
                target,
                to=to,
                quantize=quantize,
                pure=pure,
                tensor_types=_tensor_types(tensor_type or []),
                imatrix=imatrix,
                dtype=dtype,
                weights_only=weights_only,
                overwrite=overwrite,
                shard_size=shard_size,
                external=external,
                pre_tokenizer=pre_tokenizer,
                task=task,
                fuse=fuse,
                link_weights=link_weights,
                onnx_quantized=onnx_quantized,
            )
        if dry_run and not as_json:
            show.print_plan(plan)
        plan.check()
        if dry_run and as_json:
            _print_json(plan.to_json())
        if dry_run:
            return
        result = plan.run(memory=memory, threads=threads, progress=not as_json)
        if as_json:
            _print_json(show.result_json(plan, result))
        else:
            show.print_result(plan, result)


@app.command()
def diff(
    a: Source,
    b: Annotated[Path, typer.Argument(help="The model to compare it with.")],
    tolerance: Annotated[
        float, typer.Option(help="The largest difference of a number that still passes.", min=0.0)
    ] = 0.0,
    as_json: Json = False,
) -> None:
    """Compare two models tensor by tensor.

    Exit 1 when they differ by more than the tolerance.
    """
    with _reporting(as_json):
        with show.counter("comparing") as tell:
            found = weighbridge.diff(a, b, progress=tell)
        if as_json:
            _print_json(show.diff_json(found, tolerance))
        else:
            show.print_diff(found, tolerance)
        if not all(difference.within(tolerance) for difference in found):
            raise typer.Exit(1)


@app.command()
def verify(
    a: Source,
    b: Annotated[Path, typer.Argument(help="The model to compare it with.")],
    prompt: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="What to ask; may be repeated.")
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A text file with a prompt on each line."),
    ] = None,
    tokens: Annotated[
        int, typer.Option(metavar="N", help="How many tokens are added greedily.", min=0)
    ] = 16,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="The largest difference that passes; by default the encodings tell.", min=0.0
        ),
    ] = None,
    runtime_a: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What runs A: transformers, llama.cpp, onnxruntime."),
    ] = None,
    runtime_b: Annotated[str | None, typer.Option(metavar="NAME", help="What runs B.")] = None,
    as_json: Json = False,
) -> None:
    """Run two models on the same inputs and compare the answers.

    Exit 1 when they differ by more than the tolerance, or their tokenizers do.
    """
    with _reporting(as_json):
        from weighbridge.prompts import read_prompts

        asked = [*(prompt or ()), *(read_prompts(prompts) if prompts else ())]
        with show.counter("verifying") as tell:
            found = weighbridge.verify(
                a,
                b,
                prompts=asked or None,
                tokens=tokens,
                tolerance=tolerance,
                runtime_a=runtime_a,
                runtime_b=runtime_b,
                progress=tell,
            )
        if as_json:
            _print_json(show.verification_json(found))
        else:
            show.print_verification(found)
        if not found.passed:
            raise typer.Exit(1)


@app.command()
def quantize_error(
    source: Source,
    types: Annotated[
        str, typer.Option(metavar="TYPES", help="The encodings to try, as Q4_K,Q5_K,Q8_0.")
    ],
    imatrix: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="An importance matrix, where the source is GGUF."),
    ] = None,
    tensor: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN", help="Only matrices whose names hold this regular expression."
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(metavar="N", help="How many threads work; by default one a core.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the size and error of matrices in other encodings.

    Nothing is written.
    """
    with _reporting(as_json):
        asked = [name.strip() for name in types.split(",") if name.strip()]
        found = weighbridge.quantize_error(
            source,
            asked,
            imatrix=imatrix,
            tensors=tensor,
            threads=threads,
            progress=not as_json,
        )
        if as_json:
            _print_json(show.quantize_errors_json(found))
        else:
            show.print_quantize_errors(found)


@app.command()
def formats(as_json: Json = False) -> None:
    """List the formats, with what each can store."""
    with _reporting(as_json):
        if as_json:
            _print_json(show.formats_json())
        else:
            show.print_formats()


@app.command(
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "help_option_names": [],
    }
)
def bench(context: typer.Context) -> None:
    """Measure how fast models load, beside other tools."""
    with _reporting(as_json=False):
        command = registry.load("commands", "bench")
        code = command(context.args, prog_name=context.command_path, standalone_mode=False)
    if code:
        raise typer.Exit(code)


def _print_json(document: Any) -> None:
    """Print JSON that any terminal and any parser takes: in ASCII, with finite numbers.

    Raises:
        Error: (rule ``nesting``) when a file's own document is nested too deeply to be printed.
    """
    try:
        text = json.dumps(show.finite(document), indent=2)
    except RecursionError:
        raise Error("a document is nested too deeply", rule="nesting") from None
    typer.echo(text)


@contextmanager
def _reporting(as_json: bool) -> Iterator[None]:
    """Turn errors into a line on standard error and an exit code."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output has gone, which is no error; keep the interpreter from saying so.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit from None
    except Error as error:
        _tell(error, as_json)
        raise typer.Exit(2) from None
    except OSError as error:
        _tell(_refusal(error), as_json)
        raise typer.Exit(2) from None


def _refusal(error: OSError) -> Error:
    reason = error.strerror or str(error)
    return SystemRefusal(f"the system refuses: {reason}", rule="system", path=error.filename)


def _tell(error: Error, as_json: bool) -> None:
    problems = error.problems if isinstance(error, InvalidPlan) else (error,)
    if as_json:
        _print_json({"problems": [problem_json(problem) for problem in problems]})
    for problem in problems:
        typer.echo(str(problem), err=True)


def _misused(error: Any) -> InvalidInput:
    command = error.ctx.command_path if error.ctx else app.info.name
    return InvalidInput(
        error.format_message().rstrip("."), rule="usage", hint=f"see {command} --help"
    )


def _terminated(number: int, frame: object) -> NoReturn:
    del frame
    raise SystemExit(128 + number)


def main() -> None:
    """Run the command."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _terminated)
    try:
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except USAGE_ERROR as error:
        _tell(_misused(error), "--json" in sys.argv)
        code = 2
    if code == INTERRUPTED:
        typer.echo("interrupted", err=True)
    sys.exit(code)
