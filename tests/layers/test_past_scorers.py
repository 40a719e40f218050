"""Scorers that know the past: against loops that carry it themselves, steps, gradients, errors."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from keras import ops
from layer_samples import (
    MASK,
    TOLERANCE,
    close,
    config_of,
    named_weights,
    normal,
    randomised,
    reborn,
)

from keras_attn.layers import Attention, CoverageScorer, LocationSensitiveScorer

QUERY, KEY = normal(4, 6, 4), normal(4, 5, 3, seed=1)
VALUE = normal(4, 5, 6, seed=2)
NO_TOKENS = MASK & np.array([[True], [False], [True], [True]])

KINDS = {
    "location_sensitive": ("location_sensitive", {"units": 3, "num_filters": 2, "width": 3}),
    "coverage": ("coverage", {"units": 3}),
    "fertility": ("coverage", {"units": 3, "fertility": 2}),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def built(kind, query=QUERY, value=VALUE, key=KEY, **options):
    name, own = KINDS[kind]
    attention = Attention(name, **{**own, **options})
    attention.build(query.shape, value.shape, key.shape)
    return randomised(attention, scale=1.0)


def looped(kind, weights, query, value, key, mask):
    """Return contexts and alignments, step by step, from the previous and the total alignments."""
    both = [weights[name] for name in ("query_kernel", "key_kernel")]
    last = [weights[name] for name in ("bias", "scale")]
    contexts = np.zeros((*query.shape[:2], value.shape[-1]))
    alignments = np.zeros((*query.shape[:2], value.shape[1]))
    for b in range(len(query)):
        previous = total = np.zeros(value.shape[1])
        for t, q in enumerate(query[b]):
            scores = []
            for j, k in enumerate(key[b]):
                if kind == "location_sensitive":
                    feature = reference.location_features(previous, weights["filters"])[j]
                    own = (feature, *both, weights["feature_kernel"])
                    scores.append(reference.location_sensitive(q, k, *own, *last))
                    continue
                covered = total[j]
                if kind == "fertility":
                    covered = covered / reference.fertility(k, weights["fertility_kernel"], 2)
                own = (covered, *both, weights["coverage_kernel"])
                scores.append(reference.coverage(q, k, *own, *last))
            previous = reference.softmax(np.array(scores), mask[b])
            total = total + previous
            alignments[b, t], contexts[b, t] = previous, previous @ value[b]
    return contexts, alignments


# === Numbers ===


@pytest.mark.parametrize("dtype", TOLERANCE)
@every_kind
def test_alignments_are_those_of_the_paper(kind, dtype):
    attention = built(kind, dtype=dtype)
    weights = named_weights(attention)
    found = attention(QUERY, VALUE, KEY, value_mask=NO_TOKENS)
    expected = looped(kind, weights, QUERY, VALUE, KEY, NO_TOKENS)
    for tensor, array in zip(found, expected, strict=True):
        close(tensor, array, dtype)
    assert (np.array(found[1])[1] == 0).all()


@every_kind
def test_the_past_matters(kind):
    attention = built(kind)
    again = normal(4, 1, 4).repeat(3, axis=1)  # the same query three times
    alignments = np.array(attention(again, VALUE, KEY, value_mask=MASK)[1])
    assert np.abs(alignments[:, 1] - alignments[:, 0]).max() > 1e-3
    assert np.abs(alignments[:, 2] - alignments[:, 1]).max() > 1e-3


@pytest.mark.parametrize("beams", [1, 3])
@every_kind
def test_steps_equal_call(kind, beams):
    attention = built(kind)
    steps = normal(4 * beams, 3, 4, seed=8, dtype="float32")  # row n belongs to source n // beams
    expected = attention(
        steps, *(np.repeat(x, beams, 0) for x in (VALUE, KEY)), np.repeat(MASK, beams, 0)
    )
    memory = attention.prepare(VALUE, KEY, MASK)
    state = attention.initial_state(memory)
    if beams > 1:
        state = keras.tree.map_structure(lambda x: ops.repeat(x, beams, axis=0), state)
    for t in range(3):
        context, alignments, state = attention.step(steps[:, t], memory, state)
        np.testing.assert_allclose(context, expected[0][:, t], atol=1e-5)
        np.testing.assert_allclose(alignments, expected[1][:, t], atol=1e-5)


def test_only_what_is_read_is_carried():
    widths = {}
    for kind in ("location_sensitive", "coverage"):
        attention = built(kind)
        state = attention.initial_state(attention.prepare(VALUE, KEY, MASK))
        widths[kind] = [part.shape[-1] for part in state]
    assert widths == {"location_sensitive": [0, 5, 0, 0], "coverage": [0, 0, 5, 0]}


@every_kind
def test_a_query_may_be_kept_from_positions(kind):
    attention = built(kind)
    seen = normal(4, 6, 5, seed=3) > -0.3
    _, alignments = attention(QUERY, VALUE, KEY, value_mask=MASK, attention_mask=seen)
    assert (np.array(alignments)[~(seen & MASK[:, None])] == 0).all()
    anywhere = (seen & MASK[:, None]).any(-1)
    np.testing.assert_allclose(np.sum(alignments, -1), anywhere, atol=1e-5)


@every_kind
def test_padding_changes_nothing(kind):
    attention = built(kind)
    context, alignments = attention(QUERY, VALUE, KEY, value_mask=MASK)
    wider = [np.pad(x, ((0, 0), (0, 3), (0, 0)), constant_values=7.0) for x in (VALUE, KEY)]
    found = attention(QUERY, *wider, value_mask=np.pad(MASK, ((0, 0), (0, 3))))
    np.testing.assert_allclose(found[0], context, atol=1e-6)
    np.testing.assert_allclose(found[1][..., :5], alignments, atol=1e-6)


def test_a_score_without_a_past_is_the_first():
    scorer = built("fertility").scorer
    keys = scorer.project_keys(KEY)
    weights = named_weights(scorer)
    expected = [
        [
            reference.coverage(
                q,
                k,
                0.0,
                *(weights[n] for n in ("query_kernel", "key_kernel", "coverage_kernel")),
                *(weights[n] for n in ("bias", "scale")),
            )
            for k in KEY[0]
        ]
        for q in QUERY[0]
    ]
    close(scorer(QUERY, keys)[0], np.array(expected))


# === Gradients ===


@every_kind
def test_gradients_are_those_of_finite_differences(kind):
    arrays = [normal(2, 3, 2), normal(2, 3, 3, seed=1), normal(2, 3, 2, seed=2)]
    attention = built(kind, *arrays, dtype="float64")
    names = [weight.name for weight in attention.weights]
    mask = np.array([[True, True, True], [True, False, True]])
    probes = normal(2, 3, 3, seed=3), normal(2, 3, 3, seed=4)

    def loss(query, value, key, *weights):
        weights = dict(zip(names, weights, strict=True))
        found = looped(kind, weights, query, value, key, mask)
        return sum(np.sum(array * probe) for array, probe in zip(found, probes, strict=True))

    tensors = [tf.constant(array) for array in arrays]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        found = attention(*tensors, value_mask=mask)
        total = sum(tf.reduce_sum(x * probe) for x, probe in zip(found, probes, strict=True))
    expected = reference.finite_difference(loss, [*arrays, *attention.get_weights()])
    gradients = tape.gradient(total, [*tensors, *attention.trainable_variables])
    for gradient, slow in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(gradient, slow, atol=1e-7)
        assert np.abs(slow).max() > 1e-4


@every_kind
def test_a_source_without_tokens_gives_no_gradient(kind):
    attention = built(kind)
    query, value = tf.constant(QUERY, "float32"), tf.constant(VALUE, "float32")
    with tf.GradientTape() as tape:
        tape.watch([query, value])
        context, _ = attention(query, value, KEY, value_mask=NO_TOKENS)
        loss = tf.reduce_sum(context**2)
    gradients = tape.gradient(loss, [query, value, *attention.trainable_variables])
    assert (np.array(context)[1] == 0).all()
    assert (np.array(gradients[0])[1] == 0).all() and (np.array(gradients[1])[1] == 0).all()
    assert all(np.isfinite(g).all() and np.abs(g).max() > 1e-5 for g in gradients)


# === Half precision, XLA ===


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@every_kind
def test_half_precision_of_a_long_source_is_finite(kind, dtype):
    attention = built(kind, dtype=dtype)
    query, key, value = normal(2, 3, 4), normal(2, 2000, 3, seed=1), normal(2, 2000, 6, seed=2)
    mask = np.arange(2000) < [[2000], [1990]]
    with tf.GradientTape() as tape:
        context, alignments = attention(query, value, key, value_mask=mask)
        loss = tf.reduce_sum(tf.cast(context, "float32") ** 2)
    assert alignments.dtype == "float32"
    np.testing.assert_allclose(np.sum(alignments, -1), 1, atol=1e-4)
    for found in (context, *tape.gradient(loss, attention.trainable_variables)):
        assert np.isfinite(ops.cast(found, "float32")).all()


def test_no_fertility_at_all_is_finite_in_half_precision():
    attention = built("fertility", dtype="mixed_float16")
    attention.scorer.fertility_kernel.assign(-100 * np.ones((3, 1)))
    with tf.GradientTape() as tape:
        context, alignments = attention(QUERY, VALUE, np.abs(KEY), value_mask=MASK)
        loss = tf.reduce_sum(tf.cast(context, "float32") ** 2)
    np.testing.assert_allclose(np.sum(alignments, -1), 1, atol=1e-4)
    for found in (context, *tape.gradient(loss, attention.trainable_variables)):
        assert np.isfinite(ops.cast(found, "float32")).all()


def test_xla_changes_nothing():
    attention = built("location_sensitive")
    arguments = [tf.constant(array, "float32") for array in (QUERY, VALUE, KEY)]

    def run(*tensors):
        with tf.GradientTape() as tape:
            context, alignments = attention(*tensors, value_mask=tf.constant(MASK))
            loss = tf.reduce_sum(context**2)
        return context, alignments, *tape.gradient(loss, attention.trainable_variables)

    compiled = tf.function(run, jit_compile=True)(*arguments)
    for found, expected in zip(compiled, run(*arguments), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)


# === Weights, saving ===

ADDITIVE = {"query_kernel": (4, 3), "key_kernel": (3, 3), "scale": (3,), "bias": (3,)}


@pytest.mark.parametrize(
    "kind, expected",
    [
        ("location_sensitive", {"filters": (3, 1, 2), "feature_kernel": (2, 3)}),
        ("coverage", {"coverage_kernel": (1, 3)}),
        ("fertility", {"coverage_kernel": (1, 3), "fertility_kernel": (3, 1)}),
    ],
)
def test_weights_have_the_documented_names_and_shapes(kind, expected):
    weights = named_weights(built(kind).scorer)
    assert {name: array.shape for name, array in weights.items()} == {**ADDITIVE, **expected}


def test_options_have_defaults():
    scorer = LocationSensitiveScorer()
    scorer.build((None, None, 4), (None, None, 3))
    shapes = {name: array.shape for name, array in named_weights(scorer).items()}
    assert shapes["filters"] == (7, 1, 8) and shapes["feature_kernel"] == (8, 4)
    assert CoverageScorer().fertility is None


@every_kind
def test_an_attention_survives_saving(kind):
    attention = built(kind)
    again = reborn(attention)
    assert type(again.scorer) is type(attention.scorer) and config_of(again) == config_of(attention)
    again.set_weights(attention.get_weights())
    np.testing.assert_array_equal(again(QUERY, VALUE, KEY)[1], attention(QUERY, VALUE, KEY)[1])


@every_kind
def test_a_reloaded_model_is_equal(kind, tmp_path):
    query, value = keras.Input((None, 4)), keras.Input((None, 6))
    name, options = KINDS[kind]
    model = keras.Model([query, value], Attention(name, **options)(query, value))
    randomised(model)
    model.save(path := tmp_path / "model.keras")
    again = keras.saving.load_model(path)
    arrays = [QUERY.astype("float32"), VALUE.astype("float32")]
    for found, expected in zip(again(arrays), model(arrays), strict=True):
        np.testing.assert_array_equal(found, expected)


# === Errors ===


@pytest.mark.parametrize("width", [2, 10])
def test_a_filter_has_to_have_a_centre(width):
    with pytest.raises(ValueError, match=f"^width: expected an odd int.*, got {width}"):
        LocationSensitiveScorer(width=width)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "3", True])
def test_numbers_have_to_be_positive(wrong):
    for kind, options in (
        (LocationSensitiveScorer, ("units", "num_filters", "width")),
        (CoverageScorer, ("units", "fertility")),
    ):
        for option in options:
            expected = f"^{option}: expected a positive int, got {wrong!r}"
            with pytest.raises(ValueError, match=expected):
                kind(**{option: wrong})


def test_options_of_another_scorer_are_refused():
    with pytest.raises(TypeError, match="takes no option 'fertility'"):
        Attention("location_sensitive", fertility=2)
    with pytest.raises(TypeError, match="takes no option 'width'"):
        Attention("coverage", width=3)
