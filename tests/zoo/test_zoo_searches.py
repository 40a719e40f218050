"""What a search brings: against counts by hand of a model that answers from a list."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from keras_attn import datasets, recipes, zoo
from keras_attn.zoo import shipped

ZOO = Path(__file__).parent.parent.parent / "zoo"
NAME = "attention.cmudict"


@pytest.fixture
def searches(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ZOO))
    spec = importlib.util.spec_from_file_location("zoo_searches", ZOO / "searches.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "HERE", tmp_path)
    for name in (NAME, "attention.slovene"):
        (tmp_path / name).mkdir()
        recipe = (ZOO / name / "recipe.toml").read_text()
        (tmp_path / name / "recipe.toml").write_text(recipe)
        (tmp_path / name / "results.json").write_text('{"shipped": {"seed": 0}}')
    yield module
    sys.modules.pop("train", None)


class Model:
    """Answers a word by itself; a beam finds a better one for "ab", and a worse one for "cd"."""

    class target:
        cleaning = zoo.build(NAME).target.cleaning

    def generate(self, sources, num_return, return_scores, **options):
        assert return_scores and num_return == options.get("beam_size", 1)
        texts, scores = [], []
        for source in sources:
            texts.append([" ".join(source), "Z"][:num_return])
            scores.append([-1.0, -2.0][:num_return])
            if num_return > 1 and source != "ef":
                texts[-1].reverse()
                scores[-1][0] = -0.5 if source == "ab" else -3.0
        return texts, scores


def test_answers_scores_and_lists_are_counted(searches):
    found, scores = searches.searched(
        Model(), ["ab", "cd", "ef"], [["A B", "Z"], ["c d"], ["e x"]], {"beam_size": 2}, str.split
    )
    assert found["exact_match"] == pytest.approx(1 / 3)
    assert found["token_error_rate"] == pytest.approx((0 + 2 + 1) / (1 + 2 + 2))
    assert found["in_the_list"] == pytest.approx(2 / 3)
    np.testing.assert_array_equal(scores, [-0.5, -3.0, -1.0])


def test_what_was_found_is_written(searches, monkeypatch):
    monkeypatch.setattr(zoo, "build", lambda name: Model())
    held_out = datasets.Pairs(["ab", "cd", "cd", "ef"], ["a b", "c", "c d", "e x"])
    monkeypatch.setattr(recipes, "pairs_of", lambda *given: (None, held_out))
    monkeypatch.setattr(sys, "argv", ["searches.py", NAME])
    searches.main()
    found = json.loads((searches.HERE / NAME / "searches.json").read_text())
    assert (found["sources"], found["weights_sha256"]) == (3, shipped.digest(NAME))
    greedy, beam = (found["searches"][name] for name in ("greedy", "beam 2"))
    assert (greedy["exact_match"], greedy["lower"]) == (pytest.approx(2 / 3), 0)
    assert (beam["exact_match"], beam["lower"]) == (0, 1)
    assert greedy["mean_score"] == -1 and beam["mean_score"] == -1.5


def test_running_text_is_refused(searches, monkeypatch, capsys):
    monkeypatch.setattr(zoo, "build", lambda name: Model())
    monkeypatch.setattr(sys, "argv", ["searches.py", "attention.slovene"])
    with pytest.raises(SystemExit):
        searches.main()
    assert "NAME: expected data in which a source counts once" in capsys.readouterr().err
