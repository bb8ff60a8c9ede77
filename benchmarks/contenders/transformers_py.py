"""transformers' own ways of loading a model and its tokenizer, and what ours is timed beside them.

What a first call imports is imported before, here and in `ours`: torch and transformers take
seconds, whoever loads with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from weighbridge.benchmarks.contender import Outcome
from weighbridge.benchmarks.weights import loaded

if TYPE_CHECKING:
    from pathlib import Path

    from weighbridge.benchmarks.contender import Timed


def gguf_file(source: Path, scratch: Path, dtype: str) -> Timed:
    """Load a GGUF and its tokenizer, as transformers' documentation says."""
    del scratch
    import gguf  # noqa: F401  # what transformers reads the file with

    auto_model, auto_tokenizer = automatic()
    folder, options = source.parent, {"gguf_file": source.name}

    def call() -> Outcome:
        model = auto_model.from_pretrained(folder, dtype=dtype, **options)
        return outcome(model, auto_tokenizer.from_pretrained(folder, **options))

    return call


def gguf_weights(source: Path, scratch: Path, dtype: str) -> Timed:
    """Load a GGUF as a model, without its tokenizer."""
    del scratch
    import gguf  # noqa: F401  # what transformers reads the file with

    auto_model, _ = automatic()

    def call() -> Outcome:
        model = auto_model.from_pretrained(source.parent, gguf_file=source.name, dtype=dtype)
        return loaded([parameter.detach() for parameter in model.parameters()], model)

    return call


def directory(source: Path, scratch: Path, dtype: str) -> Timed:
    """Load a model and its tokenizer from a checkpoint."""
    del scratch
    auto_model, auto_tokenizer = automatic()

    def call() -> Outcome:
        model = auto_model.from_pretrained(source, dtype=dtype)
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
