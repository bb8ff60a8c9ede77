"""Which tensor of a GGUF file gets which encoding, and what the whole is called then.

Source: llama.cpp's converter (``conversion/base.py``) and ``llama_ftype`` in ``llama.h``.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from weighbridge.encoding import DENSE
from weighbridge.kernels import codec_for

if TYPE_CHECKING:
    from collections.abc import Iterable

    from weighbridge.encoding import Encoding
    from weighbridge.tensor import Lazy

ALWAYS_F32 = (
    "ffn_gate_inp",
    "ffn_gate_inp_shexp",
    "position_embd",
    "token_types",
    "ssm_conv1d",
    "ssm_conv1d_q",
    "ssm_conv1d_k",
    "ssm_conv1d_v",
    "shortconv.conv",
    "time_mix_first",
    "time_mix_w1",
    "time_mix_w2",
    "time_mix_decay_w1",
    "time_mix_decay_w2",
    "time_mix_lerp_fused",
)
"""Weights that llama.cpp's kernels read as float32 whatever their rank; ``.weight`` follows."""

FALLBACKS = {
    **dict.fromkeys(("iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s"), "iq4_nl"),
    **dict.fromkeys(("iq3_xxs", "iq3_s", "iq4_xs"), "iq4_nl"),
    **dict.fromkeys(("q2_k", "q3_k", "tq1_0", "tq2_0"), "q4_0"),
    "q4_k": "q5_0",
    "q5_k": "q5_1",
    "q6_k": "q8_0",
}
"""What takes the place of blocks of 256 values in rows that are no whole number of them.

Source: llama.cpp, ``src/llama-quant.cpp``.
"""

FILE_TYPES: dict[str, tuple[int, ...]] = {
    "f32": (0,),
    "f16": (1,),
    "q4_0": (2,),
    "q4_1": (3,),
    "q8_0": (7,),
    "q5_0": (8,),
    "q5_1": (9,),
    "q2_k": (10, 21),
    "q3_k": (12, 11, 13),
    "q4_k": (15, 14),
    "q5_k": (17, 16),
    "q6_k": (18,),
    "iq2_xxs": (19,),
    "iq2_xs": (20,),
    "iq3_xxs": (23,),
    "iq1_s": (24,),
    "iq4_nl": (25,),
    "iq3_s": (26, 22, 27),
    "iq2_s": (28, 29),
    "iq4_xs": (30,),
    "iq1_m": (31,),
    "bf16": (32,),
    "tq1_0": (36,),
    "tq2_0": (37,),
    "mxfp4": (38,),
    "nvfp4": (39,),
    "q1_0": (40,),
    "q2_0": (41,),
}
"""Encoding of most weights -> the numbers that ``general.file_type`` may have, the usual first."""


def encoding(name: str, tensor: Lazy, wanted: Encoding | None) -> Encoding:
    """Return how GGUF stores a tensor.

    Norms, biases and all other vectors are float32. Matrices get what is `wanted`, or the nearest
    (at last half precision) whose blocks their rows can be cut into; nothing wanted, they stay.

    Args:
        name: its name in GGUF.
        tensor: its shape and present encoding.
        wanted: the encoding asked for, None to keep the tensor's own.

    Example:
        >>> import numpy as np
        >>> from weighbridge.tensor import from_array
        >>> matrix = from_array("x", np.zeros((2, 33), np.float32))
        >>> str(encoding("blk.0.attn_q.weight", matrix, DENSE["bf16"]))
        'BF16'
        >>> str(encoding("output_norm.weight", matrix, DENSE["bf16"]))
        'F32'
    """
    if is_f32(name, tensor.ndim):
        return DENSE["f32"]
    if wanted is None:
        return tensor.encoding
    return fitting(wanted, tensor)


def fitting(wanted: Encoding, tensor: Lazy) -> Encoding:
    """Return `wanted`, or the nearest encoding that a tensor's rows can be cut into."""
    while not wanted.fits(tensor.shape):
        name = FALLBACKS.get(wanted.name)
        wanted = codec_for(name).encoding if name else DENSE["f16"]
    return wanted


def is_f32(name: str, rank: int) -> bool:
    """Tell whether llama.cpp reads the tensor of that name as float32 alone."""
    stem = name.removesuffix(".weight")
    return (
        rank <= 1
        or stem == name
        or stem.endswith("_norm")
        or any(stem == word or stem.endswith(f".{word}") for word in ALWAYS_F32)
    )


def file_type(tensors: Iterable[Lazy], before: int | None = None) -> int | None:
    """Return ``general.file_type`` for the encoding of most weights, None for an unknown one.

    Args:
        tensors: all tensors, in their final encodings.
        before: the number that the file had: it stays where it is as good (Q4_K_S and Q4_K_M
            differ in a few tensors only).
    """
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        if tensor.ndim > 1:
            sizes[tensor.encoding.name] += tensor.size
    (most, _), *_ = sizes.most_common(1) or [("f32", 0)]
    numbers = FILE_TYPES.get(most, ())
    return before if before in numbers else next(iter(numbers), None)
