"""T5, its encoder, mT5 and UMT5: gated and not, uneven halves, tied or with a head of its own.

llama.cpp's server runs no encoder-decoder, so these cases have no tolerance; ``test_t5.py`` calls
its library instead.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from support import seq2seq

from families.case import Case

T5 = MappingProxyType(
    {
        "vocab_size": 320,
        "d_model": 48,
        "d_kv": 12,
        "d_ff": 80,
        "num_layers": 3,
        "num_decoder_layers": 2,
        "num_heads": 3,
        "relative_attention_num_buckets": 16,
        "layer_norm_epsilon": 1e-5,
        "decoder_start_token_id": 0,
    }
)
"""Sizes of which none is equal to another or to a default."""


def _started(settings: dict[str, Any]) -> None:
    """Put in what transformers 5 saves elsewhere and llama.cpp's converter reads here."""
    settings["decoder_start_token_id"] = 0


def _as_of_old(settings: dict[str, Any]) -> None:
    """Spell it as the hub's first ones: fewer entries, and one for the context."""
    _started(settings)
    settings["n_positions"] = 512
    for key in ("dense_act_fn", "is_gated_act", "scale_decoder_outputs"):
        del settings[key]


def _untied(settings: dict[str, Any]) -> None:
    """Say what the hub's later ones say, of which transformers 5 remembers one consequence."""
    _started(settings)
    settings["tie_word_embeddings"] = False
    del settings["scale_decoder_outputs"]


BIASES = {
    name: "llama.cpp's quantiser leaves relative positions alone, and so do we; the converter "
    "packs them where there are enough heads"
    for half, long in (("enc", "encoder"), ("dec", "decoder"))
    for name in (
        f"{half}.blk.0.attn_rel_b.weight",
        f"{long}.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
    )
}

CASES = (
    Case(
        "t5",
        "T5ForConditionalGeneration",
        {**T5},
        tokenizer=seq2seq.t5,
        edit=_as_of_old,
        tolerance=None,
    ),
    Case(
        "t5-gated-q8_0",
        "T5ForConditionalGeneration",
        {**T5, "d_model": 64, "num_heads": 32, "feed_forward_proj": "gated-gelu"},
        dtype="float32",
        outtype="q8_0",
        tokenizer=seq2seq.t5,
        edit=_untied,
        tolerance=None,
        differs=BIASES,
    ),
    Case(
        "mt5-f16",
        "MT5ForConditionalGeneration",
        {**T5, "feed_forward_proj": "gated-gelu", "num_decoder_layers": None},
        dtype="float16",
        outtype="f16",
        tokenizer=seq2seq.t5,
        edit=_started,
        tolerance=None,
    ),
    Case(
        "umt5-f32",
        "UMT5ForConditionalGeneration",
        {**T5, "feed_forward_proj": "gated-gelu"},
        outtype="f32",
        tokenizer=seq2seq.t5,
        edit=_started,
        tolerance=None,
    ),
    Case(
        "t5-encoder",
        "T5EncoderModel",
        {**T5, "feed_forward_proj": "gated-gelu"},
        tokenizer=seq2seq.t5,
        tolerance=2e-2,
        differs={
            "t5encoder.attention.causal": "llama.cpp lets an encoder's tokens see only what comes "
            "before them unless it is told not to; the converter leaves that to the command line",
        },
    ),
)
