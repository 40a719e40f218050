"""Attention: numbers, masks told and untold, steps, saving, half precision, XLA, errors."""

import functools
import itertools
import json

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from keras import ops
from layer_samples import (
    MASK,
    SCORERS,
    SMALL,
    TOLERANCE,
    close,
    config_of,
    few,
    normal,
    randomised,
    reborn,
    score_of,
)

from keras_attn.layers import (
    AdditiveScorer,
    Attention,
    GeneralScorer,
    GlobalWindow,
    Hard,
    LocalMonotonicWindow,
    LocalPredictedWindow,
    MonotonicWindow,
    Softmax,
)

every_scorer = pytest.mark.parametrize("scorer", SCORERS)
every_half = pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])

QUERY, KEY = normal(4, 3, 4), normal(4, 5, 4, seed=1)  # depths agree, for the dot products
VALUE = normal(4, 5, 6, seed=2)
SEEN = normal(4, 3, 5, seed=3) > -0.3  # what each query may see
SEEN[1, 2] = SEEN[2, 0] = False


def built(scorer, query=QUERY, key=KEY, **options):
    attention = Attention(scorer, **options)
    attention.build(query.shape, (*key.shape[:2], 6), key.shape)
    return randomised(attention)


def oracle(scorer, attention, *arrays, **masks):
    return reference.attend(score_of(scorer, attention.get_weights()), *arrays, **masks)


# === Numbers ===


@pytest.mark.parametrize("dtype", TOLERANCE)
@every_scorer
def test_context_and_alignments_are_those_of_the_paper(scorer, dtype):
    attention = built(scorer, dtype=dtype)
    for value_mask, attention_mask in itertools.product([None, MASK], [None, SEEN]):
        found = attention(QUERY, VALUE, KEY, value_mask=value_mask, attention_mask=attention_mask)
        masks = {"mask": value_mask, "attention_mask": attention_mask}
        for tensor, expected in zip(
            found, oracle(scorer, attention, QUERY, VALUE, KEY, **masks), strict=True
        ):
            close(tensor, expected, dtype)


@every_scorer
def test_values_are_their_own_keys_unless_there_are_others(scorer):
    attention = built(scorer)
    found = attention(QUERY, KEY, value_mask=MASK)
    for tensor, expected in zip(
        found, oracle(scorer, attention, QUERY, KEY, mask=MASK), strict=True
    ):
        close(tensor, expected)
    apart = attention(QUERY, KEY, KEY, value_mask=MASK)
    np.testing.assert_allclose(found[0], apart[0], atol=1e-6)


def test_the_temperature_divides_the_scores():
    attention = built("general", normaliser=Softmax(0.5))
    twice = score_of("general", [2 * attention.get_weights()[0]])
    for tensor, expected in zip(
        attention(QUERY, VALUE, KEY), reference.attend(twice, QUERY, VALUE, KEY), strict=True
    ):
        close(tensor, expected)


@few
@given(st.data())
def test_any_shapes_and_masks(data):
    batch, queries, sources, units, depth, width = (data.draw(st.integers(1, 4)) for _ in range(6))
    flags = st.lists(st.booleans(), min_size=64, max_size=64)
    value_mask = np.resize(data.draw(flags), (batch, sources))
    attention_mask = np.resize(data.draw(flags), (batch, queries, sources))
    query, key, value = (
        normal(batch, queries, units),
        normal(batch, sources, depth),
        normal(batch, sources, width),
    )
    attention = Attention("additive", units=3)
    attention.build(query.shape, value.shape, key.shape)
    randomised(attention)
    context, alignments = attention(
        query, value, key, value_mask=value_mask, attention_mask=attention_mask
    )
    expected = oracle(
        "additive",
        attention,
        query,
        value,
        key,
        mask=value_mask,
        attention_mask=attention_mask,
    )
    close(context, expected[0])
    close(alignments, expected[1])
    seen = value_mask[:, None, :] & attention_mask
    assert (np.array(alignments)[~seen] == 0).all()
    np.testing.assert_allclose(np.sum(alignments, -1), seen.any(-1), atol=1e-5)


