"""Special tokens: which ids play which role, and which of them a text gets by itself.

Source: llama.cpp's converter (``gguf-py/gguf/vocab.py``), whose precedence is kept: the
post-processor of tokenizer.json, then tokenizer_config.json, then config.json.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from weighbridge.converters.tokenizers import keys
from weighbridge.converters.tokenizers.arrays import token_types
from weighbridge.converters.tokenizers.document import added_tokens, vocabulary
from weighbridge.errors import InvalidFile
from weighbridge.metadata import scalar

if TYPE_CHECKING:
    from weighbridge.converters.tokenizers.document import Document, Source
    from weighbridge.metadata import Metadata, Value

ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask", "eot", "eom")
"""The roles that a tokenizer_config.json may give to a token, in the order they are written."""

STAND_INS = {"bos": "cls", "eos": "sep"}
"""A role that nobody plays -> the role whose token plays it then, as in BERT."""


CONTROL_LOOKS = (("<|", "|>"), ("<\uff5c", "\uff5c>"), ("<unused", ">"))
"""How tokens begin and end that are control tokens even where nobody says so."""

CONTROL_NAMES = ("<pad>", "<mask>", "<2mass>", "[@BOS@]")
"""Tokens that are control tokens even where nobody says so."""


ENDS = (
    *("</s>", "<eos>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "[e~[", "<turn|>", "<end_of_turn>"),
    *("<end_of_utterance>", "<|end|>", "<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|return|>"),
    *("<|call|>", "<|calls|>", "<|flush|>", "<|endoftext|>", "<|end_of_text|>"),
    *("<|tool_response>", "<\uff5cend\u2581of\u2581sentence\uff5c>"),
)
"""Tokens that end texts for llama.cpp, whatever their type says."""


@dataclass(frozen=True)
class Defaults:
    """What llama.cpp does with a tokenizer where its file does not say.

    Attributes:
        adds_bos: whether a text gets a BOS.
        tidies: whether spaces before punctuation are dropped when tokens become text.
        normalizes: whether capitals become small letters, and accents are taken off.
        adds_eos: whether a text gets an EOS.
        eos: the token that it takes for the EOS.
        adds_sep: whether two texts get a separator between them.
    """

    adds_bos: bool
    tidies: bool
    normalizes: bool = False
    adds_eos: bool = False
    eos: int = 11
    adds_sep: bool = False


@dataclass
class Roles:
    """Who plays what.

    Attributes:
        tokens: role -> the token's text.
        adds: role -> whether a text gets the token by itself.
    """

    tokens: dict[str, str] = field(default_factory=dict)
    adds: dict[str, bool] = field(default_factory=dict)


def to_gguf(
    source: Source, *, vocab_size: int, defaults: Defaults, warnings: list[str]
) -> dict[str, Value]:
    """Return the key-values of the special tokens' ids and of ``add_bos_token`` and its like."""
    roles = Roles(_named(source))
    for processor in _processors(source.document):
        READERS.get(str(processor.get("type")), _read_nothing)(processor, roles)
    _read_settings(source, roles, warnings)
    ids = _ids(source, roles, vocab_size, warnings)
    if "eos" not in ids:
        token = defaults.eos
        warnings.append(f"no token ends a text: llama.cpp will take the token {token} for it")
    return {
        **{keys.TOKEN_IDS[role]: scalar("u32", token) for role, token in ids.items()},
        **{keys.ADD_TOKEN[role]: scalar("bool", adds) for role, adds in roles.adds.items()},
    }


def _named(source: Source) -> dict[str, str]:
    """Return what tokenizer_config.json calls the special tokens."""
    named = {role: source.token_setting(role) for role in ROLES}
    for role, stand_in in STAND_INS.items():
        named[role] = named[role] or named[stand_in]
    return {role: content for role, content in named.items() if content}


def _processors(document: Document) -> Iterator[Mapping[str, object]]:
    outer = document.get("post_processor")
    if isinstance(outer, Mapping):
        inner = outer.get("processors", [outer])
        for processor in inner if isinstance(inner, list) else []:
            if isinstance(processor, Mapping):
                yield processor


def _read_nothing(processor: Mapping[str, object], roles: Roles) -> None:
    """Let a processor be that adds no token."""


