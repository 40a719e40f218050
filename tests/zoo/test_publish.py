"""What is published is what was trained, and answers what it did."""

from __future__ import annotations

import importlib.util
import json
import tomllib
from pathlib import Path

import keras
import numpy as np
import pytest
import small_models
from apart import check

from keras_attn import recipes, zoo
from keras_attn.datasets import Pairs
from keras_attn.serving import checking, inspection
from keras_attn.serving.readme import readme
from keras_attn.serving.session import Session
from keras_attn.zoo import shipped

ROOT = Path(__file__).parent.parent.parent
ZOO = ROOT / "zoo"
PUBLISHED = sorted((ROOT / "saved_models").glob("*/1"))
NAME = "attention.dates"


@pytest.fixture
def publish(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ZOO)
    spec = importlib.util.spec_from_file_location("zoo_publish", ZOO / "publish.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "recipe.toml").write_text((ZOO / NAME / "recipe.toml").read_text())
    for owner, name, value in (
        (module, "HERE", tmp_path),
        (module, "SAVED_MODELS", tmp_path / "saved_models"),
        (module.train, "HERE", tmp_path),
        (module.train, "RUNS", tmp_path / "runs"),
        (shipped, "FOLDER", tmp_path / "weights"),
    ):
        monkeypatch.setattr(owner, name, value)
    return module


def test_a_run_becomes_weights_an_export_and_a_picture(publish, monkeypatch, capsys):
    model = small_models.shared("attention")
    run = publish.train.run_of(NAME, 1)
    run.mkdir(parents=True)
    model.save(run / "model.keras")
    results = publish.train.load(NAME) | {"runs": {"1": {"measured": {"sources": 3}}}}
    publish.train.save(NAME, results)
    asked = []

    def evaluated(path, name, seed, directory):
        asked.append((name, seed, directory))
        if path.suffix == ".keras":
            found = keras.saving.load_model(path, compile=False)
            for here, there in zip(found.get_weights(), model.get_weights(), strict=True):
                assert np.array_equal(here, np.float32(np.float16(there)))
        return {"sequence_error_rate": 0.25 if path.suffix == ".keras" else 0.125}

    monkeypatch.setattr(publish, "evaluated", evaluated)
    monkeypatch.setattr(
        publish.recipes, "pairs_of", lambda *_: (None, Pairs(small_models.WORDS, [["a"]] * 9))
    )
    monkeypatch.setattr("sys.argv", ["publish.py", NAME, "--seed", "1", "--data-dir", "here"])
    publish.main()
    assert asked == [(NAME, 1, str(Path("here").resolve()))] * 2
    assert capsys.readouterr().out == "package: 25.00% wrong\nsaved_model: 12.50% wrong\n"
    assert zoo.build(NAME).generate(["ab"])
    with Session(publish.SAVED_MODELS / NAME / "1") as session:
        said = session.run(source=small_models.WORDS)["target"]
    assert [text.decode() for text in said] == model.generate(small_models.WORDS)
    assert (publish.HERE / NAME / "alignments.png").stat().st_size > 1000
    found = publish.train.load(NAME)
    assert found["shipped"] == {
        "seed": 1,
        "package": {"sequence_error_rate": 0.25, "sha256": shipped.digest(NAME)},
        "saved_model": {
            "sequence_error_rate": 0.125,
            "sha256": publish.digest_of(publish.SAVED_MODELS / NAME / "1"),
        },
    }
    assert found["runs"] == results["runs"]

    def none(*_):
        raise AssertionError("nothing is to be published")

    monkeypatch.setattr(publish, "publish", none)
    monkeypatch.setattr("sys.argv", ["publish.py", NAME, "--seed", "1", "--again"])
    publish.main()
    assert asked[2:] == [(NAME, 1, None)] * 2
    assert publish.train.load(NAME) == found
    other = small_models.small("attention")
    other.set_weights([weight / 2 for weight in other.get_weights()])
    other.save(run / "model.keras")
    with pytest.raises(SystemExit):
        publish.main()
    assert f"what is published of {NAME} is not the run of seed 1" in capsys.readouterr().err
    model.save(run / "model.keras")
    assert publish.is_of(NAME, run)
    shipped.pack(other, NAME)  # the export is the run's, the package's weights are not
    assert not publish.is_of(NAME, run)


def test_large_weights_do_not_come_with_the_package(publish, monkeypatch):
    monkeypatch.setattr(publish, "MEGABYTES", 0.001)
    model = small_models.shared("attention")
    publish.pack(model, NAME)
    assert not shipped.FOLDER.exists()
    for name in (NAME, "attention.other"):
        shipped.pack(model, name)
    publish.pack(model, NAME)
    assert shipped.names() == ["attention.other"]
    assert [file.stem for file in shipped.FOLDER.glob("*.npz")] == ["attention.other"]


def test_what_was_not_trained_is_refused(publish, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["publish.py", NAME, "--seed", "7"])
    with pytest.raises(SystemExit):
        publish.main()
    assert f"{NAME} has no results of seed 7" in capsys.readouterr().err
    publish.train.save(
        NAME, publish.train.load(NAME) | {"runs": {"7": {"measured": {"sources": 3}}}}
    )
    monkeypatch.setattr("sys.argv", ["publish.py", NAME, "--seed", "7", "--again"])
    with pytest.raises(SystemExit):
        publish.main()
    assert f"--again: {NAME} has not been published" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["publish.py", NAME, "--seed", "7"])
    with pytest.raises(SystemExit):
        publish.main()
    assert f"there is no {publish.train.run_of(NAME, 7)}" in capsys.readouterr().err


