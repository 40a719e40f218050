"""Scorers: their numbers against the papers' formulas, dtypes, weights, errors."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops
from layer_samples import (
    SCORERS,
    TOLERANCE,
    close,
    config_of,
    few,
    normal,
    randomised,
    reborn,
    score_of,
)

from keras_attn.layers import AdditiveScorer, DotScorer, GeneralScorer, ScaledDotScorer
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
    scorer = built(name, dtype=dtype)
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
    ],
)
def test_weights_have_the_documented_names_and_shapes(name, options, expected):
    scorer = built(name, 3, 3 if "dot" in name else 6, name="scorer", **options)
    assert {weight.name: tuple(weight.shape) for weight in scorer.weights} == expected
    assert [weight.path for weight in scorer.weights] == [f"scorer/{n}" for n in expected]


@pytest.mark.parametrize("name", ["general", "additive"])
def test_no_weight_starts_at_zero(name):
    scorer = scorers.get(name)
    scorer.build((None, None, 3), (None, None, 4))
    assert all(np.abs(weight).min() > 0 for weight in scorer.get_weights())


@pytest.mark.parametrize(
    "name, width", [("dot", 4), ("scaled_dot", 4), ("general", 3), ("additive", 5)]
)
def test_keys_are_projected_to_what_call_compares(name, width):
    options = {"units": 5} if name == "additive" else {}
    scorer = built(name, 4 if "dot" in name else 3, 4, **options)
    assert scorer.project_keys(normal(2, 7, 4)).shape == (2, 7, width)


@pytest.mark.parametrize("name", ["dot", "scaled_dot"])
def test_unequal_depths_are_refused_with_a_way_out(name):
    expected = "need the same depth, got query depth 3 and key depth 4. Use scorer='general'"
    with pytest.raises(ValueError, match=expected):
        built(name, 3, 4)


@pytest.mark.parametrize("units", [0, -2, 1.5, "3"])
def test_units_have_to_be_positive(units):
    with pytest.raises(ValueError, match=f"^units: expected a positive int, got {units!r}"):
        AdditiveScorer(units)


@pytest.mark.parametrize(
    "scorer",
    [
        DotScorer(name="a"),
        ScaledDotScorer(dtype="float64"),
        GeneralScorer(name="b"),
        AdditiveScorer(5),
        AdditiveScorer(),
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
