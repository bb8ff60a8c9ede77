"""Special tokens, flags, chat templates and settings, with llama.cpp's converter as the referee."""

from __future__ import annotations

import json

import gguf
import pytest
import tokenizers
from support.encoders import roberta
from support.vocabularies import trained
from transformers import AutoTokenizer

from weighbridge.converters.tokenizers import from_gguf, generation_ids, keys, to_gguf
from weighbridge.converters.tokenizers.byte_level_bpe import alphabet
from weighbridge.metadata import array, scalar, string

BOS, EOS, SEP = "<|endoftext|>", "<|im_end|>", "<|im_start|>"

BYTE_LEVEL = {
    "type": "ByteLevel",
    "add_prefix_space": True,
    "trim_offsets": False,
    "use_regex": True,
}


def special(token):
    return {"SpecialToken": {"id": token, "type_id": 0}}


def sequence(name):
    return {"Sequence": {"id": name, "type_id": 0}}


def template(single, pair=()):
    ids = {token: trained()["model"]["vocab"][token] for token in (BOS, EOS, SEP)}
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": list(pair) or [sequence("A"), sequence("B")],
        "special_tokens": {t: {"id": t, "ids": [n], "tokens": [t]} for t, n in ids.items()},
    }


A, B = sequence("A"), sequence("B")

NAMED = {"bos_token": BOS, "eos_token": EOS, "pad_token": {"content": EOS}, "unk_token": None}