def _read_byte_level(processor: Mapping[str, object], roles: Roles) -> None:
    roles.adds.setdefault("bos", False)
    roles.adds.setdefault("eos", False)


def _read_roberta(processor: Mapping[str, object], roles: Roles) -> None:
    roles.adds.update(bos=True, eos=True, sep=True)
    for role in ("cls", "sep"):
        pair = processor.get(role)
        if isinstance(pair, list) and pair and isinstance(pair[0], str):
            roles.tokens.setdefault(role, pair[0])


def _read_template(processor: Mapping[str, object], roles: Roles) -> None:
    """Read what stands before and after a single text, and between the two of a pair."""
    single, pair = _template(processor.get("single")), _template(processor.get("pair"))
    first, last = (single[0][0], single[-1][0]) if len(single) > 1 else (None, None)
    if first:
        roles.tokens.setdefault("bos", first)
        if first != roles.tokens["bos"]:
            roles.tokens.setdefault("cls", first)
        roles.adds["bos"] = first in (roles.tokens["bos"], roles.tokens.get("cls"))
    if last:
        eos = roles.tokens.get("eos")
        if eos not in (None, last):
            roles.tokens["eom" if "eot" in roles.tokens else "eot"] = eos
        roles.tokens["eos"] = last
        roles.adds["eos"] = True
    _read_pair(pair, first, last, roles)


def _read_pair(
    pair: list[tuple[str | None, str | None]], first: str | None, last: str | None, roles: Roles
) -> None:
    if first and pair and pair[0][0] == first:
        pair = pair[1:]
    if last and pair and pair[-1][0] == last:
        pair = pair[:-1]
    between = pair[1:-1]
    if not between or pair[0][1] != "A" or pair[-1][1] != "B":
        return
    separates = [
        content is not None and content in (roles.tokens.get("sep"), roles.tokens.get("eos"))
        for content, _ in between
    ]
    adds = (separates[0] and not last) or (len(separates) == 2 and separates[1])
    roles.adds["sep"] = adds
    if adds and "eos" in roles.tokens:
        roles.tokens.setdefault("sep", roles.tokens["eos"])


def _template(pieces: object) -> list[tuple[str | None, str | None]]:
    """Return the pieces of a template as (special token, None) or (None, sequence)."""
    found: list[tuple[str | None, str | None]] = []
    for piece in pieces if isinstance(pieces, list) else []:
        inner = piece if isinstance(piece, Mapping) else {}
        found.append((_id(inner.get("SpecialToken")), _id(inner.get("Sequence"))))
    return found


def _id(piece: object) -> str | None:
    content = piece.get("id") if isinstance(piece, Mapping) else None
    return content if isinstance(content, str) else None


READERS = {
    "ByteLevel": _read_byte_level,
    "RobertaProcessing": _read_roberta,
    "TemplateProcessing": _read_template,
}
"""Type of a post-processor -> what learns from it who plays what."""


def _read_settings(source: Source, roles: Roles, warnings: list[str]) -> None:
    for role in keys.ADD_TOKEN:
        said = source.setting(f"add_{role}_token")
        if not isinstance(said, bool):
            continue
        if roles.adds.setdefault(role, said) != said:
            warnings.append(
                f"tokenizer_config.json says add_{role}_token {said}, tokenizer.json does the "
                "opposite, and is believed"
            )


def _ids(source: Source, roles: Roles, vocab_size: int, warnings: list[str]) -> dict[str, int]:
    """Return role -> id, first for the tokens that are named, then from config.json."""
    known: dict[str, int] = {}
    for added in added_tokens(source.document):
        known.setdefault(added.content, added.id)
    order = [role for role in ROLES if role in keys.TOKEN_IDS]
    found = [(role, known.get(roles.tokens[role])) for role in order if role in roles.tokens]
    found += [(role, _config_id(source.config, role)) for role in order]
    ids: dict[str, int] = {}
    for role, token in found:
        if token is None or role in ids:
            continue
        if token < vocab_size:
            ids[role] = token
        else:
            warnings.append(f"the {role} token {token} is beyond the vocabulary and left out")
    return ids


