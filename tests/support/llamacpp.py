"""llama.cpp's own converter, in an environment of its own, and how its files compare with ours."""

from __future__ import annotations

import atexit
import functools
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import xllamacpp

import weighbridge as wb
from support.tree import ROOT
from weighbridge.aspects import same

EXPECTED_DIFFERENCES = {
    "tokenizer.huggingface.json": "the whole tokenizer.json, so that the way back is exact; the "
    "key is the GGUF specification's, the converter never writes it",
    "weighbridge.file.config.json": "config.json, for what the key-values do not say",
    "weighbridge.file.generation_config.json": "a side file, carried for the way back",
    "weighbridge.file.tokenizer_config.json": "a side file, carried for the way back",
    "weighbridge.file.tokenizer.model": "a side file, carried for the way back",
    "weighbridge.file.spiece.model": "a side file, carried for the way back",
    "weighbridge.file.README.md": "a side file, carried for the way back",
    "weighbridge.file.modules.json": "a side file, carried for the way back",
    "weighbridge.file.sentence_bert_config.json": "a side file, carried for the way back",
    "weighbridge.file.1_Pooling/config.json": "a side file, carried for the way back",
    "weighbridge.dtypes": "the checkpoint's dtypes, where GGUF wants its norms in float32",
}
"""Key-values that we write and the converter does not; all others are equal."""

PLACED_OTHERWISE = {
    "tokenizer.ggml.token_type_count": "it comes from config.json, and is written where other such "
    "keys of the tokenizer are; each of the converter's encoders has another place for it",
}
"""Key-values that the converter writes in another place."""

PYTHON = ROOT / ".venv-llamacpp" / "bin" / "python"


def convert(directory: Path, target: Path, outtype: str = "f32", *options: str) -> Path:
    """Run llama.cpp's converter on a checkpoint, and return the GGUF file."""
    arguments = [str(directory), "--outtype", outtype, "--outfile", str(target), *options]
    problem = _converter().ask(arguments)
    assert problem == "", problem
    return target


class _Converter:
    """The converter in a process of its own, which stays: its imports take seconds."""

    def __init__(self) -> None:
        # torch without vector instructions rounds powers as everyone does
        settings = {"ATEN_CPU_CAPABILITY": "default", "HF_HUB_OFFLINE": "1"}
        self.process = subprocess.Popen(
            [PYTHON, Path(__file__).with_name("llamacpp_worker.py")],
            env={**os.environ, **settings},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        atexit.register(self.close)

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()

    def ask(self, arguments: list[str]) -> str:
        """Run the converter's command line; return what went wrong, nothing if nothing did."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(arguments), file=self.process.stdin, flush=True)
        return str(json.loads(self.process.stdout.readline()))


_converter = functools.cache(_Converter)


def different_keys(ours: Path, theirs: Path) -> dict[str, tuple[Any, Any]]:
    """Return the key-values of two GGUF files that differ in type or value: key -> both."""
    with wb.open(ours) as a, wb.open(theirs) as b:
        return {
            key: (a.metadata.get(key), b.metadata.get(key))
            for key in dict.fromkeys([*b.metadata, *a.metadata])
            if not _same(a.metadata.get(key), b.metadata.get(key))
        }


def _same(a: Any, b: Any) -> bool:
    return a is not None and b is not None and (a.type, a.items) == (b.type, b.items) and same(a, b)


def different_tensors(ours: Path, theirs: Path) -> dict[str, tuple[Any, Any]]:
    """Return the tensors of two GGUF files that differ in shape, encoding or bytes."""
    with wb.open(ours) as a, wb.open(theirs) as b:
        return {
            name: tuple(_shown(model.tensors.get(name)) for model in (a, b))
            for name in dict.fromkeys([*a.tensors, *b.tensors])
            if _bytes(a.tensors.get(name)) != _bytes(b.tensors.get(name))
        }


def _shown(tensor: Any) -> str:
    return "absent" if tensor is None else f"{tensor.encoding} {list(tensor.shape)}"


def _bytes(tensor: Any) -> Any:
    return tensor and (tensor.shape, tensor.encoding, tensor.part().tobytes())


def complete(path: Path, prompt: str, tokens: int) -> str:
    """Return what llama.cpp adds to a prompt, greedily, computing in float32."""
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = 256
    params.warmup = False
    params.verbosity = -1
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    answer = xllamacpp.Server(params).handle_completions(
        {"prompt": prompt, "n_predict": tokens, "temperature": 0}
    )
    text: str = answer["choices"][0]["text"]
    return text
