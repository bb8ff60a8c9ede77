"""Qwen2 and Qwen2.5, and what is built on them: embeddings (gte-Qwen2), distilled reasoners.

How GGUF differs from Hugging Face's checkpoints, beyond names:

1. Nothing is permuted: llama.cpp turns the halves of a head, as transformers does.
2. Queries, keys and values always have biases, and no flag says so on either side.
3. A tied output layer is no tensor. One that is there all the same is kept: llama.cpp uses it.
4. ``use_sliding_window`` has no place: llama.cpp attends to every token of the context. It says
   whether ``sliding_window`` means anything, and ``max_window_layers`` or ``layer_types`` in which
   blocks.
5. Checkpoints of the base model lack the prefix ``model.``.
6. ``key_length`` is written where the config has ``head_dim``, which few have; llama.cpp loads the
   heads' share of a token alone.
7. An embedding model's pooling is a key-value; sentence-transformers has it in files of its own.
8. Linear scaling and YaRN are key-values; Llama 3's scaling would be a tensor that is not read.

Source: GGUF specification, and ``conversion/qwen.py`` of llama.cpp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from weighbridge.arch import Arch
from weighbridge.aspects import Lost, integer, typed
from weighbridge.converters.architectures.common import (
    COMPUTED,
    GIVEN_HEAD_LENGTHS,
    KEYED_ROPE,
    RMS_EPS,
    SHAPE,
    SILU,
    TIED,
    FileType,
    Headless,
    Vocabulary,
    attention,
    ends,
    feed_forward,
    layers,
    norms,
    sizes,
)
from weighbridge.converters.architectures.pooling import Pooling
from weighbridge.tensor_names import Naming

if TYPE_CHECKING:
    from weighbridge.model import Config
    from weighbridge.rules import Rule


def rules(config: Config) -> list[Rule]:
    """Return every tensor of the family, with its shape."""
    s = sizes(config)
    return [*ends(config), *norms(s), *attention(s, bias=True), *feed_forward(s)]


def slides(config: Config) -> bool:
    """Tell whether any block attends to a sliding window.

    Example:
        >>> slides({"use_sliding_window": True, "num_hidden_layers": 24, "max_window_layers": 21})
        True
        >>> slides({"use_sliding_window": True, "num_hidden_layers": 24, "max_window_layers": 28})
        False
    """
    if not config.get("use_sliding_window"):
        return False
    kinds = config.get("layer_types")
    if isinstance(kinds, list):
        return "sliding_attention" in kinds
    first: Any = typed("u32", config.get("max_window_layers"), "max_window_layers").data
    return bool(integer(config, "num_hidden_layers") > first)


WINDOW = Lost("sliding_window", "llama.cpp attends to every token of the context", when=slides)

QWEN2 = Arch(
    name="qwen2",
    classes=("Qwen2ForCausalLM", "Qwen2Model"),
    model_type="qwen2",
    aspects=(
        *SHAPE,
        KEYED_ROPE,
        RMS_EPS,
        *GIVEN_HEAD_LENGTHS,
        FileType(),
        Pooling(),
        Headless("Qwen2Model"),
        Vocabulary(written=False),
        TIED,
        SILU,
        WINDOW,
    ),
    rules=rules,
    variables=layers,
    dropped=COMPUTED,
    naming=Naming("model.", bare=("Qwen2Model",)),
    defaults={"max_window_layers": 28},
)
