"""What runtimes share whose tokenizer is one of transformers."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from weighbridge.runtimes.base import Runner, log_softmax

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from weighbridge.runtimes.base import Floats


class TokenizedRunner(Runner):
    """A model beside a tokenizer of transformers, which may be None."""

    def __init__(self, tokenizer: Any) -> None:
        """Keep the tokenizer."""
        self._tokenizer = tokenizer

    @abstractmethod
    def logits(self, ids: Sequence[int]) -> Floats:
        """Return the logits after every token of a text, shape (tokens, vocabulary)."""

    def tokens(self, text: str) -> list[int]:
        """Return the token ids of a text, special tokens among them."""
        with quiet():
            ids: list[int] = self._tokenizer(text)["input_ids"]
        return ids

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of token ids; without a tokenizer, the ids themselves."""
        if self._tokenizer is None:
            return " ".join(map(str, ids))
        text: str = self._tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)
        return text

    def log_probs(self, ids: Sequence[int], lengths: Sequence[int]) -> Floats:
        """Evaluate the longest prefix once: a decoder does not look ahead."""
        logits = self.logits(ids[: max(lengths)])
        return log_softmax(logits[[length - 1 for length in lengths]])


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from drawing bars and giving advice."""
    from transformers.utils import logging as typed

    logging: Any = typed
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
