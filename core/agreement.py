"""How two models that ran on the same inputs compare: figures for each prompt, and the verdict."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Side:
    """One of the two models.

    Attributes:
        path: where it is.
        runtime: the name of what ran it.
        encoding: the coarsest encoding of its matrices.
    """

    path: str
    runtime: str
    encoding: str


@dataclass(frozen=True)
class Answer:
    """How the two sides answered one prompt.

    Attributes:
        prompt: the text; empty where neither side has a tokenizer.
        ids: what both were given.
        same_ids: whether both tokenizers give the same ids, None where one side has none.
        max_error: the largest difference of a logarithm, or of a number of the embedding.
        rms_error: the root of the mean squared difference.
        agreed: after how many parts both hold the same token for the likeliest; decoders only.
        parts: after how many parts they were asked.
        cosine: of the angle between the embeddings, the least one; encoders only.
        texts: what either adds greedily; decoders only.
        same_text: whether these are the same tokens, as far as both go on.
    """

    prompt: str
    ids: tuple[int, ...]
    same_ids: bool | None
    max_error: float
    rms_error: float
    agreed: int = 0
    parts: int = 0
    cosine: float | None = None
    texts: tuple[str, str] = ("", "")
    same_text: bool | None = None


@dataclass(frozen=True)
class Verification:
    """How two models compare.

    Attributes:
        kind: ``decoder`` or ``encoder``.
        sides: A and B.
        tolerance: the largest difference that passes.
        answers: one for each prompt.
    """

    kind: str
    sides: tuple[Side, Side]
    tolerance: float
    answers: tuple[Answer, ...]

    @property
    def max_error(self) -> float:
        """The largest difference of all; not a number where one side gives none."""
        return float(np.max([answer.max_error for answer in self.answers]))

    @property
    def rms_error(self) -> float:
        """The root of the mean squared difference over all prompts."""
        return float(np.sqrt(np.mean([answer.rms_error**2 for answer in self.answers])))

    @property
    def agreed(self) -> int:
        """How often both hold the same token for the likeliest."""
        return sum(answer.agreed for answer in self.answers)

    @property
    def parts(self) -> int:
        """How often they were asked."""
        return sum(answer.parts for answer in self.answers)

    @property
    def cosine(self) -> float | None:
        """The least cosine of all prompts; None for decoders."""
        found = [answer.cosine for answer in self.answers if answer.cosine is not None]
        return float(np.min(found)) if found else None

    @property
    def same_ids(self) -> bool | None:
        """Whether both tokenizers agree on every prompt; None where one side has none."""
        found = [answer.same_ids for answer in self.answers if answer.same_ids is not None]
        return all(found) if found else None

    @property
    def passed(self) -> bool:
        """Whether no difference is beyond the tolerance, and both tokenizers agree."""
        return self.max_error <= self.tolerance and self.same_ids is not False
