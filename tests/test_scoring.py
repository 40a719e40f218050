"""Scores against several references."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_attn import scoring


def distance(a, b):
    """Edit distance by the textbook's table."""
    table = [[i + j if i * j == 0 else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            change = table[i - 1][j - 1] + (a[i - 1] != b[j - 1])
            table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, change)
    return table[-1][-1]


sequences = st.lists(st.sampled_from("KATE"), max_size=5).map(" ".join)


@given(st.lists(st.tuples(sequences, st.lists(sequences, min_size=1, max_size=3)), min_size=1))
def test_sequence_scores_are_the_definition(items):
    hypotheses, references = zip(*items, strict=True)
    right = edits = length = 0
    for said, several in items:
        found = [(distance(said.split(), r.split()), i) for i, r in enumerate(several)]
        fewest, which = min(found)
        right, edits = right + (fewest == 0), edits + fewest
        length += len(several[which].split())
    scores = scoring.sequence_scores(hypotheses, references)
    assert scores["exact_match"] == pytest.approx(right / len(items))
    assert scores["sequence_error_rate"] == pytest.approx(1 - right / len(items))
    assert scores["token_error_rate"] == pytest.approx(edits / max(length, 1))


def test_any_pronunciation_is_right_and_the_closest_counts():
    found = scoring.sequence_scores(
        ["AE B", "T OW M", "Z"], [["AH B", "AE B"], ["T AH M EY T OW", "T OW M AA T"], ["S"]]
    )
    assert found["exact_match"] == pytest.approx(1 / 3)
    assert found["token_error_rate"] == pytest.approx((0 + 2 + 1) / (2 + 5 + 1))


def test_tokens_may_be_characters():
    assert scoring.sequence_scores(["abd"], [["abc"]], list)["token_error_rate"] == 1 / 3


def test_translation_scores_are_sacrebleu_s():
    said = ["the cat sat on the mat .", "a dog runs ."]
    references = [["the cat sat on a mat .", "a cat sat on the mat ."], ["a dog runs ."]]
    found = scoring.translation_scores(said, references)
    assert 50 < found["bleu"] < 100 and 50 < found["chrf"] < 100
    assert re.match(r"nrefs:\w+\|case:mixed\|eff:no\|tok:13a\|", found["bleu_signature"])
    assert "nc:6" in found["chrf_signature"]
    same = scoring.translation_scores(["A dog runs far ."], [["a dog runs far ."]], lowercase=True)
    assert same["bleu"] == pytest.approx(100) and same["chrf"] == pytest.approx(100)


@pytest.mark.parametrize("score", [scoring.sequence_scores, scoring.translation_scores])
@pytest.mark.parametrize(
    ("hypotheses", "references", "message"),
    [
        ([], [], "at least one; got 0 for 0"),
        (["a"], [["a"], ["b"]], "got 2 for 1"),
        (["a"], ["a"], r"references\[0\]: expected a list"),
        (["a"], [[]], r"references\[0\]: expected a list"),
        ("a", ["a"], "hypotheses: expected a list, got a single string"),
    ],
)
def test_nonsense_is_refused(score, hypotheses, references, message):
    with pytest.raises(ValueError, match=message):
        score(hypotheses, references)


def test_grouped_wants_a_target_for_each_source():
    with pytest.raises(ValueError, match="targets: expected 2, one a source, got 1"):
        scoring.grouped(["a", "b"], ["a"])


@pytest.mark.parametrize(
    ("score", "package"), [("sequence_scores", "rapidfuzz"), ("translation_scores", "sacrebleu")]
)
def test_what_is_not_installed_is_named(monkeypatch, score, package):
    for module in ("rapidfuzz.distance", "sacrebleu.metrics"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(ImportError, match=rf"{package}.*pip install {package}"):
        getattr(scoring, score)(["a"], [["a"]])
