"""A tokenizer.json, read without trusting it, and its parts.

Source: the serialisation of the `tokenizers` library, version 1.0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from weighbridge.converters.tokenizers import sentencepiece_model
from weighbridge.errors import InvalidFile, NotFound
from weighbridge.sidefiles import parse_json

if TYPE_CHECKING:
    from weighbridge.converters.tokenizers.sentencepiece_model import SentencePiece

FILE = "tokenizer.json"
SETTINGS_FILE = "tokenizer_config.json"
SPECIAL_TOKENS_FILE = "special_tokens_map.json"

Document = Mapping[str, Any]

T = TypeVar("T")

LARGEST_SCORE = 3e38
"""The largest score, up or down, that GGUF's float32 holds."""


@dataclass(frozen=True)
class Source:
    """What a Hugging Face directory says about its tokenizer.

    Attributes:
        files: the side files, by name.
        config: config.json.
        document: tokenizer.json; empty where there is SentencePiece's model file alone.
        settings: tokenizer_config.json, None where there is none.
    """

    files: Mapping[str, bytes]
    config: Document
    document: Document
    settings: Document | None

    @classmethod
    def read(cls, files: Mapping[str, bytes], config: Document) -> Source:
        """Parse the files that every kind of tokenizer needs.

        Raises:
            NotFound: (rule ``tokenizer-missing``) without a tokenizer.json or a model file.
            InvalidFile: (rule ``json``) for a file that is not a JSON object.
        """
        if FILE not in files and sentencepiece_model.find(files) is None:
            raise NotFound(
                f"there is no {FILE}",
                rule="tokenizer-missing",
                hint="load the tokenizer with transformers and save it again: that writes one",
            )
        settings = files.get(SETTINGS_FILE)
        return cls(
            files,
            config,
            parse_json(files[FILE], FILE) if FILE in files else {},
            None if settings is None else parse_json(settings, SETTINGS_FILE),
        )

    @cached_property
    def model(self) -> SentencePiece | None:
        """SentencePiece's model file, None where there is none.

        Raises:
            InvalidFile: for one that breaks its own rules.
        """
        name = sentencepiece_model.find(self.files)
        return None if name is None else sentencepiece_model.parse(self.files[name], name)

    def setting(self, name: str) -> Any:
        """Return an entry of tokenizer_config.json, None where it is absent."""
        return (self.settings or {}).get(name)

    def token_setting(self, role: str) -> str | None:
        """Return the text of the special token that plays `role` (``bos``, ``eos``, ...).

        It is read from tokenizer_config.json, else from special_tokens_map.json, as a string or as
        an object with a ``content``.
        """
        for entry in (self.setting(f"{role}_token"), self._special_tokens.get(f"{role}_token")):
            content = entry.get("content") if isinstance(entry, Mapping) else entry
            if isinstance(content, str):
                return content
        return None

    @property
    def _special_tokens(self) -> Document:
        content = self.files.get(SPECIAL_TOKENS_FILE)
        return {} if content is None else parse_json(content, SPECIAL_TOKENS_FILE)


@dataclass(frozen=True)
class AddedToken:
    """A token that is found in the text before anything else.

    Attributes:
        id: its id.
        content: its text.
        special: whether it is dropped from text that people read.
        normalized: whether it is looked for after normalisation.
        strips: whether it takes spaces beside it, or wants to be a whole word.
    """

    id: int
    content: str
    special: bool
    normalized: bool = False
    strips: bool = False

    def to_json(self) -> dict[str, object]:
        """Return the entry of ``added_tokens``; what `strips` stands for is not kept.

        Example:
            >>> AddedToken(2, "<|im_end|>", special=True).to_json()["content"]
            '<|im_end|>'
        """
        return {
            "id": self.id,
            "content": self.content,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": self.normalized,
            "special": self.special,
        }


def part(document: Document, name: str, kind: type[T], default: T | None = None) -> T:
    """Return an entry of an object in tokenizer.json that must have a type.

    Raises:
        InvalidFile: (rule ``tokenizer-json``) when it has another, or is absent and has no default.

    Example:
        >>> part({"vocab": {"a": 0}}, "vocab", dict)
        {'a': 0}
    """
    value = document.get(name, default)
    if value is None and default is not None:
        return default
    if not isinstance(value, kind):
        wrong(f"'{name}' has the wrong type", got=type(value).__name__, expected=kind.__name__)
    return value