@every_scorer
def test_a_query_that_sees_nothing_gets_zeros_and_gives_no_gradient(scorer):
    attention = built(scorer)
    mask = MASK & np.array([[True], [False], [True], [True]])
    query, value = tf.constant(QUERY, "float32"), tf.constant(VALUE, "float32")
    with tf.GradientTape() as tape:
        tape.watch([query, value])
        context, alignments = attention(query, value, KEY, value_mask=mask)
        loss = tf.reduce_sum(context**2)
    gradients = tape.gradient(loss, [query, value, *attention.trainable_variables])
    assert (np.array(context)[1] == 0).all() and (np.array(alignments)[1] == 0).all()
    assert (np.array(gradients[0])[1] == 0).all() and (np.array(gradients[1])[1] == 0).all()
    assert all(np.isfinite(g).all() and np.abs(g).max() > 1e-4 for g in gradients)


def test_what_stands_at_masked_positions_is_not_seen():
    attention = built("additive")
    changed = np.where(MASK[:, :, None], VALUE, 1e3), np.where(MASK[:, :, None], KEY, -1e3)
    for found, expected in zip(
        attention(QUERY, *changed, value_mask=MASK),
        attention(QUERY, VALUE, KEY, value_mask=MASK),
        strict=True,
    ):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_masks_of_keys_and_of_values_both_hold():
    attention = built("general")
    other = normal(4, 5, seed=7) > 0
    other[:, 0] = True
    expected = oracle("general", attention, QUERY, VALUE, KEY, mask=MASK & other)
    found = attention(QUERY, VALUE, KEY, value_mask=MASK, key_mask=other)
    close(found[1], expected[1])
    expected = oracle("general", attention, QUERY, VALUE, KEY, mask=other)
    close(attention(QUERY, VALUE, KEY, key_mask=other)[0], expected[0])


@every_scorer
def test_gradients_are_those_of_finite_differences(scorer):
    attention = Attention(scorer, dtype="float64", **SMALL.get(scorer, {}))
    arrays = [normal(2, 2, 2), normal(2, 3, 3, seed=1), normal(2, 3, 2, seed=2)]
    attention.build(*[array.shape for array in arrays])
    randomised(attention)
    mask = np.array([[True, True, True], [True, False, True]])
    probes = normal(2, 2, 3, seed=3), normal(2, 2, 3, seed=4)

    def loss(query, value, key, *weights):
        found = reference.attend(score_of(scorer, weights), query, value, key, mask=mask)
        return sum(np.sum(array * probe) for array, probe in zip(found, probes, strict=True))

    tensors = [tf.constant(array) for array in arrays]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        found = attention(*tensors, value_mask=mask)
        total = sum(
            tf.reduce_sum(tensor * probe) for tensor, probe in zip(found, probes, strict=True)
        )
    expected = reference.finite_difference(loss, [*arrays, *attention.get_weights()])
    gradients = tape.gradient(total, [*tensors, *attention.trainable_variables])
    assert len(gradients) == len(expected)
    for gradient, slow in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(gradient, slow, atol=1e-8)
        assert np.abs(slow).max() > 1e-3


# === Masks that Keras carries ===

IDS = np.array([[4, 5, 6, 0, 0], [7, 8, 0, 0, 0], [3, 0, 0, 0, 0]])
QUERIES = normal(3, 2, 4, seed=5, dtype="float32")


def unpadded(model, ids, *others):
    """Return what `model` makes of each row alone, without its padding; `others` are rows too."""
    outputs = []
    for row, *rest in zip(ids, *others, strict=True):
        outputs.append(model([row[row != 0][None], *[array[None] for array in rest]]))
    return outputs


