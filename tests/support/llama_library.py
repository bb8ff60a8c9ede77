"""llama.cpp's library behind its server: it runs encoder-decoder models, which the server does not.

The functions are those of ``llama.h``, called in the binary that `xllamacpp` brings.
"""

from __future__ import annotations

import ctypes
import functools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import xllamacpp.xllamacpp

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

ROOM = 64
"""Tokens of the context."""


class _Struct(ctypes.Structure):
    """Any structure that is passed by value: its fields are only ever handed on.

    It is larger than each of them: who fills it fills the beginning, who reads it reads that.
    """

    _fields_ = (("words", ctypes.c_uint32 * 256),)


@functools.cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(xllamacpp.xllamacpp.__file__)
    library.llama_backend_init()
    return library


def _call(name: str, result: Any, *arguments: Any) -> Any:
    """Call a function of the library; integers are pointers."""
    function = getattr(_library(), name)
    function.restype = result
    return function(*(ctypes.c_void_p(a) if isinstance(a, int) else a for a in arguments))


def log_probs(path: Path, prompt: Sequence[int], answer: Sequence[int]) -> NDArray[np.float64]:
    """Return the logarithms of the probabilities of what comes next, for every token.

    Args:
        path: an encoder-decoder model as GGUF.
        prompt: what the encoder reads.
        answer: what the decoder has said so far, its start token first.
    """
    with _loaded(path) as (model, context):
        _run("llama_encode", context, prompt)
        _run("llama_decode", context, answer)
        vocabulary = _call("llama_model_get_vocab", ctypes.c_void_p, model)
        count = _call("llama_vocab_n_tokens", ctypes.c_int32, vocabulary)
        floats = ctypes.POINTER(ctypes.c_float)
        last = _call("llama_get_logits_ith", floats, context, ctypes.c_int32(-1))
        logits = np.ctypeslib.as_array(last, (count,)).astype(np.float64)
    logits -= logits.max()
    result: NDArray[np.float64] = logits - np.log(np.exp(logits).sum())
    return result


def start_token(path: Path) -> int:
    """Return the token that llama.cpp begins an answer with."""
    with _loaded(path) as (model, _):
        token: int = _call("llama_model_decoder_start_token", ctypes.c_int32, model)
        return token


@contextmanager
def _loaded(path: Path) -> Iterator[tuple[int, int]]:
    settings = _call("llama_model_default_params", _Struct)
    name = str(path).encode()
    model = _call("llama_model_load_from_file", ctypes.c_void_p, name, settings)
    assert model, f"llama.cpp does not load {path}"
    settings = _call("llama_context_default_params", _Struct)
    settings.words[0:3] = [ROOM] * 3  # n_ctx, n_batch, n_ubatch
    context = _call("llama_init_from_model", ctypes.c_void_p, model, settings)
    yield model, context
    _call("llama_free", None, context)
    _call("llama_model_free", None, model)


def _run(name: str, context: int, tokens: Sequence[int]) -> None:
    held = (ctypes.c_int32 * len(tokens))(*tokens)
    batch = _call("llama_batch_get_one", _Struct, held, ctypes.c_int32(len(tokens)))
    assert _call(name, ctypes.c_int32, context, batch) == 0
