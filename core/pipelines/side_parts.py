"""What a pipeline needs beside the model: tokenizer, image processor, feature extractor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from weighbridge.errors import InvalidInput
from weighbridge.runtimes.tokenized import quiet

if TYPE_CHECKING:
    from pathlib import Path

PARTS = {
    "tokenizer": ("AutoTokenizer", "_load_tokenizer"),
    "image_processor": ("AutoImageProcessor", "_load_image_processor"),
    "feature_extractor": ("AutoFeatureExtractor", "_load_feature_extractor"),
    "processor": ("AutoProcessor", "_load_processor"),
}
"""A part -> the class that loads it, and where a pipeline says whether it needs it.

True is needed, None is taken where it is there, False is never looked at.
"""


def parts_of(kind: Any, directory: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Return the parts that a pipeline wants and that the caller does not bring.

    Raises:
        InvalidInput: (rule ``pipeline-part``) when one that it needs cannot be loaded.
    """
    found = {}
    for name, (loader, flag) in PARTS.items():
        wanted = getattr(kind, flag, None)
        if wanted is False or given.get(name) is not None:
            continue
        part = _part(name, loader, directory, needed=bool(wanted))
        if part is not None:
            found[name] = part
    return found


def _part(name: str, loader: str, directory: Path, *, needed: bool) -> Any:
    import transformers

    try:
        with quiet():
            part = getattr(transformers, loader).from_pretrained(
                directory, local_files_only=True, trust_remote_code=False
            )
        return _with_words(part) if name == "tokenizer" else part
    except Exception as error:  # transformers raises anything for files that are not there
        if not needed:
            return None
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InvalidInput(
            f"has no {name.replace('_', ' ')} that transformers can load: {reason}",
            rule="pipeline-part",
            path=directory,
            hint=f"copy the checkpoint's files beside it, or pass {name}=",
        ) from error


def _with_words(tokenizer: Any) -> Any:
    """Return a tokenizer, but not one that transformers made up for want of a vocabulary.

    Raises:
        ValueError: for one that knows its special tokens alone.
    """
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):
        raise ValueError("its vocabulary is not there")
    return tokenizer
