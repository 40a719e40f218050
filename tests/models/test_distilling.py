"""Soft targets of a teacher: against a loop over its single steps, and what may teach what."""

import itertools
import types

import keras
import numpy as np
import pytest
import small_models
import tensorflow as tf
from small_models import CHEAP, FEW, FEW_SPOKEN, small

from keras_attn import text, zoo
from keras_attn.models import distilling
from keras_attn.models.distilling import soft_targets
from keras_attn.text import pipeline
from keras_attn.text.pipeline import Ids

PAIRS = FEW, FEW_SPOKEN


def ids_of(rows):
    lengths = [len(row) for row in rows]
    values = np.array(list(itertools.chain(*rows)), np.int32)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return Ids(values, starts, np.zeros(len(rows), bool))


def stepped(model, source, target):
    """The probabilities of the next token at every place of a target, by single steps."""
    memory, state = model.encode(np.array([source]))
    for token in [1, *target[:-1]]:
        logits, _, state = model.step(np.array([token]), state, memory)
        odds = np.exp(np.asarray(logits[0], np.float64))
        yield odds / odds.sum()


@pytest.mark.parametrize("weight", [0.0, 0.6, 1.0])
@pytest.mark.parametrize(("pairs", "numbers"), [(2, 1000), (256, 1), (256, 2**24)])
def test_they_are_what_single_steps_give(monkeypatch, weight, pairs, numbers):
    monkeypatch.setattr(distilling, "PAIRS", pairs)
    monkeypatch.setattr(distilling, "NUMBERS", numbers)
    source, target = (
        text.WhitespaceTokenizer.learn([f"{side}{i}" for i in range(size - 4)])
        for side, size in (("s", 9), ("t", 14))
    )
    options = {"source": source, "target": target, "embedding_size": 6, "units": 8}
    models = [
        small_models.randomised(zoo.build(name, **options), 0.8, seed)
        for seed, name in enumerate(("attention", "combined"))
    ]
    sources = [[5, 6, 7, 2], [4, 2], [8, 2], [5, 2]]
    targets = [[4, 5, 2], [13, 12, 11, 10, 2], [2], [5, 5]]
    found = soft_targets(zoo.ensemble(models), ids_of(sources), ids_of(targets), weight)
    assert found.ids.shape == found.probabilities.shape == (11, 1 + distilling.KEPT)
    place = 0
    for source, target in zip(sources, targets, strict=True):
        each = [np.array(list(stepped(model, source, target))) for model in models]
        for t, token in enumerate(target):
            odds = np.sqrt(each[0][t] * each[1][t])  # the mean of log p
            best = np.argsort(-odds)[: distilling.KEPT]
            shares = [1 - weight, *weight * odds[best] / odds[best].sum()]
            assert found.ids[place].tolist() == [token, *best]
            np.testing.assert_allclose(found.probabilities[place], shares, atol=1e-5)
            place += 1


def test_a_small_vocabulary_is_kept_whole():
    tokenizer = text.WhitespaceTokenizer.learn(["a", "b"])
    model = zoo.build("attention", source=tokenizer, target=tokenizer, embedding_size=6, units=8)
    found = soft_targets(model, ids_of([[5, 2]]), ids_of([[4, 2]]), 1.0)
    assert found.ids.shape == (2, 7)
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, atol=1e-6)


def test_a_model_learns_what_its_teacher_takes_for_probable():
    teacher = small_models.randomised(small("combined", **CHEAP), 1.5)
    model = small("attention", dropout=0.0, **CHEAP)
    model.compile("adam")
    model.optimizer.learning_rate = 0.05
    log = model.fit(*PAIRS, teacher=teacher, epochs=60, verbose=0).history["loss"]
    rows = [
        pipeline.tokenized(pipeline.rows_of(encode, 64, finish), (texts,))
        for encode, finish, texts in (
            (model.source.tokenize, pipeline.source_ids, FEW),
            (model.target.tokenize, pipeline.target_ids, FEW_SPOKEN),
        )
    ]
    p = soft_targets(teacher, *rows, 1.0).probabilities[:, 1:]
    least = -(p * np.log(p)).sum(axis=1).mean()  # nobody can do better than the teacher's entropy
    assert 0 < log[-1] - least < 0.1 < 1 < log[0] - least


