"""How an encoder's states become one embedding, as sentence-transformers' files say it.

``modules.json`` lists the modules; the pooling module has a ``config.json`` of its own, in two
spellings: a flag for each mode or, from newer versions, the name of the mode.

Source: ``sentence_transformers/sentence_transformer/modules/pooling.py``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from weighbridge.errors import InvalidFile
from weighbridge.sidefiles import parse_json

if TYPE_CHECKING:
    Files = Mapping[str, bytes]

MODULES = "modules.json"

FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""The older spelling: a flag for each mode."""

MODE = "pooling_mode"
"""The newer spelling: the name of the mode, or a list of names."""


def config_name(files: Files) -> str | None:
    """Return the name of the pooling module's config, None without such a module.

    Raises:
        InvalidFile: (rule ``json``) for a file that is not what it should be, (rule
            ``missing-file``) when the module's config is not there.
    """
    for module in modules(files):
        if str(module.get("type")).rpartition(".")[2] == "Pooling":
            found = f"{module.get('path')}/config.json"
            if found not in files:
                raise InvalidFile(
                    f"{MODULES} names a pooling module that is not there",
                    rule="missing-file",
                    expected=found,
                )
            return found
    return None


def modules(files: Files) -> list[Mapping[str, Any]]:
    """Return the modules, in order; none without their list.

    Raises:
        InvalidFile: (rule ``json``) for a list that is none.

    Example:
        >>> files = {MODULES: b'[{"type": "sentence_transformers.models.Pooling"}]'}
        >>> modules(files)
        [{'type': 'sentence_transformers.models.Pooling'}]
    """
    try:
        document = json.loads(files.get(MODULES, b"[]"))
    except (ValueError, RecursionError) as error:
        raise InvalidFile(f"is not JSON: {error}", rule="json", path=MODULES) from None
    if not isinstance(document, list) or not all(isinstance(one, Mapping) for one in document):
        raise InvalidFile("is not a list of JSON objects", rule="json", path=MODULES)
    return document


def modes_of(files: Files, name: str) -> list[str]:
    """Return the modes of a pooling module's config: the name wins over flags, none is the mean.

    Example:
        >>> modes_of({"1_Pooling/config.json": b'{"pooling_mode": "cls"}'}, "1_Pooling/config.json")
        ['cls']
    """
    settings = parse_json(files[name], name)
    named = settings.get(MODE)
    if named is not None:
        return [str(mode) for mode in named] if isinstance(named, list) else [str(named)]
    return [mode for flag, mode in FLAGS.items() if settings.get(flag)] or ["mean"]
