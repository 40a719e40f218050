"""Several heads: against the paper, projections, beams with carried states, errors, XLA."""

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

from keras_attn.layers import Attention, Heads

QUERY, VALUE, KEY = normal(4, 3, 4), normal(4, 5, 6, seed=1), normal(4, 5, 3, seed=2)
NO_TOKENS = MASK & np.array([[True], [False], [True], [True]])
KERNELS = ("query_kernel", "key_kernel", "value_kernel", "output_kernel")


def built(scorer="scaled_dot", num_heads=2, **options):
    attention = Attention(scorer, num_heads=num_heads, **options)
    attention.build(QUERY.shape, VALUE.shape, KEY.shape)
    return randomised(attention)


# === Numbers ===


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("scorer", ["dot", "scaled_dot"])
def test_heads_are_those_of_the_paper(scorer, dtype):
    attention = built(scorer, dtype=dtype)
    weights = named_weights(attention)
    context, heads = attention(QUERY, VALUE, KEY, value_mask=NO_TOKENS, return_heads=True)
    expected = reference.multi_head(
        getattr(reference, scorer),
        QUERY,
        KEY,
        VALUE,
        *[weights[name] for name in KERNELS],
        heads=2,
        mask=NO_TOKENS,
    )
    close(context, expected[0], dtype)
    close(heads, expected[1], dtype)
    assert not np.any(context[1]) and not np.any(heads[1])


def test_a_scorer_with_weights_shares_them_among_the_heads():
    attention = built("additive", units=5)
    weights = named_weights(attention.heads)
    scorer = attention.scorer.get_weights()
    assert [w.shape for w in scorer] == [(2, 5), (2, 5), (5,)]  # depths of a head
    context, heads = attention(QUERY, VALUE, KEY, value_mask=MASK, return_heads=True)
    expected = reference.multi_head(
        lambda query, key: reference.additive(query, key, *scorer),
        QUERY,
        KEY,
        VALUE,
        *[weights[name] for name in KERNELS],
        heads=2,
        mask=MASK,
    )
    close(context, expected[0])
    close(heads, expected[1])


def test_alignments_are_the_mean_of_the_heads():
    attention = built()
    heads = attention(QUERY, VALUE, KEY, value_mask=MASK, return_heads=True)[1]
    assert heads.shape == (4, 2, 3, 5)
    alignments = attention(QUERY, VALUE, KEY, value_mask=MASK)[1]
    np.testing.assert_allclose(alignments, np.mean(heads, axis=1), atol=1e-7)
    assert np.abs(heads[:, 0] - heads[:, 1]).max() > 0.01


def test_one_head_is_returned_as_one():
    attention = built("general", num_heads=1)
    heads = attention(QUERY, VALUE, KEY, return_heads=True)[1]
    assert heads.shape == (4, 1, 3, 5)
    np.testing.assert_array_equal(heads[:, 0], attention(QUERY, VALUE, KEY)[1])


