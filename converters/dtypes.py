"""``weighbridge.dtypes``: the dtypes that tensors had where GGUF wants others (norms in float32).

It is JSON: ``default`` is the dtype of most tensors, ``exceptions`` has those of the others by
canonical name.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from weighbridge.encoding import DENSE
from weighbridge.metadata import string
from weighbridge.recode import recode
from weighbridge.sidefiles import parse_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from weighbridge.encoding import Dense
    from weighbridge.metadata import Value
    from weighbridge.report import Report
    from weighbridge.tensor import Lazy

KEY = "weighbridge.dtypes"

NARROW = ("bf16", "f16")
"""The dtypes that GGUF's float32 may stand for."""


def record(tensors: Mapping[str, Lazy]) -> dict[str, Value]:
    """Return the record of the canonical tensors' dtypes.

    Example:
        >>> import numpy as np
        >>> from weighbridge.tensor import from_array
        >>> wide, narrow = (from_array("x", np.zeros(2, t)) for t in (np.float32, np.float16))
        >>> record({"a": narrow, "b": narrow, "norm": wide})[KEY].data
        '{"default":"f16","exceptions":{"norm":"f32"}}'
    """
    names = {name: tensor.encoding.name for name, tensor in tensors.items()}
    count = Counter(names.values())
    if not count:
        return {}
    (default, _), *_ = count.most_common(1)
    exceptions = {name: dtype for name, dtype in names.items() if dtype != default}
    told = {"default": default, **({"exceptions": exceptions} if exceptions else {})}
    return {KEY: string(json.dumps(told, separators=(",", ":"), ensure_ascii=False))}


def recorded(metadata: Mapping[str, Value], report: Report) -> Callable[[str], Dense | None]:
    """Return what tells a canonical tensor's recorded dtype, None where there is none.

    Example:
        >>> from weighbridge.report import Report
        >>> dtype = recorded({KEY: string('{"default":"f16"}')}, Report())
        >>> str(dtype("model.norm.weight"))
        'F16'
    """
    told: Mapping[str, object] = {}
    if KEY in metadata:
        with report.collect():
            told = parse_json(str(metadata[KEY].data).encode(), KEY)
    exceptions = told.get("exceptions")
    names = exceptions if isinstance(exceptions, Mapping) else {}
    default = told.get("default")
    return lambda name: DENSE.get(str(names.get(name, default)))


def restored(tensors: Mapping[str, Lazy], dtype: Callable[[str], Dense | None]) -> dict[str, Lazy]:
    """Return canonical tensors in the dtypes they came from, where these were widened for GGUF.

    A tensor that was rounded or quantised since keeps the encoding that it has.

    Args:
        tensors: the tensors.
        dtype: what tells their recorded dtypes, see `recorded`.
    """
    return {name: _narrowed(tensor, dtype(name)) for name, tensor in tensors.items()}


def _narrowed(tensor: Lazy, dtype: Dense | None) -> Lazy:
    if dtype is None or dtype.name not in NARROW or tensor.encoding != DENSE["f32"]:
        return tensor
    return recode(tensor, dtype, exact=True)