CASES = {
    "names alone": (None, NAMED, {}),
    "names said to be added": (None, NAMED | {"add_bos_token": True, "add_eos_token": False}, {}),
    "ids in config.json": (None, {}, {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": None}),
    "names before ids": (None, NAMED, {"bos_token_id": 1, "sep_token_id": 1}),
    "ids in text_config": (None, {}, {"text_config": {"eos_token_id": 2}}),
    "ids of many ends": (None, {}, {"eos_token_id": [1, 2]}),
    "a bos before": (template([special(BOS), A]), NAMED, {}),
    "llama 3": (
        {
            "type": "Sequence",
            "processors": [
                template([special(BOS), A], [special(BOS), A, special(BOS), B]),
            ],
        },
        NAMED,
        {},
    ),
    "both around": (template([special(BOS), A, special(EOS)]), NAMED, {}),
    "another than the eos": (template([A, special(SEP)]), NAMED, {}),
    "cls and sep": (
        template([special(BOS), A, special(EOS)], [special(BOS), A, special(EOS), B, special(EOS)]),
        {"cls_token": BOS, "sep_token": EOS},
        {},
    ),
    "two between": (
        template(
            [special(BOS), A, special(EOS)],
            [special(BOS), A, special(EOS), special(EOS), B, special(EOS)],
        ),
        NAMED,
        {},
    ),
    "one between": (template([special(BOS), A], [special(BOS), A, special(EOS), B]), NAMED, {}),
    "a stranger between": (
        template([special(BOS), A], [special(BOS), A, special(SEP), B]),
        NAMED,
        {},
    ),
    "roberta": (
        {
            "type": "RobertaProcessing",
            "sep": [EOS, 2],
            "cls": [BOS, 0],
            "trim_offsets": True,
            "add_prefix_space": False,
        },
        {"bos_token": BOS, "eos_token": EOS},
        {},
    ),
    "a template": (None, NAMED | {"chat_template": "{{ x }}"}, {}),
    "templates with names": (
        None,
        NAMED
        | {
            "chat_template": [
                {"name": "default", "template": "d"},
                {"name": "tool-use", "template": "t"},
            ]
        },
        {},
    ),
}
"""What -> post-processor, tokenizer_config.json, config.json."""


def files_of(post_processor=None, settings=None, **others):
    document = trained() | {
        "post_processor": post_processor,
        "pre_tokenizer": {**BYTE_LEVEL, "add_prefix_space": False},
    }
    files = {"tokenizer.json": json.dumps(document).encode(), **others}
    return (
        files
        if settings is None
        else files | {"tokenizer_config.json": json.dumps(settings).encode()}
    )


def convert(files, config=None):
    return to_gguf(files, config or {}, vocab_size=len(trained()["model"]["vocab"]))


@pytest.mark.parametrize(("post_processor", "settings", "config"), CASES.values(), ids=CASES)
def test_key_values_are_those_of_the_reference_package(post_processor, settings, config, tmp_path):
    files = files_of(post_processor, settings)
    for name, content in {**files, "config.json": json.dumps(config).encode()}.items():
        (tmp_path / name).write_bytes(content)
    writer = gguf.GGUFWriter(None, "llama")
    gguf.SpecialVocab(tmp_path, load_merges=True).add_to_gguf(writer, quiet=True)
    theirs = {
        key: value.value for key, value in writer.kv_data[0].items() if key.startswith("tokenizer.")
    }
    metadata = convert(files, config).metadata
    beside = {keys.MODEL, keys.PRE, keys.TOKENS, keys.TOKEN_TYPE, keys.HUGGING_FACE_JSON}
    ours = {key: value.plain() for key, value in metadata.items() if key not in beside}
    assert ours == theirs
    assert list(ours) == list(theirs)


def test_the_first_token_of_a_template_is_the_bos():
    """As llama.cpp's converter has it today; that of the reference package is older."""
    unnamed = convert(files_of(template([special(BOS), A]), {"eos_token": EOS})).metadata
    assert unnamed[keys.TOKEN_IDS["bos"]] == scalar("u32", 0)
    assert unnamed[keys.ADD_TOKEN["bos"]] == scalar("bool", data=True)
    another = convert(files_of(template([special(SEP), A]), NAMED)).metadata
    assert another[keys.ADD_TOKEN["bos"]] == scalar("bool", data=True)


def test_a_token_may_be_an_object():
    """The reference package takes it for another than the text that it holds."""
    around = template([special(BOS), A, special(EOS)])
    as_objects = {role: {"content": token} for role, token in NAMED.items() if token == BOS}
    plain = convert(files_of(around, NAMED))
    assert convert(files_of(around, NAMED | as_objects)).metadata == plain.metadata


@pytest.mark.parametrize("adds", [True, False])
def test_a_byte_level_post_processor_says_that_nothing_is_added(adds):
    """As llama.cpp's converter does today; that of the reference package is older."""
    files = files_of(BYTE_LEVEL, NAMED | {"add_bos_token": adds})
    result = convert(files)
    assert result.metadata[keys.ADD_TOKEN["bos"]] == scalar("bool", data=False)
    assert result.metadata[keys.ADD_TOKEN["eos"]] == scalar("bool", data=False)
    assert bool(result.warnings) == adds


def test_a_bos_that_llama_cpp_would_add_by_itself_is_denied():
    files = files_of(None, NAMED)
    size = len(trained()["model"]["vocab"])
    for pre, denied in (("llama-bpe", True), ("gpt-2", False)):
        metadata = to_gguf(files, {}, vocab_size=size, pre=pre).metadata
        assert (keys.ADD_TOKEN["bos"] in metadata) == denied


def test_special_tokens_map_names_what_the_settings_do_not():
    files = files_of(None, {"eos_token": EOS}) | {
        "special_tokens_map.json": json.dumps({"pad_token": SEP, "eos_token": BOS}).encode()
    }
    metadata = convert(files).metadata
    assert metadata[keys.TOKEN_IDS["pad"]].data == 1
    assert metadata[keys.TOKEN_IDS["eos"]].data == 2


def test_what_is_missing_or_beyond_is_told():
    missing = convert(files_of())
    assert "no token ends a text" in missing.warnings[0]
    beyond = convert(files_of(None, NAMED), {"mask_token_id": 10**6})
    assert "beyond the vocabulary" in beyond.warnings[0]
    assert keys.TOKEN_IDS["mask"] not in beyond.metadata


def test_tokens_are_classed_as_the_converter_does():
    added = [
        {"id": 6000, "content": "<special>", "special": True},
        {"id": 6001, "content": "<|looks|>", "special": False},
        {"id": 6002, "content": "<\uff5clooks\uff5c>", "special": False},
        {"id": 6003, "content": "two\u2581words", "special": False, "normalized": False},
        {"id": 6004, "content": "Ġ\u0120x", "special": False, "normalized": False},
        {"id": 6005, "content": "Ġas it is", "special": False, "normalized": True},
        {"id": 6006, "content": "<strip>", "special": False, "lstrip": True},
    ]
    document = json.loads(files_of()["tokenizer.json"])
    document["model"] |= {"vocab": {c: n for n, c in enumerate(alphabet())}, "merges": []}
    document["added_tokens"] = added
    files = {"tokenizer.json": json.dumps(document).encode()}
    result = to_gguf(files, {"eos_token_id": 1}, vocab_size=6010)
    tokens, types = (result.metadata[key].data for key in (keys.TOKENS, keys.TOKEN_TYPE))
    assert list(zip(tokens, types, strict=True))[5999:6008] == [
        ("[PAD5999]", 5),
        ("<special>", 3),
        ("<|looks|>", 3),
        ("<\uff5clooks\uff5c>", 3),
        ("two words", 4),
        ("  x", 4),
        ("Ġas it is", 4),
        ("<strip>", 4),
        ("[PAD6007]", 5),
    ]
    assert "'<strip>'" in result.warnings[0]


def test_merges_with_spaces_are_spelled():
    document = json.loads(files_of()["tokenizer.json"])
    document["model"] |= {"vocab": {"a": 0, " b": 1, "a b": 2}, "merges": [["a", " b"]]}
    document["added_tokens"] = []
    files = {"tokenizer.json": json.dumps(document).encode()}
    assert to_gguf(files, {}, vocab_size=3).metadata[keys.MERGES].data == ["a Ġb"]


def arrays(**entries):
    """Return key-values of a small vocabulary with `entries` under ``tokenizer.ggml``."""
    tokens = ["<s>", "</s>", *alphabet(), "ab", "<|end|>", "!!"]
    types = [3, 3, *[1] * 256, 1, 1, 4]
    return {
        keys.MODEL: string("gpt2"),
        keys.PRE: string("gpt-2"),
        keys.TOKENS: array("string", tokens),
        keys.TOKEN_TYPE: array("i32", types),
        keys.MERGES: array("string", ["a b"]),
        **{f"tokenizer.ggml.{key}": value for key, value in entries.items()},
    }


def built(**entries):
    files = from_gguf(arrays(**entries))
    return (
        tokenizers.Tokenizer.from_str(files["tokenizer.json"].decode()),
        json.loads(files["tokenizer_config.json"]),
    )


IDS = {"bos_token_id": scalar("u32", 0), "eos_token_id": scalar("u32", 1)}


@pytest.mark.parametrize(
    ("flags", "around"),
    [
        ({}, (0, 0)),
        ({"add_bos_token": True}, (1, 0)),
        ({"add_eos_token": True}, (0, 1)),
        ({"add_bos_token": True, "add_eos_token": True}, (1, 1)),
        ({"add_bos_token": False}, (0, 0)),
    ],
)
def test_texts_get_the_tokens_that_the_flags_say(flags, around):
    entries = {name: scalar("bool", value) for name, value in flags.items()}
    tokenizer, settings = built(**IDS, **entries)
    inner = tokenizer.encode("ab", add_special_tokens=False).ids
    before, after = around
    assert tokenizer.encode("ab").ids == [0] * before + inner + [1] * after
    assert {name: settings.get(name) for name in flags} == flags


def test_texts_get_the_bos_that_llama_cpp_adds_by_itself():
    for said, expected in ((None, 1), (False, 0)):
        flags = {} if said is None else {"add_bos_token": scalar("bool", said)}
        tokenizer, _ = built(**IDS, **flags, pre=string("llama-bpe"))
        assert len(tokenizer.encode("ab").ids) - 1 == expected


def test_pairs_have_a_separator_between():
    flags = {f"add_{role}_token": scalar("bool", data=True) for role in ("bos", "eos", "sep")}
    tokenizer, _ = built(**IDS, **flags, seperator_token_id=scalar("u32", 1))
    ab = tokenizer.token_to_id("ab")
    assert tokenizer.encode("ab", "ab").ids == [0, ab, 1, 1, ab, 1]


def test_normal_tokens_do_not_become_special_unless_they_look_so():
    exclamation = 2 + list(alphabet()).index("!")
    tokenizer, settings = built(
        **IDS,
        padding_token_id=scalar("u32", exclamation),
        eot_token_id=scalar("u32", 259),
        unknown_token_id=scalar("u32", keys.NO_TOKEN),
    )
    assert "pad_token" not in settings
    assert "unk_token" not in settings
    assert settings["eot_token"] == "<|end|>"
    assert tokenizer.encode("a!<|end|>b!!").tokens == ["a", "!", "<|end|>", "b", "!!"]


def test_generation_ends_at_turns_too():
    entries = {"eot_token_id": scalar("u32", 259), "padding_token_id": scalar("u32", 1)}
    assert generation_ids(arrays(**IDS, **entries)) == {
        "bos_token_id": 0,
        "eos_token_id": [1, 259],
        "pad_token_id": 1,
    }
    assert generation_ids(arrays(**IDS)) == {"bos_token_id": 0, "eos_token_id": 1}
    assert generation_ids({}) == {}


def test_all_roles_survive_both_ways():
    entries = IDS | {
        "padding_token_id": scalar("u32", 260),
        "eot_token_id": scalar("u32", 1),
        "add_space_prefix": scalar("bool", data=False),
        "add_bos_token": scalar("bool", data=True),
    }
    metadata = arrays(**entries)
    again = to_gguf(from_gguf(metadata), {}, vocab_size=261).metadata
    assert {key: again[key] for key in metadata} == metadata


def test_files_with_holes_and_old_types_keep_every_id():
    """Older converters call what fills holes user-defined."""
    metadata = arrays(**IDS)
    for hole in (258, 100):
        metadata[keys.TOKENS].data[hole] = f"[PAD{hole}]"
        metadata[keys.TOKEN_TYPE].data[hole] = 4
    metadata[keys.MERGES] = array("string", [])
    tokenizer = tokenizers.Tokenizer.from_str(from_gguf(metadata)["tokenizer.json"].decode())
    for n, content in enumerate(metadata[keys.TOKENS].data):
        assert tokenizer.token_to_id(content) == (None if n in (258, 100) else n)
    assert tokenizer.encode("[PAD258]").tokens[0] == "["


def test_tokens_without_text_are_called_after_their_id():
    metadata = arrays()
    metadata[keys.TOKENS].data[258] = ""
    metadata[keys.MERGES] = array("string", [])
    tokenizer = tokenizers.Tokenizer.from_str(from_gguf(metadata)["tokenizer.json"].decode())
    assert tokenizer.token_to_id("[EMPTY_258]") == 258


def test_files_of_templates_win_over_the_settings(tmp_path):
    files = files_of(None, NAMED | {"chat_template": "old"}) | {
        "chat_template.jinja": "näw".encode(),
        "additional_chat_templates/rag.jinja": b"r",
        "additional_chat_templates/tool_use.jinja": b"t",
    }
    result = convert(files)
    found = {key: result.metadata[key] for key in result.metadata if "chat_template" in key}
    assert found == {
        "tokenizer.chat_template.rag": string("r"),
        "tokenizer.chat_template.tool_use": string("t"),
        "tokenizer.chat_templates": array("string", ["rag", "tool_use"]),
        "tokenizer.chat_template": string("näw"),
    }
    assert any("another chat template" in warning for warning in result.warnings)
    back = from_gguf(result.metadata)
    for name in files:
        if name.endswith(".jinja"):
            assert back[name] == files[name]
    for name, content in back.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.chat_template == {"default": "näw", "rag": "r", "tool_use": "t"}


TEMPLATE_FILES = {
    "a file": {"chat_template.jinja": "näw"},
    "files": {"chat_template.jinja": "d", "additional_chat_templates/tool-use.jinja": "t"},
    "the oldest file": {"chat_template.json": '{"chat_template": "o"}'},
    "the oldest file, with names": {
        "chat_template.json": '{"chat_template": [{"name": "rag", "template": "r"}]}'
    },
}


@pytest.mark.parametrize("templates", TEMPLATE_FILES.values(), ids=TEMPLATE_FILES)
def test_files_of_templates_are_read_as_the_reference_package_reads_them(templates, tmp_path):
    files = files_of(None, NAMED) | {name: text.encode() for name, text in templates.items()}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    writer = gguf.GGUFWriter(None, "llama")
    gguf.SpecialVocab(tmp_path).add_to_gguf(writer, quiet=True)
    theirs = {key: one.value for key, one in writer.kv_data[0].items() if "chat_template" in key}
    metadata = convert(files).metadata
    ours = {key: value.plain() for key, value in metadata.items() if "chat_template" in key}
    assert ours == theirs
    assert list(ours) == list(theirs)


def test_files_of_transformers_4_and_5_say_the_same():
    """The older has the added tokens twice, and the special ones in a file of their own."""
    added = {
        str(token["id"]): {key: value for key, value in token.items() if key != "id"}
        for token in trained()["added_tokens"]
    }
    old = files_of(
        None,
        {"added_tokens_decoder": added, "tokenizer_class": "GPT2Tokenizer"},
        **{"special_tokens_map.json": json.dumps(NAMED).encode()},
    )
    new = files_of(None, NAMED | {"backend": "tokenizers", "is_local": True})
    assert convert(old) == convert(new)


def test_tokens_that_one_file_alone_has_are_told():
    files = files_of(None, NAMED | {"added_tokens_decoder": {"9999": {"content": "<new>"}}})
    assert any("'<new>'" in warning for warning in convert(files).warnings)


def test_robertas_post_processor_and_mask_come_back():
    document = json.loads(roberta()["tokenizer.json"])
    document["added_tokens"][4]["lstrip"] = True
    files = {**roberta(), "tokenizer.json": json.dumps(document).encode()}
    metadata = to_gguf(files, {}, vocab_size=400).metadata
    assert metadata[keys.PRE] == string("roberta-bpe")
    assert keys.ADD_PREFIX_SPACE not in metadata
    del metadata[keys.HUGGING_FACE_JSON]
    built = from_gguf(metadata)
    again = json.loads(built["tokenizer.json"])
    assert again["post_processor"] == document["post_processor"]
    assert again["added_tokens"] == document["added_tokens"]
    assert json.loads(built["tokenizer_config.json"])["cls_token"] == "<s>"
    original, rebuilt = (tokenizers.Tokenizer.from_str(json.dumps(d)) for d in (document, again))
    for tokenizer in (original, rebuilt):
        encoding = tokenizer.encode("a <mask>", "b")
        assert encoding.ids == original.encode("a <mask>", "b").ids
        assert encoding.tokens == ["<s>", "a", " <mask>", "</s>", "</s>", "b", "</s>"]
        assert set(encoding.type_ids) == {0}


def test_the_oldest_file_of_a_template_is_read():
    files = files_of(None, NAMED) | {"chat_template.json": b'{"chat_template": "o"}'}
    assert convert(files).metadata[keys.CHAT_TEMPLATE] == string("o")
