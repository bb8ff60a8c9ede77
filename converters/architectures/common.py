"""What decoder families share: sizes, parameters and names, in the order of llama.cpp's converter.

A family's module puts these together with what is its own; `llama` is the one to start from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from weighbridge.aspects import Aspect, Derived, Param, integer, lookup, plain, typed
from weighbridge.converters.architectures.rope import Rope
from weighbridge.errors import InvalidFile
from weighbridge.metadata import Value, scalar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weighbridge.model import Config
    from weighbridge.report import Report
    from weighbridge.tensor import Lazy


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


def head(config: Config) -> int:
    """Return the values of a head: the heads' share of a token where the config does not say."""
    if lookup(config, "head_dim") is not None:
        return integer(config, "head_dim")
    return integer(config, "hidden_size") // integer(config, "num_attention_heads")


def layers(config: Config) -> dict[str, range]:
    """Return the values of the variable that counts blocks."""
    return {"layer": range(integer(config, "num_hidden_layers"))}


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
    """The number of tokens: a key-value of its own, or the length of the token array."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The one key."""
        return ("{arch}.vocab_size",)

    def to_metadata(self, config: Config, report: Report) -> Mapping[str, Value]:
        """Return the key-value."""
        del report
        return {"{arch}.vocab_size": scalar("u32", integer(config, "vocab_size"))}

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


LAYERS = Param("num_hidden_layers", "{arch}.block_count", "u32")
CONTEXT = Param("max_position_embeddings", "{arch}.context_length", "u32")
HIDDEN = Param("hidden_size", "{arch}.embedding_length", "u32")
INNER = Param("intermediate_size", "{arch}.feed_forward_length", "u32")
HEADS = Param("num_attention_heads", "{arch}.attention.head_count", "u32")
KV_HEADS = Param("num_key_value_heads", "{arch}.attention.head_count_kv", "u32", kv_heads)
ROPE = Rope()
RMS_EPS = Param("rms_norm_eps", "{arch}.attention.layer_norm_rms_epsilon", "f32")
KEY_LENGTH = Param("head_dim", "{arch}.attention.key_length", "u32", head)
VALUE_LENGTH = Derived("{arch}.attention.value_length", "u32", head)
ROPE_DIMENSIONS = Derived("{arch}.rope.dimension_count", "u32", head)

DECODER: tuple[Aspect, ...] = (
    LAYERS,
    CONTEXT,
    HIDDEN,
    INNER,
    HEADS,
    KV_HEADS,
    ROPE,
    RMS_EPS,
    KEY_LENGTH,
    VALUE_LENGTH,
    FileType(),
)
"""What llama.cpp's converter writes for every decoder with RMS norms, in its order."""
