"""What decoder families share: sizes, key-values in llama.cpp's converter's order, and rules.

A family's module puts these together with what is its own; `llama` is the one to start from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from weighbridge.aspects import (
    Aspect,
    Derived,
    Fixed,
    Param,
    Present,
    integer,
    lookup,
    plain,
    typed,
)
from weighbridge.converters.architectures.rope import Rope, head
from weighbridge.errors import InvalidFile
from weighbridge.metadata import Value, scalar
from weighbridge.ops import Op, Swap
from weighbridge.rules import Rule, rule

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from weighbridge.encoding import Shape
    from weighbridge.model import Config
    from weighbridge.report import Report
    from weighbridge.tensor import Lazy

LAYER = "model.layers.{layer}"
"""What the tensors of a decoder's block begin with in a checkpoint."""

BLOCK = "blk.{layer}"
"""What they begin with in GGUF."""

COMPUTED = {
    f"{LAYER}.self_attn.rotary_emb.inv_freq": "transformers computes it from rope_theta",
}
"""What old checkpoints hold and GGUF does not, for `Arch.dropped`."""


@dataclass(frozen=True)
class Sizes:
    """The numbers that a decoder's shapes are made of, each at least 1.

    Attributes:
        vocab: tokens, which are the rows of the embedding.
        layers: blocks.
        hidden: values of a token between blocks.
        inner: values of a token inside a feed-forward network.
        heads: query heads.
        kv_heads: key and value heads.
        head: values of a head.
    """

    vocab: int
    layers: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    head: int


def sizes(config: Config) -> Sizes:
    """Return the sizes of a decoder.

    Raises:
        InvalidFile: (rules ``missing-config``, ``config-type``) with the config's key.
    """
    return Sizes(
        vocab=integer(config, "vocab_size"),
        layers=integer(config, "num_hidden_layers"),
        hidden=integer(config, "hidden_size"),
        inner=integer(config, "intermediate_size"),
        heads=integer(config, "num_attention_heads"),
        kv_heads=kv_heads(config),
        head=head(config),
    )


def kv_heads(config: Config) -> int:
    """Return the key and value heads: as many as query heads where the config does not say."""
    grouped = lookup(config, "num_key_value_heads") is not None
    return integer(config, "num_key_value_heads" if grouped else "num_attention_heads")


def layers(config: Config) -> dict[str, range]:
    """Return the values of the variable that counts blocks."""
    return {"layer": range(integer(config, "num_hidden_layers"))}


def linear(
    left: str, right: str, shape: Shape, *ops: Op, bias: bool = False, optional: bool = False
) -> Iterator[Rule]:
    """Yield the rules of a linear layer: of its weight and, where it has one, of its bias.

    Args:
        left: what both are called in a checkpoint, without their endings.
        right: the same in GGUF.
        shape: the weight's shape in a checkpoint; the bias has its rows.
        ops: what makes GGUF's weight and bias from the checkpoint's: they move rows alone.
        bias: whether there is one.
        optional: whether a checkpoint may lack the layer.

    Example:
        >>> [rule.left for rule in linear("a", "b", (2, 3), bias=True)]
        [('a.weight',), ('a.bias',)]
    """
    yield rule(f"{left}.weight", f"{right}.weight", *ops, shape=shape, optional=optional)
    if bias:
        yield rule(f"{left}.bias", f"{right}.bias", *ops, shape=shape[:1], optional=optional)


def norm(left: str, right: str, size: int, *ops: Op) -> Rule:
    """Return the rule of a norm's weight, the names given without their ending."""
    return rule(f"{left}.weight", f"{right}.weight", *ops, shape=(size,))


