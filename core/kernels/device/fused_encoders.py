"""Encoders in Triton: the bodies in lanes, a program for some blocks, a lane for each of them.

What `weighbridge.kernels.lanes` calls rows is here a pair: addresses, one for each lane, in memory
of the program's own, and how many rows there are. That module says what the words mean. How fast
this is on a GPU has not been measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl

from weighbridge.kernels.device.fused import OPTIONS
from weighbridge.kernels.device.translate import Translator
from weighbridge.kernels.target import BODIES

if TYPE_CHECKING:
    from weighbridge.encoding import Blocked

SCRATCH = {"q2_k": 352, "q4_k": 368, "q5_k": 368, "q6_k": 288, "iq4_nl": 0, "iq4_xs": 8}
"""The encodings whose bodies can be translated, and how many rows these take beside the values.

Q3_K ends a loop early and NVFP4 takes numbers of an array by a computed index; the bodies of grids
do both.
"""

LANES = tl.constexpr(32 * OPTIONS["num_warps"])
"""Blocks of a program: a lane for each thread, so that its rows are no other thread's."""


def rows_at(space: tl.tensor, count: int) -> tl.tuple:
    """Return `count` rows of some memory."""
    return (space, count)


def behind(space: tl.tensor, count: int) -> tl.tensor:
    """Return the memory behind `count` rows."""
    return space + count * LANES


def length(rows: tl.tuple) -> int:
    """Return how many rows there are."""
    return rows[1]  # type: ignore[no-any-return]


def row(rows: tl.tuple, index: int) -> tl.tensor:
    """Return one row."""
    return tl.load(rows[0] + index * LANES)


def setrow(rows: tl.tuple, index: int, lanes: tl.tensor) -> None:
    """Store `lanes` as one row."""
    tl.store(rows[0] + index * LANES, lanes)


def like(lanes: tl.tensor, number: float) -> tl.tensor:
    """Return lanes that are all `number`."""
    return tl.full(lanes.shape, number, tl.float32)


def divided(number: tl.tensor, by: tl.tensor) -> tl.tensor:
    """Return quotients, correctly rounded; one of the two may be a number."""
    lanes = number == by
    return tl.div_rn(
        tl.where(lanes, number, number).to(tl.float32), tl.where(lanes, by, by).to(tl.float32)
    )


def select(mask: tl.tensor, yes: tl.tensor, no: tl.tensor) -> tl.tensor:
    """Return `yes` in lanes where `mask` is true, `no` in the others."""
    return tl.where(mask, yes, no)


def anyl(mask: tl.tensor) -> tl.tensor:
    """Tell whether `mask` is true in any lane."""
    return tl.max(mask.to(tl.int32), axis=0) > 0


def fabs(lanes: tl.tensor) -> tl.tensor:
    """Return magnitudes."""
    return tl.abs(lanes)


def sqrt(lanes: tl.tensor) -> tl.tensor:
    """Return square roots, correctly rounded."""
    return tl.sqrt_rn(lanes)


def nearest(lanes: tl.tensor) -> tl.tensor:
    """Return the nearest whole numbers, as ggml's ``nearest_int`` finds them."""
    bits = (lanes + 12582912.0).to(tl.int32, bitcast=True)
    return ((bits & 0x7FFFFF) - 0x400000).to(tl.float32)


def clamp(lanes: tl.tensor, low: float, high: float) -> tl.tensor:
    """Return numbers from `low` to `high`; `low` for NaN."""
    return tl.where(lanes >= low, tl.where(lanes > high, high, lanes), low)


def wrap(lanes: tl.tensor, bits: int) -> tl.tensor:
    """Return the low `bits` bits of whole numbers."""
    return (lanes.to(tl.int32) & ((1 << bits) - 1)).to(tl.float32)


def upper(lanes: tl.tensor, bits: int) -> tl.tensor:
    """Return whole numbers without their low `bits` bits, shifted down."""
    return (lanes.to(tl.int32) >> bits).to(tl.float32)