def wrong(problem: str, *, got: object = None, expected: object = None) -> NoReturn:
    """Reject tokenizer.json.

    Raises:
        InvalidFile: always, (rule ``tokenizer-json``).
    """
    raise InvalidFile(problem, rule="tokenizer-json", path=FILE, got=got, expected=expected)


def vocabulary(document: Document) -> dict[str, int]:
    """Return the model's tokens and their ids.

    Raises:
        InvalidFile: (rule ``tokenizer-json``) when it is not a mapping to integers from 0.

    Example:
        >>> vocabulary({"model": {"vocab": {"a": 0}}})
        {'a': 0}
    """
    tokens = part(part(document, "model", dict), "vocab", dict)
    numbers = tokens.values()
    if not set(map(type, numbers)) <= {int} or min(numbers, default=0) < 0:
        for content, token in tokens.items():
            _check_id(token, content)
    return tokens


def scored_tokens(document: Document) -> list[tuple[str, float]]:
    """Return the tokens of a Unigram model and their scores, by id.

    Raises:
        InvalidFile: (rule ``tokenizer-json``) when they are not a list of texts with numbers.

    Example:
        >>> scored_tokens({"model": {"vocab": [["a", -1.5]]}})
        [('a', -1.5)]
    """
    return [_scored(entry) for entry in part(part(document, "model", dict), "vocab", list)]


def _scored(entry: object) -> tuple[str, float]:
    if isinstance(entry, list) and len(entry) == 2:
        content, score = entry
        is_number = isinstance(score, (int, float)) and not isinstance(score, bool)
        if isinstance(content, str) and is_number and abs(score) <= LARGEST_SCORE:
            return content, float(score)
    wrong("a token is not a text with a score", got=entry)


def ids(document: Document) -> dict[str, int]:
    """Return the model's tokens and their ids, for every kind of model.

    Raises:
        InvalidFile: (rule ``tokenizer-json``) when they are neither a mapping nor a list.

    Example:
        >>> ids({"model": {"vocab": [["a", -1.5]]}})
        {'a': 0}
    """
    if isinstance(part(document, "model", dict).get("vocab"), list):
        return {content: token for token, (content, _) in enumerate(scored_tokens(document))}
    return vocabulary(document)


def added_tokens(document: Document) -> Iterator[AddedToken]:
    """Yield the added tokens in order.

    Raises:
        InvalidFile: (rule ``tokenizer-json``) for an entry that is none.
    """
    for entry in part(document, "added_tokens", list, []):
        if not isinstance(entry, Mapping):
            wrong("an added token is not an object", got=type(entry).__name__)
        content = part(entry, "content", str)
        yield AddedToken(
            _check_id(entry.get("id"), content),
            content,
            special=bool(entry.get("special", False)),
            normalized=bool(entry.get("normalized", not entry.get("special", False))),
            strips=any(entry.get(name) for name in ("lstrip", "rstrip", "single_word")),
        )


def _check_id(token: object, content: str) -> int:
    if not isinstance(token, int) or isinstance(token, bool) or token < 0:
        wrong(f"the token {content!r} has no id", got=token, expected="an integer from 0")
    return token


def merges(document: Document) -> list[tuple[str, str]]:
    """Return the merges of a BPE model, written as pairs or as ``"a b"``.

    Raises:
        InvalidFile: (rule ``tokenizer-json``) for an entry that is neither.

    Example:
        >>> merges({"model": {"merges": ["a b", ["c", "d"]]}})
        [('a', 'b'), ('c', 'd')]
    """
    return [_merge(entry) for entry in part(part(document, "model", dict), "merges", list)]


def _merge(entry: object) -> tuple[str, str]:
    pair = entry.split(" ") if isinstance(entry, str) else entry
    if isinstance(pair, list) and len(pair) == 2:
        first, second = pair
        if isinstance(first, str) and isinstance(second, str):
            return first, second
    wrong("a merge is not a pair of strings", got=entry)
