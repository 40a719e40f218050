"""Scorers: their numbers against the papers' formulas, dtypes, weights, errors."""

import keras
import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from keras import ops
from layer_samples import (
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
    ConcatScorer,
    DotScorer,
    GeneralScorer,
    LocalMonotonicWindow,
    LocationScorer,
    LowRankScorer,
    ScaledDotScorer,
)
from keras_attn.layers.scorers import Scorer, scorers

every_scorer = pytest.mark.parametrize("name", SCORERS)


def built(kind, query_depth=4, key_depth=4, **options):
    scorer = scorers.get(kind, **options)
    scorer.build((None, None, query_depth), (None, None, key_depth))
    return randomised(scorer)


def expected_scores(name, scorer, query, key):
    """Return the scores (B, Q, S) that the oracle gives, one by one."""
    score = score_of(name, scorer.get_weights())
    return np.array(
        [[[score(q, k) for k in keys] for q in qs] for qs, keys in zip(query, key, strict=True)]
    )


@every_scorer
@pytest.mark.parametrize("dtype", TOLERANCE)
@few
@given(*[st.integers(1, 4)] * 5)
def test_scores_are_those_of_the_paper(name, dtype, batch, queries, sources, query_depth, depth):
    key_depth = query_depth if "dot" in name else depth
    scorer = built(name, query_depth, key_depth, dtype=dtype)
    query, key = normal(batch, queries, query_depth), normal(batch, sources, key_depth, seed=1)
    found = scorer(query, scorer.project_keys(key))
    close(found, expected_scores(name, scorer, query, key), dtype)


@every_scorer
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "mixed_float16", "mixed_bfloat16"])
def test_scores_of_half_precision_are_float32(name, dtype):
    scorer = built(name, dtype=dtype, **SMALL.get(name, {}))
    query, key = normal(2, 3, 4), normal(2, 5, 4, seed=1)
    keys = scorer.project_keys(key)
    assert keras.backend.standardize_dtype(keys.dtype) == dtype.removeprefix("mixed_")
    found = scorer(query, keys)
    assert found.dtype == "float32"
    exact = expected_scores(name, scorer, query, key)
    np.testing.assert_allclose(found, exact, atol=0.2 if "bfloat16" in dtype else 0.02)


@pytest.mark.parametrize("name", ["dot", "scaled_dot"])
def test_a_score_beyond_the_range_of_float16_is_no_infinity(name):
    scorer = built(name, 64, 64, dtype="mixed_float16")
    large = ops.full((1, 1, 64), 100.0)
    expected = 64 * 1e4 / (8 if name == "scaled_dot" else 1)
    np.testing.assert_allclose(scorer(large, scorer.project_keys(large)), [[[expected]]])


@pytest.mark.parametrize(
    "name, options, expected",
    [
        ("dot", {}, {}),
        ("scaled_dot", {}, {}),
        ("general", {}, {"kernel": (3, 6)}),
        ("additive", {}, {"query_kernel": (3, 3), "key_kernel": (6, 3), "scale": (3,)}),
        ("additive", {"units": 5}, {"query_kernel": (3, 5), "key_kernel": (6, 5), "scale": (5,)}),
        ("low_rank", {}, {"query_kernel": (3, 32), "key_kernel": (6, 32)}),
        ("low_rank", {"rank": 2}, {"query_kernel": (3, 2), "key_kernel": (6, 2)}),
        ("concat", {}, {"kernel": (9, 3), "scale": (3,)}),
        ("concat", {"units": 5}, {"kernel": (9, 5), "scale": (5,)}),
        ("location", {}, {"kernel": (3, 64)}),
        ("location", {"length": 7}, {"kernel": (3, 7)}),
    ],
)
def test_weights_have_the_documented_names_and_shapes(name, options, expected):
    scorer = built(name, 3, 3 if "dot" in name else 6, name="scorer", **options)
    assert {weight.name: tuple(weight.shape) for weight in scorer.weights} == expected
    assert [weight.path for weight in scorer.weights] == [f"scorer/{n}" for n in expected]


@pytest.mark.parametrize("name", ["additive", "concat", "general", "location", "low_rank"])
def test_no_weight_starts_at_zero(name):
    scorer = scorers.get(name)
    scorer.build((None, None, 3), (None, None, 4))
    assert all(np.abs(weight).min() > 0 for weight in scorer.get_weights())


@pytest.mark.parametrize(
    "name, options, width",
    [
        ("dot", {}, 4),
        ("scaled_dot", {}, 4),
        ("general", {}, 3),
        ("additive", {"units": 5}, 5),
        ("concat", {"units": 5}, 5),
        ("low_rank", {"rank": 2}, 2),
        ("location", {}, 0),
    ],
)
def test_keys_are_projected_to_what_call_compares(name, options, width):
    scorer = built(name, 4 if "dot" in name else 3, 4, **options)
    assert scorer.project_keys(normal(2, 7, 4)).shape == (2, 7, width)


@pytest.mark.parametrize("name", ["dot", "scaled_dot"])
def test_unequal_depths_are_refused_with_a_way_out(name):
    expected = "need the same depth, got query depth 3 and key depth 4. Use scorer='general'"
    with pytest.raises(ValueError, match=expected):
        built(name, 3, 4)


@pytest.mark.parametrize("units", [0, -2, 1.5, "3"])
def test_units_have_to_be_positive(units):
    for kind in (AdditiveScorer, ConcatScorer):
        with pytest.raises(ValueError, match=f"^units: expected a positive int, got {units!r}"):
            kind(units)


