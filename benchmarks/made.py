"""Made-up models of a chosen size: seeded noise that is never held, written by our own engine."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from weighbridge import region as regions
from weighbridge.encoding import DENSE, Dense
from weighbridge.model import HUGGING_FACE, Model
from weighbridge.tensor import Lazy, from_array

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from weighbridge.model import Config
    from weighbridge.region import Region
    from weighbridge.region import Shape as Lengths
    from weighbridge.tensor import Tensor

BF16 = DENSE["bf16"]

STANDARD_DEVIATION = 0.02
"""Of the made-up weights: what transformers initialises Llama with (``initializer_range``)."""


@dataclass(frozen=True)
class Shape:
    """How large a made-up Llama is; its vocabulary is that of the model that lends a tokenizer."""

    hidden: int
    intermediate: int
    heads: int
    key_value_heads: int
    layers: int


SHAPES = {
    "llama-3m": Shape(64, 192, 2, 1, 1),
    "llama-15m": Shape(256, 768, 4, 2, 4),
    "llama-60m": Shape(512, 1536, 8, 2, 12),
    "llama-125m": Shape(768, 2048, 12, 4, 14),
    "llama-250m": Shape(1024, 4096, 16, 4, 13),
    "llama-500m": Shape(1024, 4096, 16, 4, 30),
    "llama-1b": Shape(2048, 8192, 32, 8, 16),
    "llama-3b": Shape(3072, 8192, 24, 8, 28),
    "llama-8b": Shape(4096, 14336, 32, 8, 32),
}
"""What can be made: about as many parameters as the name says, with 49 152 tokens."""


@dataclass(frozen=True)
class Noise(Lazy):
    """BF16 numbers of a normal distribution that are made when they are read.

    The numbers depend on the seed and on their place alone, however the tensor is cut.

    Example:
        >>> noise = Noise((4, 6), seed=1)
        >>> bool((noise[1:3, 2:5] == noise.values()[1:3, 2:5]).all())
        True
    """

    shape: Lengths
    seed: int
    encoding: Dense = BF16

    def leaves(self) -> Iterator[Tensor]:
        """Yield nothing: it is stored nowhere."""
        return iter(())

    def grains(self, region: Region) -> NDArray[Any]:
        """Make the numbers of a region."""
        pieces = [self._numbers(*run) for run in regions.runs(region, self.shape)]
        return np.concatenate(pieces).reshape(regions.extent(region))

    def compute(self, region: Region) -> NDArray[Any]:
        """Make the numbers of a region."""
        return self.grains(region)

    def _numbers(self, first: int, count: int) -> NDArray[Any]:
        """Draw by place: the generator jumps to the word that number `first` lies in."""
        start, stop = first // 4, -(-(first + count) // 4)
        generator = np.random.PCG64(self.seed).advance(start)
        draws = generator.random_raw(stop - start).view(np.uint16)
        return _normal()[draws[first - 4 * start :][:count]]


@cache
def _normal() -> NDArray[Any]:
    numbers = np.random.default_rng(0).standard_normal(1 << 16) * STANDARD_DEVIATION
    return numbers.astype(ml_dtypes.bfloat16)


def llama(shape: Shape, example: Model) -> Model:
    """Return a Llama of BF16 weights, in Hugging Face's terms.

    Args:
        shape: how large.
        example: a real Llama in Hugging Face's terms, which lends config and tokenizer.
    """
    vocabulary = (example.config or {})["vocab_size"]
    lengths: dict[str, Lengths] = {"model.embed_tokens.weight": (vocabulary, shape.hidden)}
    for number in range(shape.layers):
        lengths |= {f"model.layers.{number}.{k}.weight": v for k, v in _layer(shape).items()}
    lengths["model.norm.weight"] = (shape.hidden,)
    tensors = {name: _tensor(name, axes, seed) for seed, (name, axes) in enumerate(lengths.items())}
    config = _config(example.config or {}, shape)
    return Model("made", HUGGING_FACE, tensors, config=config, files=example.files)


def _tensor(name: str, axes: Lengths, seed: int) -> Lazy:
    if len(axes) == 1:  # the norms
        return from_array(name, np.ones(axes, ml_dtypes.bfloat16))
    return Noise(axes, seed)


def _layer(shape: Shape) -> dict[str, Lengths]:
    hidden, inner = shape.hidden, shape.intermediate
    shared = shape.key_value_heads * (hidden // shape.heads)
    return {
        "input_layernorm": (hidden,),
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (shared, hidden),
        "self_attn.v_proj": (shared, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "post_attention_layernorm": (hidden,),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }


def _config(example: Config, shape: Shape) -> Config:
    return {
        **example,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.key_value_heads,
        "head_dim": shape.hidden // shape.heads,
        "num_hidden_layers": shape.layers,
        "tie_word_embeddings": True,
    }
