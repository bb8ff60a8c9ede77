"""Which encoding each tensor of a target gets: by the wish, the dialect and the container."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from weighbridge import kernels, registry
from weighbridge.codecs import encodable_weights
from weighbridge.encoding import DENSE, Dense, Encoding, dense, is_float
from weighbridge.errors import InvalidInput, Unsupported
from weighbridge.recode import recode
from weighbridge.text import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weighbridge.format import Format
    from weighbridge.model import Model
    from weighbridge.recipe import Recipe
    from weighbridge.report import Report
    from weighbridge.tensor import Lazy
    from weighbridge.wish import Wish

WIDER = {True: ("bf16", "f16", "f32", "f64"), False: ("i8", "i16", "i32", "i64")}
"""What numbers become, without loss, in a format that lacks their encoding: floats, and others."""


@dataclass(frozen=True)
class Wanted:
    """The encodings that a wish asks for.

    Attributes:
        encoding: of all matrices; with a dtype, of all tensors.
        recipe: chooses for each tensor.
        overrides: what a name is searched for, and the encoding of the matrices where it is found.
        matrices: whether tensors that are no matrices, or whose rows do not fit, are left alone.
        by_dialect: whether the dialect has a say.
    """

    encoding: Encoding | None = None
    recipe: Recipe | None = None
    overrides: tuple[tuple[re.Pattern[str], Encoding], ...] = ()
    matrices: bool = False
    by_dialect: bool = True

    @classmethod
    def of(cls, wish: Wish, container: Format) -> Wanted:
        """Return the encodings that a wish names.

        Raises:
            InvalidInput: (rule ``options``) when a dtype and a quantisation are given, (rule
                ``encoding``) for no such dtype, (rule ``tensor-type``) for no regular expression.
            Unsupported: (rules ``unknown-encoding``, ``no-encoder``, ``encoding-unsupported``) for
                one that cannot be written.
        """
        if wish.dtype and wish.quantize:
            raise InvalidInput("give a dtype or a quantisation, not both", rule="options")
        recipe = None
        if wish.quantize and not wish.weights_only:
            recipe = registry.dialect(container.dialect).recipe(wish.quantize, pure=wish.pure)
        encoding = None if recipe else _named(wish)
        overrides = tuple(
            (_pattern(text), encodable_weights(name)) for text, name in wish.tensor_types
        )
        for one in (*([encoding] if encoding else []), *(given for _, given in overrides)):
            if one.name not in container.encodings:
                raise _not_storable(container, one)
        matrices = bool(wish.quantize and wish.weights_only)
        return cls(encoding, recipe, overrides, matrices, not wish.weights_only)


def _named(wish: Wish) -> Encoding | None:
    if wish.dtype:
        return encodable_weights(dense(wish.dtype))
    if wish.quantize:
        return encodable_weights(wish.quantize)
    return None


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise InvalidInput(
            f"is no regular expression: {error}", rule="tensor-type", got=text
        ) from None


def encoded(model: Model, container: Format, wanted: Wanted, report: Report) -> Model:
    """Return the model with every tensor in the encoding that it will be stored in."""
    dialect = registry.dialect(container.dialect)
    chosen = dict(wanted.recipe.encodings(model)) if wanted.recipe else {}
    chosen |= _overridden(model, wanted, report)
    tensors: dict[str, Lazy] = {}
    for name, tensor in model.tensors.items():
        asked = chosen.get(name) or _asked(tensor, wanted)
        with report.collect(name):
            encoding = asked or tensor.encoding
            if wanted.by_dialect:
                encoding = dialect.encoding(name, tensor, asked)
            tensors[name] = recode(tensor, _storable(tensor, encoding, asked, container))
    _note_changes(model.tensors, tensors, report)
    recoded = replace(model, tensors=tensors)
    if not wanted.by_dialect:
        return recoded
    completed = dialect.complete(recoded)
    return wanted.recipe.label(completed) if wanted.recipe else completed


def _overridden(model: Model, wanted: Wanted, report: Report) -> dict[str, Encoding]:
    """Return the matrices that a regular expression names, each with its encoding."""
    chosen: dict[str, Encoding] = {}
    for pattern, encoding in wanted.overrides:
        named = [name for name, tensor in model.tensors.items() if pattern.search(name)]
        matrices = [name for name in named if model.tensors[name].ndim > 1]
        if not matrices:
            report.problem(
                InvalidInput(
                    "is found in the name of no matrix", rule="tensor-type", got=pattern.pattern
                )
            )
        chosen |= {name: encoding for name in matrices if name not in chosen}
    return chosen


def _asked(tensor: Lazy, wanted: Wanted) -> Encoding | None:
    """Return what the user asks of one tensor."""
    if wanted.encoding is None or not is_float(tensor.encoding):
        return None
    matrix = tensor.ndim > 1 and wanted.encoding.fits(tensor.shape)
    return wanted.encoding if matrix or not wanted.matrices else None


def _storable(
    tensor: Lazy, encoding: Encoding, asked: Encoding | None, container: Format
) -> Encoding:
    """Return `encoding` if the container has it, else the smallest that holds the same numbers."""
    if encoding.name in container.encodings:
        encoding.sizes(tensor.shape)
        return encoding
    if encoding != asked:
        for wider in (DENSE[candidate] for candidate in WIDER[is_float(encoding)]):
            if wider.name in container.encodings and _keeps(encoding, wider):
                return wider
    raise _not_storable(container, encoding)


def _keeps(encoding: Encoding, wider: Encoding) -> bool:
    """Tell whether every number is kept: those of blocks are float32 by definition."""
    blocks = wider == DENSE["f32"] and not isinstance(encoding, Dense)
    return blocks or kernels.lossless(encoding, wider)


def _not_storable(container: Format, encoding: Encoding) -> Unsupported:
    return Unsupported(
        f"{container.title} cannot store {encoding}",
        rule="encoding-unsupported",
        hint="choose another with --dtype",
    )


def _note_changes(before: Mapping[str, Lazy], after: Mapping[str, Lazy], report: Report) -> None:
    changes: Counter[tuple[str, str]] = Counter()
    for name, tensor in after.items():
        old, new = before[name].encoding, tensor.encoding
        kept = getattr(tensor, "exact", False) or _keeps(old, new)
        if old != new:
            changes["decoded" if kept else "rounded", f"{old} to {new}"] += 1
    for (kind, change), count in sorted(changes.items()):
        effect = "every number is kept" if kind == "decoded" else "numbers are rounded"
        report.note(kind, counted(count, "tensor"), f"{change}: {effect}")