def test_values_are_their_own_keys_unless_there_are_others():
    attention = Attention("scaled_dot", num_heads=2)
    attention.build(QUERY.shape, VALUE.shape)
    randomised(attention)
    assert named_weights(attention)["key_kernel"].shape == (6, 4)
    for found, expected in zip(
        attention(QUERY, VALUE), attention(QUERY, VALUE, VALUE), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("scorer", ["dot", "general", "additive"])
def test_projected_keys_and_values_are_projected_once_each(scorer):
    attention = built(scorer, num_heads=1, keys="projected")
    weights = named_weights(attention.heads)
    assert sorted(weights) == ["key_kernel", "value_kernel"]
    plain = Attention(scorer)
    key, value = KEY @ weights["key_kernel"], VALUE @ weights["value_kernel"]
    plain.build(QUERY.shape, value.shape, key.shape)
    plain.set_weights(attention.scorer.get_weights())
    found = attention(QUERY, VALUE, KEY, value_mask=MASK)
    for tensor, expected in zip(found, plain(QUERY, value, key, value_mask=MASK), strict=True):
        np.testing.assert_allclose(tensor, expected, atol=1e-5)


def test_keys_are_the_values_by_default():
    attention, plain = Attention("general", keys="values"), Attention("general")
    for layer in (attention, plain):
        layer.build(QUERY.shape, VALUE.shape)
        randomised(layer)
    assert named_weights(attention.heads) == {}
    expected = plain(QUERY, VALUE, value_mask=MASK)
    for found in (
        attention(QUERY, VALUE, value_mask=MASK),
        attention(QUERY, VALUE, VALUE, value_mask=MASK),
    ):
        for tensor, array in zip(found, expected, strict=True):
            np.testing.assert_array_equal(tensor, array)


@pytest.mark.parametrize("window", ["local_m", "local_p", "monotonic"])
@pytest.mark.parametrize("training", [False, True])
def test_every_head_has_its_window(window, training):
    """A head's window sees the head's slice of the query, and carries the head's past."""
    attention = built("general", window=window)
    if window == "monotonic":
        attention.window.noise = 0.0
    weights = named_weights(attention.heads)
    query = QUERY @ weights["query_kernel"]
    key, value = KEY @ weights["key_kernel"], VALUE @ weights["value_kernel"]
    single = Attention(
        "general", window=type(attention.window).from_config(attention.window.get_config())
    )
    single.build((4, 3, 2), (4, 5, 3), (4, 5, 2))
    single.scorer.set_weights(attention.scorer.get_weights())
    single.window.set_weights(attention.window.get_weights())
    if window == "monotonic":
        single.window.noise = 0.0
    alone = [
        single(query[..., q], value[..., v], key[..., q], value_mask=MASK, training=training)
        for q, v in ((slice(0, 2), slice(0, 3)), (slice(2, 4), slice(3, 6)))
    ]
    expected = np.concatenate([c for c, _ in alone], -1) @ weights["output_kernel"]
    context, heads = attention(
        QUERY, VALUE, KEY, value_mask=MASK, training=training, return_heads=True
    )
    np.testing.assert_allclose(context, expected, atol=1e-5)
    for head in range(2):
        np.testing.assert_allclose(heads[:, head], alone[head][1], atol=1e-5)


# === Steps and beams ===


@pytest.mark.parametrize("scorer", ["scaled_dot", "coverage", "location_sensitive", "location"])
def test_steps_equal_call(scorer):
    attention = built(scorer)
    expected = attention(QUERY, VALUE, KEY, value_mask=NO_TOKENS)
    memory = attention.prepare(VALUE, KEY, NO_TOKENS)
    state = attention.initial_state(memory)
    for t in range(3):
        context, alignments, state = attention.step(QUERY[:, t], memory, state)
        np.testing.assert_allclose(context, expected[0][:, t], atol=1e-5)
        np.testing.assert_allclose(alignments, expected[1][:, t], atol=1e-5)


@pytest.mark.parametrize("scorer", ["scaled_dot", "coverage", "location_sensitive"])
@pytest.mark.parametrize("window", ["global", "local_m", "monotonic"])
def test_each_beam_alone_equals_all_together(scorer, window):
    beams, attention = 3, built(scorer, window=window)
    memory = attention.prepare(VALUE, KEY, MASK)
    first = attention.initial_state(memory)
    queries = normal(4, beams, 3, 4, seed=8, dtype="float32")
    together = keras.tree.map_structure(lambda x: ops.repeat(x, beams, axis=0), first)
    alone = [first] * beams
    for t in range(3):
        rows = queries[:, :, t].reshape(4 * beams, 4)  # row n belongs to source n // beams
        context, alignments, together = attention.step(rows, memory, together)
        for beam in range(beams):
            one = attention.step(queries[:, beam, t], memory, alone[beam])
            np.testing.assert_allclose(context[beam::beams], one[0], atol=1e-5)
            np.testing.assert_allclose(alignments[beam::beams], one[1], atol=1e-5)
            for found, expected in zip(together, one[2], strict=True):
                assert found.shape[1:] == expected.shape[1:]
                np.testing.assert_allclose(found[beam::beams], expected, atol=1e-5)
            alone[beam] = one[2]


def test_beams_may_change_places():
    """What is carried is by row: gathered, it belongs to the row that gathered it."""
    attention = built("coverage")
    memory = attention.prepare(VALUE[:1], KEY[:1])
    first = keras.tree.map_structure(
        lambda x: ops.repeat(x, 2, axis=0), attention.initial_state(memory)
    )
    queries = normal(2, 4, seed=8, dtype="float32")
    _, alignments, state = attention.step(queries, memory, first)
    swapped = keras.tree.map_structure(lambda x: ops.take(x, [1, 0], axis=0), state)
    ahead = attention.step(queries, memory, state)
    found = attention.step(queries[::-1], memory, swapped)
    np.testing.assert_allclose(found[1][::-1], ahead[1], atol=1e-6)


def test_the_memory_holds_head_after_head():
    attention = built("scaled_dot")
    memory = attention.prepare(VALUE, KEY, MASK)
    weights = named_weights(attention)
    assert memory.keys.shape == (4, 10, 2) and memory.values.shape == (4, 10, 3)
    keys = (KEY * MASK[..., None]) @ weights["key_kernel"]
    np.testing.assert_allclose(memory.keys[:, :5], keys[..., :2], atol=1e-5)
    np.testing.assert_allclose(memory.keys[:, 5:], keys[..., 2:], atol=1e-5)
    assert memory.mask.shape == (4, 5)


# === Weights, saving, XLA, half precision ===


@pytest.mark.parametrize(
    "scorer, options, expected",
    [
        ("additive", {"num_heads": 1}, {}),
        (
            "scaled_dot",
            {"num_heads": 2},
            {
                "query_kernel": (4, 4),
                "key_kernel": (3, 4),
                "value_kernel": (6, 6),
                "output_kernel": (6, 6),
            },
        ),
        (
            "scaled_dot",
            {"num_heads": 1, "keys": "projected"},
            {"key_kernel": (3, 4), "value_kernel": (6, 6)},
        ),
        ("location", {"num_heads": 1, "keys": "projected"}, {"value_kernel": (6, 6)}),
        (
            "location",
            {"num_heads": 2},
            {"query_kernel": (4, 4), "value_kernel": (6, 6), "output_kernel": (6, 6)},
        ),
    ],
)
def test_weights_have_the_documented_names_and_shapes(scorer, options, expected):
    attention = Attention(scorer, **options)
    attention.build(QUERY.shape, VALUE.shape, KEY.shape)
    weights = named_weights(attention.heads)
    assert {name: array.shape for name, array in weights.items()} == expected


@pytest.mark.parametrize("scorer", ["scaled_dot", "coverage", "location"])
def test_a_reloaded_model_is_equal(scorer, tmp_path):
    query, value = keras.Input((None, 4)), keras.Input((None, 6))
    attention = Attention(scorer, num_heads=2)
    model = randomised(keras.Model([query, value], attention(query, value)))
    model.save(path := tmp_path / "model.keras")
    arrays = [QUERY.astype("float32"), VALUE.astype("float32")]
    again = keras.saving.load_model(path)
    for found, expected in zip(again(arrays), model(arrays), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "options", [{"num_heads": 2}, {"num_heads": 1, "keys": "projected"}], ids=str
)
def test_attention_with_heads_survives_saving(options):
    attention = built("additive", **options)
    again = reborn(attention)
    assert config_of(again) == config_of(attention)
    again.set_weights(attention.get_weights())
    np.testing.assert_array_equal(again(QUERY, VALUE, KEY)[0], attention(QUERY, VALUE, KEY)[0])
    heads = Heads(2, True, False)
    assert config_of(reborn(heads)) == config_of(heads)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("scorer", ["scaled_dot", "coverage"])
def test_half_precision_of_a_long_source(scorer, dtype):
    attention = built(scorer, dtype=dtype)
    value, key = normal(2, 2000, 6), normal(2, 2000, 3, seed=1)
    context, alignments = attention(QUERY[:2], value, key)
    assert alignments.dtype == "float32"
    np.testing.assert_allclose(np.sum(alignments, -1), 1, atol=1e-4)
    exact = built(scorer)
    exact.set_weights(attention.get_weights())
    expected = exact(QUERY[:2], value, key)
    np.testing.assert_allclose(alignments, expected[1], atol=0.01)
    np.testing.assert_allclose(ops.cast(context, "float32"), expected[0], atol=0.1)


def test_xla_changes_nothing():
    attention = built()
    arguments = [tf.constant(array, "float32") for array in (QUERY, VALUE, KEY)]

    def run(*tensors):
        with tf.GradientTape() as tape:
            context, alignments = attention(*tensors, value_mask=tf.constant(MASK))
            loss = tf.reduce_sum(context**2)
        return context, alignments, *tape.gradient(loss, attention.trainable_variables)

    compiled = tf.function(run, jit_compile=True)(*arguments)
    for found, expected in zip(compiled, run(*arguments), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_step_works_where_no_shape_is_known():
    attention = built("coverage")

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 4]),
            tf.TensorSpec([None, None, 6]),
            tf.TensorSpec([None, None, 3]),
            tf.TensorSpec([None, None], "bool"),
        ]
    )
    def step(query, value, key, mask):
        memory = attention.prepare(value, key, mask)
        return attention.step(query, memory, attention.initial_state(memory))[:2]

    expected = attention(QUERY[:, :1], VALUE, KEY, value_mask=MASK)
    for found, array in zip(step(QUERY[:, 0], VALUE, KEY, MASK), expected, strict=True):
        np.testing.assert_allclose(found, array[:, 0], atol=1e-6)


# === Errors ===


@pytest.mark.parametrize(
    "num_heads, message",
    [(3, "a divisor of the query's depth, 4, got 3"), (4, "a divisor of the value's depth, 6, g")],
)
def test_heads_have_to_divide_the_depths(num_heads, message):
    with pytest.raises(ValueError, match=f"^num_heads: expected {message}"):
        Attention("dot", num_heads=num_heads)(QUERY, VALUE)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "2", None, True])
def test_the_number_of_heads_is_positive(wrong):
    with pytest.raises(ValueError, match=f"^num_heads: expected a positive int, got {wrong!r}"):
        Attention("dot", num_heads=wrong)


def test_unknown_keys_are_refused():
    with pytest.raises(ValueError, match="^keys: expected .*'projecte'. Did you mean 'projected'"):
        Attention("dot", keys="projecte")
