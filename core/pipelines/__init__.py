"""Pipelines of transformers over models in ONNX Runtime, or of any other format.

    summarise = weighbridge.pipeline("summarization", "t5-onnx")
    summarise("A long text ...", max_new_tokens=40)

Tokenizers, pre- and post-processing are those of transformers, and so is ``generate``; of the model
only the forward pass is replaced.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from weighbridge.errors import InvalidInput, MissingDependency, NotFound

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence

    from weighbridge.pipelines.manifest import Manifest


def pipeline(
    task: str | None = None,
    path: str | os.PathLike[str] | None = None,
    *,
    threads: int | None = None,
    providers: Sequence[Any] | None = None,
    **options: Any,
) -> Any:
    """Return a pipeline for a task over a model of any format.

    A directory with an ``export.json`` runs in ONNX Runtime; anything else that `weighbridge.open`
    opens runs in torch, by `weighbridge.transformers`. Both are called as transformers' pipelines
    are, with ``batch_size`` and the options of the task, and give the same dictionaries.

    Beside the tasks of transformers there are those that its fifth version no longer has:
    ``question-answering``, ``summarization``, ``translation`` (also ``translation_en_to_de``),
    ``text2text-generation`` and ``image-to-text``. ``feature-extraction`` takes ``pooling=``, which
    gives one embedding for each text; without it the answer is transformers' own, a state for each
    token. See `weighbridge.pipelines.embedding`.

    Args:
        task: what the model is to do; None takes what the directory says it was exported for, or
            what the model's class is made for.
        path: a directory of an ONNX export, a checkpoint directory, a GGUF file.
        threads: how many threads compute in ONNX Runtime; None takes its own choice.
        providers: ONNX Runtime's execution providers; None takes a GPU where there is one.
        options: for the pipeline: ``tokenizer``, ``batch_size``, options of the task; for a model
            that runs in torch also ``dtype`` and ``device``.

    Raises:
        MissingDependency: when onnxruntime, torch or transformers are not installed.
        NotFound: (rule ``not-found``) for a path that does not exist, (rule ``no-export``) for a
            directory that holds neither an export nor a model.
        InvalidInput: (rule ``task``) for a task that there is not or that nothing tells, (rule
            ``pipeline-part``) for a directory without the tokenizer or processor of the task, (rule
            ``pipeline-option``) for an option that would be left unheeded.
        Unsupported: (rule ``task-head``) for a model that lacks the head of the task.

    Example:
        >>> pipeline("text-clasification", "model-onnx")
        Traceback (most recent call last):
        weighbridge.errors.NotFound: model-onnx: does not exist [not-found]
    """
    from weighbridge.pipelines.manifest import is_export, read_manifest

    if path is None:
        raise InvalidInput("needs a path", rule="path", hint="pipeline(task, path)")
    place = Path(path)
    if not place.exists():
        raise NotFound("does not exist", rule="not-found", path=place)
    _check_transformers()
    if is_export(place):
        _check_given(place, options, ("dtype", "model_class"), "an export is as it was written")
        return _exported(task, read_manifest(place), threads, providers, options)
    tuned = {"threads": threads, "providers": providers}
    _check_given(place, tuned, tuned, "it is for models that run in ONNX Runtime")
    from weighbridge.pipelines.in_torch import in_torch

    return in_torch(task, place, options)


def _check_transformers() -> None:
    from importlib.util import find_spec

    for package in ("torch", "transformers"):
        if find_spec(package) is None:
            raise MissingDependency(
                f"{package} is not installed, which pipelines need",
                rule=package,
                hint="pip install 'weighbridge[onnx]'",
            )


def _check_given(place: Path, given: Mapping[str, Any], barred: Iterable[str], why: str) -> None:
    """Refuse options that would be left unheeded.

    Raises:
        InvalidInput: (rule ``pipeline-option``).
    """
    for name in barred:
        if given.get(name) is not None:
            raise InvalidInput(
                f"{name} cannot be chosen: {why}",
                rule="pipeline-option",
                path=place,
                got=given[name],
            )


def _exported(
    task: str | None,
    manifest: Manifest,
    threads: int | None,
    providers: Sequence[Any] | None,
    options: dict[str, Any],
) -> Any:
    from weighbridge.pipelines.network import check_installed, network
    from weighbridge.pipelines.side_parts import parts_of
    from weighbridge.pipelines.tasks import check_head, pipeline_class, plain_task, task_of

    check_installed()
    place, kind = manifest.directory, manifest.architecture
    wanted = task or manifest.task or task_of(kind, manifest.config, place)
    plain = plain_task(wanted)
    check_head(plain, kind, place)
    made = pipeline_class(plain)
    parts = parts_of(made, place, options)
    model = network(manifest, threads=threads, providers=providers)
    model.name_or_path = str(place)
    arguments = {"device": model.device, **parts, **options}
    return made(model=model, task=wanted, **arguments)
