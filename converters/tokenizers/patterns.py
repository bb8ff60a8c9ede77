r"""How the tokenizers in use cut text: one row for each name that ``tokenizer.ggml.pre`` may have.

Sources: the steps are those of the tokenizer.json that each name stands for (named beside it by
llama.cpp's ``convert_hf_to_gguf_update.py``), or, where that file says no more than llama.cpp
does, the patterns that ``src/llama-vocab.cpp`` gives for the name; the flags are those that the
same file sets. Patterns are written for Oniguruma, which `tokenizers` uses: ``\p{N}`` there is what
``Digits`` calls a digit.
"""

# The letters of many scripts that look like Latin ones are meant.
# ruff: noqa: RUF001

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Step = Mapping[str, Any]
"""One pre-tokenizer of a tokenizer.json."""


@dataclass(frozen=True)
class PreTokenizer:
    """One name of ``tokenizer.ggml.pre`` and all that it stands for.

    Attributes:
        name: the name.
        steps: the pre-tokenizers of the tokenizer.json, in order.
        normalizer: the type of its normalizer, None for none. llama.cpp normalises nothing.
        ignore_merges: whether a piece that is a token is taken whole, whatever the merges say.
        adds_bos: whether llama.cpp puts a BOS before a text when the file does not say.
        adds_sep: whether it puts a separator between two texts then; the tokenizers are RoBERTa's.
        tidies: whether spaces before punctuation are dropped when tokens become text.
        found: whether a tokenizer may be given this name for its structure; otherwise only when
            the user says so.
    """

    name: str
    steps: tuple[Step, ...]
    normalizer: str | None = None
    ignore_merges: bool = False
    adds_bos: bool = False
    adds_sep: bool = False
    tidies: bool = True
    found: bool = True


def split(pattern: str, behavior: str = "Isolated", *, invert: bool = False) -> Step:
    """Return the step that cuts where a pattern matches.

    Example:
        >>> split("a")["pattern"]
        {'Regex': 'a'}
    """
    return {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": behavior,
        "invert": invert,
    }


def byte_level(*, use_regex: bool = False) -> Step:
    """Return the step that spells bytes as characters; with `use_regex` it cuts as GPT-2 first."""
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": use_regex,
    }


def digits(*, individual: bool) -> Step:
    """Return the step that cuts numbers off, or every digit of them."""
    return {"type": "Digits", "individual_digits": individual}


def punctuation(behavior: str) -> Step:
    """Return the step that cuts punctuation off."""
    return {"type": "Punctuation", "behavior": behavior}


BYTES = byte_level()
GPT2_BYTES = byte_level(use_regex=True)
DIGITS = digits(individual=True)

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
MARKED_WORD = r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+"
SYMBOLS = r" ?[^\s\p{L}\p{N}]+"
BREAKS = r"\s*[\r\n]+"
SPACES = r"\s+(?!\S)|\s+"

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+" + f"|{SYMBOLS}|{SPACES}"


def _lines(*parts: str) -> str:
    """Join the alternatives of a pattern that ends as most do: line breaks, then other spaces."""
    return "|".join([*parts, BREAKS, SPACES])


