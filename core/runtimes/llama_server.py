"""llama.cpp in a process of its own: what it prints is kept, and what crashes it crashes alone.

The child loads the model and serves llama.cpp's own HTTP interface on a free port of this machine
until its standard input ends, which it does at the latest when its parent does.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from weighbridge.errors import InvalidFile, InvalidInput, Unsupported

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

JSON = {"Content-Type": "application/json"}

ERRORS_ONLY = 1
"""The verbosity at which llama.cpp says what is wrong and nothing else."""

SMALL = 1_000_000_000
"""A file of fewer bytes is run by one thread: more would wait for each other, spinning."""


class LlamaServer:
    """A model that llama.cpp serves.

    Args:
        path: the GGUF file.
        room: tokens that it has to take at once.
        pooling: for an encoder, llama.cpp's name of a way to pool; None for a decoder.

    Raises:
        InvalidFile: (rule ``runtime``) when llama.cpp does not load the file.
    """

    def __init__(self, path: Path, room: int, pooling: str | None) -> None:
        """Start the child and wait until it has loaded the model."""
        self.path = path
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        threads = 1 if path.stat().st_size < SMALL else None
        settings = json.dumps(
            {"path": str(path), "room": room, "pooling": pooling, "threads": threads}
        )
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        assert self._process.stdout is not None
        address = next((x for x in self._process.stdout if x.startswith("http")), "")
        if not address:
            problem = self._said() or f"it ended with code {self._process.wait()}"
            self.close()
            raise InvalidFile(f"llama.cpp cannot load it: {problem}", rule="runtime", path=path)
        self._address = urlsplit(address.strip()).netloc

    def post(self, place: str, body: Mapping[str, Any]) -> Any:
        """Return the server's answer.

        Raises:
            InvalidInput: (rule ``runtime``) when it refuses what it is asked.
            Unsupported: (rule ``runtime``) when it crashes.
        """
        connection = http.client.HTTPConnection(self._address)
        try:
            connection.request("POST", place, json.dumps(body), JSON)
            answer = json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException) as error:
            problem = self._said() or str(error)
            raise Unsupported(
                f"llama.cpp fails: {problem}", rule="runtime", path=self.path
            ) from None
        finally:
            connection.close()
        if isinstance(answer, dict) and "error" in answer:
            problem = answer["error"].get("message", answer["error"])
            raise InvalidInput(f"llama.cpp refuses: {problem}", rule="runtime", path=self.path)
        return answer

    def close(self) -> None:
        """End the child."""
        with contextlib.suppress(OSError):
            self._process.communicate()
        self._log.close()

    def _said(self) -> str:
        """Return the first thing that llama.cpp complained of, without time and level."""
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").splitlines()
        return lines[0].partition(" E ")[2] or lines[0] if lines else ""


def serve(settings: Mapping[str, Any]) -> None:
    """Serve a model until standard input ends."""
    import xllamacpp

    try:
        server = xllamacpp.Server(_parameters(xllamacpp, settings))
    except RuntimeError:
        sys.exit(1)
    print(server.listening_address, flush=True)
    sys.stdin.read()
    os._exit(0)  # its threads hold nothing that has to be saved


def _parameters(xllamacpp: Any, settings: Mapping[str, Any]) -> Any:
    """Return what makes llama.cpp compute in float32 where it can, the same every time."""
    params = xllamacpp.CommonParams()
    params.model.path = settings["path"]
    params.verbosity = ERRORS_ONLY
    params.warmup = params.fit_params = False
    params.n_parallel = 1
    params.n_gpu_layers = 0
    if settings["threads"]:
        params.cpuparams.n_threads = settings["threads"]
    params.n_ctx = params.n_batch = params.n_ubatch = settings["room"]
    params.cache_ram_mib = 0
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    if settings["pooling"]:
        params.embedding = True
        name = f"LLAMA_POOLING_TYPE_{settings['pooling'].upper()}"
        params.pooling_type = getattr(xllamacpp.llama_pooling_type, name)
    return params


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
