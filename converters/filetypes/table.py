"""The table of file types, as llama-quantize has them; numbers are ``llama_ftype`` in ``llama.h``.

Source: llama.cpp, ``src/llama-quant.cpp`` and ``tools/quantize``. What llama.cpp itself chose for a
dozen models, with and without importance matrix, is in ``tests/data/llama_quantize.json``.
"""

from __future__ import annotations

from weighbridge.converters.filetypes.conditions import (
    before,
    earliest,
    eight_experts,
    either,
    every,
    falcon,
    first,
    four_experts,
    grouped,
    middle,
    more,
    not_falcon,
    other_than,
    stacked,
    weighted,
)
from weighbridge.converters.filetypes.filetype import Choice, FileType

OUTPUT_OF_EIGHT = Choice("attn_output", "q5_k", every(eight_experts, not_falcon))
OF_FOUR_BITS = (
    Choice("attn_v", "q5_k", grouped),
    Choice("ffn_down", "q5_k", every(first(8), other_than(weighted))),
    OUTPUT_OF_EIGHT,
)
MORE_VALUES = Choice("attn_v", "q6_k", more)


def attention_output(encoding: str) -> tuple[Choice, ...]:
    """Return the choices for output projections that most file types with some have."""
    return OUTPUT_OF_EIGHT, Choice("attn_output", encoding, not_falcon)


def of_two_bits(more: str, *output: Choice) -> tuple[Choice, ...]:
    """Return the choices of the smallest file types.

    Args:
        more: what the first down projections get, and value projections with few sharers.
        output: what output projections get.
    """
    return (
        Choice("output", "q5_k"),
        Choice("token_embd", more),
        Choice("attn_v", "q4_k", either(grouped, four_experts)),
        Choice("attn_v", more),
        Choice("attn_k", "q4_k", eight_experts),
        Choice("ffn_down", more, earliest(8)),
        Choice("attn_output", "q5_k", eight_experts),
        *output,
    )