def embedding(depth, seed):
    layer = keras.layers.Embedding(10, depth, mask_zero=True)
    layer.build()
    return randomised(layer, seed)


def functional(with_key=False, **options):
    """Return a model of ids and queries, and whether keys have an embedding of their own."""
    source, query = keras.Input((None,), dtype="int32"), keras.Input((None, 4))
    value = embedding(6, seed=1)(source)
    key = embedding(5, seed=2)(source) if with_key else None
    attention = Attention(**options)
    model = keras.Model([source, query], attention(query, value, key))
    randomised(attention)
    return model


@pytest.mark.parametrize("with_key", [False, True])
def test_padding_is_ignored_without_being_told(with_key):
    model = functional(with_key)
    context, alignments = model([IDS, QUERIES])
    for row, (alone, weights) in enumerate(unpadded(model, IDS, QUERIES)):
        length = np.count_nonzero(IDS[row])
        np.testing.assert_allclose(context[row], alone[0], atol=1e-6)
        np.testing.assert_allclose(alignments[row, :, :length], weights[0], atol=1e-6)
        assert (np.array(alignments)[row, :, length:] == 0).all()


def test_a_mask_that_only_the_keys_carry_is_seen():
    source = keras.Input((5,), dtype="int32")
    value, query = keras.Input((5, 6)), keras.Input((None, 4))
    attention = Attention("additive")
    outputs = attention(query, value, key=embedding(5, seed=2)(source))
    _, alignments = keras.Model([source, value, query], outputs)([IDS, VALUE[:3], QUERIES])
    assert (np.array(alignments)[np.repeat(IDS[:, None] == 0, 2, axis=1)] == 0).all()
    np.testing.assert_allclose(np.sum(alignments, -1), 1, atol=1e-6)


def test_a_mask_that_is_told_replaces_the_one_that_is_carried():
    attention = built("general", QUERIES, normal(3, 5, 6))
    value = embedding(6, seed=1)(IDS)
    mask = np.array([[False, True, True, True, True]] * 3)
    _, alignments = attention(QUERIES, value, value_mask=mask)
    assert ((np.array(alignments) > 0) == mask[:, None, :]).all()


def test_the_mask_of_the_query_is_passed_on_to_the_context_alone():
    source, target = keras.Input((None,), dtype="int32"), keras.Input((None,), dtype="int32")
    query, value = embedding(4, seed=1)(target), embedding(6, seed=2)(source)
    context, alignments = Attention("general")(query, value)
    pooled = keras.layers.GlobalAveragePooling1D()
    model = keras.Model([source, target], [pooled(context), alignments])
    target_ids = np.array([[1, 2, 3, 0], [4, 0, 0, 0], [5, 6, 0, 0]])
    found, _ = model([IDS, target_ids])
    for row in range(3):
        length = np.count_nonzero(target_ids[row])
        alone, _ = model([IDS[row : row + 1], target_ids[row : row + 1, :length]])
        np.testing.assert_allclose(found[row], alone[0], atol=1e-6)
    assert Attention().compute_mask("query", "mask") == ("mask", None)


def test_shapes_are_known_before_there_are_data():
    context, alignments = functional().outputs
    assert context.shape == (None, None, 6) and alignments.shape == (None, None, None)
    assert (context.dtype, alignments.dtype) == ("float32", "float32")


# === Saving ===


