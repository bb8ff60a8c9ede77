"""Tokens with a score and a type each, as SentencePiece's kinds have them, filled id by id.

What a model file says comes first; tokens that a directory's other files add come after it and win.
Source: llama.cpp's converter (``conversion/base.py``), whose scores for added tokens and for holes
are kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from weighbridge.converters.tokenizers import arrays, keys, special
from weighbridge.converters.tokenizers.arrays import PHANTOM_SPACE
from weighbridge.converters.tokenizers.document import SETTINGS_FILE, AddedToken, added_tokens
from weighbridge.converters.tokenizers.keys import TokenType
from weighbridge.errors import InvalidFile
from weighbridge.metadata import array, scalar, string
from weighbridge.sidefiles import parse_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from weighbridge.converters.tokenizers.document import Source
    from weighbridge.converters.tokenizers.sentencepiece_model import SentencePiece
    from weighbridge.metadata import Metadata, Value

ADDED_FILE = "added_tokens.json"
"""Where transformers 3 and older kept added tokens: text -> id."""

DECODER = "added_tokens_decoder"
"""Where tokenizer_config.json of transformers 4 keeps them: id -> what is known of the token."""

PRE = "default"
"""What the converter writes for a kind that has no pre-tokenizer."""

ADDED_SCORE = -1000.0
HOLE_SCORE = -10000.0

KEEPS_LOOKS = ("phi3",)
"""Model types whose added tokens are control tokens only where a file says so."""


@dataclass
class Vocabulary:
    """Tokens by id.

    Attributes:
        texts: every id's text.
        scores: every id's score, kept as a float32 in the end.
        types: every id's type.
    """

    texts: list[str]
    scores: list[float]
    types: list[int]

    @classmethod
    def blank(cls, size: int) -> Vocabulary:
        """Return a vocabulary of `size` ids that no token has.

        Example:
            >>> Vocabulary.blank(2).texts
            ['[PAD0]', '[PAD1]']
        """
        return cls(
            [arrays.padding(token) for token in range(size)],
            [HOLE_SCORE] * size,
            [int(TokenType.UNUSED)] * size,
        )

    @classmethod
    def of_model(cls, model: SentencePiece, size: int) -> Vocabulary:
        """Return the pieces of a model file, and holes up to `size`.

        Raises:
            InvalidInput: (rule ``vocabulary-size``) for more pieces than `size`.
        """
        arrays.check_size(len(model.texts) - 1, size, model.name)
        vocabulary = cls.blank(size)
        pieces = zip(model.texts, model.scores, model.types, strict=True)
        for token, (text, score, kind) in enumerate(pieces):
            # llama.cpp looks for these in the text as it stands.
            shown = text.replace(PHANTOM_SPACE, " ") if kind == TokenType.USER_DEFINED else text
            vocabulary.put(token, shown, score, kind)
        return vocabulary

    def put(self, token: int, text: str, score: float, kind: int) -> None:
        """Say what an id is."""
        self.texts[token] = text
        self.scores[token] = score
        self.types[token] = int(kind)

    def add(self, source: Source, warnings: list[str], *, replace: bool) -> None:
        """Put in the tokens that the files of a directory add; one beyond the end is left out.

        Args:
            source: the files.
            warnings: is told of those that are left out.
            replace: whether one takes the place of a token that is special already and has the
                same text. Those that tokenizer.json alone knows never do.

        Raises:
            InvalidFile: (rules ``added-tokens`` and ``tokenizer-json``) for entries that are none.
        """
        by_looks = source.config.get("model_type") not in KEEPS_LOOKS
        beyond = []
        for added, known in _added(source):
            if added.id >= len(self.texts):
                beyond.append(added.content)
            elif (replace and (known or not by_looks)) or not self._has(added):
                self._put_added(added, by_looks=by_looks)
        if beyond:
            warnings.append(
                f"{len(beyond)} added tokens are beyond the model's embeddings and left out: "
                f"{', '.join(map(repr, beyond[:5]))}"
            )

    def _has(self, added: AddedToken) -> bool:
        marked = self.types[added.id] not in (TokenType.NORMAL, TokenType.UNUSED)
        shown = added.content.replace(PHANTOM_SPACE, " ")
        return marked and self.texts[added.id] in (added.content, shown)

    def _put_added(self, added: AddedToken, *, by_looks: bool) -> None:
        if added.special or (by_looks and special.looks_special(added.content)):
            self.put(added.id, added.content, ADDED_SCORE, TokenType.CONTROL)
        else:
            text = added.content.replace(PHANTOM_SPACE, " ") if by_looks else added.content
            self.put(added.id, text, ADDED_SCORE, TokenType.USER_DEFINED)

    def unknown(self, source: Source, default: int) -> dict[str, Value]:
        """Return the key-value of the token that stands for what is none, if it has to be said.

        A tokenizer.json is read for special tokens, a model file beside no other is not.

        Args:
            source: the files.
            default: the token that llama.cpp takes.
        """
        if source.document or TokenType.UNKNOWN not in self.types:
            return {}
        token = self.types.index(TokenType.UNKNOWN)
        return {} if token == default else {keys.TOKEN_IDS["unk"]: scalar("u32", token)}

    def of_types(self, *types: int) -> dict[str, int]:
        """Return the tokens of some types: text -> id."""
        pairs = zip(self.texts, self.types, strict=True)
        return {text: token for token, (text, kind) in enumerate(pairs) if kind in types}

    def metadata(self) -> dict[str, Value]:
        """Return the three arrays.

        Raises:
            InvalidFile: (rule ``duplicate-token``) for two ids with the same text, which llama.cpp
                does not load.
        """
        arrays.check_distinct(self.texts)
        return {
            keys.TOKENS: array("string", self.texts),
            keys.SCORES: array("f32", np.asarray(self.scores, np.float32).tolist()),
            keys.TOKEN_TYPE: array("i32", self.types),
        }


def pre_tokenizer(asked: str | None, title: str, warnings: list[str]) -> dict[str, Value]:
    """Return the key-value that names no pre-tokenizer, as these kinds have none.

    Args:
        asked: the name that a user gave.
        title: what the kind is called.
        warnings: is told that such a name is not written.
    """
    if asked not in (None, PRE):
        warnings.append(f"{title} has no pre-tokenizer: '{asked}' is not written")
    return {keys.PRE: string(PRE)}


def added_to_json(
    tokens: Sequence[str], types: Sequence[int], kept: Sequence[int]
) -> list[dict[str, object]]:
    """Return those of the `kept` ids that are found in a text first, as tokenizer.json has them."""
    return [
        AddedToken(n, tokens[n], special=types[n] != TokenType.USER_DEFINED).to_json()
        for n in kept
        if types[n] in arrays.ADDED_TYPES
    ]


def _added(source: Source) -> Iterator[tuple[AddedToken, bool]]:
    """Yield added tokens, and whether a file says so that llama.cpp's converter reads."""
    for added in (*_of_file(source), *_of_settings(source)):
        yield added, True
    for added in added_tokens(source.document):
        yield added, source.model is None