def _config_id(config: Document, role: str) -> int | None:
    inner = config.get("text_config")
    for place in (config, inner if isinstance(inner, Mapping) else {}):
        token = place.get(f"{role}_token_id")
        if isinstance(token, int) and not isinstance(token, bool) and token >= 0:
            return token
    return None


def from_gguf(metadata: Metadata, size: int) -> dict[str, int]:
    """Return role -> id of the special tokens that a GGUF names.

    Args:
        metadata: the key-values.
        size: the number of tokens.

    Raises:
        InvalidFile: (rule ``token-id``) for an id that no token has.

    Example:
        >>> from_gguf({keys.TOKEN_IDS["eos"]: scalar("u32", 2)}, 3)
        {'eos': 2}
    """
    ids: dict[str, int] = {}
    for role, key in keys.TOKEN_IDS.items():
        token = keys.number(metadata, key)
        if token is None or token in (keys.NO_TOKEN, -1):
            continue
        if not 0 <= token < size:
            _beyond(key, token, size)
        ids[role] = token
    return ids


def _beyond(key: str, token: int, size: int) -> NoReturn:
    raise InvalidFile(
        f"{key} is not the id of a token", rule="token-id", got=token, expected=f"below {size}"
    )


def by_role(metadata: Metadata, tokens: Sequence[str]) -> dict[str, int]:
    """Return role -> id of the special tokens that are no ordinary text.

    A file may name a normal token as padding, say; to make ``!`` special would tear texts apart.
    Old files do not mark their special tokens, which are known by their looks then.

    Args:
        metadata: the key-values.
        tokens: every token's text.
    """
    types = keys.numbers(metadata, keys.TOKEN_TYPE) or []
    return {
        role: token
        for role, token in from_gguf(metadata, len(tokens)).items()
        if (token < len(types) and types[token] != keys.TokenType.NORMAL)
        or looks_special(tokens[token])
    }


def warn_of_added_tokens(document: Document, warnings: list[str]) -> None:
    """Say which added tokens llama.cpp finds otherwise."""
    stripping = [token.content for token in added_tokens(document) if token.strips]
    if stripping:
        warnings.append(
            f"llama.cpp matches {len(stripping)} added tokens without regard to the spaces or "
            f"words beside them, unlike this tokenizer: {', '.join(map(repr, stripping[:5]))}"
        )


def warn_of_absent_tokens(source: Source, warnings: list[str]) -> None:
    """Say which tokens tokenizer_config.json adds that tokenizer.json, which is believed, lacks."""
    entries = source.setting("added_tokens_decoder")
    known = {
        *vocabulary(source.document),
        *(token.content for token in added_tokens(source.document)),
    }
    absent = [
        entry["content"]
        for entry in (entries.values() if isinstance(entries, Mapping) else ())
        if isinstance(entry, Mapping)
        and isinstance(entry.get("content"), str)
        and entry["content"] not in known
    ]
    if absent:
        warnings.append(
            f"tokenizer_config.json adds {len(absent)} tokens that tokenizer.json lacks, and that "
            f"are left out: {', '.join(map(repr, absent[:5]))}"
        )


def types(metadata: Metadata, tokens: Sequence[str]) -> list[int]:
    """Return every token's type, where old files do not mark special tokens with these marked."""
    found = token_types(metadata, tokens)
    for token in by_role(metadata, tokens).values():
        if found[token] == keys.TokenType.NORMAL:
            found[token] = keys.TokenType.CONTROL
    return found


def looks_special(content: str) -> bool:
    """Say whether a token that nobody calls special is a control token by its looks.

    Example:
        >>> looks_special("<|im_end|>"), looks_special("<b>")
        (True, False)
    """
    return content in CONTROL_NAMES or any(
        content.startswith(start) and content.endswith(end) for start, end in CONTROL_LOOKS
    )


def generation_ids(metadata: Metadata) -> dict[str, int | list[int]]:
    """Return what config.json and generation_config.json say about special tokens.

    A text also ends at the end of a turn and of a message, so there may be several ids of EOS.

    Example:
        >>> eos, eot = keys.TOKEN_IDS["eos"], keys.TOKEN_IDS["eot"]
        >>> generation_ids({eos: scalar("u32", 1), eot: scalar("u32", 9)})
        {'eos_token_id': [1, 9]}
    """
    ids = from_gguf(metadata, keys.NO_TOKEN)
    ends = list(dict.fromkeys(ids[role] for role in ("eos", "eot", "eom") if role in ids))
    found: dict[str, int | list[int]] = {}
    for role in ("bos", "eos", "pad"):
        if role in ids:
            found[f"{role}_token_id"] = ends if role == "eos" and len(ends) > 1 else ids[role]
    return found


