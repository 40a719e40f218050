"""The mean over the real tokens of a batch: against NumPy loops, and whatever stands at padding."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import reference
import small_models
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_attn.training import losses
from keras_attn.training.losses import TokenMean, by_name

few = settings(max_examples=30, deadline=None, derandomize=True)


def batch(seed=0, rows=4, width=5, vocabulary=7):
    """Logits (B, T, V) and target_out (B, T): rows of every length, one without any token."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(rows, width, vocabulary)) * 3
    target_out = random.integers(1, vocabulary, (rows, width))
    for row, length in zip(target_out, [width, *random.permutation(width)], strict=False):
        row[length:] = 0
    return logits, target_out


def smoothed(logits, token, smoothing):
    """Cross-entropy with the target (1 - e) one_hot + e / V."""
    log_p = reference.log_softmax(logits)
    return -sum(
        ((1 - smoothing) * (v == token) + smoothing / len(log_p)) * log_p[v]
        for v in range(len(log_p))
    )


def expected_mean(logits, target_out, weights=None, smoothing=0.0):
    total, count = 0.0, 0
    for b, t in zip(*np.nonzero(target_out), strict=True):
        weight = 1.0 if weights is None else weights[b][t]
        total += weight * smoothed(logits[b, t], target_out[b, t], smoothing)
        count += 1
    return total / count if count else 0.0


# The numbers.


def test_it_is_the_mean_log_probability_of_the_tokens():
    logits, target_out = batch()
    expected = -reference.log_probability(logits, target_out).sum() / (target_out != 0).sum()
    assert float(TokenMean()(target_out, logits)) == pytest.approx(expected, rel=1e-12)


@few
@given(st.integers(0, 999), st.integers(1, 5), st.integers(1, 6), st.sampled_from([0.0, 0.1, 0.9]))
def test_it_equals_a_loop(seed, rows, width, smoothing):
    logits, target_out = batch(seed, rows, width)
    found = TokenMean(label_smoothing=smoothing)(target_out, logits)
    assert found.dtype == tf.float64
    expected = expected_mean(logits, target_out, smoothing=smoothing)
    assert float(found) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("shape", ["(B,)", "(B, 1)", "(B, T)"])
def test_weights_count_in_the_sum_but_not_in_the_divisor(shape):
    logits, target_out = batch()
    weights = np.random.default_rng(1).uniform(0, 2, (4, 5)).astype(np.float32)
    if shape != "(B, T)":
        weights[:] = weights[:, :1]
    given_weights = {"(B,)": weights[:, 0], "(B, 1)": weights[:, :1], "(B, T)": weights}[shape]
    found = TokenMean()(target_out, logits, given_weights)
    assert float(found) == pytest.approx(expected_mean(logits, target_out, weights), rel=1e-6)


def test_padding_more_changes_nothing():
    logits, target_out = batch()
    wider = np.pad(logits, [(0, 3), (0, 4), (0, 0)], constant_values=5.0)
    padded = np.pad(target_out, [(0, 3), (0, 4)])
    assert float(TokenMean()(padded, wider)) == pytest.approx(
        float(TokenMean()(target_out, logits)), rel=1e-12
    )


