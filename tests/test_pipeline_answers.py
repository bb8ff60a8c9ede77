"""Questions are answered from an exported directory: the spans that a plain search finds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from support import encoders, exports, tiny
from support.answers import assert_same

import weighbridge as wb
from weighbridge import errors

if TYPE_CHECKING:
    from pathlib import Path

    import transformers

    Case = tuple[transformers.PreTrainedModel, Path]

QUESTION = "Where is it?"

CONTEXT = "The weighbridge stands beside the northern gate, and a lorry weighs 40 tonnes."

LONG = " ".join([CONTEXT, "It rained on Tuesday; nobody came.", CONTEXT.upper()])


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    settings = tiny.config(
        "BertForQuestionAnswering",
        vocab_size=30522,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=64,
    )
    model = tiny.model(settings)
    with torch.no_grad():
        model.qa_outputs.weight.mul_(40)
    inputs = exports.texts(30522, token_type_ids=torch.zeros_like(exports.PADDED))
    return model, exports.whole(
        tmp_path_factory.mktemp("answers"), model, inputs, encoders.minilm()
    )


@pytest.fixture(scope="module")
def ours(case: Case) -> Any:
    return wb.pipeline("question-answering", case[1])


def searched(
    model: Any, tokenizer: Any, context: str, longest: int = 15
) -> dict[tuple[int, int], float]:
    """Score every span of a context that fits into one window, one by one."""
    inputs = tokenizer(QUESTION, context, return_tensors="pt", return_offsets_mapping=True)
    offsets = inputs.pop("offset_mapping")[0].tolist()
    with torch.no_grad():
        outputs = model(**inputs)
    sequences = inputs.sequence_ids(0)
    usable = [n for n, one in enumerate(sequences) if one == 1]
    kept = [0, *usable]
    start = dict(zip(kept, outputs.start_logits[0, kept].softmax(0).tolist(), strict=True))
    end = dict(zip(kept, outputs.end_logits[0, kept].softmax(0).tolist(), strict=True))
    scores = {(0, 0): start[0] * end[0]}
    for first in usable:
        for last in range(first, min(first + longest, usable[-1] + 1)):
            scores[offsets[first][0], offsets[last][1]] = start[first] * end[last]
    return scores


def ranked(scores: dict[tuple[int, int], float], context: str) -> list[dict[str, Any]]:
    """Return the answers, the likeliest first."""
    made = [
        {"score": score, "start": start, "end": end, "answer": context[start:end]}
        for (start, end), score in scores.items()
    ]
    return sorted(made, key=lambda one: -one["score"])


def test_the_likeliest_spans_are_the_answers(case: Case, ours: Any) -> None:
    scores = searched(case[0], ours.tokenizer, CONTEXT)
    scores.pop((0, 0))
    expected = ranked(scores, CONTEXT)
    options = {"align_to_words": False, "max_seq_len": 64}
    found = ours(question=QUESTION, context=CONTEXT, top_k=5, **options)
    assert_same(found, expected[:5])
    assert_same(ours(question=QUESTION, context=CONTEXT, **options), expected[0])


def test_no_answer_may_be_the_answer(case: Case, ours: Any) -> None:
    expected = ranked(searched(case[0], ours.tokenizer, CONTEXT, longest=1), CONTEXT)
    options = {"align_to_words": False, "max_answer_len": 1, "handle_impossible_answer": True}
    found = ours(question=QUESTION, context=CONTEXT, top_k=100, max_seq_len=64, **options)
    assert_same(found, expected)
    assert [one["answer"] for one in found].count("") == 1


def test_answers_are_whole_words(ours: Any) -> None:
    answer = ours(question=QUESTION, context=CONTEXT, max_answer_len=1, max_seq_len=64)
    assert answer["answer"] in CONTEXT.replace(",", "").replace(".", "").split()
    assert CONTEXT[answer["start"] : answer["end"]] == answer["answer"]


def test_a_long_text_is_cut_into_windows(case: Case, ours: Any) -> None:
    options = {"max_seq_len": 32, "doc_stride": 12, "top_k": 3}
    found = ours(question=QUESTION, context=LONG, **options)
    theirs = type(ours)(model=case[0], tokenizer=ours.tokenizer, device="cpu")
    assert_same(found, theirs(question=QUESTION, context=LONG, **options))
    assert len({(one["start"], one["end"]) for one in found}) == 3
    windows = list(ours.preprocess({"question": QUESTION, "context": LONG}, 12, 32))
    assert len(windows) > 2
    assert [one["is_last"] for one in windows].index(True) == len(windows) - 1


def test_several_are_answered_in_batches(ours: Any) -> None:
    examples = [{"question": QUESTION, "context": text} for text in (LONG, CONTEXT)]
    alone = [ours(example, max_seq_len=32, doc_stride=8) for example in examples]
    assert_same(ours(examples, max_seq_len=32, doc_stride=8, batch_size=3), alone)
    pairs = ours(question=[QUESTION] * 2, context=[LONG, CONTEXT], max_seq_len=32, doc_stride=8)
    assert_same(pairs, alone)
    same = ours(question=[QUESTION, QUESTION], context=CONTEXT, max_seq_len=32, doc_stride=8)
    assert_same(same, [alone[1]] * 2)


WRONG = {
    "question": {"question": "", "context": CONTEXT},
    "doc-stride": {"question": QUESTION, "context": LONG, "max_seq_len": 16, "doc_stride": 16},
    "top-k": {"question": QUESTION, "context": CONTEXT, "top_k": 0},
    "max-answer-len": {"question": QUESTION, "context": CONTEXT, "max_answer_len": 0},
}


@pytest.mark.parametrize("rule", WRONG)
def test_what_makes_no_sense_is_refused(ours: Any, rule: str) -> None:
    with pytest.raises(errors.InvalidInput) as caught:
        ours(**WRONG[rule])
    assert caught.value.rule == rule


def test_a_question_without_room_is_refused(ours: Any) -> None:
    with pytest.raises(errors.InvalidInput) as caught:
        ours(question=QUESTION * 9, context=CONTEXT, max_seq_len=16, doc_stride=2)
    assert caught.value.rule == "question"


def test_contexts_and_questions_are_as_many(ours: Any) -> None:
    with pytest.raises(errors.InvalidInput) as caught:
        ours(question=[QUESTION], context=[CONTEXT, CONTEXT])
    assert caught.value.rule == "question"
