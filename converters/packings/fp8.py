"""FP8 weights beside their scales: fine-grained (DeepSeek), FBGEMM's rows.

Sources: transformers, ``integrations/finegrained_fp8.py`` (``weight_scale_inv``, which multiplies
for all its name, one for each block of ``weight_block_size``) and ``quantizer_fbgemm_fp8.py``
(``weight_scale``, one for each row).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from weighbridge.converters.packings import parts
from weighbridge.encoding import DATA, DENSE, is_float, scaled
from weighbridge.errors import Unsupported
from weighbridge.packed import reshaped
from weighbridge.packing import KEY, Packing
from weighbridge.recipe import Recipe
from weighbridge.scaling import EncodedPart

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weighbridge.encoding import Encoding
    from weighbridge.model import Config, Model
    from weighbridge.report import Report
    from weighbridge.tensor import Lazy

SCALE = "_scale_inv"
WEIGHT = ".weight"
BLOCK = 128
ENCODING = scaled(DENSE["f8_e4m3"], DENSE["f32"], (BLOCK, BLOCK))

NO_LINEAR = ("gpt2",)
"""Families whose layers are no ``nn.Linear``, which alone transformers replaces."""

ROUTERS = (".gate.weight", ".router.weight", ".shared_expert_gate.weight")
"""How the weights end that choose among experts."""

FLOATS = ("f8_e4m3", "f8_e5m2", "f8_e4m3fnuz", "f8_e5m2fnuz")


def is_fp8(tensor: Lazy) -> bool:
    """Tell a matrix of 8-bit floats."""
    return tensor.encoding.name in FLOATS and tensor.ndim > 1


def scale_of(tensor: Lazy) -> Lazy:
    """Return scales; what is said to be a byte is the exponent of a power of two."""
    parts.stored_as(tensor, "f32", "bf16", "f16", "f8_e8m0", "u8")
    return (
        reshaped(tensor, tensor.shape, DENSE["f8_e8m0"]) if tensor.encoding.name == "u8" else tensor
    )


def _blocks(found: parts.Parts, settings: Config) -> Lazy:
    block = parts.pair(settings.get("weight_block_size"), "weight_block_size")
    return parts.fitted(found[""], scale_of(found[SCALE]), [block] if block else [])


def _rows(found: parts.Parts, settings: Config) -> Lazy:
    del settings
    return parts.fitted(found[""], scale_of(found["_scale"]))


class FineGrained(Packing):
    """``quant_method: fp8``."""

    name = "fp8"

    def unpacked(self, tensors: parts.Tensors, settings: Config, report: Report) -> dict[str, Lazy]:
        """Return the weights; a matrix of FP8 without scales is a problem."""
        kinds = [parts.Kind("", (SCALE,), "", _blocks, when=is_fp8)]
        return parts.put_together(tensors, kinds, settings, report)

    def recipe(self, name: str) -> Recipe | None:
        """Return the recipe ``fp8``."""
        return Fp8Recipe() if name.lower() == self.name else None


class Fp8Recipe(Recipe):
    """The matrices of layers in FP8, a scale for each 128x128, as DeepSeek's and Qwen's are.

    Embeddings, heads and routers stay as they are, and so do matrices that are no whole number of
    blocks, which transformers cannot dequantise: ``modules_to_not_convert`` names them.
    """

    def encodings(self, model: Model) -> Mapping[str, Encoding]:
        """Return nothing: the weights are packed already."""
        del model
        return {}

    def packed(self, model: Model) -> Model:
        """Return the model with elements and scales in place of weights.

        Raises:
            Unsupported: (rule ``no-config``) without a config to say so, (rule ``quantize-family``)
                for a family whose layers transformers cannot have in FP8, (rule
                ``nothing-to-quantize``) when no matrix is one that can.
        """
        _check_family(model)
        tensors: dict[str, Lazy] = {}
        for name, tensor in model.tensors.items():
            if not _is_packable(name, tensor):
                tensors[name] = tensor
                continue
            tensors[name] = EncodedPart(tensor, ENCODING, DATA)
            tensors[name + SCALE] = EncodedPart(tensor, ENCODING, "scale")
        if len(tensors) == len(model.tensors):
            raise Unsupported(
                "no matrix of a layer is a whole number of blocks",
                rule="nothing-to-quantize",
                expected=f"a multiple of {BLOCK} on both axes",
            )
        return replace(model, tensors=tensors)

    def label(self, model: Model) -> Model:
        """Return the model with a ``quantization_config``."""
        kept = [
            name.removesuffix(WEIGHT)
            for name, tensor in model.tensors.items()
            if name.endswith(WEIGHT) and tensor.ndim == 2 and name + SCALE not in model.tensors
        ]
        settings = {
            "quant_method": "fp8",
            "fmt": "e4m3",
            "activation_scheme": "dynamic",
            "weight_block_size": [BLOCK, BLOCK],
            "modules_to_not_convert": kept,
        }
        return replace(model, config={**(model.config or {}), KEY: settings})


def _check_family(model: Model) -> None:
    if model.config is None:
        raise Unsupported("a quantised checkpoint needs a config", rule="no-config")
    family = model.config.get("model_type")
    if family in NO_LINEAR:
        raise Unsupported(
            "transformers has no FP8 layer in place of this family's",
            rule="quantize-family",
            got=family,
        )


def _is_packable(name: str, tensor: Lazy) -> bool:
    """Tell the weight of a linear layer among those that are repeated: its name has a number."""
    return (
        name.endswith(WEIGHT)
        and not name.endswith(ROUTERS)
        and any(part.isdecimal() for part in name.split("."))
        and is_float(tensor.encoding)
        and tensor.ndim == 2
        and all(length and length % BLOCK == 0 for length in tensor.shape)
    )


class Fbgemm(Packing):
    """``quant_method: fbgemm_fp8``."""

    name = "fbgemm_fp8"

    def unpacked(self, tensors: parts.Tensors, settings: Config, report: Report) -> dict[str, Lazy]:
        """Return the weights; a matrix of FP8 without scales is a problem."""
        kinds = [parts.Kind("", ("_scale",), "", _rows, when=is_fp8)]
        return parts.put_together(tensors, kinds, settings, report)


FINE_GRAINED = FineGrained()
FBGEMM = Fbgemm()