@pytest.mark.parametrize(
    "options",
    [
        {"scorer": "additive", "units": 3},
        {"scorer": "general", "normaliser": Softmax(0.3)},
        {"scorer": AdditiveScorer(7), "dtype": "float32", "name": "mine"},
    ],
    ids=lambda options: str(options["scorer"]),
)
def test_a_reloaded_model_is_equal(options, tmp_path):
    model = functional(with_key=True, **options)
    model.save(path := tmp_path / "model.keras")
    again = keras.saving.load_model(path)
    for found, expected in zip(again([IDS, QUERIES]), model([IDS, QUERIES]), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert config_of(again.layers[-1]) == config_of(model.layers[-1])


@pytest.mark.parametrize(
    "attention",
    [
        Attention("dot"),
        Attention("scaled_dot", dtype="float64"),
        Attention("additive", units=3, name="mine"),
        Attention(GeneralScorer(name="own"), Softmax(2)),
    ],
    ids=lambda attention: attention.scorer.name,
)
def test_attention_survives_saving(attention):
    attention.build(QUERY.shape, VALUE.shape, KEY.shape)
    again = reborn(randomised(attention))
    assert config_of(again) == config_of(attention)
    again.set_weights(attention.get_weights())
    for found, expected in zip(again(QUERY, VALUE, KEY), attention(QUERY, VALUE, KEY), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_configuration_is_json_and_holds_every_option():
    attention = Attention(
        "additive",
        window=LocalMonotonicWindow(3),
        num_heads=2,
        keys="projected",
        coverage_loss=0.5,
        units=3,
        trainable=False,
    )
    config = json.loads(json.dumps(attention.get_config()))
    assert config["trainable"] is False
    assert config["scorer"]["config"]["units"] == 3
    assert config["normaliser"]["config"] == {"temperature": 1.0}
    assert config["window"]["config"]["width"] == 3
    assert (config["num_heads"], config["keys"], config["coverage_loss"]) == (2, "projected", 0.5)
    assert config_of(reborn(attention)) == config_of(attention)


@pytest.mark.parametrize(
    "scorer, expected",
    [
        ("dot", []),
        ("scaled_dot", []),
        ("general", ["kernel"]),
        ("additive", ["query_kernel", "key_kernel", "scale"]),
        ("concat", ["kernel", "scale"]),
        ("low_rank", ["query_kernel", "key_kernel"]),
    ],
)
def test_weights_have_the_documented_names(scorer, expected):
    attention = built(scorer, name="attention")
    assert [weight.name for weight in attention.weights] == expected
    assert all(w.path == f"attention/{attention.scorer.name}/{w.name}" for w in attention.weights)


# === Steps ===


@every_scorer
@pytest.mark.parametrize("beams", [1, 3])
def test_steps_equal_call(scorer, beams):
    attention = built(scorer)
    memory = attention.prepare(VALUE, KEY, MASK)
    state = attention.initial_state(memory)
    steps = normal(4 * beams, 2, 4, seed=8, dtype="float32")  # row n belongs to source n // beams
    for t in range(2):
        context, alignments, state = attention.step(steps[:, t], memory, state)
        assert context.shape == (4 * beams, 6) and alignments.shape == (4 * beams, 5)
        expected = oracle(
            scorer, attention, steps[:, t].reshape(4, beams, 4), VALUE, KEY, mask=MASK
        )
        close(context, expected[0].reshape(4 * beams, 6))
        close(alignments, expected[1].reshape(4 * beams, 5))


def test_a_step_works_where_no_shape_is_known():
    attention = built("additive")

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 4]),
            tf.TensorSpec([None, None, 6]),
            tf.TensorSpec([None, None, 4]),
            tf.TensorSpec([None, None], "bool"),
        ]
    )
    def step(query, value, key, mask):
        memory = attention.prepare(value, key, mask)
        return attention.step(query, memory, attention.initial_state(memory))[:2]

    for found, expected in zip(
        step(QUERY[:, 0], VALUE, KEY, MASK),
        oracle("additive", attention, QUERY[:, :1], VALUE, KEY, mask=MASK),
        strict=True,
    ):
        close(found, expected[:, 0])


def test_memory_is_for_all_positions_without_a_mask():
    memory = built("dot").prepare(VALUE, KEY)
    assert memory.mask.shape == (4, 5) and np.all(memory.mask)
    assert memory.summary.shape == memory.start.shape == (4, 0)
    masked = built("dot").prepare(VALUE, KEY, MASK.astype("int32"))
    np.testing.assert_array_equal(masked.mask, MASK)


