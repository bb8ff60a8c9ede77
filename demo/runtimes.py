"""Asks one runtime to complete a prompt greedily: ``python runtimes.py RUNTIME MODEL PROMPT``.

Each runs in a process of its own, and prints the text that it adds to the prompt.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

TOKENS = 12
"""How many tokens each runtime adds."""


def transformers(model: Path, prompt: str) -> str:
    """Complete with transformers, from a checkpoint directory."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    inputs = tokenizer(prompt, return_tensors="pt")
    made = network.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)
    text: str = tokenizer.decode(made[0, inputs["input_ids"].shape[1] :])
    return text


def llamacpp(model: Path, prompt: str) -> str:
    """Complete with llama.cpp itself, from a GGUF."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.n_ctx = 256
    params.warmup = False
    params.verbosity = -1
    server = xllamacpp.Server(params)
    answer = server.handle_completions(
        {"prompt": prompt, "max_tokens": TOKENS, "n_predict": TOKENS, "temperature": 0}
    )
    text: str = answer["choices"][0]["text"]
    return text


RUNTIMES: dict[str, Callable[[Path, str], str]] = {
    "transformers": transformers,
    "llama.cpp": llamacpp,
}


if __name__ == "__main__":
    runtime, path, question = sys.argv[1:]
    print(RUNTIMES[runtime](Path(path), question))
