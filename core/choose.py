"""Which encoding each tensor of a target gets: by the wish, the dialect and the container."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from weighbridge import kernels, registry
from weighbridge.codecs import encodable_weights
from weighbridge.encoding import DENSE, Dense, Encoding, Scaled, dense, is_float
from weighbridge.errors import InvalidInput, Unsupported
from weighbridge.model import HUGGING_FACE
from weighbridge.parted import has_parts
from weighbridge.recode import recode
from weighbridge.text import counted
from weighbridge.weigh import check_entries, importance_of, note_importance

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weighbridge.dialect import Dialect
    from weighbridge.format import Format
    from weighbridge.importance import ImportanceMatrix
    from weighbridge.model import Model
    from weighbridge.recipe import Recipe
    from weighbridge.report import Report
    from weighbridge.tensor import Lazy
    from weighbridge.wish import Wish

WIDER = {True: ("bf16", "f16", "f32", "f64"), False: ("i8", "i16", "i32", "i64")}
"""What numbers become, without loss, in a format that lacks their encoding: floats, and others."""

PLAIN = DENSE["bf16"]
"""What most quantised weights of several parts become: as the models that they are made from."""


@dataclass(frozen=True)
class Wanted:
    """The encodings that a wish asks for.

    Attributes:
        encoding: of all matrices; with a dtype, of all tensors.
        recipe: chooses for each tensor.
        overrides: what a name is searched for, and the encoding of the matrices where it is found.
        importance: how much the columns of matrices count.
        matrices: whether tensors that are no matrices, or whose rows do not fit, are left alone.
        by_dialect: whether the dialect has a say.
    """

    encoding: Encoding | None = None
    recipe: Recipe | None = None
    overrides: tuple[tuple[re.Pattern[str], Encoding], ...] = ()
    importance: ImportanceMatrix | None = None
    matrices: bool = False
    by_dialect: bool = True

    @classmethod
    def of(cls, wish: Wish, container: Format) -> Wanted:
        """Return the encodings that a wish names.

        Raises:
            InvalidInput: (rule ``options``) when a dtype and a quantisation are given, or an
                importance matrix and nothing to quantise, (rule ``encoding``) for no such dtype,
                (rule ``tensor-type``) for no regular expression, (rule ``importance``) for what
                is made with an importance matrix only.
            InvalidFile, NotFound: for what is no importance matrix.
            Unsupported: (rules ``unknown-encoding``, ``no-encoder``, ``encoding-unsupported``) for
                one that cannot be written.
        """
        if wish.dtype and wish.quantize:
            raise InvalidInput("give a dtype or a quantisation, not both", rule="options")
        dialect = registry.dialect(container.dialect)
        weighted = wish.imatrix is not None
        recipe = None
        if wish.quantize and not wish.weights_only:
            recipe = dialect.recipe(wish.quantize, pure=wish.pure, weighted=weighted)
        if recipe and container.dialect == HUGGING_FACE and not container.directory:
            raise Unsupported(
                f"{wish.quantize} is written into a checkpoint directory alone",
                rule="encoding-unsupported",
                got=container.title,
                hint="config.json says how its weights are stored",
            )
        encoding = None if recipe else _named(wish)
        overrides = tuple(
            (_pattern(text), encodable_weights(name, weighted=weighted))
            for text, name in wish.tensor_types
        )
        for one in (*([encoding] if encoding else []), *(given for _, given in overrides)):
            if one.name not in container.encodings:
                raise _not_storable(container, one)
        importance = _importance(wish, dialect)
        matrices = bool(wish.quantize and wish.weights_only)
        return cls(encoding, recipe, overrides, importance, matrices, not wish.weights_only)


def _importance(wish: Wish, dialect: Dialect) -> ImportanceMatrix | None:
    if wish.imatrix is None:
        return None
    if not wish.quantize and not wish.tensor_types:
        raise InvalidInput(
            "an importance matrix is of use only where something is quantised",
            rule="options",
            hint="say with --quantize what is wanted",
        )
    return dialect.importance(wish.imatrix)


def _named(wish: Wish) -> Encoding | None:
    if wish.dtype:
        return encodable_weights(dense(wish.dtype))
    if wish.quantize:
        return encodable_weights(wish.quantize, weighted=wish.imatrix is not None)
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
    if wanted.recipe and not report.problems:
        with report.collect():
            model = wanted.recipe.packed(model)
    chosen = dict(wanted.recipe.encodings(model)) if wanted.recipe else {}
    chosen |= _overridden(model, wanted, report)
    tensors: dict[str, Lazy] = {}
    for name, tensor in model.tensors.items():
        asked = chosen.get(name) or _asked(tensor, wanted) or _of_parts(tensor, container)
        with report.collect(name):
            encoding = asked or tensor.encoding
            if wanted.by_dialect:
                encoding = dialect.encoding(name, tensor, asked)
            stored = _storable(tensor, encoding, asked, container)
            weights = importance_of(name, tensor, stored, wanted.importance, wanted.recipe)
            tensors[name] = recode(tensor, stored, importance=weights)
    _note_changes(model.tensors, tensors, report)
    if wanted.importance:
        with report.collect():
            check_entries(model.tensors, wanted.importance)
        note_importance(tensors, wanted.importance, report)
    recoded = replace(model, tensors=tensors)
    return _labelled(recoded, dialect, wanted) if wanted.by_dialect else recoded


def _labelled(model: Model, dialect: Dialect, wanted: Wanted) -> Model:
    """Return the model with what it says of its encodings."""
    labelled = dialect.complete(model)
    if wanted.recipe:
        labelled = wanted.recipe.label(labelled)
    return dialect.weighed(labelled, wanted.importance) if wanted.importance else labelled


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


def _of_parts(tensor: Lazy, container: Format) -> Encoding | None:
    """Return what quantised weights of several parts become where nobody asks for anything.

    They stay as they are where blocks of the container hold the same numbers in as many bytes.
    """
    if not isinstance(tensor.encoding, Scaled):
        return PLAIN if has_parts(tensor) else None
    from weighbridge.kernels.repack import pair_of  # only such weights need it

    pair = pair_of(tensor.encoding)
    kept = pair and pair.blocked.name in container.encodings and pair.blocked.fits(tensor.shape)
    return pair.blocked if pair and kept else PLAIN


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
