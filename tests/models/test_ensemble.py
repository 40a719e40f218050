"""Several models that answer as one."""

import functools
import itertools

import numpy as np
import pytest
import small_models
import tensorflow as tf

from keras_attn import layers, text, zoo
from keras_attn.models.ensemble import mean

SOURCES = np.array([[5, 6, 2], [4, 2, 0]], np.int32)


@functools.cache
def three():
    """Models of all kinds: with attention, without, and of another width; do not train them."""
    options = {"source": 9, "target": 6, "embedding_size": 6, "max_target": 4}
    return [
        small_models.randomised(zoo.build(name, units=units, **options), 0.8, seed)
        for seed, (name, units) in enumerate(
            [("attention", 8), ("combined", 6), ("bahdanau2015", 4)]
        )
    ]


def test_a_score_is_the_mean_of_the_scores():
    models = three()
    ensemble = zoo.ensemble(models)
    targets = np.array([[4, 5, 2, 0], [5, 2, 0, 0]])
    expected = np.mean([model.score(SOURCES, targets) for model in models], axis=0)
    np.testing.assert_allclose(ensemble.score(SOURCES, targets), expected, atol=1e-5)


def test_a_call_is_the_mean_of_log_p_of_every_next_token():
    models = three()
    targets = {"source": SOURCES, "target_in": np.array([[1, 4, 5], [1, 5, 0]])}
    each = [np.asarray(tf.nn.log_softmax(model(targets))) for model in models]
    found = zoo.ensemble(models)(targets)
    np.testing.assert_allclose(found, np.mean(each, axis=0), atol=1e-6)


def test_a_wide_beam_finds_the_best_of_all():
    models = three()
    rows = [(*h, 2) for t in range(4) for h in itertools.product((3, 4, 5), repeat=t)]
    rows += list(itertools.product((3, 4, 5), repeat=4))
    targets = np.array([row + (0,) * (4 - len(row)) for row in rows])
    found = zoo.ensemble(models).search(SOURCES, beam_size=len(rows), num_return=9)
    for i, source in enumerate(SOURCES):
        sources = np.tile(source, (len(rows), 1))
        scores = np.mean([model.score(sources, targets) for model in models], axis=0)
        best = np.argsort(-scores, kind="stable")[:9]
        np.testing.assert_allclose(found.scores[i], scores[best], atol=1e-4)
        assert (found.token_ids[i, 0] == targets[best[0]]).all()


def test_alignments_are_the_mean_of_those_that_have_any():
    models = three()
    targets = np.array([[4, 5, 2], [5, 2, 0]])
    seen = [models[i].search(SOURCES, target=targets).alignments for i in (0, 2)]
    found = zoo.ensemble(models).search(SOURCES, target=targets)
    np.testing.assert_allclose(found.alignments, np.mean(seen, axis=0), atol=1e-6)
    assert zoo.ensemble(models).attends and not zoo.ensemble([models[1]] * 2).attends


def test_one_model_twice_is_that_model():
    model = small_models.small("attention", **small_models.CHEAP)
    twice = zoo.ensemble([model, model])
    words = ["abc", "", "hello"]
    assert twice.generate(words, beam_size=3) == model.generate(words, beam_size=3)
    assert twice.generate(words, temperature=1.0, seed=3) == model.generate(
        words, temperature=1.0, seed=3
    )
    assert list(twice.stream("abc")) == list(model.stream("abc"))
    assert twice.attend("abc").target_tokens == model.attend("abc").target_tokens
    np.testing.assert_allclose(twice.score(words, words), model.score(words, words), atol=1e-5)
    assert len(twice.weights) == len(model.weights)
    expected = model.generation_metrics(small_models.WORDS, small_models.SPOKEN)
    assert twice.generation_metrics(small_models.WORDS, small_models.SPOKEN) == expected


def test_what_does_not_fit_is_refused():
    model = small_models.shared("attention")
    other = zoo.build("attention", units=4, source=9, target=8)
    with pytest.raises(TypeError, match=r"models\[1\]: expected a Seq2Seq, got str"):
        zoo.ensemble([model, "attention"])
    with pytest.raises(TypeError, match="models: expected a list of models, got Seq2Seq"):
        zoo.ensemble(model)
    with pytest.raises(ValueError, match="models: expected two or more, got 1"):
        zoo.ensemble([model])
    with pytest.raises(ValueError, match=r"models\[1\]: expected source="):
        zoo.ensemble([model, other])
    with pytest.raises(ValueError, match=r"models\[1\]: expected max_target=9"):
        zoo.ensemble([model, small_models.small("attention", max_target=8)])
    with pytest.raises(ValueError, match=r"models\[1\]: all models copy, or none"):
        zoo.ensemble([model, small_models.shared("attention_copy")])


def test_a_mean_is_as_wide_as_its_widest():
    import tensorflow as tf

    found = mean([tf.constant([1.0], tf.float64), tf.constant([2.0])])
    assert found.dtype == tf.float64 and found.numpy().tolist() == [1.5]


def test_copies_are_put_together():
    both = text.WhitespaceTokenizer.learn(["a b c"])
    models = [
        small_models.randomised(
            zoo.build("attention", copy="pointer", source=both, target=both, units=6, max_target=5),
            seed=seed,
        )
        for seed in range(2)
    ]
    assert isinstance(models[0].decoder.gate, layers.PointerGate)
    found = zoo.ensemble(models).search(["a Q b"], beam_size=2)
    expected = np.mean([m.search(["a Q b"], target=["Q Q"]).scores for m in models])
    forced = zoo.ensemble(models).search(["a Q b"], target=["Q Q"])
    np.testing.assert_allclose(forced.scores, [[expected]], atol=1e-4)
    assert np.isfinite(found.scores).all()
