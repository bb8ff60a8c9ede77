"""The Triton kernels: in its interpreter, bit for bit, and as compiled for a GPU of NVIDIA's."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from support.tree import run_python

from weighbridge.kernels.ggml import BLOCKED

triton = pytest.importorskip("triton", reason="Triton is not installed")

from weighbridge.kernels import lanes  # noqa: E402
from weighbridge.kernels.device import fused, fused_encoders  # noqa: E402
from weighbridge.kernels.device.substitute import Substitution  # noqa: E402
from weighbridge.kernels.target import BODIES  # noqa: E402

INTERPRETED = """
import warnings
import numpy as np, torch
from weighbridge.kernels.device import fused, in_torch
from weighbridge.kernels.ggml import BLOCKED
warnings.simplefilter("ignore")
for name, encoding in BLOCKED.items():
    for count in (1, 100):
        data = np.random.default_rng(count).integers(0, 256, count * encoding.grain_bytes, np.uint8)
        packed = torch.from_numpy(data)
        # What is behind the last block has to stay as it is.
        got, expected = torch.full((2, count * encoding.grain + 16), 7.5)
        fused.decode(encoding, packed, got[:-16])
        in_torch.decode(encoding, packed, expected[:-16])
        same = got.view(torch.int32) == expected.view(torch.int32)
        print(name, bool((same | (got.isnan() & expected.isnan())).all()))
"""


ENCODED = """
import sys, warnings
import numpy as np, torch
from weighbridge import kernels
from weighbridge.kernels.device import fused_encoders
from weighbridge.kernels.ggml import BLOCKED
warnings.simplefilter("ignore")
encoding, random = BLOCKED[sys.argv[1]], np.random.default_rng(0)
values = random.standard_normal((140, encoding.grain))
values[40:100] *= 10.0 ** random.integers(-45, 38, (60, 1))
values[100:120] *= random.uniform(0, 1, (20, encoding.grain)) < 0.05
values[120:130] = random.integers(-3, 4, (10, encoding.grain))
values[130:] = np.arange(10)[:, None] - 2
values = values.astype(np.float32)
got = fused_encoders.encode(encoding, torch.from_numpy(values)).numpy()
print(got.tobytes() == kernels.encode(encoding, values).tobytes())
"""


def some_long(*short: str) -> list[Any]:
    """Return the encoders' names, all but some marked as long: they take minutes."""
    return [
        pytest.param(name, marks=[pytest.mark.long] * (name not in short))
        for name in fused_encoders.SCRATCH
    ]


def test_interpreted_as_in_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    found = [line.split() for line in run_python(INTERPRETED).splitlines()]
    assert [name for name, _ in found] == [name for name in BLOCKED for _ in range(2)]
    assert {same for _, same in found} == {"True"}


@pytest.mark.parametrize(("name", "to"), [("q4_k", "fp32"), *((name, "bf16") for name in BLOCKED)])
def test_compiled_code_rounds_every_operation(name: str, to: str) -> None:
    code = ptx(name, to)
    assert_rounds(code)
    assert (re.search(r"\bcvt\.rn\.bf16", code) is not None) == (to == "bf16")


def assert_rounds(code: str) -> None:
    assert re.search(r"\bmul\.rn\.f32\b", code)
    assert not re.search(r"\bfma\b|\bmad\.[a-z.]*f32|\.ftz\b|\.approx\b|\.full\b", code)
    # Without .rn the assembler might still fuse them.
    assert not re.search(r"\b(mul|add|sub)\.f32\b", code)


def ptx(name: str, to: str) -> str:
    """Return a decoder's code."""
    kinds = {"packed": "*u8", "values": f"*{to}", "table": "*i8", "count": "i32"}
    return compiled(fused.KERNEL, kinds, fused.constants_of(BLOCKED[name]))


def compiled(kernel: Any, kinds: dict[str, str], constants: dict[str, Any]) -> str:
    """Return the code for a GPU of compute capability 9.0, which need not be here."""
    kinds = kinds | dict.fromkeys(constants, "constexpr")
    source = triton.compiler.ASTSource(kernel, kinds, constants)
    target = triton.backends.compiler.GPUTarget("cuda", 90, 32)
    return triton.compile(source, target=target, options=fused.OPTIONS).asm["ptx"]


@pytest.mark.parametrize("name", some_long("iq4_nl", "q4_k"))
def test_compiled_encoders_round_every_operation(name: str) -> None:
    kinds = {"values": "*fp32", "packed": "*u8", "space": "*fp32", "count": "i32"}
    code = compiled(fused_encoders.KERNEL, kinds, fused_encoders.constants_of(BLOCKED[name]))
    assert_rounds(code)
    assert re.search(r"\bdiv\.rn\.f32\b", code)
    # Rows are in memory: nothing may be kept where the next thread does not see it.
    assert not re.search(r"\b(ld|st)\.local\b", code)


@pytest.mark.parametrize("name", some_long("iq4_nl"))
def test_interpreted_encoders_as_on_the_cpu(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert run_python(ENCODED, name).split() == ["True"]


@pytest.mark.parametrize("name", fused_encoders.SCRATCH)
def test_rows_of_a_body_are_counted(name: str) -> None:
    taken = []

    def scratch(like: lanes.Rows, count: int) -> lanes.Rows:
        taken.append(count)
        return lanes.scratch(like, count)

    body, _ = BODIES[name]
    out = np.empty((BLOCKED[name].grain_bytes, 1), np.uint8)
    values = np.linspace(-1, 1, BLOCKED[name].grain, dtype=np.float32)[:, None]
    with np.errstate(all="ignore"):
        Substitution({"scratch": scratch}).of(body)(values, out)
    assert sum(taken) == fused_encoders.SCRATCH[name]
