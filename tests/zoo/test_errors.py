"""What is wrong is counted as one counts it by hand."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import pytest

FILE = Path(__file__).parent.parent.parent / "zoo" / "errors.py"


@pytest.fixture
def errors():
    spec = importlib.util.spec_from_file_location("zoo_errors", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_mistakes_are_counted(errors):
    words = ["cat", "smith", "dog", "tree", "lee"]
    answers = ["K AE T", "S M IH TH S", "D AH G", "T R", "L T"]
    references = [["K AA T", "K AE T"], ["S M IH TH"], ["D AO G"], ["T R IY"], ["L IY"]]
    scores = [math.log(p) for p in (0.95, 0.9, 0.5, 0.05, 0.25)]
    kind = lambda word: "names" if word in ("smith", "lee") else "common words"  # noqa: E731
    found = errors.analysed(words, answers, scores, references, kind)
    wanted = {"too many": 1, "vowel for vowel": 1, "missing": 1, "a vowel and a consonant": 1}
    assert found["edits"] == wanted and found["words"] == 5
    assert {"wanted": "AO", "said": "AH", "number": 1} in found["swapped"]
    assert {"wanted": "IY", "said": "T", "number": 1} in found["swapped"]
    assert found["words_by_edits"] == {"1": 4, "2": 0, "3 or more": 0}
    assert found["kinds"] == {
        "common words": {"words": 3, "wrong": pytest.approx(2 / 3)},
        "names": {"words": 2, "wrong": 1.0},
    }
    surest = found["surest_mistakes"]
    assert [row["word"] for row in surest] == ["smith", "dog", "lee", "tree"]
    assert surest[0]["probability"] == pytest.approx(0.9)


def test_the_closest_reference_counts(errors):
    assert errors.closest("A B C D", ["X", "A B C", "A X C D E"]) == [("D", None)]
    assert errors.closest("A C", ["A B C"]) == [(None, "B")]


def test_reliability_is_that_of_the_paper(errors):
    confidence = [0.95, 0.85, 0.82, 0.3, 1.0]
    right = [True, True, False, False, True]
    found = errors.reliability(confidence, right)
    by_hand = 1 / 5 * 0.3 + 2 / 5 * abs(0.835 - 0.5) + 2 / 5 * abs(0.975 - 1)
    assert found["calibration_error"] == pytest.approx(by_hand)
    assert [(row["from"], row["words"], row["exact_match"]) for row in found["bins"]] == [
        (0.3, 1, 0.0),
        (0.8, 2, 0.5),
        (0.9, 2, 1.0),
    ]
    kept = {row["fraction"]: (row["from"], row["exact_match"]) for row in found["kept"]}
    assert kept[0.5] == (0.95, 1.0) and kept[1.0] == (0.3, pytest.approx(0.6))