def _of_file(source: Source) -> Iterator[AddedToken]:
    entries = parse_json(source.files.get(ADDED_FILE, b"{}"), ADDED_FILE)
    for content, token in entries.items():
        yield AddedToken(_checked(token, content, ADDED_FILE), content, special=False)


def _of_settings(source: Source) -> Iterator[AddedToken]:
    entries = source.setting(DECODER) or {}
    if not isinstance(entries, Mapping):
        _wrong(SETTINGS_FILE, f"{DECODER} is not an object", type(entries).__name__)
    for token, entry in entries.items():
        content = entry.get("content") if isinstance(entry, Mapping) else None
        if not isinstance(content, str):
            _wrong(SETTINGS_FILE, "an added token has no text", token)
        number = int(token) if token.isdecimal() and len(token) < 10 else None
        token_id = _checked(number, content, SETTINGS_FILE)
        yield AddedToken(token_id, content, bool(entry.get("special", False)))


def _checked(token: object, content: str, path: str) -> int:
    if not isinstance(token, int) or isinstance(token, bool) or token < 0:
        _wrong(path, f"the added token {content!r} has no id", token)
    return token


def _wrong(path: str, problem: str, got: object) -> NoReturn:
    raise InvalidFile(problem, rule="added-tokens", path=path, got=got)


def token_scores(metadata: Metadata, tokens: Sequence[str]) -> list[float]:
    """Return every token's score.

    Raises:
        InvalidFile: (rules ``missing-key`` and ``value-type``) for no array of numbers, (rule
            ``token-score``) for one that is not as long as `tokens` or holds what is no number.
    """
    scores = keys.reals(metadata, keys.SCORES)
    if scores is None:
        arrays.missing(keys.SCORES)
    arrays.check_length(keys.SCORES, len(scores), tokens, "token-score")
    if not all(map(math.isfinite, scores)):
        raise InvalidFile(f"{keys.SCORES} holds what is no number", rule="token-score")
    return scores


def unknown(
    metadata: Metadata, tokens: Sequence[str], types: Sequence[int], default: int
) -> int | None:
    """Return the token that stands for what is none.

    Args:
        metadata: the key-values.
        tokens: every token's text.
        types: every token's type.
        default: the token that llama.cpp takes; believed where it is no ordinary text.
    """
    named = special.from_gguf(metadata, len(tokens)).get("unk")
    if named is not None:
        return named
    if TokenType.UNKNOWN in types:
        return types.index(TokenType.UNKNOWN)
    return default if default < len(types) and types[default] == TokenType.CONTROL else None
