"""A run in a folder: resumed exactly, stopped early, the best kept."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import small_models

from keras_attn import training, zoo
from keras_attn.training import runs

WORDS, SPOKEN = small_models.WORDS, small_models.SPOKEN
VALIDATION = ["abc", "abc", "de"], ["wrong", "c b a", "e d"]
SPENT = ("seconds", "measuring")  # of the log, which no two runs have alike


def learner(seed=0, dropout=0.3):
    keras.utils.set_random_seed(seed)
    source, target = small_models.tokenizers()
    options = {
        "size": "tiny",
        "dropout": dropout,
        **small_models.CHEAP,
    }  # each run makes its graphs
    return zoo.build("context_as_init", source=source, target=target, **options)


def trained(folder, model=None, epochs=4, **options):
    model = model or learner()
    options = {"batch_size": 3, **options}
    return model, training.train(
        model, (WORDS, SPOKEN), VALIDATION, folder, epochs=epochs, **options
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder, the model and the log of a run that has ended."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    return folder, *trained(folder)


@pytest.fixture
def copied(finished, tmp_path):
    """A folder like it, to be changed."""
    return shutil.copytree(finished[0], tmp_path / "copied")


def state_of(folder):
    with np.load(folder / runs.STATE) as held:
        return {key: held[key] for key in held.files if key != "progress"}


class Interrupt(keras.callbacks.Callback):
    """Break off in the middle of an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch, self.now = epoch, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.now == self.epoch and batch == 1:
            raise KeyboardInterrupt


@small_models.evidence  # what is killed goes on alike, which is tested always
def test_resumed_equals_uninterrupted(finished, tmp_path):
    whole, model, log = finished
    for epoch in (0, 1, 3):
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path / "broken", callbacks=[Interrupt(epoch)])
    again, log_again = trained(tmp_path / "broken", learner(seed=9))
    expected, found = state_of(whole), state_of(tmp_path / "broken")
    assert expected.keys() == found.keys()
    assert all(np.array_equal(expected[key], found[key]) for key in expected)
    assert all(map(np.array_equal, model.get_weights(), again.get_weights()))
    measured = [{k: v for k, v in e.items() if k not in SPENT} for e in log]
    assert measured == [{k: v for k, v in e.items() if k not in SPENT} for e in log_again]


KILLED = f"""
import sys, pathlib, test_runs
from keras_attn.kernels import cores
cores._parts = {None if small_models.EVIDENCE else 1}  # as in the process of the tests
test_runs.trained(pathlib.Path(sys.argv[1]), epochs=12)
"""


def test_killed_equals_uninterrupted(tmp_path):
    trained(tmp_path / "whole", epochs=12)
    path = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    killed = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "killed")],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    log = tmp_path / "killed" / runs.LOG
    while killed.poll() is None and not (log.exists() and log.read_text().count("\n") > 1):
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    error = killed.communicate()[1]
    assert log.exists(), error[-2000:]
    assert not (tmp_path / "killed" / runs.MODEL).exists(), "it was to be killed on the way"
    trained(tmp_path / "killed", learner(seed=9), epochs=12)  # another process goes on
    expected, found = state_of(tmp_path / "whole"), state_of(tmp_path / "killed")
    assert all(np.array_equal(expected[key], found[key]) for key in expected)


def test_the_folder_has_the_best_model(tmp_path):
    model, log = trained(tmp_path, epochs=6, monitor="exact_match", learning_rate=0.02)
    loaded = keras.saving.load_model(tmp_path / runs.MODEL)
    assert all(map(np.array_equal, model.get_weights(), loaded.get_weights()))
    best = max(entry["val_exact_match"] for entry in log)
    assert model.generation_metrics(*training.runs.grouped(*VALIDATION))["exact_match"] == best
    assert [json.loads(line) for line in (tmp_path / runs.LOG).read_text().splitlines()] == log
    assert set(os.listdir(tmp_path)) == {runs.STATE, runs.BEST, runs.LOG, runs.MODEL}


