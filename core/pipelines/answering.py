"""``question-answering``, as transformers 4 had it: the span of a text that answers a question.

A text that is longer than the model takes is cut into windows that overlap by ``doc_stride``
tokens. A span scores the product of two probabilities over the window: that an answer starts at
its first token, and that one ends at its last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers.pipelines.base import ChunkPipeline

from weighbridge.errors import InvalidInput, Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    Example = Mapping[str, str]

WINDOW = 384
"""The most tokens of a window, where the model takes as many."""

OVERLAP = 128
"""The most tokens that two windows share, where nobody says otherwise."""

ANSWER = 15
"""The most tokens of an answer."""

FIELDS = ("question", "context")

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class QuestionAnswering(ChunkPipeline):
    """A question and a context give ``{"score", "start", "end", "answer"}``.

    ``start`` and ``end`` are characters of the context. ``top_k`` above 1 gives a list, the
    likeliest first; with ``handle_impossible_answer`` the empty answer is among the candidates.
    """

    _load_processor: Any = False
    _load_image_processor: Any = False
    _load_feature_extractor: Any = False
    _load_tokenizer: Any = True

    def _sanitize_parameters(
        self,
        *,
        doc_stride: int | None = None,
        max_seq_len: int | None = None,
        max_answer_len: int | None = None,
        top_k: int | None = None,
        handle_impossible_answer: bool | None = None,
        align_to_words: bool | None = None,
    ) -> Any:
        for name, value in (("top_k", top_k), ("max_answer_len", max_answer_len)):
            if value is not None and value < 1:
                raise InvalidInput(f"{name} is less than 1", rule=name.replace("_", "-"), got=value)
        before = {"doc_stride": doc_stride, "max_seq_len": max_seq_len}
        after = {
            "top_k": top_k,
            "max_answer_len": max_answer_len,
            "impossible": handle_impossible_answer,
            "words": align_to_words,
        }
        told = [{k: v for k, v in one.items() if v is not None} for one in (before, after)]
        return told[0], {}, told[1]

    def __call__(
        self, inputs: Any = None, question: Any = None, context: Any = None, **options: Any
    ) -> Any:
        """Answer one question or several.

        Args:
            inputs: ``{"question": ..., "context": ...}``, or a list of such.
            question: a question, or a list of them, instead of `inputs`.
            context: what it is about: one for all, or one for each.
            options: ``top_k``, ``doc_stride``, ``max_seq_len``, ``max_answer_len``,
                ``handle_impossible_answer``, ``align_to_words``, ``batch_size``.

        Raises:
            InvalidInput: (rule ``question``) for what is no question with a context.
        """
        return super().__call__(_examples(inputs, question, context), **options)

    def preprocess(
        self, example: Example, doc_stride: int | None = None, max_seq_len: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """Yield the windows of an example.

        Raises:
            InvalidInput: (rule ``doc-stride``) for windows that never move on, (rule ``question``)
                for a question that leaves no room.
        """
        most = max_seq_len or min(self.tokenizer.model_max_length, WINDOW)
        overlap = min(most // 2, OVERLAP) if doc_stride is None else doc_stride
        if not 0 <= overlap < most:
            raise InvalidInput(
                "windows would not move on",
                rule="doc-stride",
                got=overlap,
                expected=f"below {most}",
            )
        windows = self._windows(example, most, overlap)
        count = len(windows["input_ids"])
        for index in range(count):
            fed = {name: torch.tensor([windows[name][index]]) for name in INPUTS if name in windows}
            yield {
                **fed,
                "is_last": index == count - 1,
                "example": example,
                "window": _Window(windows, index, self._second, self.tokenizer.cls_token_id),
            }

    @property
    def _second(self) -> int:
        """Which of the two sequences the context is: tokens are padded after it."""
        return 1 if self.tokenizer.padding_side == "right" else 0

    def _windows(self, example: Example, most: int, overlap: int) -> Any:
        pair = [example[name] for name in FIELDS]
        if not self.tokenizer.is_fast:
            raise Unsupported("needs a tokenizer that tells where its tokens are", rule="tokenizer")
        try:
            return self.tokenizer(
                *(pair if self._second else reversed(pair)),
                truncation="only_second" if self._second else "only_first",
                max_length=most,
                stride=overlap,
                return_overflowing_tokens=True,
                return_offsets_mapping=True,
            )
        except Exception as error:  # tokenizers panics where windows would be empty
            raise InvalidInput(
                "leaves no room for its context in a window",
                rule="question",
                got=example["question"],
                hint="a larger max_seq_len, or a smaller doc_stride",
            ) from error

    def _forward(self, model_inputs: Any) -> Any:
        fed = {name: model_inputs[name] for name in INPUTS if name in model_inputs}
        outputs = self.model(**fed)
        kept = {name: value for name, value in model_inputs.items() if name not in INPUTS}
        return {"start": outputs.start_logits, "end": outputs.end_logits, **kept}

    def postprocess(
        self,
        windows: Sequence[Any],
        top_k: int = 1,
        max_answer_len: int = ANSWER,
        impossible: bool = False,
        words: bool = True,
    ) -> Any:
        """Return the likeliest answers of all windows of an example."""
        context = windows[0]["example"]["context"]
        best: dict[tuple[int, int], float] = {}
        nothing = 1.0
        for one in windows:
            window: _Window = one["window"]
            start, end = (window.probabilities(_row(one[name])) for name in ("start", "end"))
            nothing = min(nothing, window.nothing(start, end))
            inside = window.context(start), window.context(end)
            for score, first, last in _spans(*inside, top_k, max_answer_len):
                span = window.characters(first, last, words=words)
                best[span] = max(score, best.get(span, 0.0))
        found = [_answer(score, *span, context) for span, score in best.items()]
        if impossible:
            found.append(_answer(nothing, 0, 0, ""))
        ranked = sorted(found, key=lambda answer: -answer["score"])[:top_k]
        return ranked[0] if top_k == 1 else ranked


def _examples(inputs: Any, question: Any, context: Any) -> Any:
    """Return an example, or a list of them."""
    if inputs is None and question is not None:
        inputs = _paired(question, context)
    if isinstance(inputs, list):
        return [_checked(one) for one in inputs]
    return _checked(inputs)


def _paired(question: Any, context: Any) -> Any:
    if not isinstance(question, list):
        return {"question": question, "context": context}
    contexts = context if isinstance(context, list) else [context] * len(question)
    if len(contexts) != len(question):
        raise InvalidInput(
            "are not as many contexts as questions",
            rule="question",
            got=len(contexts),
            expected=len(question),
        )
    return [{"question": q, "context": c} for q, c in zip(question, contexts, strict=True)]


def _checked(example: Any) -> Example:
    known = isinstance(example, dict) and all(isinstance(example.get(n), str) for n in FIELDS)
    if not known or not all(example[name].strip() for name in FIELDS):
        raise InvalidInput(
            "is no question with a context",
            rule="question",
            got=example,
            expected="question= and context=, two texts",
        )
    return {name: example[name] for name in FIELDS}


def _row(values: Any) -> NDArray[np.float64]:
    row: NDArray[np.float64] = values[0].float().numpy().astype(np.float64)
    return row


class _Window:
    """Where the tokens of a window are in the context."""

    def __init__(self, windows: Any, index: int, second: int, cls: int | None) -> None:
        self._length = len(windows["input_ids"][index])
        self._encoding = windows.encodings[index]
        sequences = windows.sequence_ids(index)
        self._inside = np.array([sequence == second for sequence in sequences])
        self._offsets = windows["offset_mapping"][index]
        ids = windows["input_ids"][index]
        self._cls = [place for place, one in enumerate(ids) if one == cls][:1]
        self._second = second

    def probabilities(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the softmax over the context and the token that stands for no answer."""
        open_ = self._inside.copy()
        open_[self._cls] = True
        kept = np.where(open_, logits[: self._length], -np.inf)
        powers = np.exp(kept - kept.max())
        normalised: NDArray[np.float64] = powers / powers.sum()
        return normalised

    def nothing(self, start: NDArray[np.float64], end: NDArray[np.float64]) -> float:
        """Return the score of no answer; 1 without a token for it."""
        return float(start[self._cls[0]] * end[self._cls[0]]) if self._cls else 1.0

    def context(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the values with zeros outside the context."""
        return np.where(self._inside, values, 0.0)

    def characters(self, first: int, last: int, *, words: bool) -> tuple[int, int]:
        """Return the characters of a span of tokens, whole words where asked for."""
        if not words:
            return self._offsets[first][0], self._offsets[last][1]
        return self._word(first)[0], self._word(last)[1]

    def _word(self, token: int) -> tuple[int, int]:
        """Return the characters of a token's word, those of the token where it is in none."""
        word = self._encoding.token_to_word(token)
        found = None if word is None else self._encoding.word_to_chars(word, self._second)
        return tuple(found) if found else tuple(self._offsets[token])


def _spans(
    start: NDArray[np.float64], end: NDArray[np.float64], count: int, longest: int
) -> Iterator[tuple[float, int, int]]:
    """Yield the likeliest spans: their scores, their first and last tokens.

    Example:
        >>> start, end = np.array([0.0, 0.7, 0.3]), np.array([0.0, 0.2, 0.8])
        >>> [(round(score, 2), first, last) for score, first, last in _spans(start, end, 2, 2)]
        [(0.56, 1, 2), (0.24, 2, 2)]
    """
    scores = np.tril(np.triu(np.outer(start, end)), longest - 1)
    flat = scores.ravel()
    for index in np.argsort(-flat, kind="stable")[:count]:
        if flat[index] > 0:
            first, last = divmod(int(index), len(end))
            yield float(flat[index]), first, last


def _answer(score: float, start: int, end: int, context: str) -> dict[str, Any]:
    return {"score": score, "start": start, "end": end, "answer": context[start:end]}