@pytest.mark.parametrize("rubbish", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("loss", ["own", "smoothed", "of Keras"])
def test_what_stands_at_padding_never_matters(rubbish, loss):
    logits, target_out = batch()
    of_keras = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    loss = {
        "own": TokenMean(),
        "smoothed": TokenMean(label_smoothing=0.1),
        "of Keras": TokenMean(of_keras),
    }[loss]
    weights = np.ones((4, 5))
    found = []
    for content in (0.0, rubbish):
        logits[target_out == 0] = content
        weights[target_out == 0] = content
        variable = tf.Variable(logits)
        with tf.GradientTape() as tape:
            value = loss(tf.constant(target_out), variable, weights)
        found.append((float(value), tape.gradient(value, variable).numpy()))
    (value, gradient), (again, gradient_again) = found
    assert np.isfinite(value) and value == again
    assert np.isfinite(gradient).all() and (gradient == gradient_again).all()
    assert (gradient[target_out == 0] == 0).all() and (gradient[target_out != 0] != 0).any()


@few
@given(st.integers(0, 1000))
def test_soft_targets_are_learnt_as_a_loop_says(seed):
    logits, target_out = batch(seed)
    random = np.random.default_rng(seed)
    ids = np.argsort(random.random(logits.shape))[..., :3]
    shares = random.dirichlet([1, 1, 1], logits.shape[:2])
    shares[target_out == 0] = 0
    total = 0.0
    for b, t in zip(*np.nonzero(target_out), strict=True):
        log_p = reference.log_softmax(logits[b, t])
        total -= sum(p * log_p[i] for i, p in zip(ids[b, t], shares[b, t], strict=True))
    wanted = total / max((target_out != 0).sum(), 1)
    soft = losses.SoftTargets(ids.astype("int32"), shares)
    assert float(losses.soft_token_mean(soft, target_out, logits)) == pytest.approx(wanted)
    logits[target_out == 0] = np.nan
    assert float(losses.soft_token_mean(soft, target_out, logits)) == pytest.approx(wanted)


def test_sure_soft_targets_are_targets():
    logits, target_out = batch()
    ids = np.stack([target_out, np.zeros_like(target_out)], axis=-1).astype("int32")
    soft = losses.SoftTargets(ids, np.broadcast_to([1.0, 0.0], ids.shape))
    weights = np.array([1, 0, 2.5, 1])
    found = losses.soft_token_mean(soft, target_out, logits, weights)
    assert float(found) == pytest.approx(float(TokenMean()(target_out, logits, weights)))


def test_a_batch_of_padding_gives_0():
    logits = tf.Variable(np.full((2, 3, 5), np.nan))
    with tf.GradientTape() as tape:
        value = TokenMean()(np.zeros((2, 3), int), logits)
    assert float(value) == 0.0
    assert (tape.gradient(value, logits).numpy() == 0).all()
    assert float(TokenMean()(np.zeros((0, 3), int), np.zeros((0, 3, 5)))) == 0.0


def test_gradients_equal_finite_differences():
    logits, target_out = batch(rows=2, width=3)
    loss = TokenMean(label_smoothing=0.1)
    variable = tf.Variable(logits)
    with tf.GradientTape() as tape:
        value = loss(target_out, variable)
    [expected] = reference.finite_difference(
        lambda x: expected_mean(x, target_out, smoothing=0.1), [logits]
    )
    np.testing.assert_allclose(tape.gradient(value, variable), expected, atol=1e-8)


def test_huge_logits_do_not_overflow():
    logits = np.zeros((1, 1, 5), np.float32)
    logits[0, 0, 4] = 1e30
    assert float(TokenMean()(np.array([[4]]), logits)) == 0.0
    assert float(TokenMean()(np.array([[3]]), logits)) == pytest.approx(1e30)


def test_a_loss_of_keras_is_averaged_over_tokens():
    logits, target_out = batch()
    loss = TokenMean(keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    found = loss(target_out, logits.astype(np.float32))
    assert float(found) == pytest.approx(expected_mean(logits, target_out), rel=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_dtype_of_the_logits_stays(dtype):
    logits, target_out = batch()
    weights = np.ones(4)
    assert TokenMean()(target_out, logits.astype(dtype), weights).dtype == dtype


# By name, and in files.


def test_auto_and_the_name_of_the_cross_entropy_average_over_tokens():
    logits, target_out = batch()
    for name in ("auto", "sparse_categorical_crossentropy"):
        found = float(by_name(name)(target_out, logits))
        assert found == pytest.approx(expected_mean(logits, target_out))
    found = float(by_name("auto", 0.2)(target_out, logits))
    assert found == pytest.approx(expected_mean(logits, target_out, smoothing=0.2))


def test_objects_and_functions_stay_as_they_are():
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    assert by_name(loss) is loss
    assert by_name(reference.log_probability) is reference.log_probability


@pytest.mark.parametrize(
    ("name", "smoothing", "message"),
    [
        ("mse", 0.0, "targets here are ids"),
        ("categorical_crossentropy", 0.0, "outputs are logits"),
        ("no_such_loss", 0.0, "no_such_loss"),
        ("sparse_categorical_crossentropy", 0.1, "label_smoothing.*'auto' alone"),
        (keras.losses.MeanSquaredError(), 0.1, "label_smoothing.*'auto' alone"),
        ("auto", 1.0, r"label_smoothing: expected a number in \[0, 1\), got 1.0"),
        ("auto", -0.1, "label_smoothing.*-0.1"),
    ],
)
def test_other_names_are_refused(name, smoothing, message):
    with pytest.raises(ValueError, match=message):
        by_name(name, smoothing)


@pytest.mark.parametrize("size", [0, -1, 2.5, True, "9"])
def test_no_ids_to_smooth_over_are_refused(size):
    with pytest.raises(ValueError, match=f"^vocabulary_size: expected a number of ids.*{size!r}"):
        TokenMean(label_smoothing=0.1, vocabulary_size=size)


def test_ids_beyond_the_vocabulary_are_not_smoothed_over():
    logits, target_out = batch()
    extended = np.concatenate([logits, np.full((*logits.shape[:2], 2), -1e30)], axis=-1)
    loss = TokenMean(label_smoothing=0.3, vocabulary_size=logits.shape[-1])
    assert float(loss(target_out, extended)) == pytest.approx(
        expected_mean(logits, target_out, smoothing=0.3), rel=1e-12
    )


def test_unknown_arguments_are_refused():
    with pytest.raises(TypeError, match="label_smothing"):
        TokenMean(label_smothing=0.1)


@pytest.mark.parametrize(
    "loss",
    [
        TokenMean(label_smoothing=0.3, name="mine"),
        TokenMean(label_smoothing=0.3, vocabulary_size=3),
        TokenMean(keras.losses.SparseCategoricalCrossentropy(from_logits=True)),
    ],
)
def test_the_config_gives_the_same_loss(loss):
    logits, target_out = batch()
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(loss)))
    again = keras.saving.deserialize_keras_object(config)
    assert isinstance(again, TokenMean) and again.name == loss.name
    assert again.get_config() == loss.get_config()
    assert float(again(target_out, logits)) == float(loss(target_out, logits))
    assert keras.losses.get(config).get_config() == loss.get_config()


def test_token_weights_are_0_at_padding():
    target_out = np.array([[5, 2, 0], [2, 0, 0]])
    assert losses.token_weights(target_out).numpy().tolist() == [[1, 1, 0], [1, 0, 0]]
    found = losses.token_weights(target_out, [3.0, 0.5])
    assert found.numpy().tolist() == [[3, 3, 0], [0.5, 0, 0]]


# Several replicas. Logical devices must be made before TensorFlow starts: another process.

TWO_REPLICAS = """
import json, sys
import tensorflow as tf

[cpu] = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

import keras
import numpy as np
from keras_attn import text, zoo

random = np.random.default_rng(0)
source, target_out = np.zeros((13, 4), np.int32), np.zeros((13, 5), np.int32)
for ids in (source, target_out):
    for row in ids:
        end = random.integers(0, len(row))
        row[: end + 1] = [*random.integers(4, 9, end), 2]
target_out[6:8] = 0  # replica 1 has no token in batch 1; the last batch has one row, so no row
moved = np.concatenate([np.ones((13, 1), int), target_out[:, :-1]], axis=1)
ids = {"source": source, "target_in": np.where(target_out == 0, 0, moved).astype(np.int32)}
weight = random.uniform(0, 2, 13).astype(np.float32)
tokenizer = text.CharacterTokenizer.learn(["abc"])
words = ["", "abc", "cab", "bb", "c", "a", "ba", "cc"]
FITS = {
    "ids": (ids, target_out, {"batch_size": 4, "shuffle": False, "sample_weight": weight}),
    "strings": (words, [word[::-1] for word in words], {"batch_size": 2, "seed": 1}),
}
dataset = tf.data.Dataset.from_tensor_slices((ids, target_out, weight)).batch(5)
FITS["odd dataset of ids"] = dataset, None, {"validation_data": dataset}
FITS["odd strings"] = *FITS["strings"][:2], {
    "batch_size": 3, "seed": 1, "validation_data": (words[:3], words[:3]),
}
# 7 pairs in batches of 4: unequal numbers of tokens, and of rows, on the two replicas
FITS["strings by attention"] = *(texts[:7] for texts in FITS["strings"][:2]), {
    "batch_size": 4, "seed": 0,
}
SMALL = {"dropout": 0.0, "units": 4, "embedding_size": 3}
CHEAP = SMALL | {"cell": "simple_rnn", "bidirectional": False}
# One for all: what two of them call their collective operations is the same.
mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert mirrored.num_replicas_in_sync == 2


def trained(name, strategy):
    x, y, options = FITS[name]
    vocabulary = tokenizer if "strings" in name else 9
    kind, sizes = ("attention", SMALL) if "attention" in name else ("context_as_init", CHEAP)
    keras.utils.set_random_seed(1)
    with strategy.scope():
        model = zoo.build(kind, source=vocabulary, target=vocabulary, **sizes)
        model.compile(keras.optimizers.SGD(1.0))
    before = [np.array(w) for w in model.get_weights()]
    history = model.fit(x, y, epochs=2, verbose=0, **options).history
    moved = max(np.abs(a - b).max() for a, b in zip(before, model.get_weights()))
    return model.get_weights(), history, float(moved)


def compared(name):
    one, history, moved = trained(name, tf.distribute.get_strategy())
    two, again, _ = trained(name, mirrored)
    apart = max(float(np.abs(a - b).max()) for a, b in zip(one, two))
    return {"moved": moved, "apart": apart, "history": [history, again]}


def refused(size, rows):
    with mirrored.scope():
        model = zoo.build("context_as_init", source=9, target=9, size="tiny")
        model.compile()
    x = {key: value[:rows] for key, value in ids.items()}
    try:
        model.fit(x, target_out[:rows], batch_size=size, verbose=0)
    except ValueError as error:
        return str(error)


errors = {"refused": [refused(3, 13), refused(4, 3)]}
names = list(FITS) if "--all" in sys.argv else ["ids", "odd strings"]
print("FOUND", json.dumps({name: compared(name) for name in names} | errors))
"""


def test_two_replicas_train_and_show_what_one_device_does():
    ran = subprocess.run(
        [sys.executable, "-c", TWO_REPLICAS, *["--all"] * small_models.EVIDENCE],
        env={**os.environ, "PYTHONPATH": str(Path(losses.__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    found = [line for line in ran.stdout.splitlines() if line.startswith("FOUND ")]
    assert found, ran.stderr[-3000:]
    fits = json.loads(found[0].removeprefix("FOUND "))
    odd, few = fits.pop("refused")  # first batches of ids that do not split
    assert odd.startswith("batch_size: expected a multiple of the strategy's 2 replicas")
    assert few.endswith("got 4, and 3 rows.")
    assert len(fits) == (5 if small_models.EVIDENCE else 2)
    for name, fit in fits.items():
        assert fit["moved"] > (0.05 if "attention" in name else 0.01), name
        assert fit["apart"] < 1e-5, name
        one, two = fit["history"]
        assert {"loss", "token_accuracy", "perplexity"} <= set(one), name
        for key, values in one.items():
            assert len(values) == 2
            # Keras weighs a batch's loss by its rows.
            if "loss" not in key or not {"odd", "attention"} & set(name.split()):
                assert two[key] == pytest.approx(values, rel=1e-5), (name, key)
