"""transformers' own ways of loading a model and its tokenizer, and what ours is timed beside them.

What a first call imports is imported before, here and in `load`: torch and transformers take
seconds, whoever loads with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from weighbridge.benchmarks.contender import Outcome

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.benchmarks.contender import Timed

FLOAT32 = "float32"
BFLOAT16 = "bfloat16"


def gguf_file(source: Path, scratch: Path) -> Timed:
    """Load a GGUF in float32, as transformers' documentation says."""
    return _gguf_file(source, FLOAT32)


def gguf_file_bf16(source: Path, scratch: Path) -> Timed:
    """Load it in bfloat16."""
    return _gguf_file(source, BFLOAT16)


def _gguf_file(source: Path, dtype: str) -> Timed:
    import gguf  # noqa: F401  # what transformers reads the file with

    auto_model, auto_tokenizer = automatic()
    folder, options = source.parent, {"gguf_file": source.name}

    def call() -> Outcome:
        model = auto_model.from_pretrained(folder, dtype=dtype, **options)
        return outcome(model, auto_tokenizer.from_pretrained(folder, **options))

    return call


def directory(source: Path, scratch: Path) -> Timed:
    """Load the same model from its checkpoint, in float32: nothing is decoded."""
    auto_model, auto_tokenizer = automatic()

    def call() -> Outcome:
        model = auto_model.from_pretrained(source, dtype=FLOAT32)
        return outcome(model, auto_tokenizer.from_pretrained(source))

    return call


def automatic() -> tuple[Any, Any]:
    """Import what loading a model and its tokenizer takes."""
    import transformers
    import transformers.models.llama.modeling_llama

    return transformers.AutoModelForCausalLM, transformers.AutoTokenizer


def outcome(model: Any, tokenizer: Any) -> Outcome:
    """Count what was loaded."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Outcome({"parameters": parameters, "tokens": len(tokenizer)}, (model, tokenizer))
