"""Callbacks: NaN gives good weights back, epochs have their own order, whole sequences measured."""

import math
import types
import warnings

import keras
import numpy as np
import pytest
import small_models
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_attn import zoo
from keras_attn.text import CharacterTokenizer
from keras_attn.training import GenerationMetrics
from keras_attn.training.callbacks import EpochClock, StopOnNaN, TooLongReport, edit_distances

few = settings(max_examples=40, deadline=None, derandomize=True)
TOKENIZER = CharacterTokenizer.learn(["abc"])
OUT_OF_DATA = "ignore:Your input ran out of data"  # Keras says so of every stream


def tiny(built=True, **options):
    """A model with weights of its own, compiled to run without tracing."""
    keras.utils.set_random_seed(0)
    model = zoo.build(
        "context_as_init",
        source=TOKENIZER,
        target=TOKENIZER,
        cell="simple_rnn",
        bidirectional=False,
        units=4,
        embedding_size=3,
        dropout=0.0,
    )
    model.compile(keras.optimizers.SGD(**options), run_eagerly=True)
    if built:
        model.optimizer.build(model.trainable_variables)
    return model


# StopOnNaN.


class Recorder(keras.callbacks.Callback):
    """Keeps all weights and optimizer variables, at first and behind each batch."""

    def __init__(self):
        super().__init__()
        self.states = []

    def record(self):
        variables = [*self.model.variables, *self.model.optimizer.variables]
        self.states.append([tf.convert_to_tensor(v).numpy() for v in variables])

    def on_train_begin(self, logs=None):
        self.record()

    def on_train_batch_end(self, batch, logs=None):
        self.record()


class Spoiler(keras.callbacks.Callback):
    """Spoils a weight behind a batch of an epoch, both counted from 1."""

    def __init__(self, epoch, batch, value=math.nan):
        super().__init__()
        self.at, self.value = (epoch, batch), value

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch + 1

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch + 1) == self.at:
            bias = self.model.projection.bias
            bias.assign(self.value * np.where(np.arange(bias.shape[0]) % 2, 1, -1))


def stopped(model, *callbacks, every=None, match="The loss became", **options):
    """The states of a run until it was stopped, and the one it was left with."""
    recorder = Recorder()
    mine = [] if every is None else [StopOnNaN(every)]
    words = ["a", "b", "c", "ab", "bc", "ca", "aa"]
    with pytest.raises(FloatingPointError, match=match):
        model.fit(
            words,
            words,
            batch_size=1,
            shuffle=False,
            verbose=0,
            callbacks=[recorder, *callbacks, *mine],
            **options,
        )
    states = recorder.states
    recorder.record()
    left = recorder.states.pop()
    assert all(np.isfinite(value).all() for value in left)
    return states, left


def equal(state, other):
    return all((a == b).all() for a, b in zip(state, other, strict=True))


def weights_with(infinite):
    weights = np.ones(7)
    weights[infinite] = np.inf
    return weights


ADVICE = "smaller learning rate.*clipnorm.*sample_weight"


def test_an_infinite_weight_stops_training_where_it_comes():
    model = tiny(learning_rate=0.1, momentum=0.9)
    states, left = stopped(
        model, sample_weight=weights_with(4), match=rf"(?s)epoch 1, batch 5\b.*{ADVICE}"
    )
    assert len(states) == 5  # at first, and behind four good batches: no callback sees bad weights
    assert equal(left, states[0]) and not equal(left, states[4])
    assert float(model.optimizer.iterations) == 0
    model.fit(["a"], ["b"], verbose=0)  # it can go on


def test_the_newest_weights_whose_loss_is_a_number_come_back():
    states, left = stopped(
        tiny(learning_rate=0.1, momentum=0.9),
        every=2,
        sample_weight=weights_with(6),
        match="epoch 1, batch 7.*weights of epoch 1, batch 4 again",
    )
    # Those behind batch 6 were kept as well, but all that came of them was the infinite loss.
    assert equal(left, states[4])
    assert not any(equal(left, states[i]) for i in (0, 1, 2, 3, 5, 6))


