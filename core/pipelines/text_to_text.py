"""``text2text-generation``, ``summarization`` and ``translation``, as transformers 4 had them."""

from __future__ import annotations

from typing import Any

from weighbridge.errors import InvalidInput
from weighbridge.pipelines.generating import PREFIX, Generating
from weighbridge.pipelines.tasks import TRANSLATION

BEGINS = "forced_bos_token_id"
"""The token that every answer begins with: a language's."""


class TextToText(Generating):
    """Text in, text out.

    One text gives a list of ``{"generated_text": ...}``, one for each sequence that is returned; a
    list of texts gives a dictionary for each, or a list of them where several are returned.
    """

    answer = "generated"

    def _sanitize_parameters(
        self,
        *,
        return_tensors: bool = False,
        return_text: bool = True,
        clean_up_tokenization_spaces: bool | None = None,
        truncation: bool | str | None = None,
        src_lang: str | None = None,
        tgt_lang: str | None = None,
        generate_kwargs: dict[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        before = {"truncation": truncation, "src_lang": src_lang, "tgt_lang": tgt_lang}
        after = {
            "tensors": return_tensors or None,
            "text": None if return_text else False,
            "spaces": clean_up_tokenization_spaces,
        }
        told = [{k: v for k, v in one.items() if v is not None} for one in (before, after)]
        languages = {n: told[0][n] for n in ("src_lang", "tgt_lang") if n in told[0]}
        return told[0], languages | options | (generate_kwargs or {}), told[1]

    def preprocess(
        self,
        text: str,
        truncation: bool | str | None = None,
        src_lang: str | None = None,
        tgt_lang: str | None = None,
    ) -> Any:
        """Return the tokens of a text with the prefix of the task before it.

        Raises:
            InvalidInput: (rule ``text``) for anything but a text.
        """
        if not isinstance(text, str):
            raise InvalidInput("takes texts", rule="text", got=type(text).__name__)
        settings = self._specific(self._named(src_lang, tgt_lang))
        prefix = settings.get(PREFIX) or getattr(self.model.config, PREFIX, None) or ""
        inputs = self._tokens(prefix + text, truncation or False, src_lang, tgt_lang)
        inputs.pop("token_type_ids", None)  # no encoder-decoder takes them
        return inputs

    def _named(self, src_lang: str | None, tgt_lang: str | None) -> str:
        """Return the task under which config.json may say more."""
        del src_lang, tgt_lang
        return str(self.task)

    def _tokens(
        self, text: str, truncation: bool | str, src_lang: str | None, tgt_lang: str | None
    ) -> Any:
        del src_lang, tgt_lang
        return self.tokenizer(text, return_tensors="pt", truncation=truncation)

    def _forward(
        self,
        model_inputs: Any,
        src_lang: str | None = None,
        tgt_lang: str | None = None,
        **options: Any,
    ) -> Any:
        inputs = dict(model_inputs)
        if "generation_config" not in options:
            settings = self._specific(self._named(src_lang, tgt_lang))
            settings.pop(PREFIX, None)
            options = settings | self._generate_kwargs | options
        begins = inputs.pop(BEGINS, None)
        if begins is not None:  # one for each text, and all into one language
            options[BEGINS] = begins[0] if isinstance(begins, list) else begins
        return {"output_ids": self._generate(inputs, options)}

    def postprocess(
        self,
        model_outputs: Any,
        tensors: bool = False,
        text: bool = True,
        spaces: bool | None = None,
    ) -> Any:
        """Return what was written for one text."""
        sequences = model_outputs["output_ids"][0]
        if tensors or not text:
            return [{f"{self.answer}_token_ids": ids} for ids in sequences]
        plain: dict[str, Any] = {"skip_special_tokens": True}
        if spaces is not None:
            plain["clean_up_tokenization_spaces"] = spaces
        return [{f"{self.answer}_text": self.tokenizer.decode(ids, **plain)} for ids in sequences]

    def __call__(self, texts: Any, **options: Any) -> Any:
        """Return what is written for a text, or for each of several.

        Args:
            texts: a text, or a list of them.
            options: ``batch_size``, ``max_new_tokens``, ``num_beams`` and whatever else
                ``generate`` takes; ``truncation``, ``return_tensors``.
        """
        found = super().__call__(texts, **options)
        alone = isinstance(texts, list) and all(len(one) == 1 for one in found)
        return [one[0] for one in found] if alone else found


class Summarization(TextToText):
    """A long text in, a short one out: ``{"summary_text": ...}``."""

    answer = "summary"


class Translation(TextToText):
    """A text in, the same in another language out: ``{"translation_text": ...}``.

    The languages are those of the task, ``translation_en_to_de``, or ``src_lang`` and ``tgt_lang``
    in the tokenizer's own names (``en``, ``eng_Latn``, ``en_XX``). A model with a language token
    for each is told them so, T5 by the prefix that its config.json has for them.
    """

    answer = "translation"

    def _languages(self, src_lang: str | None, tgt_lang: str | None) -> tuple[Any, Any]:
        named = TRANSLATION.fullmatch(str(self.task))
        src, tgt = named.groups() if named else (None, None)
        return src_lang or src, tgt_lang or tgt

    def _named(self, src_lang: str | None, tgt_lang: str | None) -> str:
        src, tgt = self._languages(src_lang, tgt_lang)
        return f"translation_{src}_to_{tgt}" if src and tgt else str(self.task)

    def _tokens(
        self, text: str, truncation: bool | str, src_lang: str | None, tgt_lang: str | None
    ) -> Any:
        build = getattr(self.tokenizer, "_build_translation_inputs", None)
        if build is None:
            return super()._tokens(text, truncation, src_lang, tgt_lang)
        src, tgt = self._languages(src_lang, tgt_lang)
        return build(text, return_tensors="pt", truncation=truncation, src_lang=src, tgt_lang=tgt)