def either(lanes: tl.tensor, other: tl.tensor) -> tl.tensor:
    """Return the bits that are set in either of two whole numbers."""
    return (lanes.to(tl.int32) | other.to(tl.int32)).to(tl.float32)


def staircase(lanes: tl.tensor, edges: tl.tuple, steps: tl.tuple) -> tl.tensor:
    """Return for each number the step that it is on; NaN is on the last one."""
    found = tl.full(lanes.shape, steps[0], tl.float32)
    for number in tl.static_range(len(edges)):
        found = tl.where(lanes < edges[number], found, steps[number + 1])
    return found


def half(lanes: tl.tensor) -> tl.tensor:
    """Return numbers rounded to float16, as float32."""
    return lanes.to(tl.float16).to(tl.float32)


def setbyte(out: tl.tensor, index: int, lanes: tl.tensor) -> None:
    """Store whole numbers from 0 to 255 as byte `index` of each block."""
    tl.store(out + index, lanes.to(tl.int32).to(tl.uint8))


def sethalf(out: tl.tensor, index: int, lanes: tl.tensor) -> None:
    """Store numbers as float16, little endian, in bytes `index` and the next of each block."""
    bits = lanes.to(tl.float16).to(tl.int16, bitcast=True).to(tl.int32)
    tl.store(out + index, (bits & 255).to(tl.uint8))
    tl.store(out + index + 1, ((bits >> 8) & 255).to(tl.uint8))


WORDS = (
    rows_at, behind, length, row, setrow, like, divided, select, anyl, fabs, sqrt, nearest, clamp,
    wrap, upper, either, staircase, half, setbyte, sethalf,
)  # fmt: skip


def _constant(value: Any) -> Any:
    """Return a constant of Triton's; its interpreter takes tuples as they are."""
    interpreted = isinstance(value, tuple) and triton.knobs.runtime.interpret
    return value if interpreted else tl.constexpr(value)


_WORDS = {word.__name__: triton.jit(word) for word in WORDS} | {"tl": tl}

_in_triton = Translator(_WORDS, triton.jit, _constant)

_rows_at, _behind, _setrow = _WORDS["rows_at"], _WORDS["behind"], _WORDS["setrow"]


def _encode_blocks(
    values: tl.tensor,
    packed: tl.tensor,
    space: tl.tensor,
    count: tl.tensor,
    body: tl.constexpr,
    grain: tl.constexpr,
    nbytes: tl.constexpr,
    height: tl.constexpr,
) -> None:
    """Encode blocks, a lane each; lanes behind the last one do that one again."""
    program = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, LANES)
    block = tl.minimum(program * LANES + lane, count - 1)
    own = space + program * LANES * height + lane
    x = _rows_at(own, grain)
    for i in range(grain):
        _setrow(x, i, tl.load(values + block * grain + i))
    body(x, packed + block * nbytes, _behind(own, grain))


KERNEL = triton.jit(_encode_blocks)


def encode(encoding: Blocked, values: torch.Tensor) -> torch.Tensor:
    """Return the blocks of finite float32 of shape ``(blocks, grain)``, a row of bytes each."""
    constants = constants_of(encoding)
    packed = values.new_empty((len(values), encoding.grain_bytes), dtype=torch.uint8)
    programs = triton.cdiv(len(values), LANES.value)
    space = values.new_empty(programs * LANES.value * constants["height"])
    with torch.cuda.device_of(values):  # type: ignore[no-untyped-call]
        KERNEL[(programs,)](values.contiguous(), packed, space, len(values), **constants, **OPTIONS)
    return packed


def constants_of(encoding: Blocked) -> dict[str, Any]:
    """Return what the kernel is compiled for, to encode to `encoding`."""
    body, _ = BODIES[encoding.name]
    return {
        "body": _in_triton.of(body),
        "grain": encoding.grain,
        "nbytes": encoding.grain_bytes,
        "height": encoding.grain + SCRATCH[encoding.name],
    }