def test_the_best_by_bleu(tmp_path, monkeypatch):
    asked, scores = [], iter([100.0, 30.0, 70.0, 50.0])  # the first is asked before any work

    def scored(said, wanted, **options):
        asked.append((said, wanted, options))
        return {"bleu": next(scores)}

    monkeypatch.setattr(runs, "translation_scores", scored)
    options = {"epochs": 3, "monitor": "bleu", "learning_rate": 0.02, "by_row": True}
    model, log = trained(tmp_path, **options)
    assert [entry["val_bleu"] for entry in log] == [30.0, 70.0, 50.0]
    assert training.best(log, "bleu") == log[1]
    sources, targets = VALIDATION
    wanted = [[target] for target in targets]
    assert asked[2] == (model.generate(sources), wanted, {"lowercase": True})


def test_bleu_is_known_to_be_missing_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    with pytest.raises(ImportError, match="sacrebleu, which is not installed"):
        trained(tmp_path / "run", monitor="bleu")
    assert not (tmp_path / "run").exists()


def test_several_references_count():
    model = small_models.shared("attention")
    found = model.generation_metrics(["abc"], [["wrong", model.generate("abc")]])
    assert found == {"exact_match": 1.0, "edit_distance_rate": 0.0}


def test_patience_stops_and_stays_stopped(tmp_path):
    options = {"epochs": 30, "patience": 2, "learning_rate": 1e-12, "average": 0}
    _, log = trained(tmp_path, **options)
    assert len(log) == 3
    _, again = trained(tmp_path, **options)
    assert again == log


def test_a_finished_run_is_not_run_again(finished, copied):
    _, model, log = finished
    again, log_again = trained(copied, learner(seed=5))
    assert log_again == log
    assert all(map(np.array_equal, model.get_weights(), again.get_weights()))


@pytest.mark.parametrize(
    ("argument", "value"),
    [("monitor", "luck"), ("epochs", 0), ("patience", 0), ("batch_size", 2.5), ("average", 1)],
)
def test_arguments_are_checked_before_any_work(tmp_path, argument, value):
    with pytest.raises(ValueError, match=f"{argument}: expected"):
        trained(tmp_path / "run", **{argument: value})
    assert not (tmp_path / "run").exists()


def test_a_teacher_is_checked_before_any_work(tmp_path):
    with pytest.raises(TypeError, match="teacher: expected a Seq2Seq or an Ensemble, got str"):
        trained(tmp_path / "run", teacher="attention.cmudict")
    with pytest.raises(ValueError, match="teacher_weight: expected a number"):
        trained(tmp_path / "run", teacher=learner(), teacher_weight=2)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("validation", [([], []), (["abc"], [])])
def test_validation_is_checked_before_any_work(tmp_path, validation):
    with pytest.raises(ValueError, match="validation: expected as many targets as sources"):
        training.train(learner(), (WORDS, SPOKEN), validation, tmp_path / "run", epochs=1)
    assert not (tmp_path / "run").exists()


def test_a_validation_of_no_texts_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"validation\[1\] must be str or bytes. Received: 3"):
        training.train(
            learner(), (WORDS, SPOKEN), (["a", "b"], ["A", 3]), tmp_path / "run", epochs=1
        )
    assert not (tmp_path / "run").exists()


def test_a_model_of_ids_is_refused(tmp_path):
    model = zoo.build("attention", source=9, target=9, size="tiny")
    with pytest.raises(TypeError, match="model: expected one with tokenisers"):
        training.train(model, (WORDS, SPOKEN), VALIDATION, tmp_path / "run", epochs=1)
    assert not (tmp_path / "run").exists()


def test_the_schedule_is_as_long_as_the_run(tmp_path):
    batches = []
    counter = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: batches.append(batch)
    )
    trained(tmp_path, epochs=3, batch_size=8, callbacks=[counter])
    with np.load(tmp_path / runs.STATE) as held:
        progress = json.loads(str(held["progress"]))
    assert progress["settings"]["steps"] == len(batches)
    assert len(batches) > 3 * 1  # 8 pairs fill a batch of 8, but are of two widths


