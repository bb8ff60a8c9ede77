"""T5, its encoder alone, and relatives: Flan-T5, mT5, UMT5.

How GGUF differs from Hugging Face's checkpoints, beyond names:

1. One embedding serves both halves. Old checkpoints hold it two or three times
   (``encoder.embed_tokens``, ``decoder.embed_tokens``) or under one of these names alone.
2. Relative positions have a bias for each bucket and head, in the first block of each half (in
   every block for UMT5). llama.cpp's buckets always end at a distance of 128.
3. The feed-forward network is gated (v1.1, Flan-T5, mT5) or not: tensors or none here, a config
   entry there. llama.cpp computes ReLU in one and GELU's tanh approximation in the other.
4. transformers multiplies the decoder's output by ``d_model ** -0.5`` where the output layer was
   tied in the first version; llama.cpp never does: its logits are that much larger.
5. An output layer of its own (v1.1, Flan-T5) is a tensor; without it llama.cpp, as transformers,
   takes the embedding. ``tie_word_embeddings`` does not tell: transformers 5 saves it as true.
6. Norms are RMS norms, and their epsilon is written twice: llama.cpp reads the second.
7. ``decoder_start_token_id`` is in config.json or, since transformers 5, in
   generation_config.json.
8. A decoder with more blocks than the encoder has crashes llama.cpp, and its converter refuses it.
9. llama.cpp calls the encoder alone ``t5encoder``; its blocks are the same. It attends to what
   comes before alone unless ``attention.causal`` says no, which the converter does not write.

Source: GGUF specification, and ``conversion/t5.py`` of llama.cpp.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from weighbridge.arch import Arch
from weighbridge.aspects import Aspect, Derived, Fixed, Param, Present, integer, typed
from weighbridge.converters.architectures.common import FileType, Vocabulary, linear, norm
from weighbridge.converters.general import GENERATION
from weighbridge.errors import Unsupported
from weighbridge.sidefiles import dump_json, parse_json
from weighbridge.tensor_names import Naming

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from weighbridge.metadata import Metadata, Value
    from weighbridge.model import Config
    from weighbridge.report import Report
    from weighbridge.rules import Rule
    from weighbridge.tensor import Lazy

ENCODER = (("SelfAttention", "attn"), ("DenseReluDense", "ffn"))
DECODER = (("SelfAttention", "attn"), ("EncDecAttention", "cross_attn"), ("DenseReluDense", "ffn"))
"""What a block is made of: a part's name in a checkpoint, and in GGUF."""

RELATIVE = "relative_attention_bias"
GATE = "enc.blk.0.ffn_gate.weight"

ACTIVATIONS = {"relu": ("relu",), "gated-gelu": ("gelu_new", "gelu_pytorch_tanh")}
"""The feed-forward networks that llama.cpp computes, and what their activations are called."""

CONTEXT = Param("n_positions", "{arch}.context_length", "u32", lambda config: 512)
HIDDEN = Param("d_model", "{arch}.embedding_length", "u32", aliases=("hidden_size",))
INNER = Param("d_ff", "{arch}.feed_forward_length", "u32")
LAYERS = Param("num_layers", "{arch}.block_count", "u32", aliases=("num_hidden_layers",))
HEADS = Param("num_heads", "{arch}.attention.head_count", "u32", aliases=("num_attention_heads",))
HEAD = Param("d_kv", "{arch}.attention.key_length", "u32", aliases=("head_dim",))
BUCKETS = Param("relative_attention_num_buckets", "{arch}.attention.relative_buckets_count", "u32")
EPSILON = Param("layer_norm_epsilon", "{arch}.attention.layer_norm_rms_epsilon", "f32")


def gated(config: Config) -> bool:
    """Tell whether the feed-forward networks have a gate."""
    return str(config.get("feed_forward_proj")).startswith("gated")


def scales(config: Config) -> bool:
    """Tell whether transformers scales the decoder's output.

    Its T5 asks what ``tie_word_embeddings`` was, unless the answer is kept; its mT5 never does, its
    UMT5 always.

    Example:
        >>> scales({"tie_word_embeddings": False}), scales({"model_type": "mt5"}), scales({})
        (False, False, True)
    """
    kind = str(config.get("model_type"))
    if kind in ("mt5", "umt5"):
        return kind == "umt5"
    kept = config.get("scale_decoder_outputs")
    return config.get("tie_word_embeddings") is not False if kept is None else bool(kept)