def test_a_teacher_of_no_weight_teaches_nothing():
    def weights(**taught):
        model = small("attention", dropout=0.0, **CHEAP)
        model.compile("sgd")
        model.fit(*PAIRS, seed=1, epochs=2, verbose=0, **taught)
        return model.get_weights()

    teacher = small("combined", **CHEAP)
    for found, expected in zip(
        weights(teacher=teacher, teacher_weight=0.0), weights(), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_validation_is_of_the_targets_themselves():
    model = small("attention", dropout=0.0, **CHEAP)
    model.compile("sgd", metrics=None)
    log = model.fit(*PAIRS, teacher=small("combined"), validation_data=PAIRS, verbose=0).history
    assert log["val_loss"][0] == pytest.approx(model.evaluate(*PAIRS, verbose=0), rel=1e-5)


@pytest.mark.parametrize(
    ("taught", "error", "message"),
    [
        ({"teacher": "attention"}, TypeError, "teacher: expected a Seq2Seq or an Ensemble, got s"),
        ({"teacher": types.SimpleNamespace()}, TypeError, "teacher: expected a Seq2Seq or an Ens"),
        ({"teacher_weight": 1.5}, ValueError, "teacher_weight: expected a number in .*, got 1.5"),
        ({"teacher_weight": True}, ValueError, "teacher_weight: expected a number in .*got True"),
    ],
)
def test_teachers_are_checked(taught, error, message):
    model = small("attention", **CHEAP)
    model.compile("sgd")
    with pytest.raises(error, match=message):
        model.fit(*PAIRS, **{"teacher": model, **taught})


def test_others_cannot_teach():
    model, copier = small("attention", **CHEAP), small("attention_copy", **CHEAP)
    ids = zoo.build("attention", source=9, target=8, units=4)
    shorter = small("attention", **CHEAP, max_source=8)
    for x in (model, copier):
        x.compile("sgd")
    with pytest.raises(ValueError, match="teacher: expected the source tokeniser of the model"):
        model.fit(*PAIRS, teacher=ids)
    with pytest.raises(ValueError, match="teacher: expected one that reads max_source=12"):
        model.fit(*PAIRS, teacher=shorter)
    for learner, teacher in ((model, copier), (copier, model), (copier, copier)):
        with pytest.raises(ValueError, match="teacher: a model that copies"):
            learner.fit(*PAIRS, teacher=teacher)
    x = {"source": np.array([[5, 2]]), "target_in": np.array([[1, 4]])}
    with pytest.raises(TypeError, match="teacher: goes with lists or arrays of strings"):
        model.fit(x, np.array([[4, 2]]), teacher=model)
    with pytest.raises(TypeError, match="teacher: goes with lists or arrays of strings"):
        model.fit(tf.data.Dataset.from_tensor_slices(PAIRS), teacher=model)
    for other in ({"loss": lambda y, logits: 0.0}, {"loss_weights": [2.0]}):
        model.compile("sgd", **other)
        with pytest.raises(ValueError, match="teacher: goes with the cross-entropy"):
            model.fit(*PAIRS, teacher=model)


@pytest.mark.parametrize(
    ("name", "options", "compiled", "fitted"),
    [
        ("attention_coverage", {}, {}, {}),
        ("attention_hard", {}, {}, {}),
        ("attention", {"dtype": "mixed_bfloat16"}, {}, {}),
        ("attention", {}, {"scheduled_sampling": 0.5}, {}),
        ("attention", {}, {"steps_per_execution": 2}, {"batch_size": 2}),
        ("attention", {"max_target": 4}, {}, {"too_long": "drop"}),
        ("attention", {}, {}, {"validation_split": 0.5}),
    ],
)
def test_a_teacher_goes_with_what_else_there_is(name, options, compiled, fitted):
    def losses(**taught):
        keras.utils.set_random_seed(3)
        model = small(name, **CHEAP, **options)
        model.compile("sgd", **compiled)
        return model.fit(*PAIRS, seed=1, epochs=2, verbose=0, **taught, **fitted).history["loss"]

    teacher = small_models.randomised(small("combined", **CHEAP), 1.5)
    alone, taught = losses(), losses(teacher=teacher)
    assert losses(teacher=teacher, teacher_weight=0.0) == pytest.approx(alone, rel=1e-3)
    assert np.isfinite(taught).all() and abs(taught[0] - alone[0]) > 0.03 * alone[0]
