"""transformers: runs Hugging Face directories, in float32."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from weighbridge.canonical import canonical
from weighbridge.errors import InvalidFile, InvalidPlan, Unsupported
from weighbridge.pooling import config_name, modes_of
from weighbridge.report import Report
from weighbridge.runtimes.base import (
    Facts,
    Kind,
    Runner,
    Runtime,
    blaming,
    log_softmax,
    pooled,
)
from weighbridge.runtimes.tokenized import TokenizedRunner, quiet
from weighbridge.sidefiles import CONFIG
from weighbridge.tensor_names import model_class
from weighbridge.text import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from weighbridge.model import Config, Model
    from weighbridge.runtimes.base import Floats

GENERATING = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
"""How the names of classes end that give logits for the next token."""

CLASSIFYING = "ForSequenceClassification"

PAIRS = frozenset(
    {
        "bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "fsmt", "led", "longt5",
        "m2m_100", "marian", "mbart", "mt5", "mvp", "nllb-moe", "pegasus", "pegasus_x", "plbart",
        "prophetnet", "switch_transformers", "t5", "umt5",
    }
)  # fmt: skip
"""The model types with an encoder and a decoder that both take text."""

TOKENIZERS = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt",
    "spiece.model", "sentencepiece.bpe.model",
)  # fmt: skip
"""The files by which a directory has a tokenizer."""

SCORES, STATES = "logits", "last_hidden_state"
"""What models call their outputs."""

POOLINGS = {"mean": "mean", "cls": "cls", "lasttoken": "last"}
"""sentence-transformers' name of a mode -> the one here."""


class Transformers(Runtime):
    """transformers on the processor, with float32 weights and attention written out."""

    name = "transformers"
    formats = frozenset({"huggingface"})
    imports = frozenset({"gguf", "onnx"})
    packages = ("torch", "transformers")

    def facts(self, model: Model) -> Facts:
        """Return what config.json and the side files say.

        Raises:
            InvalidPlan: when another format's model has no config and its family is not known.
        """
        named = _named(model)
        config = named.config or {}
        return Facts(
            kind_of(config, named.files, model.path),
            vocabulary=vocabulary_of(config),
            context=context_of(config),
            tokenizes=any(name in named.files for name in TOKENIZERS),
            pooling=pooling_of(config, named.files),
        )

    def start(self, model: Model, facts: Facts, room: int) -> Runner:
        """Load a checkpoint by transformers itself, another format by `weighbridge.transformers`.

        Raises:
            InvalidFile: (rule ``runtime``) when transformers refuses it, (rule ``missing-tensors``)
                when it would make up weights.
        """
        del room
        assert model.path is not None
        config = _named(model).config or {}
        with quiet(), blaming(self.name, model.path):
            kind = _class(facts, config)
            if model.format in self.formats:
                network = _loaded(model.path, kind)
                tokenizer = tokenizer_at(model.path) if facts.tokenizes else None
            else:
                network, tokenizer = _translated(model.path, kind)
        return TransformersRunner(network.eval(), tokenizer, model.path)


def _named(model: Model) -> Model:
    """Return a model with a config: its own, or the one that its key-values mean."""
    if model.config is not None:
        return model
    report = Report()
    named = canonical(model, report)
    if report.problems:
        raise InvalidPlan(report.problems)
    return named


def _translated(path: Path, kind: Any) -> tuple[Any, Any]:
    """Return the network and the tokenizer of a model of any format."""
    from weighbridge.transformers import from_pretrained

    loaded = from_pretrained(path, dtype="float32", model_class=kind, attn_implementation="eager")
    return loaded.model, loaded.tokenizer


def kind_of(config: Config, files: Mapping[str, bytes], path: Path | None) -> Kind:
    """Tell a generating model from an encoder, by its class and how its states are pooled.

    Raises:
        Unsupported: (rule ``encoder-decoder``) for an encoder with a decoder that does not turn
            text into text.
        InvalidFile: (rule ``architecture``) when the config names no class.
    """
    name = model_class(config)
    if not name:
        raise InvalidFile(
            "does not say which class of transformers it is",
            rule="architecture",
            path=path,
            hint=f"{CONFIG} needs architectures",
        )
    pair = config.get("is_encoder_decoder")
    if pair and (config.get("model_type") not in PAIRS or not name.endswith(GENERATING)):
        raise Unsupported(
            "only encoder-decoder models that turn text into text can be compared",
            rule="encoder-decoder",
            path=path,
            got=name,
        )
    generates = name.endswith(GENERATING) and config_name(files) is None
    return Kind.DECODER if generates else Kind.ENCODER


def pooling_of(config: Config, files: Mapping[str, bytes]) -> str | None:
    """Return how an encoder's states are pooled, None where nothing tells."""
    if model_class(config).endswith(CLASSIFYING):
        return "rank"
    place = config_name(files)
    return POOLINGS.get(modes_of(files, place)[0]) if place else None


def vocabulary_of(config: Config) -> int | None:
    """Return how many tokens a config says there are."""
    return _number(config, "vocab_size")


def context_of(config: Config) -> int | None:
    """Return how many positions a config says there are."""
    return _number(config, "max_position_embeddings", "n_positions")