def post_processor(
    metadata: Metadata, tokens: Sequence[str], defaults: Defaults
) -> dict[str, object] | None:
    """Return the post-processor that adds what llama.cpp would add, None where it adds nothing.

    Args:
        metadata: the key-values.
        tokens: every token's text.
        defaults: what holds where the file does not say.
    """
    bos, eos, sep = _surrounding(metadata, tokens, defaults)
    if not bos and not eos:
        return None
    return template(tokens, first=bos, between=sep or ([] if eos else bos), last=eos)


def _surrounding(
    metadata: Metadata, tokens: Sequence[str], defaults: Defaults
) -> tuple[list[int], ...]:
    """Return the BOS, EOS and separator that texts get, each alone in a list, or none."""
    ids = from_gguf(metadata, len(tokens))
    assumed = {"bos": defaults.adds_bos, "eos": defaults.adds_eos, "sep": defaults.adds_sep}
    said = {role: keys.flag(metadata, key) for role, key in keys.ADD_TOKEN.items()}
    return tuple(
        [ids[role]] if role in ids and (adds if said[role] is None else said[role]) else []
        for role, adds in assumed.items()
    )


def roberta(
    metadata: Metadata, tokens: Sequence[str], defaults: Defaults
) -> dict[str, object] | None:
    """Return RoBERTa's post-processor where a text gets a BOS, an EOS and, in pairs, a separator.

    Example:
        >>> adds = {key: scalar("bool", data=True) for key in keys.ADD_TOKEN.values()}
        >>> ids = {keys.TOKEN_IDS[role]: scalar("u32", n) for role, n in (("bos", 0), ("eos", 1))}
        >>> roberta({**adds, **ids}, ["<s>", "</s>"], Defaults(adds_bos=False, tidies=True))["sep"]
        ['</s>', 1]
    """
    eos = from_gguf(metadata, len(tokens)).get("eos", keys.NO_TOKEN)
    metadata = {keys.TOKEN_IDS["sep"]: scalar("u32", eos), **metadata}
    found = [n for role in _surrounding(metadata, tokens, defaults) for n in role]
    if len(found) < len(keys.ADD_TOKEN):
        return None
    first, _, between = found
    return {
        "type": "RobertaProcessing",
        "sep": [tokens[between], between],
        "cls": [tokens[first], first],
        "trim_offsets": True,
        "add_prefix_space": False,
    }


def template(
    tokens: Sequence[str], *, first: list[int], between: list[int], last: list[int]
) -> dict[str, object]:
    """Return the post-processor that puts tokens around texts.

    Args:
        tokens: every token's text.
        first: the ids of those before a text or a pair of texts.
        between: the ids of those between the end of the first of a pair and the second.
        last: the ids of those after every text.

    Example:
        >>> pair = template(["<s>", "</s>"], first=[0], between=[1], last=[1])["pair"]
        >>> [piece.get("SpecialToken", piece.get("Sequence"))["id"] for piece in pair]
        ['<s>', 'A', '</s>', '</s>', 'B', '</s>']
    """
    single = [*_specials(first, tokens), _sequence("A"), *_specials(last, tokens)]
    second = [*_specials(between, tokens, 1), _sequence("B", 1), *_specials(last, tokens, 1)]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, *second],
        "special_tokens": {
            tokens[n]: {"id": tokens[n], "ids": [n], "tokens": [tokens[n]]}
            for n in sorted({*first, *between, *last})
        },
    }


def _specials(ids: list[int], tokens: Sequence[str], which: int = 0) -> list[dict[str, object]]:
    return [{"SpecialToken": {"id": tokens[n], "type_id": which}} for n in ids]


def _sequence(name: str, which: int = 0) -> dict[str, object]:
    return {"Sequence": {"id": name, "type_id": which}}