@dataclass(frozen=True)
class FeedForward(Aspect):
    """``feed_forward_proj``: what kind of network, which a GGUF file says by having a gate."""

    def to_metadata(self, config: Config, report: Report) -> Mapping[str, Value]:
        """Return nothing, having checked that llama.cpp computes it.

        Raises:
            Unsupported: (rule ``config-value``) for another activation.
        """
        del report
        kind, activation = config.get("feed_forward_proj"), config.get("dense_act_fn")
        known = ACTIVATIONS.get(str(kind), ())
        if not known or (activation is not None and activation not in known):
            raise Unsupported(
                "config.json's feed_forward_proj is not what llama.cpp computes",
                rule="config-value",
                got=f"{kind}, {activation}",
                expected=" or ".join(ACTIVATIONS),
            )
        return {}

    def to_config(
        self, metadata: Mapping[str, Value], tensors: Mapping[str, Lazy]
    ) -> Mapping[str, Any]:
        """Return the kind."""
        del metadata
        return {"feed_forward_proj": "gated-gelu" if GATE in tensors else "relu"}


@dataclass(frozen=True)
class Scale(Aspect):
    """``scale_decoder_outputs``: the first version, which has no gates, scales the output."""

    def to_metadata(self, config: Config, report: Report) -> Mapping[str, Value]:
        """Return nothing, and tell."""
        if scales(config):
            why = "llama.cpp leaves it out: the same most likely token, other probabilities"
            report.note("dropped", "the decoder's output scale, d_model ** -0.5", why)
        return {}

    def to_config(
        self, metadata: Mapping[str, Value], tensors: Mapping[str, Lazy]
    ) -> Mapping[str, Any]:
        """Return whether it does."""
        del metadata
        return {"scale_decoder_outputs": GATE not in tensors}


@dataclass(frozen=True)
class DecoderStart(Param):
    """The token that the decoder begins with; generation_config.json is believed first."""

    def read_files(self, files: Mapping[str, bytes]) -> Mapping[str, Value]:
        """Return the key-value that generation_config.json says."""
        said = parse_json(files.get(GENERATION, b"{}"), GENERATION).get(self.config)
        return {} if said is None else {self.key: typed(self.type, said, self.config)}

    def revised_files(
        self, files: Mapping[str, bytes], metadata: Mapping[str, Value]
    ) -> dict[str, bytes]:
        """Return `files` with the token in generation_config.json, where there is one."""
        if GENERATION not in files:
            return dict(files)
        said = self.to_config(metadata, {})
        settings = parse_json(files[GENERATION], GENERATION)
        return {**files, GENERATION: dump_json({**settings, **said})}


@dataclass(frozen=True)
class DecoderLayers(Param):
    """The decoder's blocks: as many as the encoder has, where the config does not say."""

    def to_metadata(self, config: Config, report: Report) -> Mapping[str, Value]:
        """Return the key-value.

        Raises:
            Unsupported: (rule ``config-value``) for more blocks than the encoder has: llama.cpp
                keeps keys and values for that many, and crashes.
        """
        if self.count(config) > LAYERS.count(config):
            raise Unsupported(
                "llama.cpp does not run a decoder with more blocks than the encoder has",
                rule="config-value",
                got=self.count(config),
                expected=f"at most {LAYERS.count(config)}",
            )
        return super().to_metadata(config, report)


DECODER_LAYERS = DecoderLayers(
    "num_decoder_layers", "{arch}.decoder_block_count", "u32", LAYERS.value
)


def rules(config: Config, *, every: bool = False) -> list[Rule]:
    """Return every tensor of a model with both halves.

    Args:
        config: its config.
        every: whether every block has a bias for relative positions, or the first one alone.
    """
    unused = ("decoder.block.0.layer.1.EncDecAttention", "dec.blk.0.cross_attn")
    return [
        *encoder_rules(config, every=every),
        *_half(config, "decoder", "dec", DECODER, every=every),
        *_relative(config, *unused, optional=True),
        *linear("lm_head", "output", _table(config), optional=True),
    ]


def encoder_rules(config: Config, *, every: bool = False) -> list[Rule]:
    """Return every tensor of an encoder; see `rules`."""
    return [
        *linear("shared", "token_embd", _table(config)),
        *_half(config, "encoder", "enc", ENCODER, every=every),
    ]


def _table(config: Config) -> tuple[int, int]:
    return integer(config, "vocab_size"), HIDDEN.count(config)


