"""A served model follows its folder, and never takes half a version."""

from __future__ import annotations

import shutil

import pytest
import small_models

from keras_attn.serving import servable as servable_module
from keras_attn.serving.servable import Refused, Servable, answered
from keras_attn.serving.session import Session, SessionError


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("servable") / "letters" / "3"
    return shutil.copytree(small_models.exported("context_as_init", **small_models.CHEAP), path)


def test_it_serves_the_newest_version(exported, tmp_path):
    told = []
    base = tmp_path / "other name"
    for name in ("1", "2"):
        shutil.copytree(exported, base / name)
    (base / "9").mkdir()
    servable = Servable(base, tell=told.append)
    assert servable.name == "letters" and servable.version("letters").number == 2
    before = servable.version("letters", 2).session
    shutil.copytree(exported, base / "10")
    (base / "11").mkdir()
    (base / "11" / "saved_model.pb").write_bytes(b"no model")
    servable.look()
    assert "version 11 does not load" in told[1] and len(told) == 3
    assert servable.version("letters").number == 10
    assert len(before.run(source=["a"])["target"]) == 1  # what has begun is answered
    servable.look()
    assert len(told) == 3
    shutil.copytree(exported, base / "11", dirs_exist_ok=True)  # its files come one by one
    servable.look()
    assert servable.version("letters").number == 11 and len(told) == 4
    (base / "12").mkdir()
    (base / "12" / "saved_model.pb").write_bytes(b"no model")
    again = Servable(base, tell=told.append)
    assert again.version("letters").number == 11 and "version 12 does not load" in told[4]
    shutil.rmtree(base / "11")
    assert "serving_default" in again.version("letters").definitions()
    assert Servable(exported, "mine", told.append).version("mine").number == 3


def test_a_version_without_its_weights_is_not_taken(exported, tmp_path, monkeypatch):
    """TensorFlow loads it all the same, and fails at the first request."""
    told = []
    shutil.copytree(exported, tmp_path / "1")
    servable = Servable(tmp_path, "letters", tell=told.append)
    shutil.copytree(exported, tmp_path / "2", ignore=shutil.ignore_patterns("variables"))
    servable.look()
    assert servable.version("letters").number == 1 and "weights are not there" in told[-1]
    files = shutil.copytree(exported / "variables", tmp_path / "copied")

    def arriving(*arguments):
        session = Session(*arguments)
        shutil.copytree(files, tmp_path / "2" / "variables")
        return session

    with monkeypatch.context() as patch:  # what comes behind the look is not taken for loaded
        patch.setattr(servable_module, "Session", arriving)
        servable._failed.clear()
        servable.look()
    assert servable.version("letters").number == 1
    (tmp_path / "2" / "variables").mkdir()
    shutil.move(files / "variables.index", tmp_path / "2" / "variables")
    servable.look()
    assert servable.version("letters").number == 1 and "version 2 does not load" in told[-1]
    for file in files.iterdir():
        shutil.move(file, tmp_path / "2" / "variables")
    servable.look()
    assert len(servable.version("letters", 2).session.run(source=["a"])["target"]) == 1


def test_it_goes_back_when_its_version_is_removed(exported, tmp_path):
    told = []
    for name in ("1", "2"):
        shutil.copytree(exported, tmp_path / name)
    servable = Servable(tmp_path, "letters", tell=told.append)
    shutil.rmtree(tmp_path / "2")
    servable.look()
    assert servable.version("letters").number == 1 and len(told) == 2
    shutil.rmtree(tmp_path / "1")
    servable.look()
    assert servable.version("letters").number == 1 and len(told) == 2  # it is all there is
    assert len(servable.version("letters").session.run(source=["a"])["target"]) == 1


def test_a_version_may_have_to_answer_its_warm_up_requests(exported, tmp_path):
    told = []
    for name in ("1", "2", "3"):
        shutil.copytree(exported, tmp_path / name)
    place = "assets.extra/tf_serving_warmup_requests"
    (tmp_path / "3" / place).write_bytes(b"garbage")
    raw = (tmp_path / "2" / place).read_bytes()
    (tmp_path / "2" / place).write_bytes(raw[:-30] + b"x" + raw[-29:])
    servable = Servable(tmp_path, "letters", told.append, warm_up=True)
    assert servable.version("letters").number == 1
    assert ["left out" in line and "warm-up" in line for line in told] == [True, True, False]
    signatures = len(servable.version("letters").session.signatures)
    assert servable_module.warmed_up(servable.version("letters")) == signatures
    (tmp_path / "1" / place).unlink()
    assert servable_module.warmed_up(servable.version("letters")) == 0
    assert Servable(tmp_path, "letters", told.append).version("letters").number == 3


def test_what_is_not_there_is_refused(exported, tmp_path):
    servable = Servable(exported, tell=lambda _: None)
    for name, number, asked in (("x", None, r"Latest\(x\)"), ("letters", 4, r"letters, 4\)")):
        with pytest.raises(Refused, match=asked) as refused:
            servable.version(name, number)
        assert refused.value.code == "NOT_FOUND"
    (tmp_path / "1").mkdir()
    with pytest.raises(FileNotFoundError, match="path: there is no exported model"):
        Servable(tmp_path)


def test_what_goes_wrong_in_looking_is_said_and_looked_at_again(exported, tmp_path, monkeypatch):
    told, base = [], tmp_path / "letters"
    shutil.copytree(exported, base / "1")
    (base / "²").mkdir()
    (base / "²" / "saved_model.pb").touch()  # a digit, but no number
    servable = Servable(base, tell=told.append)
    shutil.copytree(exported, base / "2")
    (base / "2" / "assets.extra" / "keras_attn.json").write_text("[]")  # no object
    waits = iter([False, False, True])
    monkeypatch.setattr(servable._stopped, "wait", lambda seconds: next(waits))
    stamp, fails = servable_module._stamp, iter([True])

    def stamped(path):
        if next(fails, False):
            raise FileNotFoundError("gone meanwhile")
        return stamp(path)

    monkeypatch.setattr(servable_module, "_stamp", stamped)
    servable.follow()
    assert "FileNotFoundError: gone meanwhile" in told[1]
    assert "version 2 does not load, and is left out" in told[2] and len(told) == 3
    assert servable.version("letters").number == 1


def test_errors_keep_their_codes():
    def fails(error):
        raise error

    with pytest.raises(Refused) as refused:
        answered(fails, SessionError("Running", "RESOURCE_EXHAUSTED", "too much\nat a node"))
    assert (refused.value.code, refused.value.message) == ("RESOURCE_EXHAUSTED", "too much")
    with pytest.raises(Refused) as refused:
        answered(fails, ValueError("the input"))
    assert (refused.value.code, refused.value.message) == ("INVALID_ARGUMENT", "the input")
