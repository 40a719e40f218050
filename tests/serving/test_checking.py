"""Golden answers find a server that answers otherwise."""

from __future__ import annotations

import json

import numpy as np
import pytest

from keras_attn.serving import checking

ROWS = [
    {"source": "", "target": "", "score": -1.0, "source_ids": [2], "target_ids": [2]},
    {"source": "ab", "target": "x y", "score": -9.0, "source_ids": [5, 6, 2], "target_ids": [7, 8]},
]


class Server:
    """Answers as the golden rows say, but for what is given."""

    def __init__(self, **other):
        self.other = other

    def predict(self, signature="serving_default", **inputs):
        if signature == "ids":
            assert inputs["source_ids"].tolist() == [[2, 0, 0], [5, 6, 2]]
            assert inputs["source_lengths"].tolist() == [1, 3]
            found = {"target_ids": np.array([[2, 0, 0], [7, 8, 0]]), "score": np.array([-1, -9.0])}
            return found | self.other.get("ids", {})
        assert inputs["source"] == ["", "ab"]
        found = {"target": np.array([b"", b"x y"], object), "score": np.array([-1, -9.00005])}
        return found | self.other.get("texts", {})


def test_equal_answers_have_no_differences():
    assert list(checking.differences(Server(), ROWS)) == []


def test_another_model_is_said():
    class Other(Server):
        def predict(self, signature="serving_default", **inputs):
            found = super().predict(signature, **inputs)
            return {"scores": found["score"]} if signature == wrong else found

    for wrong, output in (("serving_default", "target"), ("ids", "target_ids")):
        (found,) = checking.differences(Other(), ROWS)
        assert found.text.startswith(f"{wrong}: {output}: expected {len(ROWS)} rows")


def test_what_differs_is_said():
    texts = {"target": np.array([b"", b"x z"], object), "score": np.array([-1, float("nan")])}
    ids = {"target_ids": np.array([[2, 0, 0], [7, 2, 0]]), "score": np.array([-1.1, -9.0])}
    found = list(checking.differences(Server(texts=texts, ids=ids), ROWS))
    assert found == [
        ("'': score of ids: expected -1.000000, got -1.100000", False),
        ("'ab': target: expected 'x y', got 'x z'", False),
        ("'ab': target_ids: expected [7, 8], got [7, 2]", False),
    ]
    texts = {"target": np.array([b"", b"x y"], object), "score": np.array([-1, float("nan")])}
    (found,) = checking.differences(Server(texts=texts), ROWS)
    assert found == ("'ab': score of texts: expected -9.000000, got nan", False)


def test_scores_may_be_as_far_off_as_is_said():
    ids = {"target_ids": np.array([[2, 0, 0], [7, 8, 0]]), "score": np.array([-1.0009, -9.008])}
    assert len(list(checking.differences(Server(ids=ids), ROWS))) == 2
    assert list(checking.differences(Server(ids=ids), ROWS, 1e-3)) == []
    for tolerance in (0, -1e-5, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="tolerance: expected a positive number, got"):
            list(checking.differences(Server(), ROWS, tolerance))


@pytest.mark.parametrize(
    ("gap", "tolerance", "tie"),
    [
        (9e-5, 1e-5, True),
        (2e-4, 1e-5, False),
        (2e-4, 1e-4, True),
        (None, 1e-5, False),
        (0.02, 0.5, False),
    ],
)
def test_ties_are_told_as_such(gap, tolerance, tie):
    rows = [ROWS[0], ROWS[1] | {"gap": gap}]
    ids = {"target_ids": np.array([[2, 0, 0], [7, 2, 0]]), "score": np.array([-1, -7.0])}
    (found,) = checking.differences(Server(ids=ids), rows, tolerance)
    assert found.tie == tie
    told = f" (a tie: two tokens are {gap:.1e} apart)" if tie else ""
    assert found.text == f"'ab': target_ids: expected [7, 8], got [7, 2]{told}"


def test_golden_texts_may_have_any_letter(tmp_path):
    rows = [{"source": "a\u2028b\x85c"}, {"source": "\u2029"}]
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    (tmp_path / "golden.jsonl").write_text("".join(lines), "utf-8")
    assert checking.golden(tmp_path) == rows


def test_files_are_found_in_both_places(tmp_path):
    (tmp_path / "assets.extra").mkdir()
    (tmp_path / "assets.extra/golden.jsonl").write_text('{"source": "é"}\n', "utf-8")
    (tmp_path / "assets.extra/keras_attn.json").write_text('{"name": "letters"}')
    for folder in (tmp_path, tmp_path / "assets.extra"):
        assert checking.golden(folder) == [{"source": "é"}]
        assert checking.name(folder) == "letters"
    with pytest.raises(FileNotFoundError, match="folder: there is no golden.jsonl"):
        checking.golden(tmp_path / "nowhere")