def test_weights_are_kept_in_epochs_that_are_shorter_than_the_interval():
    states, left = stopped(
        tiny(learning_rate=0.1),
        Spoiler(epoch=2, batch=7),
        every=10,
        epochs=3,
        match="nan in epoch 3, batch 1.*weights of epoch 2, batch 3 again",
    )
    assert equal(left, states[7 + 3]) and not equal(left, states[0])


def test_weights_are_kept_whatever_the_steps_of_an_execution():
    model = tiny(learning_rate=0.1)
    model.compile(model.optimizer, steps_per_execution=3)
    states, left = stopped(
        model,
        Spoiler(epoch=2, batch=6),
        every=6,
        epochs=3,
        match="nan in epoch 2, batch 9.*weights of epoch 2, batch 3 again",
    )
    assert len(states) == 1 + 3 + 3
    assert equal(left, states[4])


def test_finite_weights_from_which_the_loss_is_infinite_do_not_come_back():
    states, left = stopped(
        tiny(learning_rate=0.1),
        Spoiler(epoch=1, batch=3, value=3e38),
        every=1,
        match="inf in epoch 1, batch 4.*weights of epoch 1, batch 2 again",
    )
    assert equal(left, states[2])


def test_an_exploding_run_is_stopped():
    states, left = stopped(tiny(learning_rate=1e38), every=1, epochs=3)
    assert any(equal(left, state) for state in states[:-1])


def test_the_optimizer_starts_afresh_even_if_it_was_never_used():
    model = tiny(learning_rate=0.1, momentum=0.9, built=False)
    assert not model.optimizer.built
    stopped(model, sample_weight=weights_with(0), match="inf in epoch 1, batch 1")
    momenta = [tf.convert_to_tensor(v).numpy() for v in model.optimizer.variables[2:]]
    assert len(momenta) == len(model.trainable_variables)
    assert not any(momentum.any() for momentum in momenta)


def test_good_training_is_left_alone():
    model, alone = tiny(learning_rate=0.1), tiny(learning_rate=0.1)
    for one, callbacks in ((model, [StopOnNaN(2)]), (alone, [])):
        one.fit(
            ["a", "b"], ["b", "a"], batch_size=1, epochs=2, seed=1, verbose=0, callbacks=callbacks
        )
    assert equal(model.get_weights(), alone.get_weights())


def test_half_precision_infinities_are_seen():
    callback = StopOnNaN(1)
    weight = keras.Variable([1.0], dtype="bfloat16")
    optimizer = types.SimpleNamespace(built=True, variables=[])
    callback.set_model(types.SimpleNamespace(variables=[weight], optimizer=optimizer))
    callback.on_train_begin()
    callback.on_epoch_begin(0)
    for batch, (value, loss) in enumerate([(2.0, 0.1), (math.inf, 0.1), (math.inf, 0.1)]):
        weight.assign([value])
        callback.on_train_batch_end(batch, {"loss": loss})
    with pytest.raises(FloatingPointError, match="batch 4.*weights of epoch 1, batch 1 again"):
        callback.on_train_batch_end(3, {"loss": math.nan})
    assert float(weight[0]) == 2.0


# EpochClock.

WORDS = [a + b for a in "abc" for b in "abc"]


def order_of(model, *callbacks, **options):
    """The batches that a fit sees."""
    seen, original = [], type(model).train_step

    def train_step(data):
        seen.append(data[0]["source"].numpy().tolist())
        return original(model, data)

    model.train_step = train_step
    model.fit(WORDS, WORDS, batch_size=3, verbose=0, callbacks=list(callbacks), **options)
    return seen