def _number(config: Config, *names: str) -> int | None:
    text = config.get("text_config")
    for settings in (config, text if isinstance(text, dict) else {}):
        for name in names:
            number = settings.get(name)
            if isinstance(number, int) and number > 0:
                return number
    return None


def tokenizer_at(directory: Path) -> Any:
    """Return the tokenizer of a directory."""
    import transformers

    with quiet(), blaming("the tokenizer of transformers", directory):
        return transformers.AutoTokenizer.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False
        )


def _class(facts: Facts, config: Config) -> Any:
    """Return the class that gives what is compared: logits, scores, or hidden states."""
    import transformers

    name = model_class(config)
    bare = name.endswith("Model")  # T5EncoderModel is not what AutoModel takes for T5
    if facts.kind is Kind.ENCODER and facts.pooling != "rank" and not bare:
        return transformers.AutoModel
    found = getattr(transformers, name, None)
    if found is None:
        raise Unsupported("is of no class of transformers", rule="architecture", got=name)
    return found


def _loaded(path: Path, kind: Any) -> Any:
    """Return a network in float32.

    Raises:
        InvalidFile: (rule ``missing-tensors``) when transformers would make up weights.
    """
    import torch

    network, report = kind.from_pretrained(
        path,
        dtype=torch.float32,
        attn_implementation="eager",
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        output_loading_info=True,
    )
    # A pooler is not part of what is compared: GGUF, for one, has none.
    missing = sorted(name for name in report["missing_keys"] if "pooler." not in name)
    if missing:
        raise InvalidFile(
            f"transformers finds no weights for {counted(len(missing), 'tensor')}",
            rule="missing-tensors",
            path=path,
            tensor=missing[0],
        )
    return network


class TransformersRunner(TokenizedRunner):
    """A model and a tokenizer of transformers.

    A model with an encoder reads the whole text, and its decoder the same text once more, behind
    the token that begins every answer: each prefix of it is what an answer may have been so far.
    """

    runtime = Transformers.name

    def __init__(self, network: Any, tokenizer: Any, path: Path) -> None:
        """Keep all; the tokenizer may be None."""
        super().__init__(tokenizer)
        self._network = network
        self._path = path
        self._pair = bool(network.config.is_encoder_decoder)

    def log_probs(self, ids: Sequence[int], lengths: Sequence[int]) -> Floats:
        """Evaluate once; an encoder sees the whole text whatever the prefix."""
        if not self._pair:
            return super().log_probs(ids, lengths)
        return log_softmax(self.logits(ids)[[length - 1 for length in lengths]])

    def logits(self, ids: Sequence[int]) -> Floats:
        """Evaluate the whole text at once."""
        more = {"decoder_input_ids": [self._start(), *ids[:-1]]} if self._pair else {}
        values: Floats = self._run(ids, **more).logits[0].numpy()
        return values

    def _start(self) -> int:
        """Return the token that begins every answer.

        Raises:
            InvalidFile: (rule ``decoder-start``) when nothing tells it.
        """
        found = self._network.generation_config.decoder_start_token_id
        if not isinstance(found, int):
            raise InvalidFile(
                "does not say which token begins an answer", rule="decoder-start", path=self._path
            )
        return found

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        """Return the likeliest tokens, up to one that ends a text."""
        import torch
        from transformers import GenerationConfig as Typed

        generation: Any = Typed
        inputs = torch.tensor([list(ids)])
        ends = self._network.generation_config.eos_token_id
        start = {"decoder_start_token_id": self._start()} if self._pair else {}
        plain = generation(
            max_new_tokens=count, do_sample=False, eos_token_id=ends, pad_token_id=0, **start
        )
        with quiet(), blaming(self.runtime, self._path), torch.no_grad():
            made = self._network.generate(
                inputs, attention_mask=torch.ones_like(inputs), generation_config=plain
            )
        added: list[int] = made[0, 1 if self._pair else len(ids) :].tolist()
        return added

    def embed(self, ids: Sequence[int], pooling: str) -> Floats:
        """Pool the last hidden states, or return a classifier's scores.

        Raises:
            Unsupported: (rule ``onnx-output``) for an export that gives others.
        """
        outputs = self._run(ids)
        name = SCORES if pooling == "rank" else STATES
        if name not in outputs:
            raise Unsupported(
                "gives no output that can be compared",
                rule="onnx-output",
                path=self._path,
                got=", ".join(outputs),
                expected=name,
            )
        values: Floats = outputs[name][0].numpy().astype(np.float64)
        return values if pooling == "rank" else pooled(values, pooling)

    def _run(self, ids: Sequence[int], **more: Sequence[int]) -> Any:
        import torch

        inputs = torch.tensor([list(ids)])
        others = {name: torch.tensor([list(values)]) for name, values in more.items()}
        with quiet(), blaming(self.runtime, self._path), torch.no_grad():
            return self._network(input_ids=inputs, attention_mask=torch.ones_like(inputs), **others)

    def close(self) -> None:
        """Let go of the weights."""
        self._network = None


RUNTIME = Transformers()
