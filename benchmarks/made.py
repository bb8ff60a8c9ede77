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
    from weighbridge.region import Region, Shape
    from weighbridge.tensor import Tensor

BF16 = DENSE["bf16"]

STANDARD_DEVIATION = 0.02
"""Of the made-up weights: what transformers initialises Llama with (``initializer_range``)."""


@dataclass(frozen=True)
class Width:
    """How wide a made-up Llama is; its layers make up the rest of its size."""

    hidden: int
    intermediate: int
    heads: int
    key_value_heads: int


NARROW = Width(64, 192, 4, 2)
WIDE = Width(1024, 4096, 16, 4)
WIDE_FROM = 200_000_000
"""The bytes from which a made-up model is wide: an embedding of 49k tokens has 100 MB then."""


@dataclass(frozen=True)
class Noise(Lazy):
    """BF16 numbers of a normal distribution that are made when they are read.

    The numbers depend on the seed and on their place alone, however the tensor is cut.

    Example:
        >>> noise = Noise((4, 6), seed=1)
        >>> bool((noise[1:3, 2:5] == noise.values()[1:3, 2:5]).all())
        True
    """

    shape: Shape
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


def llama(nbytes: int, example: Model) -> Model:
    """Return a Llama of about `nbytes` bytes of BF16 weights, in Hugging Face's terms.

    Args:
        nbytes: how many; at least a layer is made.
        example: a real Llama in Hugging Face's terms, which lends config and tokenizer.
    """
    width = WIDE if nbytes >= WIDE_FROM else NARROW
    vocabulary = (example.config or {})["vocab_size"]
    layer = sum(BF16.nbytes(shape) for shape in _layer(width).values())
    layers = max(round((nbytes - vocabulary * width.hidden * 2) / layer), 1)
    shapes: dict[str, Shape] = {"model.embed_tokens.weight": (vocabulary, width.hidden)}
    for number in range(layers):
        shapes |= {f"model.layers.{number}.{k}.weight": v for k, v in _layer(width).items()}
    shapes["model.norm.weight"] = (width.hidden,)
    tensors = {
        name: _tensor(name, shape, seed) for seed, (name, shape) in enumerate(shapes.items())
    }
    config = _config(example.config or {}, width, layers)
    return Model("made", HUGGING_FACE, tensors, config=config, files=example.files)


def _tensor(name: str, shape: Shape, seed: int) -> Lazy:
    if len(shape) == 1:  # the norms
        return from_array(name, np.ones(shape, ml_dtypes.bfloat16))
    return Noise(shape, seed)


def _layer(width: Width) -> dict[str, Shape]:
    hidden, inner = width.hidden, width.intermediate
    head = hidden // width.heads
    shared = width.key_value_heads * head
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


def _config(example: Config, width: Width, layers: int) -> Config:
    return {
        **example,
        "hidden_size": width.hidden,
        "intermediate_size": width.intermediate,
        "num_attention_heads": width.heads,
        "num_key_value_heads": width.key_value_heads,
        "head_dim": width.hidden // width.heads,
        "num_hidden_layers": layers,
        "tie_word_embeddings": True,
    }