def _half(
    config: Config, left: str, right: str, parts: Sequence[tuple[str, str]], *, every: bool
) -> Iterator[Rule]:
    """Yield the rules of an encoder or a decoder; its name is the variable that counts blocks."""
    hidden = HIDDEN.count(config)
    yield norm(f"{left}.final_layer_norm", f"{right}.output_norm", hidden)
    for number, (part, short) in enumerate(parts):
        names = f"{left}.block.{{{left}}}.layer.{number}", f"{right}.blk.{{{left}}}.{short}"
        yield norm(f"{names[0]}.layer_norm", f"{names[1]}_norm", hidden)
        yield from _matrices(config, f"{names[0]}.{part}", names[1], part)
    first = f"{left}.block.0.layer.0.SelfAttention", f"{right}.blk.0.attn"
    block = f"{left}.block.{{{left}}}.layer.0.SelfAttention", f"{right}.blk.{{{left}}}.attn"
    yield from _relative(config, *(block if every else first))


def _relative(config: Config, left: str, right: str, *, optional: bool = False) -> Iterator[Rule]:
    shape = BUCKETS.count(config), HEADS.count(config)
    yield from linear(f"{left}.{RELATIVE}", f"{right}_rel_b", shape, optional=optional)


def _matrices(config: Config, left: str, right: str, part: str) -> Iterator[Rule]:
    hidden, inner = HIDDEN.count(config), INNER.count(config)
    table = [("wi_0", "gate"), ("wi_1", "up")] if gated(config) else [("wi", "up")]
    out = ("wo", "down")
    if part != "DenseReluDense":
        inner = HEADS.count(config) * HEAD.count(config)
        table, out = [(name, name) for name in "qkv"], ("o", "o")
    for name, short in table:
        yield from linear(f"{left}.{name}", f"{right}_{short}", (inner, hidden))
    yield from linear(f"{left}.{out[0]}", f"{right}_{out[1]}", (hidden, inner))


def encoder_blocks(config: Config) -> dict[str, range]:
    """Return the values of the variable that counts an encoder's blocks."""
    return {"encoder": range(LAYERS.count(config))}


def blocks(config: Config) -> dict[str, range]:
    """Return the values of the variables that count the blocks of both halves."""
    return {**encoder_blocks(config), "decoder": range(DECODER_LAYERS.count(config))}


def _every_block_is_biased(metadata: Metadata, tensors: Mapping[str, Lazy]) -> bool:
    del metadata
    return "enc.blk.1.attn_rel_b.weight" in tensors


SHAPE: tuple[Aspect, ...] = (CONTEXT, HIDDEN, INNER, LAYERS)
ATTENTION: tuple[Aspect, ...] = (
    HEADS,
    HEAD,
    Derived("{arch}.attention.value_length", "u32", HEAD.value),
    Derived("{arch}.attention.layer_norm_epsilon", "f32", EPSILON.value),
    BUCKETS,
    EPSILON,
)
REST: tuple[Aspect, ...] = (
    FileType(),
    Vocabulary(written=False),
    FeedForward(),
    Fixed("relative_attention_max_distance", (128,)),
)

T5 = Arch(
    name="t5",
    classes=("T5ForConditionalGeneration", "T5WithLMHeadModel", "MT5ForConditionalGeneration"),
    model_type="t5",
    aspects=(
        *SHAPE,
        DECODER_LAYERS,
        *ATTENTION,
        DecoderStart(
            "decoder_start_token_id",
            "{arch}.decoder_start_token_id",
            "u32",
            lambda config: config.get("pad_token_id"),
            required=False,
        ),
        *REST,
        Present("tie_word_embeddings", "output.weight", then=False),
        Scale(),
    ),
    rules=rules,
    variables=blocks,
    naming=Naming(
        copies={
            "encoder.embed_tokens.weight": "shared.weight",
            "decoder.embed_tokens.weight": "shared.weight",
        }
    ),
    defaults={
        "d_kv": 64,
        "layer_norm_epsilon": 1e-6,
        "relative_attention_num_buckets": 32,
        "pad_token_id": 0,
    },
)

UMT5 = replace(
    T5,
    classes=("UMT5ForConditionalGeneration", "UMT5Model"),
    model_type="umt5",
    rules=partial(rules, every=True),
    marks=_every_block_is_biased,
)

T5_ENCODER = replace(
    T5,
    name="t5encoder",
    classes=("T5EncoderModel", "MT5EncoderModel"),
    aspects=(
        *SHAPE,
        *ATTENTION,
        Derived("{arch}.attention.causal", "bool", lambda config: False),
        *REST,
    ),
    rules=encoder_rules,
    variables=encoder_blocks,
)

UMT5_ENCODER = replace(
    T5_ENCODER,
    classes=("UMT5EncoderModel",),
    model_type="umt5",
    rules=partial(encoder_rules, every=True),
    marks=_every_block_is_biased,
)
