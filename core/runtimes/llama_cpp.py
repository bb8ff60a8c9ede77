"""llama.cpp, through the wheel ``xllamacpp``: runs GGUF.

Its server reports the logarithm of the softmax of the raw logits for as many tokens as are asked
for, so the whole vocabulary is to be had; sums are in float32, which is made good here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from weighbridge.errors import InvalidFile, Unsupported
from weighbridge.runtimes.base import Facts, Kind, Runner, Runtime, log_softmax
from weighbridge.runtimes.llama_server import LlamaServer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weighbridge.model import Model
    from weighbridge.runtimes.base import Floats

POOLINGS = {0: "none", 1: "mean", 2: "cls", 3: "last", 4: "rank"}
"""What the numbers of ``{arch}.pooling_type`` mean (llama.cpp, ``enum llama_pooling_type``)."""

EMBEDDINGS = "token_embd.weight"

CLASSIFIERS = ("cls.output.weight", "cls.weight")
"""The last matrix of a classifier: a row for each label."""

NORMAL = 1
"""The type of a token that is neither special nor a byte (llama.cpp, ``enum llama_token_type``)."""

FORCE = 1e6
"""What is added to a logit so that its token is taken; the reported probabilities stay."""

ROOM = 256
"""The context is a multiple of this."""


class LlamaCpp(Runtime):
    """llama.cpp on the processor, with float32 keys and values and without flash attention."""

    name = "llama.cpp"
    formats = frozenset({"gguf"})
    packages = ("xllamacpp",)

    def facts(self, model: Model) -> Facts:
        """Return what the key-values say.

        Raises:
            InvalidFile: (rule ``architecture``) without ``general.architecture``.
            Unsupported: (rule ``encoder-decoder``) for a model like T5, which its server cannot
                run.
        """
        family = _scalar(model, "general.architecture")
        if family is None:
            raise InvalidFile(
                "has no general.architecture, without which llama.cpp runs nothing",
                rule="architecture",
                path=model.path,
            )
        if f"{family}.decoder_start_token_id" in model.metadata:
            raise Unsupported(
                "llama.cpp's server does not run encoder-decoder models",
                rule="encoder-decoder",
                path=model.path,
            )
        pooling = POOLINGS.get(_scalar(model, f"{family}.pooling_type"))
        causal = _scalar(model, f"{family}.attention.causal") is not False
        context = _scalar(model, f"{family}.context_length")
        embeddings = model.tensors.get(EMBEDDINGS)
        return Facts(
            Kind.DECODER if causal and pooling in (None, "none") else Kind.ENCODER,
            vocabulary=embeddings.shape[0] if embeddings and embeddings.ndim else None,
            context=context if isinstance(context, int) else None,
            tokenizes=_scalar(model, "tokenizer.ggml.model") not in (None, "none"),
            pooling=pooling,
        )

    def start(self, model: Model, facts: Facts, room: int) -> Runner:
        """Load a GGUF file in a process of its own."""
        assert model.path is not None
        pooling = (facts.pooling or "mean") if facts.kind is Kind.ENCODER else None
        server = LlamaServer(model.path, -(-room // ROOM) * ROOM, pooling)
        return LlamaRunner(server, facts.vocabulary or 0, _plain_token(model), _labels(model))


def _labels(model: Model) -> int:
    """Return how many scores a classifier gives."""
    heads = [model.tensors[name].shape[0] for name in CLASSIFIERS if name in model.tensors]
    return heads[0] if heads else 1


def _plain_token(model: Model) -> int | None:
    """Return the id of a token of letters: it is of whole characters and ends no text."""
    tokens, types = (
        model.metadata.get(f"tokenizer.ggml.{name}") for name in ("tokens", "token_type")
    )
    if tokens is None or types is None:
        return None
    texts, kinds = cast("list[str]", tokens.data), cast("list[int]", types.data)
    pairs = enumerate(zip(texts, kinds, strict=False))
    plain = (n for n, (text, kind) in pairs if kind == NORMAL and text.isascii() and text.isalpha())
    return next(plain, None)


def _scalar(model: Model, key: str) -> Any:
    value = model.metadata.get(key)
    return None if value is None or value.type == "array" else value.data


class LlamaRunner(Runner):
    """A model in llama.cpp's server."""

    def __init__(
        self, server: LlamaServer, vocabulary: int, plain: int | None, labels: int
    ) -> None:
        """Keep the server, and what has to be known of its model.

        Args:
            server: it, running.
            vocabulary: how many tokens it can report.
            plain: a token of whole characters.
            labels: how many scores it gives, if it is a classifier.
        """
        self._server = server
        self._vocabulary = vocabulary
        self._plain = plain
        self._labels = labels

    def tokens(self, text: str) -> list[int]:
        """Return the token ids of a text."""
        body = {"content": text, "add_special": True, "parse_special": True}
        ids: list[int] = self._server.post("/tokenize", body)["tokens"]
        return ids

    def text(self, ids: Sequence[int]) -> str:
        """Return what token ids mean."""
        text: str = self._server.post("/detokenize", {"tokens": list(ids)})["content"]
        return text

    def log_probs(self, ids: Sequence[int], lengths: Sequence[int]) -> Floats:
        """Evaluate every prefix from its start."""
        return np.stack([self._after(ids[:length]) for length in lengths])

    def _after(self, ids: Sequence[int]) -> Floats:
        # Nothing is reported for a token that is half a character, so another one is taken.
        force = [] if self._plain is None else [[self._plain, FORCE]]
        answer = self._complete(ids, 1, n_probs=self._vocabulary, logit_bias=force)
        reports = answer.get("completion_probabilities")
        if not reports:
            raise Unsupported("llama.cpp reports no probabilities", rule="runtime")
        reported = reports[0]["top_logprobs"]
        found = np.full(self._vocabulary, -np.inf)
        places = [entry["id"] for entry in reported]
        found[places] = [
            np.nan if entry["logprob"] is None else entry["logprob"] for entry in reported
        ]
        return log_softmax(found)

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        """Return the likeliest tokens, up to one that ends a text."""
        tokens: list[int] = self._complete(ids, count)["tokens"]
        return tokens

    def _complete(self, ids: Sequence[int], count: int, **more: Any) -> Any:
        body = {
            "prompt": list(ids),
            "n_predict": count,
            "samplers": ["top_k"],
            "top_k": 1,
            "cache_prompt": False,
            "return_tokens": True,
            **more,
        }
        return self._server.post("/completion", body)

    def embed(self, ids: Sequence[int], pooling: str) -> Floats:
        """Return the embedding with the pooling that the server was started with."""
        answer = self._server.post("/embedding", {"content": list(ids), "embd_normalize": -1})
        rows = np.array(answer[0]["embedding"], np.float64)
        if pooling == "rank":  # what follows the scores is memory that nothing has written
            return rows[0, : self._labels]
        return rows if pooling == "none" else rows[0]

    def close(self) -> None:
        """End the server."""
        self._server.close()


RUNTIME = LlamaCpp()