CL100K = _lines(CONTRACTIONS, WORD, r"\p{N}{1,3}", SYMBOLS + r"[\r\n]*")
QWEN2 = _lines(CONTRACTIONS, WORD, r"\p{N}", SYMBOLS + r"[\r\n]*")
QWEN35 = _lines(CONTRACTIONS, MARKED_WORD, r"\p{N}", r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*")
UFAKZEKA = _lines(WORD, r"\p{N}", SYMBOLS + r"[\r\n]*")
MINICPM5 = _lines(CONTRACTIONS, WORD, r"\p{N}+", SYMBOLS + r"[\r\n]*")
SEED_CODER = _lines(CONTRACTIONS, WORD, r"\p{N}{1}", r" ?[^\s\p{L}\p{N}\r\n]+")
K2_HORIZON = _lines(
    CONTRACTIONS,
    r"[^\r\n\p{L}\p{N}]?(?:\p{L}|\p{M}|\u200C|\u200D)+",
    r"\p{N}{1,3}",
    SYMBOLS + r"[\r\n]*",
)
BAILING = "|".join(
    [
        "'(?i:[sdmt]|ll|ve|re)",
        r"[^\r\n\p{L}\p{N}]?+\p{L}+",
        r"\p{N}",
        r" ?[^\s\p{L}\p{N}]++[\r\n]*",
        r"\s*[\r\n]",
        SPACES,
    ]
)
EXAONE_MOE = "|".join(
    [
        CONTRACTIONS,
        r"[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+",
        r"\p{N}",
        SYMBOLS + r"[\r\n/]?",
        r"\s*[\r\n]",
        SPACES,
    ]
)
JAIS2 = "|".join(
    [
        CONTRACTIONS,
        WORD,
        r"\p{N}{1,3}",
        SYMBOLS + r"[\r\n]*",
        BREAKS,
        *(rf"\s{{{2**n}}}(?!\S)" for n in range(9, 1, -1)),
        r"\s{1,2}(?!\S)",
        r"\s{1}",
    ]
)

_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
LOWER_WORD = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+"
UPPER_WORD = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"

TEKKEN = _lines(LOWER_WORD, UPPER_WORD, r"\p{N}", SYMBOLS + r"[\r\n/]*")
O200K = _lines(
    f"{LOWER_WORD}{CONTRACTIONS}?",
    f"{UPPER_WORD}{CONTRACTIONS}?",
    r"\p{N}{1,3}",
    SYMBOLS + r"[\r\n/]*",
)
YOUTU = _lines(
    f"{LOWER_WORD}{CONTRACTIONS}?",
    f"{UPPER_WORD}{CONTRACTIONS}?",
    r"\p{N}",
    SYMBOLS + r"[\r\n/]*",
)
YOUTU_SCRIPTS = "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+"

_NOT_HAN = r"&&[^\p{Han}]]"
_KIMI_UPPER = _UPPER[:-1] + _NOT_HAN
_KIMI_LOWER = _LOWER[:-1] + _NOT_HAN
KIMI = _lines(
    r"[\p{Han}]+",
    rf"[^\r\n\p{{L}}\p{{N}}]?{_KIMI_UPPER}*{_KIMI_LOWER}+{CONTRACTIONS}?",
    rf"[^\r\n\p{{L}}\p{{N}}]?{_KIMI_UPPER}+{_KIMI_LOWER}*{CONTRACTIONS}?",
    r"\p{N}{1,3}",
    SYMBOLS + r"[\r\n]*",
)

BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"

DEEPSEEK_LETTERS = (
    r"\s?"
    "[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕ"
    "Ἐ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u1f7dᾀ-ᾴᾶ-ᾼ\u1fbeῂ-ῄῆ-ῌῐ-\u1fd3ῖ-\u1fdbῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212a-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳ"
    "Ꙁ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+"
)
DEEPSEEK_PUNCTUATION = r"\s?[!-/:-~！-／：-～‘-‟　-。]+"
DEEPSEEK_IDEOGRAPHS = "[一-龥ࠀ-一가-퟿]+"
DEEPSEEK_KANA = "[一-龥぀-ゟ゠-ヿ]+"
_ASCII_PUNCTUATION = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"""
DEEPSEEK_V3 = (
    _ASCII_PUNCTUATION + "[A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|" + SPACES
)
SPARK = (
    _ASCII_PUNCTUATION + "[A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+|[\r\n]|" + SPACES
)
AFMOE_SCRIPTS = "[一-鿿㐀-䶿豈-﫿぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-๿຀-໿ក-៿က-႟ꩠ-ꩿꧠ-꧿가-힯ᄀ-ᇿ]+"
AFMOE = _lines(
    _ASCII_PUNCTUATION + "[A-Za-z]+",
    r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+",
    r" ?[\p{P}\p{S}]+[\r\n]*",
)
THREE_FROM_THE_RIGHT = r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))"
DEFAULT_PUNCTUATION = r"[\p{P}\$\+<=>\^~\|]+"


def _rows(names: str, *steps: Step, **rest: Any) -> tuple[PreTokenizer, ...]:
    return tuple(PreTokenizer(name, steps, **rest) for name in names.split())


TABLE: Mapping[str, PreTokenizer] = {
    row.name: row
    for rows in (
        _rows(
            "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
            split(CL100K),
            BYTES,
            ignore_merges=True,
            adds_bos=True,
        ),
        _rows("glm4 glm5", split(CL100K), BYTES, ignore_merges=True),
        _rows("smaug-bpe chatglm-bpe", split(CL100K), BYTES),
        _rows("dbrx", split(CL100K, "Removed", invert=True), BYTES),
        _rows("qwen2", split(QWEN2), BYTES, normalizer="NFC", tidies=False),
        _rows(
            "deepseek-r1-qwen kormo f2llmv2 hunyuan solar-open grok-2",
            split(QWEN2),
            BYTES,
            tidies=False,
        ),
        _rows("stablelm2 megrez", split(QWEN2), BYTES),
        _rows("qwen35", split(QWEN35), BYTES, normalizer="NFC", tidies=False),
        _rows("starcoder refact codeshell exaone minerva-7b mellum2", DIGITS, GPT2_BYTES),
        _rows("smollm", DIGITS, GPT2_BYTES, tidies=False),
        _rows("command-r", DIGITS, GPT2_BYTES, normalizer="NFC", tidies=False),
        _rows(
            "gpt-2 phi-2 jina-es jina-de jina-v2-es jina-v2-de gigachat a.x-4.0 mellum exaone4"
            " jais",
            GPT2_BYTES,
        ),
        _rows("roberta-bpe jina-v1-en jina-v2-code", GPT2_BYTES, adds_sep=True),
        _rows("trillion granite-docling", GPT2_BYTES, tidies=False, found=False),
        _rows("olmo mpt modern-bert", GPT2_BYTES, normalizer="NFC"),
        _rows(
            "deepseek-v3 hunyuan-dense joyai-llm hy_v4",
            split(r"\p{N}{1,3}"),
            split(DEEPSEEK_KANA),
            split(DEEPSEEK_V3),
            BYTES,
            tidies=False,
        ),
        _rows(
            "deepseek-llm",
            split("[\r\n]"),
            split(DEEPSEEK_LETTERS),
            split(DEEPSEEK_PUNCTUATION),
            split(r"\s+$"),
            split(DEEPSEEK_IDEOGRAPHS),
            DIGITS,
            BYTES,
            tidies=False,
        ),
        _rows(
            "deepseek-coder",
            split("[\r\n]"),
            split(r"\s?\p{L}+"),
            split(r"\s?\p{P}+"),
            split(DEEPSEEK_IDEOGRAPHS),
            DIGITS,
            BYTES,
            tidies=False,
        ),
        _rows(
            "spark2_5",
            split(r"\p{N}{1,3}"),
            split(DEEPSEEK_KANA),
            split(SPARK),
            DIGITS,
            BYTES,
            tidies=False,
        ),
        _rows(
            "falcon",
            punctuation("Contiguous"),
            GPT2_BYTES,
            digits(individual=False),
            split("[0-9][0-9][0-9]"),
        ),
        _rows("tekken", split(TEKKEN), BYTES, ignore_merges=True, adds_bos=True, tidies=False),
        _rows("gpt-4o llama4 kanana2 talkie", split(O200K), BYTES, tidies=False),
        _rows(
            "minimax-m2",
            split(O200K, "Removed", invert=True),
            BYTES,
            normalizer="NFC",
            tidies=False,
        ),
        _rows(
            "granite-embed-multi-97m",
            split(O200K),
            BYTES,
            ignore_merges=True,
            tidies=False,
            found=False,
        ),
        _rows(
            "tiny_aya cohere2moe",
            split(r"\d{1,3}(?=(?:\d{3})*\b)"),
            split(O200K),
            BYTES,
            tidies=False,
        ),
        _rows("youtu", split(YOUTU_SCRIPTS), split(YOUTU), BYTES, ignore_merges=True, tidies=False),
        _rows("kimi-k2", split(KIMI), BYTES, tidies=False),
        _rows("bloom gpt3-finnish", split(BLOOM), BYTES),
        _rows("poro-chat", split(BLOOM), BYTES, tidies=False),
        _rows("viking", split(BLOOM), DIGITS, BYTES, tidies=False),
        _rows("bailingmoe bailingmoe2 llada-moe", split(BAILING), BYTES, tidies=False),
        _rows("seed-coder", split(SEED_CODER), BYTES, tidies=False),
        _rows("exaone-moe", split(EXAONE_MOE), BYTES),
        _rows("ufakzeka", split(UFAKZEKA), BYTES, tidies=False),
        _rows("k2-horizon", split(K2_HORIZON), BYTES, tidies=False),
        _rows("jais-2", split(JAIS2), BYTES),
        _rows("minicpm5", split(r"\p{N}{1,3}"), split(MINICPM5), BYTES, ignore_merges=True),
        _rows(
            "laguna",
            split(r"(?:\r?\n)+(?!\r?\n)", "MergedWithNext"),
            split(QWEN2),
            BYTES,
            tidies=False,
        ),
        _rows(
            "afmoe",
            split(THREE_FROM_THE_RIGHT),
            split(AFMOE_SCRIPTS),
            split(AFMOE),
            BYTES,
            tidies=False,
        ),
        _rows("superbpe", split(r"\p{N}+"), split(r"(?=(\d{3})+(?!\d))"), BYTES, tidies=False),
        _rows(
            "chameleon",
            split("<sentinel:[0-9]+>"),
            split("(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z"),
            split(r"([\t\n]|    |  )"),
            DIGITS,
            punctuation("Isolated"),
            GPT2_BYTES,
            adds_bos=True,
            tidies=False,
        ),
        _rows(
            "default",
            split(DEFAULT_PUNCTUATION),
            split(GPT2),
            split(r"\p{N}+"),
            split("[0-9][0-9][0-9]"),
            BYTES,
        ),
    )
    for row in rows
}
"""Every name -> its row; of rows that cut alike, the one that is preferred stands first."""