FILE_TYPES = {
    entry.name: entry
    for entry in (
        FileType("Q4_0", 2, "q4_0", (Choice("ffn_down", "q4_1", every(weighted, first(8))),)),
        FileType("Q4_1", 3, "q4_1"),
        FileType("Q8_0", 7, "q8_0"),
        FileType("Q5_0", 8, "q5_0", (Choice("ffn_down", "q5_1", every(weighted, first(8))),)),
        FileType("Q5_1", 9, "q5_1"),
        FileType(
            "Q2_K",
            10,
            "q2_k",
            (
                Choice("attn_v", "q4_k", grouped),
                Choice("attn_v", "q3_k"),
                Choice("ffn_down", "q3_k"),
                *attention_output("q3_k"),
            ),
        ),
        FileType("Q3_K_S", 11, "q3_k", (OUTPUT_OF_EIGHT,)),
        FileType(
            "Q3_K_M",
            12,
            "q3_k",
            (
                Choice("attn_v", "q5_k", before(2)),
                Choice("attn_v", "q4_k"),
                Choice("ffn_down", "q5_k", first(16)),
                Choice("ffn_down", "q4_k", either(not_falcon, more)),
                *attention_output("q4_k"),
            ),
        ),
        FileType(
            "Q3_K_L",
            13,
            "q3_k",
            (
                Choice("attn_v", "q5_k"),
                Choice("ffn_down", "q4_k", falcon),
                Choice("ffn_down", "q5_k"),
                Choice("attn_output", "q4_k", falcon),
                Choice("attn_output", "q5_k", other_than(eight_experts)),
            ),
        ),
        FileType(
            "Q4_K_S",
            14,
            "q4_k",
            (
                Choice("attn_v", "q5_k", before(4)),
                Choice("ffn_down", "q5_k", every(not_falcon, first(8))),
                OUTPUT_OF_EIGHT,
            ),
        ),
        FileType(
            "Q4_K_M",
            15,
            "q4_k",
            (
                MORE_VALUES,
                Choice("ffn_down", "q6_k", every(falcon, first(16))),
                Choice("ffn_down", "q5_k", every(falcon, more)),
                Choice("ffn_down", "q6_k", every(not_falcon, more)),
                OUTPUT_OF_EIGHT,
            ),
        ),
        FileType("Q5_K_S", 16, "q5_k"),
        FileType("Q5_K_M", 17, "q5_k", (MORE_VALUES, Choice("ffn_down", "q6_k", more))),
        FileType("Q6_K", 18, "q6_k"),
        FileType("IQ2_XXS", 19, "iq2_xxs", of_two_bits("q2_k"), helps=False),
        FileType("IQ2_XS", 20, "iq2_xs", of_two_bits("q2_k"), helps=False),
        FileType(
            "Q2_K_S",
            21,
            "q2_k",
            (Choice("attn_v", "q4_k", grouped), Choice("ffn_down", "q4_k", first(8))),
        ),
        FileType(
            "IQ3_XS",
            22,
            "iq3_s",
            (
                Choice("attn_v", "q4_k", grouped),
                Choice("attn_k", "iq3_xxs"),
                Choice("attn_q", "iq3_xxs"),
                OUTPUT_OF_EIGHT,
                Choice("ffn_gate", "iq3_xxs", middle),
                Choice("ffn_up", "iq3_xxs", middle),
            ),
        ),
        FileType(
            "IQ3_XXS",
            23,
            "iq3_xxs",
            (
                Choice("output", "q5_k"),
                Choice("token_embd", "iq3_s"),
                Choice("attn_v", "q4_k", grouped),
                Choice("attn_k", "iq2_s"),
                Choice("attn_q", "iq2_s"),
                *attention_output("iq3_s"),
            ),
        ),
        FileType(
            "IQ1_S",
            24,
            "iq1_s",
            of_two_bits("q2_k", Choice("attn_output", "iq2_xxs")),
            helps=False,
        ),
        FileType(
            "IQ4_NL",
            25,
            "iq4_nl",
            OF_FOUR_BITS,
        ),
        FileType(
            "IQ3_S",
            26,
            "iq3_s",
            (Choice("attn_v", "q4_k", grouped), OUTPUT_OF_EIGHT),
        ),
        FileType(
            "IQ3_M",
            27,
            "iq3_s",
            (
                Choice("attn_v", "q4_k"),
                Choice("ffn_down", "q4_k", either(first(8), every(eight_experts, more))),
                *attention_output("q4_k"),
            ),
        ),
        FileType(
            "IQ2_S",
            28,
            "iq2_xs",
            of_two_bits("iq3_s", Choice("attn_output", "iq3_s")),
            helps=False,
        ),
        FileType(
            "IQ2_M",
            29,
            "iq2_s",
            of_two_bits("iq3_s", Choice("attn_output", "iq3_s")),
            helps=False,
        ),
        FileType(
            "IQ4_XS",
            30,
            "iq4_xs",
            OF_FOUR_BITS,
        ),
        FileType(
            "IQ1_M",
            31,
            "iq1_m",
            of_two_bits("q2_k", Choice("attn_output", "iq2_xxs")),
            helps=False,
        ),
        FileType("TQ1_0", 36, "tq1_0", (Choice("token_embd", "q4_k"),)),
        FileType("TQ2_0", 37, "tq2_0", (Choice("token_embd", "q4_k"),)),
        FileType(
            "MXFP4_MOE",
            38,
            "mxfp4",
            (Choice("output", "q8_0"), Choice("*", "mxfp4", stacked), Choice("*", "q8_0")),
            helps=False,
        ),
    )
}
"""Name -> file type."""

ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}
"""Short names -> the file types that llama-quantize takes them for."""

NEED_IMPORTANCE = (
    *("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS", "Q2_K_S"),
)
"""The file types that llama-quantize makes with an importance matrix only."""