def pairs(heads: int, size: int) -> Swap:
    """Return what interleaves the two halves of every head's rows.

    llama.cpp's ``llama`` turns neighbouring values of a head, where transformers turns its halves.
    """
    return Swap(0, heads, 2, size // 2)


def ends(config: Config, *norm_ops: Op) -> Iterator[Rule]:
    """Yield the rules of what is before and after the blocks: embedding, last norm, output layer.

    An output layer that is there although the config ties it to the embedding is kept; a model
    without a head, whose class ends in ``Model``, has none.
    """
    s = sizes(config)
    table = (s.vocab, s.hidden)
    yield from linear("model.embed_tokens", "token_embd", table)
    yield norm("model.norm", "output_norm", s.hidden, *norm_ops)
    headless = any(str(name).endswith("Model") for name in config.get("architectures") or ())
    optional = headless or bool(config.get("tie_word_embeddings"))
    yield from linear("lm_head", "output", table, optional=optional)


def norms(s: Sizes) -> Iterator[Rule]:
    """Yield the rules of the norms before the two halves of a block."""
    yield norm(f"{LAYER}.input_layernorm", f"{BLOCK}.attn_norm", s.hidden)
    yield norm(f"{LAYER}.post_attention_layernorm", f"{BLOCK}.ffn_norm", s.hidden)


def attention(
    s: Sizes, *, paired: bool = False, bias: bool = False, output_bias: bool = False
) -> Iterator[Rule]:
    """Yield the rules of a block's four attention matrices.

    Args:
        s: the decoder's sizes.
        paired: whether GGUF has the rows of queries and keys interleaved, see `pairs`.
        bias: whether queries, keys and values have biases.
        output_bias: whether the output has one.
    """
    queries, keys = s.heads * s.head, s.kv_heads * s.head
    turned = [[pairs(heads, s.head)] if paired else [] for heads in (s.heads, s.kv_heads)]
    for left, right, shape, ops, biased in (
        ("q_proj", "attn_q", (queries, s.hidden), turned[0], bias),
        ("k_proj", "attn_k", (keys, s.hidden), turned[1], bias),
        ("v_proj", "attn_v", (keys, s.hidden), [], bias),
        ("o_proj", "attn_output", (s.hidden, queries), [], output_bias),
    ):
        names = f"{LAYER}.self_attn.{left}", f"{BLOCK}.{right}"
        yield from linear(*names, shape, *ops, bias=biased)


def head_norms(s: Sizes) -> Iterator[Rule]:
    """Yield the rules of the norms of every head's query and key."""
    for name in ("q_norm", "k_norm"):
        yield norm(f"{LAYER}.self_attn.{name}", f"{BLOCK}.attn_{name}", s.head)


def feed_forward(s: Sizes, *, bias: bool = False) -> Iterator[Rule]:
    """Yield the rules of a block's gated feed-forward network."""
    for left, right, shape in (
        ("gate_proj", "ffn_gate", (s.inner, s.hidden)),
        ("up_proj", "ffn_up", (s.inner, s.hidden)),
        ("down_proj", "ffn_down", (s.hidden, s.inner)),
    ):
        yield from linear(f"{LAYER}.mlp.{left}", f"{BLOCK}.{right}", shape, bias=bias)


@dataclass(frozen=True)
class FileType(Aspect):
    """The place of ``general.file_type``, whose value follows from the final encodings."""

    def to_metadata(self, config: Config, report: Report) -> Mapping[str, Value]:
        """Return a value that holds the place."""
        del config, report
        return {"general.file_type": scalar("u32", 0)}

    def to_config(
        self, metadata: Mapping[str, Value], tensors: Mapping[str, Lazy]
    ) -> Mapping[str, Any]:
        """Return nothing: config.json names a dtype once the encodings are known."""
        del metadata, tensors
        return {}


@dataclass(frozen=True)
class Vocabulary(Aspect):
    """The number of tokens: a key-value of its own, or the length of the token array.

    Attributes:
        written: whether llama.cpp's converter writes the key-value for the family.
    """

    written: bool = True

    @property
    def keys(self) -> tuple[str, ...]:
        """The one key."""
        return ("{arch}.vocab_size",)

    def to_metadata(self, config: Config, report: Report) -> Mapping[str, Value]:
        """Return the key-value, where it is written."""
        del report
        size = scalar("u32", integer(config, "vocab_size"))
        return {"{arch}.vocab_size": size} if self.written else {}

    def to_config(
        self, metadata: Mapping[str, Value], tensors: Mapping[str, Lazy]
    ) -> Mapping[str, Any]:
        """Return the number that the key-value, the tokens or the embedding give.

        Raises:
            InvalidFile: (rule ``missing-key``) when nothing gives one.
        """
        (key,) = self.keys
        tokens = metadata.get("tokenizer.ggml.tokens")
        if key in metadata:
            return {"vocab_size": plain(metadata[key], "u32", key)}
        if tokens is not None and tokens.type == "array":
            return {"vocab_size": len(tokens.data)}  # type: ignore[arg-type]
        if "token_embd.weight" in tensors:
            return {"vocab_size": tensors["token_embd.weight"].shape[0]}
        raise InvalidFile(f"lacks the key-value {key}", rule="missing-key")


@dataclass(frozen=True)
class VocabularyQuirk(Aspect):
    """Tokenizer key-values that llama.cpp's converter derives from the size of the vocabulary.

    Attributes:
        vocab_size: the size that is taken for a family's mark.
        metadata: what it makes the converter write.
    """

    vocab_size: int
    metadata: tuple[tuple[str, str, Any], ...]

    def to_metadata(self, config: Config, report: Report) -> Mapping[str, Value]:
        """Return the key-values for a vocabulary of this size."""
        del report
        if lookup(config, "vocab_size") != self.vocab_size:
            return {}
        return {key: typed(type, data, key) for key, type, data in self.metadata}

    def to_config(
        self, metadata: Mapping[str, Value], tensors: Mapping[str, Lazy]
    ) -> Mapping[str, Any]:
        """Return nothing: the tokenizer's files say it."""
        del metadata, tensors
        return {}


@dataclass(frozen=True)
class Headless(Aspect):
    """The class of a model without an output layer: a file that pools embeddings is one.

    Attributes:
        model: the class.
    """

    model: str

    def to_metadata(self, config: Config, report: Report) -> Mapping[str, Value]:
        """Return nothing: the rules know the class."""
        del config, report
        return {}

    def to_config(
        self, metadata: Mapping[str, Value], tensors: Mapping[str, Lazy]
    ) -> Mapping[str, Any]:
        """Return the class, where the file is such a model."""
        pools = "{arch}.pooling_type" in metadata and "output.weight" not in tensors
        return {"architectures": [self.model]} if pools else {}


LAYERS = Param("num_hidden_layers", "{arch}.block_count", "u32")
CONTEXT = Param("max_position_embeddings", "{arch}.context_length", "u32")
HIDDEN = Param("hidden_size", "{arch}.embedding_length", "u32")
INNER = Param("intermediate_size", "{arch}.feed_forward_length", "u32")
HEADS = Param("num_attention_heads", "{arch}.attention.head_count", "u32")
KV_HEADS = Param("num_key_value_heads", "{arch}.attention.head_count_kv", "u32", kv_heads)
ROPE = Rope()
KEYED_ROPE = Rope(kinds=("default", "linear", "yarn"))
"""Of the families for which the converter writes no tensor of factors."""

RMS_EPS = Param("rms_norm_eps", "{arch}.attention.layer_norm_rms_epsilon", "f32")
KEY_LENGTH = Param("head_dim", "{arch}.attention.key_length", "u32", head)
VALUE_LENGTH = Derived("{arch}.attention.value_length", "u32", head)
ROPE_DIMENSIONS = Derived("{arch}.rope.dimension_count", "u32", head)

TIED = Present("tie_word_embeddings", "output.weight", then=False)
SILU = Fixed("hidden_act", ("silu", "swish"))

SHAPE: tuple[Aspect, ...] = (LAYERS, CONTEXT, HIDDEN, INNER, HEADS, KV_HEADS)
HEAD_LENGTHS: tuple[Aspect, ...] = (KEY_LENGTH, VALUE_LENGTH)
GIVEN_HEAD_LENGTHS: tuple[Aspect, ...] = (
    Param("head_dim", "{arch}.attention.key_length", "u32", required=False),
    Derived("{arch}.attention.value_length", "u32", lambda config: lookup(config, "head_dim")),
)
"""Where the config may leave a head's length to be derived, and the converter then does too."""

DECODER: tuple[Aspect, ...] = (*SHAPE, ROPE, RMS_EPS, *HEAD_LENGTHS, FileType())
"""What llama.cpp's converter writes for every decoder with RMS norms, in its order.

What is about experts stands between the norms and the heads' lengths.
"""
