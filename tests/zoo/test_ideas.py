"""Ideas are a recipe and what they change; what has been tried is kept."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from keras_attn import recipes

ZOO = Path(__file__).parent.parent.parent / "zoo"
NAME = "attention.dates_more"
IDEAS = """
recipe = "attention.dates"

[training]
epochs = 2

[[idea]]
name = "as it is"

[[idea]]
name = "wider, in smaller batches"
options = { units = 96 }
training = { batch_size = 32 }
"""


@pytest.fixture
def ideas(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ZOO))
    spec = importlib.util.spec_from_file_location("zoo_ideas", ZOO / "ideas.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("attention.dates", NAME):
        (tmp_path / name).mkdir()
    recipe = (ZOO / "attention.dates" / "recipe.toml").read_text()
    (tmp_path / "attention.dates" / "recipe.toml").write_text(recipe)
    (tmp_path / NAME / "ideas.toml").write_text(IDEAS)
    monkeypatch.setattr(module, "HERE", tmp_path)
    monkeypatch.setattr(module.train, "RUNS", tmp_path / "runs")
    yield module
    sys.modules.pop("train", None)


def test_an_idea_changes_what_it_names_alone(ideas):
    base = recipes.read(ZOO / "attention.dates" / "recipe.toml")
    same, other = ideas.read(NAME).values()
    assert same == base._replace(training=base.training | {"epochs": 2})
    assert other.options == base.options | {"units": 96}
    assert other.training == base.training | {"epochs": 2, "batch_size": 32}
    assert other.decoding == base.decoding and other.source == base.source


def test_an_idea_that_no_recipe_can_be_is_refused(ideas):
    file = ideas.HERE / NAME / "ideas.toml"
    file.write_text(IDEAS.replace("units = 96", "unit = 96"))
    with pytest.raises(TypeError, match="unit"):
        ideas.read(NAME)
    file.write_text(IDEAS.replace("[training]", "[trainings]"))
    with pytest.raises(ValueError, match="a recipe has no 'trainings'"):
        ideas.read(NAME)
    file.write_text(IDEAS.replace("wider, in smaller batches", "as it is"))
    with pytest.raises(ValueError, match="idea 1: expected a name of its own, got 'as it is'"):
        ideas.read(NAME)


def test_what_has_been_tried_is_kept(ideas, monkeypatch):
    trained = []

    def run(recipe, folder, seed, directory, callbacks):
        trained.append(recipe.options["units"])
        assert (seed, directory) == (0, "here") and not folder.exists()
        return None, dict.fromkeys(ideas.NOTED, recipe.options["units"]) | {"seed": 0}

    monkeypatch.setattr(recipes, "run", run)
    monkeypatch.setattr("sys.argv", ["ideas.py", NAME, "--data-dir", "here"])
    units = ideas.read(NAME)["as it is"].options["units"]
    ideas.main()
    ideas.main()
    assert trained == [units, 96]
    file = ideas.HERE / NAME / "ideas.json"
    found = json.loads(file.read_text())
    assert [of["measured"] for of in found.values()] == [units, 96]
    assert all(of["commit"] and of["machine"] and "seed" not in of for of in found.values())
    ideas_file = ideas.HERE / NAME / "ideas.toml"
    ideas_file.write_text(IDEAS.replace("units = 96", "units = 112"))
    ideas.main()
    assert trained == [units, 96, 112] and not list(file.parent.glob(".*"))
    ideas_file.write_text(IDEAS.replace("as it is", "as it was"))
    ideas.main()
    assert list(json.loads(file.read_text())) == ["as it was", "wider, in smaller batches"]


def test_one_idea_may_be_tried(ideas, monkeypatch, capsys):
    def run(recipe, folder, seed, directory, callbacks):
        meanwhile = ideas.load(NAME) | {"as it is": {"made_of": "another process"}}
        ideas.save(NAME, meanwhile)
        return None, dict.fromkeys(ideas.NOTED, 1)

    monkeypatch.setattr(recipes, "run", run)
    monkeypatch.setattr("sys.argv", ["ideas.py", NAME, "--only", "wider, in smaller batches"])
    ideas.main()
    assert list(ideas.load(NAME)) == ["as it is", "wider, in smaller batches"]
    monkeypatch.setattr("sys.argv", ["ideas.py", NAME, "--only", "luck"])
    with pytest.raises(SystemExit):
        ideas.main()
    assert "--only: expected one of 'as it is', " in capsys.readouterr().err


@pytest.mark.parametrize(
    "file", sorted(ZOO.glob("*/ideas.toml")), ids=lambda file: file.parent.name
)
def test_figures_are_of_the_ideas_that_are_told(file, ideas, monkeypatch):
    monkeypatch.setattr(ideas, "HERE", ZOO)
    told, found = ideas.read(file.parent.name), json.loads(file.with_suffix(".json").read_text())
    assert list(found) == list(told)
    for idea, recipe in told.items():
        assert recipes.changed(recipe, found[idea]["made_of"]) == []


def test_ideas_that_others_told_and_measured_meanwhile_are_kept(ideas, capsys):
    ideas.save(NAME, {"as it was": {"minutes": 0}})
    file = ideas.HERE / NAME / "ideas.toml"
    file.write_text(IDEAS + '\n[[idea]]\nname = "new"\n')
    ideas.add(NAME, "new", {"minutes": 3})
    ideas.add(NAME, "as it is", {"minutes": 1})
    assert ideas.load(NAME) == {"as it is": {"minutes": 1}, "new": {"minutes": 3}}
    assert list(ideas.load(NAME)) == ["as it is", "new"]
    assert "as it was: is in ideas.toml no more" in capsys.readouterr().out


def test_a_list_of_ideas_names_the_recipe_that_they_change(ideas):
    (ideas.HERE / NAME / "ideas.toml").write_text("[training]\nepochs = 2\n")
    with pytest.raises(ValueError, match="dates_more/ideas.toml: expected idea, recipe"):
        ideas.read(NAME)