@pytest.mark.parametrize("changed", [{"learning_rate": 1e-3}, {"epochs": 9}, {"seed": 4}])
def test_other_settings_are_refused(copied, changed):
    with pytest.raises(ValueError, match=f"holds a run with .*{next(iter(changed))}"):
        trained(copied, **changed)


def others(what):
    model, pairs, validation = learner(), (WORDS, SPOKEN), VALIDATION
    if what == "data, by a target":
        pairs = WORDS, [*SPOKEN[:-1], SPOKEN[-1] + " a"]
    elif what == "data, by what is held out":
        validation = [*VALIDATION[0][:-1], "ed"], VALIDATION[1]
    elif what == "model, of equal weights":
        model = learner(dropout=0.4)
    return model, pairs, validation


@pytest.mark.parametrize(
    "what", ["nothing", "data, by a target", "data, by what is held out", "model, of equal weights"]
)
def test_other_data_and_models_are_refused_and_left_as_they_are(copied, what):
    model, pairs, validation = others(what)
    before = [weight.numpy() for weight in model.weights]
    options = {"epochs": 4, "batch_size": 3}
    if what == "nothing":
        assert len(training.train(model, pairs, validation, copied, **options)) == 4
        assert any((a != b.numpy()).any() for a, b in zip(before, model.weights, strict=True))
        return
    with pytest.raises(ValueError, match=f"holds a run with .*'{what.partition(',')[0]}'"):
        training.train(model, pairs, validation, copied, **options)
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_a_model_is_known_again_however_many_were_made_before(tmp_path):
    hashes = {runs._configuration(learner()) for _ in range(3)}
    assert len(hashes) == 1 and runs._configuration(learner(dropout=0.4)) not in hashes
    assert (
        len({runs._texts(x) for x in ([[b"ab"], [b"c"]], [[b"a"], [b"bc"]], [[b"a", b"bc"], []])})
        == 3
    )


def test_a_damaged_folder_is_refused(copied):
    whole = (copied / runs.STATE).read_bytes()
    (copied / runs.STATE).write_bytes(whole[:1000])
    with pytest.raises(ValueError, match="state.npz' is damaged"):
        trained(copied)
    (copied / runs.STATE).write_bytes(whole)
    (copied / runs.BEST).unlink()
    with pytest.raises(ValueError, match="has lost its best.npz"):
        trained(copied)


def test_what_is_no_number_is_never_best():
    log = [{"val_loss": float("nan")}, {"val_loss": 2.0}, {"val_loss": 1.0}, {"val_loss": 1.0}]
    assert training.best(log, "loss") is log[2]
    assert training.finite({"a": float("inf"), "b": 1.0}) == {"a": None, "b": 1.0}


class Stopper(keras.callbacks.Callback):
    """Ask to stop in the first epoch."""

    def on_train_batch_end(self, batch, logs=None):
        self.model.stop_training = True


def test_a_callback_may_stop_the_run(tmp_path):
    assert len(trained(tmp_path, callbacks=[Stopper()])[1]) == 1


def test_rows_may_count_for_themselves(tmp_path):
    model, log = trained(tmp_path / "a", epochs=1)
    by_row, rows = trained(tmp_path / "b", epochs=1, by_row=True)
    said = model.generate(VALIDATION[0])
    right = [a == b for a, b in zip(said, VALIDATION[1], strict=True)]
    assert rows[0]["val_exact_match"] == pytest.approx(sum(right) / 3)
    assert log[0]["val_loss"] == rows[0]["val_loss"]
    edits = model.generation_metrics(VALIDATION[0], [[target] for target in VALIDATION[1]])
    assert rows[0]["val_edit_distance_rate"] == pytest.approx(edits["edit_distance_rate"])
    assert rows[0]["val_edit_distance_rate"] != log[0]["val_edit_distance_rate"]
