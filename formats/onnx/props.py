"""What a model says beside its tensors: its properties, its config and its side files.

``metadata_props`` are texts. A value of bytes, as a side file that is no text becomes, is written
in base64 under a key of its own kind.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from weighbridge import metadata, sidefiles
from weighbridge.errors import InvalidFile, Unsupported
from weighbridge.formats.onnx.entries import key_value
from weighbridge.formats.onnx.schema import ModelProto, OperatorSetId
from weighbridge.graph import PROPERTY
from weighbridge.protobuf import Message, signed

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from weighbridge.metadata import Metadata, Value
    from weighbridge.model import Config, Model

FACTS = frozenset({
    "onnx.ir_version", "onnx.producer_name", "onnx.producer_version", "onnx.domain",
    "onnx.model_version", "onnx.doc_string", "onnx.graph_name", "onnx.graph_doc_string",
})  # fmt: skip
"""The keys under which `Model.metadata` has what an ONNX file says of itself."""

OF_GRAPH = frozenset({PROPERTY})
"""The keys of what a file says of its graph's values: it means nothing without that graph."""

OPSET = "onnx.opset."
"""Begins the key of an operator set's version; its domain follows."""

STRINGS = "onnx.strings."
"""Begins the key of the texts of a tensor of texts; its name follows."""

SPARSE = "onnx.sparse."
"""Begins the key of a sparse tensor's shape; its name follows."""

BASE64 = "weighbridge.base64."
"""Begins the key, in the file, of a value of bytes; its own key follows."""


def facts(model: Message, ir: int) -> dict[str, Value]:
    """Return what a model says of itself, under the keys of `FACTS` and `OPSET`.

    Raises:
        InvalidFile: (rule ``no-opset``) when a model of IR version 3 or later names no operator
            set: such a file is incomplete; (rule ``duplicate-key``) for two versions of one.
    """
    found: dict[str, Value] = {}
    for name, field in model.singles(ModelProto.SINGLES).items():
        if name in {"ir_version", "model_version"}:
            found[f"onnx.{name}"] = metadata.scalar("i64", signed(field.value))
        elif name != "graph":
            found[f"onnx.{name}"] = metadata.string(model.text(field))
    opsets = [model.message(field) for field in model.each(ModelProto.OPSET_IMPORT)]
    if not opsets and ir >= 3:
        raise InvalidFile("names no operator set", rule="no-opset", path=model.path)
    for opset in opsets:
        fields = opset.singles(OperatorSetId.SINGLES)
        domain = opset.text(fields["domain"]) if "domain" in fields else ""
        version = signed(fields["version"].value) if "version" in fields else 0
        key, value = OPSET + (domain or "ai.onnx"), metadata.scalar("i64", version)
        if found.get(key) != value:
            _add(found, key, value, model.path)
    return found


def read_props(model: Message, found: dict[str, Value]) -> None:
    """Add a model's ``metadata_props`` to what is `found`, in their order.

    Raises:
        InvalidFile: (rule ``duplicate-key``) for one that is there already; (rule ``base64``).
    """
    for field in model.each(ModelProto.METADATA_PROPS):
        key, text = key_value(model, field)
        value = metadata.string(text)
        if key.startswith(BASE64):
            key = key.removeprefix(BASE64)
            value = metadata.array("u8", _decoded(text, key, model.path))
        _add(found, key, value, model.path)


def _add(found: dict[str, Value], key: str, value: Value, path: Path | str) -> None:
    if key in found:
        raise InvalidFile("a key occurs twice", rule="duplicate-key", path=path, got=key)
    found[key] = value


def _decoded(text: str, key: str, path: Path | str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidFile("a value is not base64", rule="base64", path=path, got=key) from None


def split(found: Metadata, path: Path) -> tuple[dict[str, Value], Config | None, dict[str, bytes]]:
    """Return the key-values without side files, the config, and the side files.

    Raises:
        InvalidFile: (rule ``json``) when the config is none.
    """
    files = sidefiles.from_metadata(found)
    content = files.pop(sidefiles.CONFIG, None)
    config = None if content is None else sidefiles.parse_json(content, path)
    plain = {key: value for key, value in found.items() if not key.startswith(sidefiles.PREFIX)}
    return plain, config, files


def props_of(model: Model) -> Iterable[tuple[str, str]]:
    """Return what goes into ``metadata_props``: the model's own key-values, config and side files.

    What a file says of itself is left out: the new file says it of itself.

    Raises:
        Unsupported: (rule ``metadata-type``) for a value that is neither text nor bytes.
    """
    files = dict(model.files)
    if model.config is not None:
        files.setdefault(sidefiles.CONFIG, sidefiles.dump_json(model.config))
    own = {key: value for key, value in model.metadata.items() if not _is_fact(key)}
    return [_prop(key, value) for key, value in (own | sidefiles.to_metadata(files)).items()]


def _is_fact(key: str) -> bool:
    return key in FACTS or key.startswith((OPSET, STRINGS, SPARSE))


def _prop(key: str, value: Value) -> tuple[str, str]:
    if isinstance(value.data, str):
        return key, value.data
    if value.items == "u8":
        return BASE64 + key, base64.b64encode(bytes(value.plain())).decode()  # type: ignore[arg-type]
    raise Unsupported(
        f"ONNX has no place for the value of '{key}'",
        rule="metadata-type",
        got=value.type,
        expected="a text",
    )