# === Every combination ===

SOME_SCORERS = {  # scaled_dot and concat are dot and additive but for their scores
    "dot": {},
    "general": {},
    "low_rank": {"rank": 3},
    "additive": {"units": 3},
    "location": {"length": 4},
    "location_sensitive": {"units": 3, "num_filters": 2, "width": 3},
    "coverage": {"units": 3, "fertility": 2},
}
ALL_WINDOWS = {
    "global": GlobalWindow,
    "local_m": functools.partial(LocalMonotonicWindow, 1),
    "local_p": functools.partial(LocalPredictedWindow, 2),
    "monotonic": MonotonicWindow,
}
# Every scorer with every normaliser and window; heads and keys vary along.
GRID = [
    pytest.param(*axes, 1 + n % 2, ["values", "projected"][n // 2 % 2], id="-".join(axes))
    for n, axes in enumerate(
        axes
        for axes in itertools.product(SOME_SCORERS, ["softmax", "sparsemax", "hard"], ALL_WINDOWS)
        if axes[1] == "softmax" or axes[2] != "monotonic"
    )
]


@pytest.mark.parametrize("scorer, normaliser, window, num_heads, keys", GRID)
def test_every_combination_in_steps_without_tokens_and_in_training(
    scorer, normaliser, window, num_heads, keys
):
    attention = built(
        scorer,
        normaliser=normaliser,
        window=ALL_WINDOWS[window](),
        num_heads=num_heads,
        keys=keys,
        **SOME_SCORERS[scorer],
    )
    mask = MASK & np.array([[True], [False], [True], [True]])
    query, value = tf.constant(QUERY[:, :2], "float32"), tf.constant(VALUE, "float32")
    whole = attention(query, VALUE, KEY, value_mask=mask)
    memory = attention.prepare(VALUE, KEY, mask)
    state = attention.initial_state(memory)
    for t in range(2):
        context, alignments, state = attention.step(query[:, t], memory, state)
        np.testing.assert_allclose(context, whole[0][:, t], atol=1e-5)
        np.testing.assert_allclose(alignments, whole[1][:, t], atol=1e-5)
    with tf.GradientTape() as tape:
        tape.watch([query, value])
        trained = attention(query, value, KEY, value_mask=mask, training=True)
        loss = sum(tf.reduce_sum(tensor**2) for tensor in trained)
    gradients = tape.gradient(loss, [query, value, *attention.trainable_variables])
    assert all(g is None or np.isfinite(g).all() for g in gradients)
    assert all(g is None or not np.any(g[1]) for g in gradients[:2])
    for tensor in (*whole, *trained):
        assert not np.any(tensor[1]) and np.isfinite(tensor).all()
    for _, alignments in (whole, trained):
        assert (np.array(alignments)[~mask[:, None].repeat(2, 1)] == 0).all()
        assert np.sum(alignments, -1).max() < 1 + 1e-5


# === Half precision, XLA ===


@every_scorer
@every_half
def test_half_precision_of_a_long_source(scorer, dtype):
    attention = built(scorer, dtype=dtype, **SMALL.get(scorer, {}))
    query, key, value = normal(2, 3, 4), normal(2, 2000, 4, seed=1), normal(2, 2000, 6, seed=2)
    mask = np.arange(2000) < [[2000], [1990]]
    context, alignments = attention(query, value, key, value_mask=mask)
    assert alignments.dtype == "float32"
    assert keras.backend.standardize_dtype(context.dtype) == dtype.removeprefix("mixed_")
    context = ops.cast(context, "float32")
    assert np.isfinite(context).all() and np.isfinite(alignments).all()
    np.testing.assert_allclose(np.sum(alignments, -1), 1, atol=1e-4)
    exact = built(scorer, **SMALL.get(scorer, {}))
    exact.set_weights(attention.get_weights())
    expected = exact(query, value, key, value_mask=mask)
    np.testing.assert_allclose(context, expected[0], atol=0.05)
    np.testing.assert_allclose(alignments, expected[1], atol=0.01)


@every_half
def test_steps_in_half_precision(dtype):
    attention = built("additive", dtype=dtype)
    memory = attention.prepare(VALUE, KEY, MASK)
    context, alignments, _ = attention.step(QUERY[:, 0], memory, attention.initial_state(memory))
    whole = attention(QUERY, VALUE, KEY, value_mask=MASK)
    assert context.dtype == whole[0].dtype and alignments.dtype == "float32"
    np.testing.assert_allclose(alignments, whole[1][:, 0], atol=1e-6)


def test_a_scorer_given_by_name_has_the_dtype_of_the_attention():
    assert Attention("general", dtype="mixed_bfloat16").scorer.compute_dtype == "bfloat16"
    assert Attention(GeneralScorer(dtype="float64")).scorer.compute_dtype == "float64"


def test_xla_changes_nothing():
    attention = built("additive")
    arguments = [tf.constant(array, "float32") for array in (QUERY, VALUE, KEY)]

    def run(*tensors):
        with tf.GradientTape() as tape:
            context, alignments = attention(*tensors, value_mask=tf.constant(MASK))
            loss = tf.reduce_sum(context**2)
        return context, alignments, *tape.gradient(loss, attention.trainable_variables)

    compiled = tf.function(run, jit_compile=True)(*arguments)
    for found, expected in zip(compiled, run(*arguments), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


# === Errors ===


@pytest.mark.parametrize(
    "argument, arrays",
    [
        ("query", (QUERY[:, 0], VALUE)),
        ("value", (QUERY, VALUE[:, 0])),
        ("key", (QUERY, VALUE, KEY[:, 0])),
    ],
)
def test_a_wrong_rank_is_refused(argument, arrays):
    expected = rf"^{argument}: expected a tensor of rank 3 .*, got shape \(4, \d\)"
    with pytest.raises(ValueError, match=expected):
        Attention("general")(*arrays)


@pytest.mark.parametrize("scorer", ["dot", "scaled_dot"])
def test_dot_products_refuse_unequal_depths(scorer):
    with pytest.raises(ValueError, match="query depth 4 and key depth 6. Use scorer='general'"):
        Attention(scorer)(QUERY, VALUE)


def test_unknown_names_and_options_are_refused():
    with pytest.raises(ValueError, match="^scorer: expected .*'addtive'. Did you mean 'additive'"):
        Attention("addtive")
    with pytest.raises(ValueError, match="^normaliser: expected .*'sofmax'. Did you mean 'soft"):
        Attention(normaliser="sofmax")
    with pytest.raises(TypeError, match=r"no option 'uints'; its options are \['units'\]"):
        Attention(uints=3)
    with pytest.raises(TypeError, match="'units' goes with a name, but an object of GeneralSco"):
        Attention(GeneralScorer(), units=3)


def test_prepare_needs_the_depth_of_the_query():
    with pytest.raises(ValueError, match=r"^prepare: .* call build\(...\) first"):
        Attention("general").prepare(VALUE)


def test_padding_may_hold_anything():
    value = np.ones((2, 5, 4), np.float32)
    value[:, 4] = np.nan
    mask = np.array([[True] * 4 + [False]] * 2)
    context, _ = Attention("dot")(np.ones((2, 3, 4), np.float32), value, value_mask=mask)
    np.testing.assert_allclose(context, np.ones((2, 3, 4)), atol=1e-6)


@pytest.mark.parametrize("scorer", ["dot", "additive"])
def test_padding_may_hold_anything_in_training_too(scorer):
    value = np.where(MASK[..., None], VALUE[..., :4], np.nan).astype("float32")
    attention = Attention(scorer)
    query = tf.constant(QUERY, "float32")
    with tf.GradientTape() as tape:
        tape.watch(query)
        context, _ = attention(query, value, value_mask=MASK, training=True)
        loss = tf.reduce_sum(context**2)
    for gradient in tape.gradient(loss, [query, *attention.trainable_variables]):
        assert np.isfinite(gradient).all()


def test_keys_and_masks_of_other_shapes_are_refused():
    query, value = np.ones((2, 3, 4), np.float32), np.ones((2, 5, 4), np.float32)
    with pytest.raises(ValueError, match="key: expected as many positions as value has, 5, got 6"):
        Attention()(query, value, np.ones((2, 6, 4), np.float32))
    with pytest.raises(ValueError, match="a mask .batch, positions. is a value_mask"):
        Attention()(query, value, attention_mask=np.ones((2, 5), bool))


@pytest.mark.parametrize("wrong", [-1, float("nan"), True, None, "much"])
def test_the_weight_of_the_coverage_loss_is_a_number(wrong):
    with pytest.raises(ValueError, match=f"^coverage_loss: expected a number >= 0, got {wrong!r}"):
        Attention(coverage_loss=wrong)


def test_the_coverage_loss_is_what_is_looked_at_again():
    attention = Attention("general", coverage_loss=0.5)
    attention.build(QUERY.shape, VALUE.shape)
    randomised(attention)
    memory = attention.prepare(VALUE, value_mask=MASK)
    _, heads, terms = attention.sequence(QUERY, memory)
    expected = [0.5 * reference.coverage_penalty(row) for row in np.array(heads)[:, 0]]
    np.testing.assert_allclose(terms[..., 0], expected, atol=1e-6)
    assert not np.any(terms[..., 1]) and np.max(expected) > 0.1
    state = attention.initial_state(memory)
    for t in range(3):
        _, _, state = attention.step(QUERY[:, t], memory, state)
        np.testing.assert_allclose(state.terms, terms[:, t], atol=1e-6)


def test_the_coverage_loss_is_the_mean_of_the_heads():
    attention = Attention("general", coverage_loss=0.5, num_heads=2)
    attention.build(QUERY.shape, VALUE.shape)
    randomised(attention)
    _, heads, terms = attention.sequence(QUERY, attention.prepare(VALUE, value_mask=MASK))
    expected = np.zeros((4, 3))
    for row, head in np.ndindex(4, 2):
        expected[row] += 0.25 * reference.coverage_penalty(np.array(heads)[row, head])
    np.testing.assert_allclose(terms[..., 0], expected, atol=1e-6)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((lambda q, k: q,), "^scorer: expected a name of .* or an object"),
        ((Hard(),), "^scorer: expected a name of"),
        (("dot", AdditiveScorer()), "^normaliser: expected a name of .*got an object of Additive"),
        (("dot", "softmax", Hard()), "^window: expected a name of"),
    ],
    ids=["function", "normaliser", "scorer", "window"],
)
def test_objects_of_another_kind_are_refused(arguments, message):
    with pytest.raises(TypeError, match=message):
        Attention(*arguments)


def test_a_key_mask_hides_what_stands_behind_it():
    value = np.where(MASK[..., None], VALUE, np.nan)
    attention = built("dot")
    query = QUERY[..., :4]
    key = np.where(MASK[..., None], KEY, np.nan)
    found = attention(query, value, key=key, key_mask=MASK)
    for one, other in zip(found, attention(query, VALUE, KEY, value_mask=MASK), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("scorer", ["dot", "coverage"])
def test_an_attention_mask_may_be_one_for_all_queries(scorer):
    attention = Attention(scorer)
    mask = (np.arange(5) < 3)[None, None].repeat(4, 0)
    one = attention(QUERY, VALUE[..., :4], attention_mask=mask)
    all_of_them = attention(QUERY, VALUE[..., :4], attention_mask=mask.repeat(QUERY.shape[1], 1))
    np.testing.assert_array_equal(one[1], all_of_them[1])
    assert not np.any(one[1][..., 3:])