class Interrupt(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise KeyboardInterrupt


def test_a_resumed_run_sees_what_an_uninterrupted_one_saw(tmp_path):
    whole = order_of(tiny(), epochs=3, seed=5)
    assert len(whole) == 9
    assert whole[:3] != whole[3:6] != whole[6:] != whole[:3]

    model = tiny()
    first = order_of(model, epochs=1, seed=5)
    assert first + order_of(model, epochs=3, initial_epoch=1, seed=5) == whole

    def backup():
        return keras.callbacks.BackupAndRestore(str(tmp_path))

    with pytest.raises(KeyboardInterrupt):
        order_of(tiny(), backup(), Interrupt(2), epochs=3, seed=5)
    assert order_of(tiny(), backup(), epochs=3, seed=5) == whole[6:]


def test_the_seed_gives_the_order():
    first, second = (sum(order_of(tiny(), epochs=1, seed=seed), []) for seed in (1, 2))
    unshuffled = sum(order_of(tiny(), epochs=1, shuffle=False), [])
    assert unshuffled == [[*TOKENIZER.tokenize(word).numpy(), 2] for word in WORDS]
    assert first != second and sorted(first) == sorted(second) == sorted(unshuffled)


def test_the_clock_tells_the_epoch():
    variable = tf.Variable(0, dtype=tf.int64)
    clock = EpochClock(variable)
    for epoch in (3, 0):
        clock.on_epoch_begin(epoch)
        assert int(variable) == epoch


# TooLongReport.


def said_by(callback, *counts):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for epoch, count in enumerate(counts):
            callback.on_epoch_begin(epoch)
            callback.counts.assign_add(count)
            callback.on_epoch_end(epoch)
    return [str(warning.message) for warning in caught]


def test_too_long_pairs_are_reported_once():
    def report():
        counts = tf.Variable([7, 7], dtype=tf.int64)  # what came before the first epoch
        return TooLongReport(counts, lambda too_long, total: f"{too_long} of {total}")

    assert said_by(report(), [9, 2], [9, 2], [9, 2]) == ["2 of 9"]
    assert said_by(report(), [9, 0], [9, 0]) == []
    assert said_by(report(), [9, 0], [8, 3], [8, 3]) == ["3 of 8"]


@pytest.mark.filterwarnings(OUT_OF_DATA)
def test_fit_on_a_stream_reports_its_too_long_pairs_once():
    model = tiny()
    model.max_source = 3
    pairs = tf.data.Dataset.from_tensor_slices((["a", "abc", "ab", "aaaa"], ["a"] * 4))
    with pytest.warns(UserWarning, match="2 of 4 pairs were longer.*were cut") as caught:
        model.fit(pairs, epochs=3, verbose=0)
    assert sum("longer" in str(warning.message) for warning in caught) == 1


# Whole sequences.


def levenshtein(a, b):
    """Wagner & Fischer 1974: insertions, deletions and substitutions from `a` to `b`."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


def test_levenshtein_itself():
    assert levenshtein("kitten", "sitting") == 3 == levenshtein("sitting", "kitten")
    assert levenshtein("", "abc") == 3 and levenshtein("abc", "abc") == 0


def array_of(rows, more):
    width = max(map(len, rows)) + more
    return np.array([row + [0] * (width - len(row)) for row in rows], np.int64)


tokens = st.lists(st.sampled_from([3, 4, 5]), max_size=5)


@few
@given(st.lists(st.tuples(tokens, tokens), min_size=1, max_size=4), st.integers(0, 2), st.data())
def test_edit_distances_are_levenshteins(pairs, more, data):
    ended = st.sampled_from([[], [2]])  # cut rows have no EOS
    arrays = [
        array_of([row + data.draw(ended) for row in rows], more)
        for rows in zip(*pairs, strict=True)
    ]
    assert edit_distances(*arrays).tolist() == [levenshtein(*pair) for pair in pairs]


def generated(model, texts):
    """What the model makes of texts that it tells apart by their lengths."""
    model.projection.bias.assign([0, 0, 1, 0, 1, 1, 1])
    model.projection.kernel.assign(np.random.default_rng(3).normal(size=(4, 7)) * 4)
    return model.generate(texts)


def test_generation_metrics_are_those_of_the_generated_texts():
    model = tiny()
    sources = ["", "a", "ab", "cab", "bbbb", "caba", "ac", "cc"]
    made = generated(model, sources)
    assert len(set(made)) > 2
    references = [made[0], made[1], made[2] + "a", "b" + made[3], made[4][1:], "abc", "ax", made[7]]
    distances = [levenshtein(a, b) for a, b in zip(made, references, strict=True)]
    assert sum(d == 0 for d in distances) >= 3 and max(distances) > 1
    expected = {
        "exact_match": sum(d == 0 for d in distances) / len(distances),
        "edit_distance_rate": sum(distances) / sum(map(len, references)),
    }

    def logs_of(epoch, **options):
        callback = GenerationMetrics(sources, references, **options)
        callback.set_model(model)
        logs = {"loss": 1.0}
        callback.on_epoch_end(epoch, logs)
        assert logs.pop("loss") == 1.0
        return logs

    for options in ({}, {"batch_size": 3}):
        assert logs_of(0, **options) == pytest.approx({"val_" + k: v for k, v in expected.items()})
    assert logs_of(0, prefix="test_") == pytest.approx(
        {"test_" + k: v for k, v in expected.items()}
    )
    assert [bool(logs_of(epoch, every=2)) for epoch in range(4)] == [False, True, False, True]


def test_other_callbacks_can_monitor_them(tmp_path):
    model = tiny(learning_rate=0.0)
    made = generated(model, WORDS[:4])
    path = tmp_path / "best.weights.h5"
    history = model.fit(
        WORDS[:2],
        WORDS[:2],
        epochs=9,
        verbose=0,
        callbacks=[
            GenerationMetrics(WORDS[:4], [*made[:3], made[3] + "a"]),
            keras.callbacks.ModelCheckpoint(
                path,
                monitor="val_exact_match",
                mode="max",
                save_best_only=True,
                save_weights_only=True,
            ),
            keras.callbacks.EarlyStopping("val_exact_match", mode="max", patience=2),
        ],
    ).history
    assert history["val_exact_match"] == [0.75] * 3  # the first is best, and two are no better
    assert path.is_file()


def test_equal_texts_are_searched_once_and_come_along(monkeypatch):
    model, asked = small_models.shared("attention"), []
    sources, targets = ["abc", "cab", "abc", "", "abc"], ["a b", "b", "c", "", "a b"]
    searched = model._searched
    monkeypatch.setattr(
        model,
        "_searched",
        lambda source, *x, **y: asked.append(source) or searched(source, *x, **y),
    )
    found, texts = model.generation_metrics(sources, targets, return_texts=True)
    assert asked == [["abc", "cab", ""]]
    assert texts == model.generate(sources)
    one_by_one = [model.generation_metrics([s], [t]) for s, t in zip(sources, targets, strict=True)]
    assert found["exact_match"] == np.mean([one["exact_match"] for one in one_by_one])
    widths = [1, 2, 3, 1, 2]
    _, texts = model.generation_metrics(sources, targets, beam_size=widths, return_texts=True)
    assert texts == model.generate(sources, beam_size=widths)
    ids = np.array([[5, 6, 2], [7, 2, 0]])
    plain = zoo.build("attention", source=9, target=9, size="tiny")
    _, found = plain.generation_metrics(ids, ids, return_texts=True)
    np.testing.assert_array_equal(found, plain.generate(ids))


@pytest.mark.parametrize("pairs", [([], []), (["a"], []), (["a"], ["a", "b"])])
def test_generation_metrics_want_as_many_targets_as_sources(pairs):
    with pytest.raises(ValueError, match="GenerationMetrics: expected as many targets as sources"):
        GenerationMetrics(*pairs)
