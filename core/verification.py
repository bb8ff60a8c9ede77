"""Runs two models where they run, on the same inputs, and compares what they answer.

What is compared, for decoders, are the logarithms of the next token's probabilities over the whole
vocabulary, after a part and the whole of every prompt: logits up to the constant that softmax takes
away. For encoders it is the embedding of every prompt. The token ids come from one side's tokenizer
and are given to both, so that two tokenizers that disagree are told apart from weights that do.

A tolerance is for the largest difference; by default it goes by the encodings (`tolerance`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from weighbridge import registry
from weighbridge.agreement import Answer, Side, Verification
from weighbridge.api import open as open_model
from weighbridge.errors import InvalidInput, Unsupported
from weighbridge.prompts import shipped_prompts
from weighbridge.runtimes.base import Kind
from weighbridge.tolerance import coarsest, default_tolerance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from weighbridge.api import AnyPath
    from weighbridge.model import Model
    from weighbridge.runtimes.base import Facts, Floats, Runner, Runtime

    Tell = Callable[[str, int, int], None]

TOKENS = 16
"""How many tokens are added greedily, where the user does not say."""

PARTS = 2
"""After how many parts of a prompt a decoder is asked: its half and the whole."""

FLOOR = -80.0
"""Logarithms of probabilities below this are taken for this: float32 has no smaller ones."""

SPARE = 4
"""Positions of a model's context that are left free: some families number from 2."""

MEAN = "mean"
"""How encoders pool where nothing tells."""

RANDOM = 16
"""How many random ids are taken where there is no tokenizer."""

SEED = 0

MANY = 1 << 30
"""More tokens than any model takes."""


def verify(
    a: AnyPath,
    b: AnyPath,
    *,
    prompts: Sequence[str] | None = None,
    tokens: int = TOKENS,
    tolerance: float | None = None,
    runtime_a: str | None = None,
    runtime_b: str | None = None,
    progress: Tell | None = None,
) -> Verification:
    """Run two models on the same inputs and compare what they answer.

    Args:
        a: a model: a Hugging Face directory, which runs in transformers, a GGUF file, which runs in
            llama.cpp, or an ONNX file, which runs in ONNX Runtime.
        b: another.
        prompts: texts; None takes some in several scripts, and code.
        tokens: how many tokens decoders add greedily; 0 adds none.
        tolerance: the largest difference of a logarithm of a probability (decoders) or of a number
            of an embedding (encoders) that passes; None takes `default_tolerance`.
        runtime_a: what runs A, where it is not the format's own: ``transformers`` for a GGUF file.
        runtime_b: what runs B.
        progress: told what is done next, its number and the count.

    Raises:
        MissingDependency: when a runtime is not installed.
        Unsupported: (rule ``no-runtime``) for a format that nothing runs.
        InvalidInput: (rule ``kinds``) for an encoder and a decoder, (rule ``sizes``) for
            vocabularies or embeddings of different sizes.
        InvalidFile: (rule ``runtime``) when a runtime refuses a model.

    Example:
        >>> import tempfile
        >>> from transformers import BertConfig, BertModel
        >>> config = BertConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1,
        ...                     num_attention_heads=2, intermediate_size=8)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     BertModel(config).save_pretrained(folder)
        ...     found = verify(folder, folder)
        >>> found.kind, found.max_error, found.passed
        ('encoder', 0.0, True)
    """
    if tokens < 0:
        raise InvalidInput("tokens cannot be fewer than none", rule="tokens", got=tokens)
    with open_model(a) as first, open_model(b) as second:
        sides = [_Side(first, runtime_a), _Side(second, runtime_b)]
        _check_alike(*sides)
        allowed = default_tolerance(first, second) if tolerance is None else tolerance
        interview = _Interview(sides, list(prompts or shipped_prompts()), tokens)
        return Verification(
            sides[0].facts.kind.value,
            (sides[0].described(), sides[1].described()),
            allowed,
            tuple(interview.hold(progress or silent)),
        )


def _told(tell: Tell, number: int, total: int) -> Callable[[str], None]:
    return lambda what: tell(what, number, total)


def silent(what: str, number: int, total: int) -> None:
    """Tell nobody."""


class _Side:
    """A model, what runs it and what its header says."""

    facts: Facts

    def __init__(self, model: Model, runtime: str | None) -> None:
        self.model = model
        self.runtime = _runtime_for(model, runtime)
        self.facts = self.runtime.facts(model)
        self.runtime.check_installed()

    def described(self) -> Side:
        return Side(str(self.model.path), self.runtime.name, str(coarsest(self.model)))


def _runtime_for(model: Model, name: str | None) -> Runtime:
    known = registry.runtimes()
    if name is not None and name not in known:
        raise InvalidInput(
            "is no runtime that is known",
            rule="no-runtime",
            got=name,
            expected=f"one of {', '.join(sorted(known))}",
        )
    for runtime in known.values() if name is None else [known[name]]:
        if model.format in (runtime.formats if name is None else runtime.formats | runtime.imports):
            return runtime
    raise Unsupported(
        f"{name or 'no runtime'} runs {model.format} files",
        rule="no-runtime",
        path=model.path,
        hint="give the directory that holds the config" if model.format == "safetensors" else None,
    )


def _check_alike(a: _Side, b: _Side) -> None:
    """Refuse two sides that cannot be compared, and settle how encoders pool.

    Where one side alone says how, both do so; where neither does, both take the mean.
    """
    if a.facts.kind is not b.facts.kind:
        raise InvalidInput(
            "the two are of different kinds and cannot be compared",
            rule="kinds",
            path=b.model.path,
            got=b.facts.kind.value,
            expected=a.facts.kind.value,
        )
    if a.facts.vocabulary and b.facts.vocabulary and a.facts.vocabulary != b.facts.vocabulary:
        _refuse_sizes(b.model, a.facts.vocabulary, b.facts.vocabulary)
    for side, other in ((a, b), (b, a)):
        way = side.facts.pooling or other.facts.pooling or MEAN
        side.facts = replace(side.facts, pooling=way)


