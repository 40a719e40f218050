"""Training of the zoo: what is kept, what is made anew, and what is said of it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path

import pytest

ZOO = Path(__file__).parent.parent.parent / "zoo"
NAME = "attention.dates"


@pytest.fixture
def train(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("zoo_train", ZOO / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "recipe.toml").write_text((ZOO / NAME / "recipe.toml").read_text())
    monkeypatch.setattr(module, "HERE", tmp_path)
    monkeypatch.setattr(module, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(module, "commit", lambda *files: "abc")
    return module


def change(train, old, new):
    file = train.HERE / NAME / "recipe.toml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def run(exact, sources=10):
    return {"measured": {"sources": sources, "exact_match": exact}}


def test_more_seeds_and_comments_keep_results(train):
    train.save(NAME, train.load(NAME) | {"runs": {"0": run(0.5)}})
    change(train, "seeds = [0, 1, 2]", "seeds = [0, 1, 2, 3]  # one more")
    assert train.load(NAME)["runs"] == {"0": run(0.5)}
    change(train, "beam_size = 1", "beam_size = 2")
    assert train.load(NAME)["runs"] == {}


def test_another_default_makes_results_anew(train, capsys):
    results = train.load(NAME) | {"runs": {"0": run(0.5)}}
    file = train.HERE / NAME / "results.json"
    file.write_text(json.dumps(results | {"made_of": results["made_of"] | {"options.cell": "gru"}}))
    assert train.load(NAME)["runs"] == {}
    assert f"{NAME}: options.cell changed, so that" in capsys.readouterr().out
    before = {key: x for key, x in results["made_of"].items() if key != "options.copy"}
    file.write_text(json.dumps(results | {"made_of": before}))  # which came after these results
    assert train.load(NAME)["runs"] == {"0": run(0.5)}


def test_another_way_of_decoding_trains_nothing_anew(train):
    before = train.run_of(NAME, 0)
    change(train, "beam_size = 1", "beam_size = 2")
    assert train.run_of(NAME, 0) == before != train.run_of(NAME, 1)
    change(train, "epochs = 15", "epochs = 16")
    assert train.run_of(NAME, 0) != before


def test_processes_do_not_lose_each_others_results(train, monkeypatch):
    def meanwhile(name, seed, directory, again):
        others = train.load(name)
        others["runs"]["1"] = run(0.25)
        train.save(name, others)
        return run(0.75)

    monkeypatch.setattr(train, "train", meanwhile)
    monkeypatch.setattr("sys.argv", ["train.py", NAME, "--seed", "0"])
    train.main()
    results = json.loads((train.HERE / NAME / "results.json").read_text())
    assert results["runs"] == {"0": run(0.75), "1": run(0.25)}
    assert results["summary"]["exact_match"] == {"mean": 0.5, "least": 0.25, "most": 0.75}


def test_a_recipe_that_changed_during_its_training_gets_no_results(train, monkeypatch):
    before = train.recipes.read(train.HERE / NAME / "recipe.toml")
    train.add(NAME, before, "runs", 1, run(0.25))
    told = (train.HERE / NAME / "results.json").read_text()
    change(train, "epochs = 15", "epochs = 16")
    with pytest.raises(ValueError, match="training.epochs changed while seed 0 was trained"):
        train.add(NAME, before, "runs", 0, run(0.75))
    assert (train.HERE / NAME / "results.json").read_text() == told


def test_seeds_are_those_of_the_recipe(train, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["train.py", NAME, "--seed", "7"])
    with pytest.raises(SystemExit):
        train.main()
    assert "--seed: expected one of [0, 1, 2] for" in capsys.readouterr().err


def test_what_can_be_mended_is_one_line(train, monkeypatch):
    monkeypatch.setattr("sys.argv", ["zoo/errors.py"])
    with pytest.raises(SystemExit, match=r"^errors.py: No module named 'names'$"), train.told():
        raise ModuleNotFoundError("No module named 'names'")
    with pytest.raises(KeyError), train.told():
        raise KeyError("a fault of ours")


def test_what_has_results_is_trained_again_when_that_is_asked(train, monkeypatch, capsys):
    asked = []

    def trained(*given):
        asked.append(given)
        return run(0.25 if given[-1] else 0.75)

    monkeypatch.setattr(train, "train", trained)
    for options in ([], ["--data-dir", "here"], ["--again", "--data-dir", "here"]):
        monkeypatch.setattr("sys.argv", ["train.py", NAME, "--seed", "0", *options])
        train.main()
    assert asked == [(NAME, 0, None, False), (NAME, 0, str(Path("here").resolve()), True)]
    assert f"{NAME}, seed 0: there are results" in capsys.readouterr().out
    results = json.loads((train.HERE / NAME / "results.json").read_text())
    assert results["runs"] == {"0": run(0.75)} and results["reruns"] == {"0": run(0.25)}
    assert results["summary"]["exact_match"]["mean"] == 0.75
    assert train.run_of(NAME, 0, True) != train.run_of(NAME, 0)
    monkeypatch.setattr("sys.argv", ["train.py", NAME, "--again"])
    train.main()
    assert f"{NAME}, seed 1: there are no results yet" in capsys.readouterr().out
    assert len(asked) == 2


def test_what_a_model_learnt_from_is_noted(train):
    recipe = train.recipes.read(ZOO / "attention.cmudict_best" / "recipe.toml")
    found = train.taught(recipe)["teachers"]
    assert found == {name: train.shipped.digest(name) for name in recipe.training["teacher"]}
    assert train.taught(train.recipes.read(ZOO / NAME / "recipe.toml")) == {}


def test_folds_count_by_their_sources(train):
    found = train.summary({"0": run(0.5, 30), "1": run(1.0, 10)})
    assert found["exact_match"] == {"mean": 0.625, "least": 0.5, "most": 1.0}
    assert "bleu" not in found


def test_a_run_says_by_what_it_was_made(train, monkeypatch):
    folder = train.run_of(NAME, 0)
    first = train.made(folder)
    assert first["commit"] == "abc" and set(first["versions"]) == set(train.VERSIONS)
    monkeypatch.setattr(train, "commit", lambda *files: "def")
    assert train.made(folder)["commit"] == "abc, def"
    assert train.made(folder)["commit"] == "abc, def"
    assert train.made(train.run_of(NAME, 1))["commit"] == "def"
    assert not folder.exists()  # it is for the run to make
    monkeypatch.setattr(train, "machine", lambda: "a slow one, 1 core")
    for _ in range(2):
        last = train.made(folder)
        assert last["machine"] == f"{first['machine']}; a slow one, 1 core"
    folder.mkdir()
    (folder / "model.keras").touch()  # the run has ended
    train.most_memory(folder, 700)
    monkeypatch.setattr(train, "machine", lambda: "one that measures")
    monkeypatch.setattr(train, "commit", lambda *files: "ghi")
    assert train.made(folder) == last


def test_a_run_that_is_measured_again_took_the_memory_of_its_training(train, monkeypatch):
    found = {"measured": {"sources": 10, "exact_match": 0.5}}

    def process(megabytes):
        told = json.dumps(found | {"peak_memory_mb": megabytes})
        done = subprocess.CompletedProcess([], 0, told)
        monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
        return train.train(NAME, 0, None)

    first, again, more = process(1000), process(700), process(1200)
    assert [x["peak_memory_mb"] for x in (first, again, more)] == [1000, 1000, 1200]
    assert again | {"peak_memory_mb": 1200} == more and again["measured"] == found["measured"]
    assert again["command"] == f"keras-attn train zoo/{NAME}/recipe.toml --seed 0 --out run"


def test_a_run_that_fails_ends_it(train, monkeypatch):
    def failing(command, **options):
        return subprocess.CompletedProcess(command, 2, "")

    monkeypatch.setattr(subprocess, "run", failing)
    monkeypatch.setattr("sys.argv", ["train.py", NAME])
    with pytest.raises(SystemExit) as stopped:
        train.main()
    assert stopped.value.code == 2
    assert not (train.HERE / NAME / "results.json").exists()


def test_a_folder_of_data_is_of_one_data_set(train, monkeypatch, capsys):
    (train.HERE / "attention.cmudict").mkdir()
    recipe = (ZOO / "attention.cmudict" / "recipe.toml").read_text()
    (train.HERE / "attention.cmudict" / "recipe.toml").write_text(recipe)
    monkeypatch.setattr("sys.argv", ["train.py", "--data-dir", "here"])
    with pytest.raises(SystemExit):
        train.main()
    assert "expected NAMEs of one data set, got cmudict, dates" in capsys.readouterr().err
