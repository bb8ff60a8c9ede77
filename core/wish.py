"""What the user asks of a conversion."""

from __future__ import annotations

from dataclasses import dataclass, field

from weighbridge.layout import LayoutOptions


@dataclass(frozen=True)
class GraphWish:
    """What a user may say about graphs that are to be made.

    Attributes:
        task: what the model is to do; None reads it off the config.
        fuse: the execution provider of ONNX Runtime (``cpu``, ``cuda``) whose own operators are to
            be used; None for ONNX's alone.
        link: whether weights stay where they are, in the checkpoint's files.
        kept: how weights that are quantised in blocks are stored: ``exact``, ``small`` or ``fast``,
            or ``none``, decoded.
    """

    task: str | None = None
    fuse: str | None = None
    link: bool = False
    kept: str | None = None


@dataclass(frozen=True)
class Wish:
    """A conversion as it is asked for.

    Attributes:
        to: the target format's name; None reads it off the target.
        dtype: the dense type of every tensor of floating-point numbers.
        quantize: a recipe of the target's dialect (``Q4_K_M``), or the encoding of the weight
            matrices. With `weights_only`, of all matrices whose rows are whole blocks.
        pure: all matrices are to have the recipe's base encoding.
        tensor_types: regular expressions that are searched for in the target's tensor names, each
            with the encoding that these matrices get instead; the first that is found counts.
        imatrix: a file with an importance matrix, which the quantisation minds.
        weights_only: move tensors under their own names, without config, tokenizer or family.
        overwrite: whether an existing target may be replaced.
        layout: the target's shape on disk.
        pre_tokenizer: the pre-tokenizer's name, where it is not to be recognised.
        graph: what is said of the graphs, for a target that has some.
    """

    to: str | None = None
    dtype: str | None = None
    quantize: str | None = None
    pure: bool = False
    tensor_types: tuple[tuple[str, str], ...] = ()
    imatrix: str | None = None
    weights_only: bool = False
    overwrite: bool = False
    layout: LayoutOptions = field(default_factory=LayoutOptions)
    pre_tokenizer: str | None = None
    graph: GraphWish = field(default_factory=GraphWish)

    @property
    def recodes(self) -> bool:
        """Whether an encoding is asked for."""
        return bool(self.dtype or self.quantize or self.tensor_types)