def test_what_may_not_be_given_away_is_not_published(publish, monkeypatch, capsys):
    name = "attention.geo880"
    (publish.HERE / name).mkdir()
    (publish.HERE / name / "recipe.toml").write_text((ZOO / name / "recipe.toml").read_text())
    monkeypatch.setattr("sys.argv", ["publish.py", name])
    with pytest.raises(SystemExit):
        publish.main()
    assert "of data whose licence is not stated no model is given away" in capsys.readouterr().err
    files = [ZOO / path.parent.name / "recipe.toml" for path in PUBLISHED]
    data = {tomllib.loads(file.read_text())["data"] for file in files}  # teachers are not there
    assert data and all(recipes.DATA[name].ABOUT.shared for name in data)


def test_something_is_published():
    assert {path.parent.name for path in PUBLISHED} >= set(zoo.names(weights=True)) != set()


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.parent.name)
def test_what_is_published_answers_as_it_did(path):
    rows = checking.golden(path)
    with Session(path) as session:
        found = session.run(source=[row["source"] for row in rows])
    for row, text, score in zip(rows, found["target"], found["score"], strict=True):
        if text.decode() != row["target"]:
            assert row["gap"] is not None and row["gap"] < 1e-4, row
            continue
        assert abs(score - row["score"]) <= 1e-5 * max(1, abs(row["score"]))
    files = [file for file in path.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 14_000_000


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.parent.name)
def test_what_is_published_is_as_exports_are_now(path):
    described = json.loads((path / "assets.extra" / "keras_attn.json").read_text("utf-8"))
    assert (path / "README.md").read_text("utf-8") == readme(described, path)
    assert not (path / "fingerprint.pb").exists()
    if small_models.EVIDENCE:
        check(path, set(inspection.inspect(path).operations))


@pytest.mark.parametrize("name", zoo.names(weights=True))
def test_the_package_says_what_the_export_does(name):
    rows = checking.golden(ROOT / "saved_models" / name / "1")[:-1]  # the last one is cut
    said = zoo.build(name).generate([row["source"] for row in rows])
    for row, text in zip(rows, said, strict=True):  # of weights that were rounded to float16
        assert text == row["target"] or row["gap"] < 0.05, row


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.parent.name)
def test_what_is_published_measures_what_the_run_did(path):
    results = json.loads((ZOO / path.parent.name / "results.json").read_text())
    found = results["shipped"]
    run = results["runs"][str(found["seed"])]["measured"]
    one = 1 / run["sources"]
    for key in ("sequence_error_rate", "token_error_rate"):
        assert abs(found["saved_model"][key] - run[key]) <= one, key
        assert found["package"] is None or abs(found["package"][key] - run[key]) <= 3 * one, key


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.parent.name)
def test_what_was_measured_is_what_is_published(publish, monkeypatch, path):
    monkeypatch.undo()
    name = path.parent.name
    found = json.loads((ZOO / name / "results.json").read_text())["shipped"]
    assert found["saved_model"]["sha256"] == publish.digest_of(path)
    assert (found["package"] is None) == (name not in shipped.names())
    assert found["package"] is None or found["package"]["sha256"] == shipped.digest(name)


@pytest.mark.skipif(not small_models.EVIDENCE, reason="asks a thousand dates: make evidence")
def test_the_dates_measure_what_is_told(publish, monkeypatch):
    monkeypatch.undo()
    found = json.loads((ZOO / NAME / "results.json").read_text())["shipped"]
    told = found["saved_model"]
    said = publish.evaluated(ROOT / "saved_models" / NAME, NAME, found["seed"], None)
    assert said == {key: told[key] for key in told if key != "sha256"}


@pytest.mark.parametrize(
    "path", sorted((ZOO.parent / "saved_models").glob("*/1")), ids=lambda path: path.parent.name
)
def test_exports_hold_the_notice_of_what_they_were_trained_on(path):
    data = recipes.read(ZOO / path.parent.name / "recipe.toml").data
    notices = {file.name: file.read_text("utf-8") for file in ZOO.parent.glob(f"LICENSE.{data}")}
    held = {file.name: file.read_text("utf-8") for file in (path / "assets.extra").glob("LICENSE*")}
    assert held == notices
    assert notices or data == "dates"  # written with CLDR's data, which Babel brings
