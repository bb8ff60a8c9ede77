"""What a checkpoint can be exported for: the classes that do it, and the graphs they become."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighbridge.converters.graphs import stages
from weighbridge.errors import InvalidInput, Unsupported
from weighbridge.tensor_names import model_class

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from weighbridge.converters.graphs.stages import Stage
    from weighbridge.model import Config, Model

    Stages = Callable[..., Sequence[Stage]]


@dataclass(frozen=True)
class Task:
    """Something that people want of a model.

    Attributes:
        name: as transformers' pipelines call it.
        classes: the automatic classes of transformers that do it, the likeliest first.
        stages: gives the graphs that a model of these classes becomes.
    """

    name: str
    classes: tuple[str, ...]
    stages: Stages


BARE = "AutoModel"
"""The automatic class of models without a head, which are in all others."""

_ROWS: tuple[Task, ...] = (
    Task("text2text-generation", ("AutoModelForSeq2SeqLM",), stages.encoder_decoder),
    Task("text-classification", ("AutoModelForSequenceClassification",), stages.whole),
    Task("token-classification", ("AutoModelForTokenClassification",), stages.whole),
    Task("question-answering", ("AutoModelForQuestionAnswering",), stages.whole),
    Task("fill-mask", ("AutoModelForMaskedLM",), stages.whole),
    Task("image-classification", ("AutoModelForImageClassification",), stages.whole),
    Task("object-detection", ("AutoModelForObjectDetection",), stages.whole),
    Task("audio-classification", ("AutoModelForAudioClassification",), stages.whole),
    Task("automatic-speech-recognition", ("AutoModelForSpeechSeq2Seq", "AutoModelForCTC"),
         stages.recognition),
    Task("image-to-text", ("AutoModelForImageTextToText",), stages.captioning),
    Task("text-generation", ("AutoModelForCausalLM",), stages.decoder),
    Task("zero-shot-image-classification", ("AutoModelForZeroShotImageClassification",),
         stages.whole),
    Task("feature-extraction", (BARE, "AutoModelForTextEncoding"), stages.features),
    Task("image-feature-extraction", (BARE,), stages.whole),
    Task("zero-shot-classification", ("AutoModelForSequenceClassification",), stages.whole),
    Task("summarization", ("AutoModelForSeq2SeqLM",), stages.encoder_decoder),
    Task("translation", ("AutoModelForSeq2SeqLM",), stages.encoder_decoder),
)  # fmt: skip

TASKS: Mapping[str, Task] = {task.name: task for task in _ROWS}
"""The tasks, by name; of those that a class can do, the first is what it is for."""

ALIASES = {
    "sentiment-analysis": "text-classification",
    "ner": "token-classification",
    "asr": "automatic-speech-recognition",
    "image-text-to-text": "image-to-text",
}
"""Other names that people use."""


def task_of(model: Model, asked: str | None) -> Task:
    """Return the task that is asked for, or else the one that the checkpoint's class is for.

    Raises:
        InvalidInput: (rule ``task``) for a task that is not known.
        Unsupported: (rule ``no-task``) when the class is for none that is known.
    """
    if asked is None:
        return _read(model)
    name = ALIASES.get(asked, asked)
    if name not in TASKS:
        raise InvalidInput(
            "is no task that is known", rule="task", got=asked, expected=f"one of {_names()}"
        )
    return TASKS[name]


def _names() -> str:
    return ", ".join(sorted(TASKS))


def _read(model: Model) -> Task:
    name = model_class(model.config or {})
    for task in _ROWS:
        if name in _concrete(task) and not _other_sense(task, model.config or {}):
            return task
    raise Unsupported(
        "no task is known that its class does",
        rule="no-task",
        path=model.path,
        got=name or "no architectures in config.json",
        hint=f"choose one with --task: {_names()}",
    )


def class_for(task: Task, model: Model) -> str:
    """Return the class that does a task: the checkpoint's own, or an automatic one that may.

    A head is never taken for another one, even where both have the same names and shapes.

    Raises:
        Unsupported: (rule ``no-head``) when the checkpoint's head is for another task, or
            transformers has none for this kind of model.
    """
    own = model_class(model.config or {})
    if own in _concrete(task):
        return own
    kind = (model.config or {}).get("model_type")
    other = any(own in _concrete(each) for each in _ROWS if each.classes[0] != BARE)
    for automatic in task.classes:
        if kind in _mapping(automatic) and (automatic == BARE or not other):
            return automatic
    raise Unsupported(
        f"has no head for {task.name}",
        rule="no-head",
        path=model.path,
        got=own or kind,
        hint="choose another task with --task",
    )


def _other_sense(task: Task, config: Config) -> bool:
    """Tell whether a bare model is one of images, for a task of texts, or the other way round."""
    pictures = "image_size" in config and "vocab_size" not in config
    return task.name == "feature-extraction" and pictures


def _concrete(task: Task) -> frozenset[str]:
    """Return the names of the classes that do a task."""
    return frozenset(_flat(_mapping(automatic) for automatic in task.classes))


def _flat(mappings: Iterator[Mapping[str, str | tuple[str, ...]]]) -> Iterator[str]:
    for mapping in mappings:
        for names in mapping.values():
            yield from (names,) if isinstance(names, str) else names


def _mapping(automatic: str) -> Mapping[str, str | tuple[str, ...]]:
    """Return ``model_type`` -> class of an automatic class, by name."""
    from transformers.models.auto import modeling_auto

    found: Mapping[str, str | tuple[str, ...]] = getattr(
        modeling_auto, automatic
    )._model_mapping._model_mapping
    return found
