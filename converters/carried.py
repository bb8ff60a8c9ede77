"""Side files in a GGUF file: carried whole as key-values, or told by other key-values.

A file of ours carries config.json and every side file, but for those that ``tokenizer.*``
key-values give back, so that the way back is exact. Key-values may be edited in between, and what
they say then counts; a file made elsewhere has nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from weighbridge import sidefiles
from weighbridge.aspects import same
from weighbridge.converters import general, tokenizers
from weighbridge.metadata import string
from weighbridge.report import Report

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from weighbridge.arch import Arch
    from weighbridge.metadata import Metadata, Value
    from weighbridge.model import Config

KIND = "tokenizer.ggml.model"
PRE = "tokenizer.ggml.pre"
TOKENS = "tokenizer.ggml.tokens"

TOKENIZER = "tokenizer.json"
SETTINGS = "tokenizer_config.json"
TEMPLATES = ("chat_template.jinja", "additional_chat_templates/")
"""What the names of files with chat templates begin with."""


def to_metadata(
    files: Mapping[str, bytes], config: Config, tokens: Mapping[str, Value]
) -> dict[str, Value]:
    """Return config.json and the side files as key-values, but for what `tokens` give back.

    Args:
        files: the side files.
        config: config.json.
        tokens: the ``tokenizer.*`` key-values.
    """
    settings = {name: files[name] for name in (SETTINGS,) if name in files}
    known = {TOKENIZER} if tokens else set()
    if tokens and not _has_template(settings):
        known |= set(_templates(files))
    kept = {name: files[name] for name in files if name not in known}
    return sidefiles.to_metadata({sidefiles.CONFIG: sidefiles.dump_json(config), **kept})


def from_metadata(
    arch: Arch,
    metadata: Metadata,
    config: dict[str, Any],
    carried: Mapping[str, bytes],
    report: Report,
) -> dict[str, bytes]:
    """Return the side files: those that a GGUF file carries, or those that its key-values tell.

    Args:
        arch: the model's family.
        metadata: all key-values.
        config: config.json; it is changed where key-values about tokens were.
        carried: the files that the key-values hold, config.json among them in a file of ours.
        report: is told what is wrong, and which key-values were changed.
    """
    files = {name: carried[name] for name in carried if name != sidefiles.CONFIG}
    with report.collect():
        made = _made(metadata, report)
        if sidefiles.CONFIG in carried:
            _revive(files, made, arch, metadata, config, report)
            files = arch.revise_files(files, config, metadata, report)
        else:
            moved = {key: config[key] for key in general.MOVED if key in config}
            told = general.files(metadata, tokenizers.generation_ids(metadata) | moved, report)
            files |= {**made, **told, **arch.to_files(metadata, report)}
    return files


def _made(metadata: Metadata, report: Report) -> dict[str, bytes]:
    if metadata.get(KIND, string("none")).plain() != "none":
        return tokenizers.from_gguf(metadata)
    report.note("warning", KIND, "the file holds no tokenizer")
    return {}


def _revive(
    files: dict[str, bytes],
    made: Mapping[str, bytes],
    arch: Arch,
    metadata: Metadata,
    config: dict[str, Any],
    report: Report,
) -> None:
    """Complete carried files by those `made` from the key-values, and bring them up to date."""
    if TOKENIZER not in made:
        return
    files[TOKENIZER] = made[TOKENIZER]
    if not _has_template(files):
        files.update(_templates(made))
    changed = _changed_keys(arch, files, metadata, config)
    _revise(files, config, made, changed, metadata)
    for key in changed:
        report.note("warning", key, "was changed since the files were stored: it wins")


def _has_template(files: Mapping[str, bytes]) -> bool:
    settings = sidefiles.parse_json(files.get(SETTINGS, b"{}"), SETTINGS)
    return "chat_template" in settings or bool(_templates(files))


def _templates(files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if name.startswith(TEMPLATES)}


def _changed_keys(
    arch: Arch, files: Mapping[str, bytes], metadata: Metadata, config: Config
) -> list[str]:
    """Return the tokenizer's key-values that would be written otherwise now."""
    pre = metadata.get(PRE)
    name = None if pre is None else str(pre.data)
    tokens: Sequence[object] = metadata[TOKENS].data  # type: ignore[assignment]
    again = tokenizers.to_gguf(files, config, vocab_size=len(tokens), pre=name).metadata
    again |= of_tokenizer(arch.to_metadata(config, files, Report()))
    return [
        key
        for key, value in of_tokenizer(metadata).items()
        if key not in again or not same(again[key], value)
    ]


def of_tokenizer(metadata: Metadata) -> dict[str, Value]:
    """Return the key-values of the tokenizer."""
    return {key: value for key, value in metadata.items() if key.startswith("tokenizer.")}


def _revise(
    files: dict[str, bytes],
    config: dict[str, Any],
    made: Mapping[str, bytes],
    changed: Sequence[str],
    metadata: Metadata,
) -> None:
    """Put what the key-values say now into the files and the config that say otherwise."""
    about_templates = [key for key in changed if key.startswith("tokenizer.chat_template")]
    if about_templates:
        files.update(_templates(made))
    if len(about_templates) < len(changed):
        settings = sidefiles.parse_json(made[SETTINGS], SETTINGS)
        said = {n: settings[n] for n in settings if n.endswith("_token") or n.startswith("add_")}
        _update_json(files, SETTINGS, said)
    if any(key.endswith("_token_id") for key in changed):
        ids = tokenizers.generation_ids(metadata)
        config.update(ids)
        _update_json(files, general.GENERATION, ids)


def _update_json(files: dict[str, bytes], name: str, entries: Mapping[str, Any]) -> None:
    before = sidefiles.parse_json(files.get(name, b"{}"), name)
    files[name] = sidefiles.dump_json({**before, **entries})
