"""Tokenizers between Hugging Face's files and GGUF's key-values, both ways.

`to_gguf` and `from_gguf` are the face. A kind of tokenizer (byte-level BPE) is a module, entered in
`kinds.KINDS` under the name that GGUF has for it. Neither way needs the `tokenizers` library.
"""

from weighbridge.converters.tokenizers.convert import Result, from_gguf, to_gguf
from weighbridge.converters.tokenizers.special import generation_ids

__all__ = ["Result", "from_gguf", "generation_ids", "to_gguf"]