def _refuse_sizes(model: Model, expected: int, got: int) -> NoReturn:
    raise InvalidInput(
        "the two have vocabularies or embeddings of different sizes",
        rule="sizes",
        path=model.path,
        got=got,
        expected=expected,
    )


@dataclass(frozen=True)
class _Said:
    """What one side says to one prompt.

    Attributes:
        values: logarithms of probabilities, (parts, vocabulary), or an embedding.
        added: the tokens that it adds.
        text: what these mean.
    """

    values: Floats
    added: list[int]
    text: str


class _Interview:
    """Asks both sides, one after the other, so that only one model is in memory at a time."""

    def __init__(self, sides: Sequence[_Side], prompts: Sequence[str], tokens: int) -> None:
        self.sides = sides
        self.prompts = prompts
        self.tokens = tokens if sides[0].facts.kind is Kind.DECODER else 0
        self.inputs: list[list[int]] = []
        self.own: dict[_Side, list[list[int]]] = {}
        self.said: dict[_Side, list[_Said]] = {}

    def hold(self, tell: Tell) -> list[Answer]:
        """Ask a side that has a tokenizer first, and the other with the same ids."""
        total = len(self.sides) * (1 + len(self.prompts))
        tells = (_told(tell, number, total) for number in range(total))
        for side in sorted(self.sides, key=lambda side: not side.facts.tokenizes):
            next(tells)(f"loading {side.model.path}")
            with side.runtime.start(side.model, side.facts, self._room()) as runner:
                self._ask(side, runner, tells)
        return [self._answer(number) for number in range(len(self.prompts))]

    def _ask(self, side: _Side, runner: Runner, tells: Iterator[Callable[[str], None]]) -> None:
        if side.facts.tokenizes:
            self.own[side] = [runner.tokens(prompt) for prompt in self.prompts]
        self.inputs = self.inputs or self._shared(self.own.get(side, []))
        self.said[side] = []
        for prompt, ids, told in zip(self.prompts, self.inputs, tells, strict=False):
            told(f"{side.runtime.name}: {prompt}")
            self.said[side].append(self._say(side, runner, ids))

    def _say(self, side: _Side, runner: Runner, ids: list[int]) -> _Said:
        if side.facts.kind is Kind.ENCODER:
            return _Said(runner.embed(ids, side.facts.pooling or MEAN), [], "")
        lengths = sorted({max(len(ids) * part // PARTS, 1) for part in range(1, PARTS + 1)})
        logs = np.maximum(runner.log_probs(ids, lengths), FLOOR)
        added = runner.greedy(ids, self.tokens) if self.tokens else []
        return _Said(logs, added, runner.text(added) if added else "")

    def _room(self) -> int:
        """Return how many tokens have to fit: each is a byte of text at least, but for a few."""
        if self.inputs:
            return max(map(len, self.inputs)) + self.tokens
        return max(len(prompt.encode()) for prompt in self.prompts) + SPARE + self.tokens

    def _shared(self, own: Sequence[list[int]]) -> list[list[int]]:
        """Return the ids that both sides are given: a tokenizer's, or random ones from a seed.

        Raises:
            InvalidInput: (rule ``no-tokenizer``) when nothing tells which ids there are.
        """
        contexts = [side.facts.context for side in self.sides if side.facts.context]
        longest = max(min(contexts, default=MANY) - self.tokens - SPARE, 1)
        if any(own):
            return [ids[:longest] or [0] for ids in own]
        sizes = [side.facts.vocabulary for side in self.sides if side.facts.vocabulary]
        if not sizes:
            raise InvalidInput(
                "neither side has a tokenizer, and nothing tells the size of the vocabulary",
                rule="no-tokenizer",
                hint="put tokenizer.json beside the model",
            )
        random = np.random.default_rng(SEED)
        length = min(longest, RANDOM)
        return [random.integers(0, min(sizes), length).tolist() for _ in self.prompts]

    def _answer(self, number: int) -> Answer:
        a, b = (self.said[side][number] for side in self.sides)
        if a.values.shape != b.values.shape:
            _refuse_sizes(self.sides[1].model, a.values.shape[-1], b.values.shape[-1])
        own = [self.own[side][number] for side in self.sides if side in self.own]
        answer = Answer(
            self.prompts[number] if own else "",
            tuple(self.inputs[number]),
            own[0] == own[1] if len(own) == len(self.sides) else None,
            *_errors(a.values, b.values),
        )
        if self.sides[0].facts.kind is Kind.ENCODER:
            return replace(answer, cosine=_cosine(a.values, b.values))
        shorter = min(len(a.added), len(b.added))
        return replace(
            answer,
            agreed=int(np.sum(a.values.argmax(-1) == b.values.argmax(-1))),
            parts=len(a.values),
            texts=(a.text, b.text),
            same_text=a.added[:shorter] == b.added[:shorter] if self.tokens else None,
        )


@np.errstate(all="ignore")
def _errors(a: Floats, b: Floats) -> tuple[float, float]:
    apart = np.abs(a - b)
    return float(apart.max()), float(np.sqrt(np.mean(np.square(apart))))


@np.errstate(all="ignore")
def _cosine(a: Floats, b: Floats) -> float:
    """Return the least cosine of the angles between rows; not a number where one has no length."""
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return float(np.min(np.sum(a * b, axis=-1) / lengths))