@pytest.mark.parametrize("kind, option", [(LowRankScorer, "rank"), (LocationScorer, "length")])
@pytest.mark.parametrize("wrong", [0, -2, 1.5, "3", None, True])
def test_ranks_and_lengths_have_to_be_positive(kind, option, wrong):
    with pytest.raises(ValueError, match=f"^{option}: expected a positive int, got {wrong!r}"):
        kind(wrong)


@pytest.mark.parametrize(
    "scorer",
    [
        DotScorer(name="a"),
        ScaledDotScorer(dtype="float64"),
        GeneralScorer(name="b"),
        AdditiveScorer(5),
        AdditiveScorer(),
        LowRankScorer(3),
        ConcatScorer(5),
        ConcatScorer(name="c"),
        LocationScorer(3),
    ],
    ids=lambda scorer: scorer.name,
)
def test_a_scorer_survives_saving(scorer):
    query, key = normal(2, 3, 4), normal(2, 5, 4, seed=1)
    scorer.build(query.shape, key.shape)
    randomised(scorer)
    again = reborn(scorer)
    assert type(again) is type(scorer) and config_of(again) == config_of(scorer)
    assert again.built and [w.shape for w in again.weights] == [w.shape for w in scorer.weights]
    again.set_weights(scorer.get_weights())
    found = again(query, again.project_keys(key))
    np.testing.assert_array_equal(found, scorer(query, scorer.project_keys(key)))


def test_the_base_has_no_formula():
    with pytest.raises(NotImplementedError):
        Scorer().call(None, None)


def test_low_rank_is_general_with_a_product_for_its_kernel():
    scorer, general = built("low_rank", 4, 6, rank=2), built("general", 4, 6)
    query_kernel, key_kernel = scorer.get_weights()
    general.set_weights([query_kernel @ key_kernel.T])
    query, key = normal(2, 3, 4), normal(2, 5, 6, seed=1)
    found = scorer(query, scorer.project_keys(key))
    np.testing.assert_allclose(found, general(query, general.project_keys(key)), atol=1e-5)


def test_concat_is_additive_with_one_kernel_for_two():
    scorer, additive = built("concat", 4, 6, units=5), built("additive", 4, 6, units=5)
    kernel, scale = scorer.get_weights()
    additive.set_weights([kernel[:4], kernel[4:], scale])
    query, key = normal(2, 3, 4), normal(2, 5, 6, seed=1)
    found = scorer(query, scorer.project_keys(key))
    np.testing.assert_allclose(found, additive(query, additive.project_keys(key)), atol=1e-6)


# === Location ===


@pytest.mark.parametrize("dtype", TOLERANCE)
@few
@given(*[st.integers(1, 5)] * 5)
def test_scores_of_positions_are_those_of_the_paper(dtype, batch, queries, sources, units, length):
    scorer = built("location", units, 3, length=length, dtype=dtype)
    query, key = normal(batch, queries, units), normal(batch, sources, 3, seed=1)
    found = np.array(scorer(query, scorer.project_keys(key)))
    (kernel,) = scorer.get_weights()
    expected = np.array([[reference.location(q, kernel, sources) for q in qs] for qs in query])
    close(found[..., :length], expected[..., :length], dtype)
    assert found.shape == expected.shape and (found[..., length:] < -1e29).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "mixed_float16", "mixed_bfloat16"])
def test_scores_of_positions_of_half_precision_are_float32(dtype):
    scorer = built("location", length=3, dtype=dtype)
    query, key = normal(2, 3, 4), normal(2, 5, 4, seed=1)
    found = scorer(query, scorer.project_keys(key))
    assert found.dtype == "float32"
    exact = query @ scorer.get_weights()[0].astype("float64")
    np.testing.assert_allclose(found[..., :3], exact, atol=0.1 if "bfloat16" in dtype else 0.01)


@pytest.mark.parametrize("normaliser", ["softmax", "sparsemax", "hard"])
def test_positions_beyond_the_length_are_never_looked_at(normaliser):
    attention = Attention("location", normaliser, length=3)
    query, value = normal(2, 4, 4), normal(2, 5, 6, seed=1)
    attention.build(query.shape, value.shape)
    randomised(attention)
    _, alignments = attention(query, value)
    assert (np.array(alignments)[..., 3:] == 0).all()
    np.testing.assert_allclose(np.sum(alignments, -1), 1, atol=1e-6)
    mask = np.array([[False, False, False, True, True], [True, False, False, True, True]])
    context, alignments = attention(query, value, value_mask=mask)
    assert (np.array(context)[0] == 0).all() and (np.array(alignments)[0] == 0).all()
    np.testing.assert_allclose(alignments[1], [[1, 0, 0, 0, 0]] * 4)


@pytest.mark.parametrize("normaliser", ["softmax", "sparsemax", "hard"])
def test_a_window_beyond_the_length_sees_nothing(normaliser):
    attention = Attention("location", normaliser, LocalMonotonicWindow(1), length=3)
    query, value = normal(2, 6, 4), normal(2, 7, 6, seed=1)
    attention.build(query.shape, value.shape)
    context, alignments = attention(query, value)
    seen = np.sum(alignments, -1)
    np.testing.assert_allclose(seen, [[1, 1, 1, 1, 0, 0]] * 2, atol=1e-6)
    assert (np.array(context)[:, 4:] == 0).all()


def test_what_keys_hold_does_not_matter_to_positions():
    scorer = built("location", 4, 3, length=4)
    query = normal(2, 3, 4)
    np.testing.assert_array_equal(
        scorer(query, scorer.project_keys(normal(2, 5, 3))),
        scorer(query, scorer.project_keys(normal(2, 5, 9, seed=1))),
    )
