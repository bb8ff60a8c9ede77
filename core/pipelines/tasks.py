"""The tasks, the pipelines that do them, and the heads that they need.

transformers 5 has most of the pipelines. Those that it no longer has, and one that can do more
here, are ours: the table names them.
"""

from __future__ import annotations

import re
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from weighbridge.errors import InvalidInput, Unsupported

if TYPE_CHECKING:
    from pathlib import Path

HERE = "weighbridge.pipelines"


class Own(NamedTuple):
    """A pipeline of ours: its class, and the automatic classes whose heads it needs."""

    place: str
    heads: tuple[str, ...]


TEXTS = ("AutoModelForSeq2SeqLM",)

OWN = {
    "feature-extraction": Own("embedding:Embedding", ("AutoModel",)),
    "image-to-text": Own("captioning:ImageToText", ("AutoModelForImageTextToText",)),
    "question-answering": Own("answering:QuestionAnswering", ("AutoModelForQuestionAnswering",)),
    "summarization": Own("text_to_text:Summarization", TEXTS),
    "text2text-generation": Own("text_to_text:TextToText", TEXTS),
    "translation": Own("text_to_text:Translation", TEXTS),
}

TRANSLATION = re.compile(r"translation(?:_(?P<src>\w+?)_to_(?P<tgt>\w+))?")
"""``translation``, or ``translation_en_to_de``."""

TRANSLATORS = ("fsmt", "m2m_100", "marian", "mbart", "nllb-moe")
"""The model types that do nothing else."""

INFERRED = (
    ("text-classification", "AutoModelForSequenceClassification"),
    ("token-classification", "AutoModelForTokenClassification"),
    ("question-answering", "AutoModelForQuestionAnswering"),
    ("automatic-speech-recognition", "AutoModelForSpeechSeq2Seq"),
    ("text2text-generation", "AutoModelForSeq2SeqLM"),
    ("fill-mask", "AutoModelForMaskedLM"),
    ("text-generation", "AutoModelForCausalLM"),
    ("automatic-speech-recognition", "AutoModelForCTC"),
    ("image-to-text", "AutoModelForImageTextToText"),
    ("image-classification", "AutoModelForImageClassification"),
    ("object-detection", "AutoModelForObjectDetection"),
    ("zero-shot-image-classification", "AutoModelForZeroShotImageClassification"),
    ("audio-classification", "AutoModelForAudioClassification"),
    ("feature-extraction", "AutoModel"),
)
"""What a class is for, where the directory does not say: the first whose heads it is among."""


def known_tasks() -> list[str]:
    """Return the names of all tasks."""
    from transformers.pipelines import get_supported_tasks as typed

    supported: Any = typed
    return sorted({*supported(), *OWN})


def plain_task(task: str) -> str:
    """Return a task's own name: aliases and the languages of a translation are resolved.

    Raises:
        InvalidInput: (rule ``task``) for a task that there is not.

    Example:
        >>> plain_task("sentiment-analysis"), plain_task("translation_en_to_de")
        ('text-classification', 'translation')
    """
    if TRANSLATION.fullmatch(task):
        return "translation"
    if task in OWN:
        return task
    from transformers.pipelines import TASK_ALIASES, check_task

    try:
        known, *_ = check_task(task)
    except KeyError:
        raise InvalidInput(
            "is not a task",
            rule="task",
            got=task,
            hint=f"one of: {', '.join(known_tasks())}",
        ) from None
    return str(TASK_ALIASES.get(known, known))


def pipeline_class(task: str) -> Any:
    """Return the class of the pipeline that does a task."""
    if task in OWN:
        module, _, name = OWN[task].place.partition(":")
        return getattr(import_module(f"{HERE}.{module}"), name)
    implementation = _theirs(task)["impl"]
    if not isinstance(implementation, str):
        return implementation
    module, _, name = implementation.rpartition(".")
    return getattr(import_module(module), name)


def _theirs(task: str) -> Any:
    from transformers.pipelines import check_task

    return check_task(task)[1]


def heads(task: str) -> tuple[Any, ...]:
    """Return the automatic classes of transformers whose models do a task."""
    import transformers

    if task in OWN:
        return tuple(getattr(transformers, name) for name in OWN[task].heads)
    return tuple(_theirs(task)["pt"])


def classes(automatic: Any) -> set[str]:
    """Return the names of the classes that an automatic class makes."""
    found: set[str] = set()
    for names in automatic._model_mapping._model_mapping.values():
        found.update([names] if isinstance(names, str) else names)
    return found


def check_head(task: str, architecture: str, path: Path) -> None:
    """Refuse a class without the head that a task needs.

    Raises:
        Unsupported: (rule ``task-head``).
    """
    wanted = heads(task)
    if not any(architecture in classes(automatic) for automatic in wanted):
        raise Unsupported(
            f"has no head for {task}",
            rule="task-head",
            path=path,
            got=architecture,
            expected=" or ".join(automatic.__name__ for automatic in wanted),
        )


def task_of(architecture: str, config: Any, path: Path) -> str:
    """Return the task that a class is made for.

    Raises:
        InvalidInput: (rule ``task``) when it does not tell.
    """
    import transformers

    for task, name in INFERRED:
        if architecture in classes(getattr(transformers, name)):
            return _narrowed(task, config)
    raise InvalidInput(
        "does not tell its task", rule="task", path=path, got=architecture, hint="name the task"
    )


def _narrowed(task: str, config: Any) -> str:
    if task == "text2text-generation" and config.get("model_type") in TRANSLATORS:
        return "translation"
    if task == "feature-extraction" and "image_size" in config:
        return "image-feature-extraction"
    return task
