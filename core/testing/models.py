"""Models in memory for tests: tensors of every encoding, with known bytes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from weighbridge.kernels import codec_for
from weighbridge.metadata import string
from weighbridge.model import Model
from weighbridge.tensor import Lazy, Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from weighbridge.encoding import Encoding
    from weighbridge.format import Format
    from weighbridge.region import Region, Shape

CONFIG = {"architectures": ["TinyModel"], "hidden_size": 8, "model_type": "tiny", "note": "größer"}
FILES = {"tokenizer.json": b'{"version": "1.0"}', "tokenizer.model": bytes(range(256))}
METADATA = {"test.note": string("重み, łatwo"), "test.empty": string("")}


def tensor_of(name: str, encoding: Encoding, shape: Shape, seed: int = 0) -> Tensor:
    """Return a tensor in memory whose bytes are random, and the same for the same arguments.

    Example:
        >>> from weighbridge.encoding import DENSE
        >>> tensor_of("x", DENSE["bf16"], (2, 3)).part().shape
        (12,)
    """
    rng = np.random.default_rng([seed, len(name), *shape])
    above = 2 if encoding.name == "bool" else 256
    parts = {
        part: rng.integers(0, above, size, np.uint8) for part, size in encoding.sizes(shape).items()
    }
    return Tensor(name, shape, encoding, parts)


def sample_model(container: Format) -> Model:
    """Return a model with a tensor of every encoding that `container` stores, and metadata.

    Where the container carries them, it has a config and side files too, one of them binary.
    """
    encodings = [codec_for(name).encoding for name in sorted(container.encodings)]
    tensors = {
        f"tensor.{encoding.name}": tensor_of(
            f"tensor.{encoding.name}", encoding, (2, 3, 2 * encoding.grain), seed
        )
        for seed, encoding in enumerate(encodings)
    }
    model = Model("memory", container.dialect, tensors, metadata=METADATA)
    return replace(model, config=CONFIG, files=FILES) if container.carries_files else model


@dataclass(frozen=True)
class Unreadable(Lazy):
    """A tensor of which nothing but shape and encoding may be asked.

    Attributes:
        shape: its shape, as large as you like.
        encoding: its encoding.
    """

    shape: Shape
    encoding: Encoding

    def grains(self, region: Region) -> NoReturn:
        """Fail."""
        raise AssertionError(f"weights were read: grains of {region}")

    def compute(self, region: Region) -> NoReturn:
        """Fail."""
        raise AssertionError(f"weights were read: values of {region}")

    def leaves(self) -> Iterator[Tensor]:
        """Yield nothing."""
        return iter(())


def unreadable(tensors: Mapping[str, Lazy]) -> dict[str, Lazy]:
    """Return tensors of the same names, shapes and encodings that cannot be read."""
    return {name: Unreadable(t.shape, t.encoding) for name, t in tensors.items()}


def part_bytes(tensor: Lazy) -> dict[str, bytes]:
    """Return the stored bytes of each part of a tensor."""
    if isinstance(tensor, Tensor):
        return {part: tensor.part(part).tobytes() for part in tensor.parts}
    grains: np.ndarray[Any, Any] = tensor.grains(tuple((0, n) for n in tensor.grid))
    return {"data": grains.tobytes()}
