"""Tiny models with random weights of the families that people export to ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import transformers as hf

if TYPE_CHECKING:
    from collections.abc import Callable

VOCABULARY = 96

TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 64,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 8,
}
SEQ2SEQ = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 64,
}
MARKS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
GROUPED = {**TEXT, **MARKS, "num_key_value_heads": 2}
SOUND = {
    **TEXT,
    "conv_dim": [16, 16],
    "conv_stride": [5, 2],
    "conv_kernel": [10, 3],
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "classifier_proj_size": 32,
    "num_labels": 3,
}


def _bert(kind: str, **options: object) -> hf.PreTrainedModel:
    return getattr(hf, kind)(hf.BertConfig(**TEXT, **options))


def _clip() -> hf.PreTrainedModel:
    text = {**TEXT, **MARKS, "projection_dim": 24}
    vision = {**VISION, "projection_dim": 24}
    return hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24))


def _detr() -> hf.PreTrainedModel:
    backbone = hf.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], out_features=["stage2"],
        layer_type="basic",
    )  # fmt: skip
    sizes = {key: value for key, value in SEQ2SEQ.items() if "max" not in key and "vo" not in key}
    config = hf.DetrConfig(
        backbone_config=backbone, use_timm_backbone=False, backbone=None, num_queries=6, **sizes
    )
    return hf.DetrForObjectDetection(config)


def _captioner() -> hf.PreTrainedModel:
    decoder = hf.GPT2Config(
        n_embd=32, n_layer=2, n_head=4, n_positions=64, vocab_size=VOCABULARY,
        add_cross_attention=True, is_decoder=True, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    config = hf.VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        hf.ViTConfig(**VISION), decoder
    )
    config.decoder_start_token_id, config.pad_token_id = 1, 0
    return hf.VisionEncoderDecoderModel(config)


def _blip() -> hf.PreTrainedModel:
    text = {**TEXT, **MARKS, "sep_token_id": 2, "encoder_hidden_size": 32, "projection_dim": 24}
    return hf.BlipForConditionalGeneration(
        hf.BlipConfig(text_config=text, vision_config=VISION, projection_dim=24)
    )


def _deberta() -> hf.PreTrainedModel:
    config = hf.DebertaV2Config(
        relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=16,
        norm_rel_ebd="layer_norm", share_att_key=True, type_vocab_size=0, num_labels=3, **TEXT,
    )  # fmt: skip
    return hf.DebertaV2ForSequenceClassification(config)


def _whisper() -> hf.PreTrainedModel:
    sizes = {key: value for key, value in SEQ2SEQ.items() if key != "max_position_embeddings"}
    config = hf.WhisperConfig(
        num_mel_bins=16, max_source_positions=20, max_target_positions=40, **sizes, **MARKS,
        decoder_start_token_id=3, begin_suppress_tokens=None,
    )  # fmt: skip
    return hf.WhisperForConditionalGeneration(config)


CASES: dict[str, tuple[str, Callable[[], hf.PreTrainedModel]]] = {
    "bert": ("text-classification", lambda: _bert("BertForSequenceClassification", num_labels=3)),
    "bert-ner": ("token-classification", lambda: _bert("BertForTokenClassification")),
    "bert-mlm": ("fill-mask", lambda: _bert("BertForMaskedLM")),
    "bert-bare": ("feature-extraction", lambda: _bert("BertModel")),
    "roberta": (
        "token-classification",
        lambda: hf.RobertaForTokenClassification(
            hf.RobertaConfig(**TEXT, type_vocab_size=1, num_labels=5)
        ),
    ),
    "distilbert": (
        "question-answering",
        lambda: hf.DistilBertForQuestionAnswering(
            hf.DistilBertConfig(
                dim=32,
                hidden_dim=64,
                n_layers=2,
                n_heads=4,
                vocab_size=VOCABULARY,
                max_position_embeddings=64,
            )
        ),
    ),
    "deberta-v2": ("text-classification", _deberta),
    "modernbert": (
        "fill-mask",
        lambda: hf.ModernBertForMaskedLM(
            hf.ModernBertConfig(
                **TEXT,
                **MARKS,
                cls_token_id=1,
                sep_token_id=2,
                global_attn_every_n_layers=2,
                local_attention=8,
            )
        ),
    ),
    "bart-classifier": (
        "text-classification",
        lambda: hf.BartForSequenceClassification(hf.BartConfig(**SEQ2SEQ)),
    ),
    "bart": (
        "text2text-generation",
        lambda: hf.BartForConditionalGeneration(hf.BartConfig(**SEQ2SEQ)),
    ),
    "t5": (
        "text2text-generation",
        lambda: hf.T5ForConditionalGeneration(
            hf.T5Config(
                d_model=32,
                d_ff=64,
                d_kv=8,
                num_layers=2,
                num_heads=4,
                vocab_size=VOCABULARY,
                decoder_start_token_id=0,
            )
        ),
    ),
    "marian": (
        "text2text-generation",
        lambda: hf.MarianMTModel(
            hf.MarianConfig(**SEQ2SEQ, pad_token_id=95, decoder_start_token_id=95)
        ),
    ),
    "gpt2": (
        "text-generation",
        lambda: hf.GPT2LMHeadModel(
            hf.GPT2Config(
                n_embd=32,
                n_layer=2,
                n_head=4,
                n_positions=64,
                vocab_size=VOCABULARY,
                bos_token_id=1,
                eos_token_id=2,
            )
        ),
    ),
    "llama": ("text-generation", lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**GROUPED))),
    "llama-tied": (
        "text-generation",
        lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**GROUPED, tie_word_embeddings=True)),
    ),
    "qwen2": ("text-generation", lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**GROUPED))),
    "qwen3": (
        "text-generation",
        lambda: hf.Qwen3ForCausalLM(hf.Qwen3Config(**GROUPED, head_dim=16)),
    ),
    "gemma3": (
        "text-generation",
        lambda: hf.Gemma3ForCausalLM(
            hf.Gemma3TextConfig(
                **GROUPED,
                head_dim=16,
                sliding_window=6,
                layer_types=["sliding_attention", "full_attention"],
            )
        ),
    ),
    "mistral": (
        "text-generation",
        lambda: hf.MistralForCausalLM(hf.MistralConfig(**GROUPED, sliding_window=6)),
    ),
    "phi3": ("text-generation", lambda: hf.Phi3ForCausalLM(hf.Phi3Config(**GROUPED))),
    "mixtral": (
        "text-generation",
        lambda: hf.MixtralForCausalLM(hf.MixtralConfig(**GROUPED, num_local_experts=4)),
    ),
    "qwen3-moe": (
        "text-generation",
        lambda: hf.Qwen3MoeForCausalLM(
            hf.Qwen3MoeConfig(
                **GROUPED,
                head_dim=16,
                num_experts=4,
                num_experts_per_tok=2,
                moe_intermediate_size=24,
            )
        ),
    ),
    "vit": (
        "image-classification",
        lambda: hf.ViTForImageClassification(hf.ViTConfig(**VISION, num_labels=4)),
    ),
    "vit-bare": ("image-feature-extraction", lambda: hf.ViTModel(hf.ViTConfig(**VISION))),
    "clip": ("zero-shot-image-classification", _clip),
    "detr": ("object-detection", _detr),
    "yolos": (
        "object-detection",
        lambda: hf.YolosForObjectDetection(
            hf.YolosConfig(**{**VISION, "image_size": [16, 24]}, num_detection_tokens=5)
        ),
    ),
    "vision-encoder-decoder": ("image-to-text", _captioner),
    "blip": ("image-to-text", _blip),
    "whisper": ("automatic-speech-recognition", _whisper),
    "wav2vec2": (
        "automatic-speech-recognition",
        lambda: hf.Wav2Vec2ForCTC(hf.Wav2Vec2Config(**SOUND)),
    ),
    "wav2vec2-classifier": (
        "audio-classification",
        lambda: hf.Wav2Vec2ForSequenceClassification(hf.Wav2Vec2Config(**SOUND)),
    ),
    "ast": (
        "audio-classification",
        lambda: hf.ASTForAudioClassification(
            hf.ASTConfig(
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_length=40,
                num_mel_bins=32,
            )
        ),
    ),
}
"""Name -> the task that its class is for, and what makes it."""


def make(name: str) -> hf.PreTrainedModel:
    """Return the model of that name, the same every time."""
    torch.manual_seed(7)
    return CASES[name][1]().eval()
