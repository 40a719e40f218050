"""Metrics over the real tokens: against NumPy, batch by batch and under fit."""

import math

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf

from keras_attn import zoo
from keras_attn.text import CharacterTokenizer
from keras_attn.training import metrics

WIDTHS = (2, 7, 3)


def batches(vocabulary=6, dtype=np.float64):
    """Batches of several widths, each row of another length."""
    random = np.random.default_rng(0)
    for width in WIDTHS:
        logits = random.normal(size=(3, width, vocabulary)) * 2
        target_out = random.integers(1, vocabulary, (3, width))
        for row, length in zip(target_out, (width, 1, 0), strict=True):
            row[length:] = 0
        best = logits.argmax(-1)
        right = random.random(best.shape) < 0.5
        target_out = np.where((target_out != 0) & right & (best != 0), best, target_out)
        yield target_out, logits.astype(dtype), random.uniform(0, 2, 3)


def expected(seen, weighted):
    """Accuracy and perplexity over all tokens of (target_out, logits, weights)."""
    right = nats = total = 0.0
    for target_out, logits, weights in seen:
        for b, t in zip(*np.nonzero(target_out), strict=True):
            weight = weights[b] if weighted else 1.0
            log_p = reference.log_softmax(logits[b, t])
            right += weight * (log_p.argmax() == target_out[b, t])
            nats -= weight * log_p[target_out[b, t]]
            total += weight
    return right / total, math.exp(nats / total)


def both():
    return [metrics.TokenAccuracy(), metrics.Perplexity()]


@pytest.mark.parametrize("shape", ["none", "(B,)", "(B, 1)", "(B, T)"])
def test_every_token_counts_alike_whatever_the_widths(shape):
    found = both()
    for target_out, logits, weights in batches():
        given = {
            "none": None,
            "(B,)": weights,
            "(B, 1)": weights[:, None],
            "(B, T)": np.tile(weights[:, None], target_out.shape[1]),
        }[shape]
        for metric in found:
            metric.update_state(target_out, logits, given)
    accuracy, perplexity = expected(batches(), weighted=shape != "none")
    assert 0 < accuracy < 1
    assert [float(metric.result()) for metric in found] == [
        pytest.approx(accuracy, rel=1e-6),
        pytest.approx(perplexity, rel=1e-6),
    ]


@pytest.mark.parametrize("rubbish", [np.nan, np.inf, 1e30])
def test_what_stands_at_padding_never_matters(rubbish):
    found = both()
    for target_out, logits, _ in batches():
        logits[target_out == 0] = rubbish
        wider = np.pad(logits, [(0, 2), (0, 3), (0, 0)], constant_values=rubbish)
        for metric in found:
            metric.update_state(np.pad(target_out, [(0, 2), (0, 3)]), wider)
    assert [float(m.result()) for m in found] == pytest.approx(expected(batches(), False), rel=1e-6)


def test_perplexity_is_the_exponential_of_the_mean_log_probability():
    metric = metrics.Perplexity()
    logits, target_out = np.zeros((1, 3, 8)), np.array([[4, 2, 0]])
    metric.update_state(target_out, logits)
    assert float(metric.result()) == pytest.approx(8)
    logits[0, :, 4] = 1e3
    metric.reset_state()
    metric.update_state(target_out[:, :1], logits[:, :1])
    assert float(metric.result()) == 1


def test_reset_forgets():
    first, _, last = batches()
    for metric in both():
        metric.update_state(*first[:2])
        metric.reset_state()
        metric.update_state(*last[:2])
        found = float(metric.result())
        metric.reset_state()
        metric.update_state(*first[:2])
        assert found != float(metric.result())
    assert found == pytest.approx(expected([last], False)[1], rel=1e-6)


def test_nothing_but_padding_has_no_errors():
    accuracy, perplexity = both()
    for metric in (accuracy, perplexity):
        metric.update_state(np.zeros((2, 3), int), np.full((2, 3, 5), np.nan))
    assert (float(accuracy.result()), float(perplexity.result())) == (0, 1)


def test_configs_give_the_same_metrics():
    for metric in [*both(), metrics.Perplexity(name="ppl", dtype="float32")]:
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(metric))
        assert type(again) is type(metric) and again.get_config() == metric.get_config()
    assert [metric.name for metric in metrics.auto()] == ["token_accuracy", "perplexity"]


# Under fit.

WORDS = ["", "a", "bb" * 3, "cab" * 4, "c", "abcabc", "bc" * 5, "aa", "b" * 20]


def test_fit_and_evaluate_show_what_the_logits_say():
    keras.utils.set_random_seed(0)
    tokenizer = CharacterTokenizer.learn(["abc"])
    model = zoo.build(
        "context_as_init",
        source=tokenizer,
        target=tokenizer,
        cell="simple_rnn",
        bidirectional=False,
        units=4,
        embedding_size=3,
        dropout=0.0,
    )
    # Training that changes nothing, so that every batch is seen by the same weights.
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    model.projection.bias.assign([0, 0, 0, 0, 2, 2, 2])
    weights = np.linspace(0.5, 2, len(WORDS))
    options = {"batch_size": 2, "verbose": 0, "sample_weight": weights}
    history = model.fit(WORDS, WORDS[::-1], epochs=2, **options).history
    shown = model.evaluate(WORDS, WORDS[::-1], return_dict=True, **options)

    pairs = []
    for source, target, weight in zip(WORDS, WORDS[::-1], weights, strict=True):
        source_ids, target_ids = (
            [*tokenizer.tokenize(text).numpy(), 2] for text in (source, target)
        )
        logits = model(
            {"source": tf.constant([source_ids]), "target_in": tf.constant([[1, *target_ids[:-1]]])}
        )
        pairs.append((np.array([target_ids]), logits.numpy().astype(np.float64), [weight]))
    accuracy, perplexity = expected(pairs, weighted=True)
    assert 0 < accuracy < 1
    for values in (history["token_accuracy"], [shown["token_accuracy"]]):
        assert values == pytest.approx([accuracy] * len(values), rel=1e-5)
    for values in (history["perplexity"], [shown["perplexity"]]):
        assert values == pytest.approx([perplexity] * len(values), rel=1e-5)
