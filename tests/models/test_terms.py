"""Terms of the loss: coverage and the choices of hard attention, against loops; and in training."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
import reference
import small_models
import tensorflow as tf

from keras_attn import layers, zoo
from keras_attn.models.terms import StepTerms, Trained

WORDS, SPOKEN = small_models.FEW, small_models.FEW_SPOKEN
BATCH, LENGTH, SIZE = 4, 5, 7
TARGET_OUT = np.array([[4, 5, 6, 4, 2], [5, 2, 0, 0, 0], [2, 0, 0, 0, 0], [6, 4, 2, 0, 0]], "int32")


def sample(seed=0):
    """Return a prediction in training, and weights (B, T) that are 0 at padding."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1, (BATCH, LENGTH, SIZE)).astype("float32")
    terms = np.stack([rng.uniform(0, 1, (BATCH, LENGTH)), -rng.uniform(0, 3, (BATCH, LENGTH))], -1)
    weights = rng.uniform(0.5, 2, (BATCH, 1)) * (TARGET_OUT != 0)
    return Trained(logits, terms.astype("float32")), weights.astype("float32")


def built(**options):
    terms = StepTerms(**options)
    terms.build()
    return terms


def log_p(logits, target_out=TARGET_OUT):
    """Return the log-probability of each token (B, T), 0 at padding."""
    found = np.zeros(target_out.shape)
    for b, t in zip(*np.nonzero(target_out), strict=True):
        found[b, t] = reference.log_softmax(logits[b, t])[target_out[b, t]]
    return found


def by_loops(y_pred, weights, feeds, baseline):
    """Return the value of the terms, token by token."""
    rewards, total, count = log_p(y_pred.logits), 0.0, 0
    for b in range(BATCH):
        for t in range(LENGTH):
            if not TARGET_OUT[b, t]:
                continue
            reached = [s for s in range(t, LENGTH if feeds else t + 1) if TARGET_OUT[b, s]]
            gain = sum(rewards[b, s] - baseline for s in reached)
            penalty, chance = y_pred.terms[b, t]
            total += weights[b, t] * (penalty - gain * chance)
            count += 1
    return total / count


# === Numbers ===


@pytest.mark.parametrize("baseline", [0.0, -1.5])
@pytest.mark.parametrize("feeds", [False, True])
def test_the_terms_are_those_of_a_loop(feeds, baseline):
    terms, (y_pred, weights) = built(feeds=feeds), sample()
    terms.baseline.assign(baseline)
    expected = by_loops(y_pred, weights, feeds, baseline)
    np.testing.assert_allclose(terms(TARGET_OUT, y_pred, weights), expected, rtol=1e-5)


def test_the_penalty_is_a_mean_over_real_tokens():
    terms, (y_pred, _) = built(), sample()
    no_choice = y_pred.terms * [1.0, 0.0]
    found = terms(TARGET_OUT, y_pred._replace(terms=no_choice), (TARGET_OUT != 0) * 1.0)
    expected = y_pred.terms[..., 0][TARGET_OUT != 0].mean()
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("feeds", [False, True])
def test_what_stands_at_padding_does_nothing(feeds):
    (y_pred, weights), padding = sample(), (TARGET_OUT == 0)[..., None]
    bad = Trained(*(np.where(padding, 1e9, x).astype("float32") for x in y_pred))
    found, expected = (built(feeds=feeds)(TARGET_OUT, x, weights) for x in (bad, y_pred))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_baseline_is_a_moving_average_of_a_tokens_log_probability():
    terms, expected = built(momentum=0.75), 0.0
    assert not terms.trainable_variables and terms.baseline == 0
    for seed in range(4):
        y_pred, weights = sample(seed)
        terms(TARGET_OUT, y_pred, weights)
        mean = log_p(y_pred.logits)[TARGET_OUT != 0].mean()
        expected = 0.75 * expected + 0.25 * mean
        np.testing.assert_allclose(terms.baseline, expected, rtol=1e-5)


def test_a_batch_without_tokens_is_nothing():
    y_pred, weights = sample()
    terms = built()
    assert terms(TARGET_OUT * 0, y_pred, weights * 0) == 0 and terms.baseline == 0


@pytest.mark.parametrize("feeds", [False, True])
def test_no_gradient_goes_through_the_reward(feeds):
    y_pred, weights = sample()
    logits, values = (tf.constant(x) for x in y_pred)
    with tf.GradientTape() as tape:
        tape.watch([logits, values])
        loss = built(feeds=feeds)(TARGET_OUT, Trained(logits, values), weights)
    through_logits, through_terms = tape.gradient(loss, [logits, values])
    assert through_logits is None
    gradient, real = np.array(through_terms), TARGET_OUT != 0
    np.testing.assert_allclose(gradient[..., 0], weights / real.sum(), rtol=1e-6)
    rewards = log_p(y_pred.logits)
    if feeds:
        rewards = np.cumsum(rewards[:, ::-1], axis=1)[:, ::-1]
    np.testing.assert_allclose(gradient[..., 1], -rewards * weights / real.sum(), atol=1e-6)


def test_without_terms_there_are_no_weights():
    assert not built(depth=0).weights and len(built().weights) == 1


def test_the_terms_survive_saving():
    terms = built(depth=2, feeds=True, momentum=0.5, name="mine")
    again = StepTerms.from_config(terms.get_config())
    assert again.get_config() == terms.get_config()
    assert (again.depth, again.feeds, again.momentum) == (2, True, 0.5)


# === The gradient of the expected reward ===

CHOICES, DRAWS = 3, 40_000


def chosen(scores):
    """Draw positions (DRAWS, 1, 3) and their log-probabilities (DRAWS, 1)."""
    soft = tf.repeat(tf.nn.softmax(scores)[None, None], DRAWS, axis=0)
    hard = layers.Hard(training="score_function")
    return hard.choose(soft, tf.zeros((DRAWS, 1, 0)), training=True)


@pytest.mark.parametrize("baseline", [0.0, -1.0])
def test_sampled_gradients_approach_that_of_the_expected_reward(baseline):
    scores = tf.constant([0.5, -0.3, 0.1])
    table = tf.constant(np.random.default_rng(0).normal(0, 1.5, (CHOICES, SIZE)), tf.float32)
    target_out, terms = np.full((DRAWS, 1), 4), built()
    terms.baseline.assign(baseline)
    with tf.GradientTape() as tape:
        tape.watch(scores)
        hard, chances = chosen(scores)
        logits = hard @ table
        stacked = tf.stack([tf.zeros_like(chances), chances], axis=-1)
        loss = terms(target_out, Trained(logits, stacked), np.ones((DRAWS, 1)))
    with tf.GradientTape() as exact:
        exact.watch(scores)
        rewards = tf.nn.log_softmax(table)[:, 4]
        expected = -tf.reduce_sum(tf.nn.softmax(scores) * rewards)
    found, expected = tape.gradient(loss, scores), exact.gradient(expected, scores)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_sampled_gradients_reach_what_a_choice_does_to_later_tokens():
    scores = [tf.constant([0.5, -0.3, 0.1]), tf.constant([0.2, 0.4, -0.6])]
    rng = np.random.default_rng(0)
    first = tf.constant(rng.normal(0, 1.5, (CHOICES, SIZE)), tf.float32)
    second = tf.constant(rng.normal(0, 1.5, (CHOICES, CHOICES, SIZE)), tf.float32)
    target_out, terms = np.tile([4, 5], (DRAWS, 1)), built(feeds=True)
    terms.baseline.assign(-1.0)
    with tf.GradientTape() as tape:
        tape.watch(scores)
        draws = [chosen(x) for x in scores]
        one, two = (hard[:, 0] for hard, _ in draws)
        logits = tf.stack([one @ first, tf.einsum("ni,nj,ijv->nv", one, two, second)], axis=1)
        chances = tf.concat([chance for _, chance in draws], axis=1)
        stacked = tf.stack([tf.zeros_like(chances), chances], axis=-1)
        loss = terms(target_out, Trained(logits, stacked), np.ones((DRAWS, 2)))
    with tf.GradientTape() as exact:
        exact.watch(scores)
        p, q = (tf.nn.softmax(x) for x in scores)
        rewards = tf.nn.log_softmax(first)[:, 4], tf.nn.log_softmax(second)[..., 5]
        pairs = itertools.product(range(CHOICES), range(CHOICES))
        reward = sum(p[i] * q[j] * (rewards[0][i] + rewards[1][i, j]) for i, j in pairs)
        expected = -reward / 2  # a mean over two tokens
    for found, gradient in zip(
        tape.gradient(loss, scores), exact.gradient(expected, scores), strict=True
    ):
        np.testing.assert_allclose(found, gradient, atol=0.03)


# === Models ===


def scored():
    return layers.Hard(training="score_function")


def learner(**options):
    keras.utils.set_random_seed(0)
    source, target = small_models.tokenizers()
    options = {"units": 8, "embedding_size": 6, "max_source": 12, "max_target": 9, **options}
    return zoo.build("attention", source=source, target=target, **{"dropout": 0.0, **options})


OPTIONS = {
    "coverage": lambda: {"coverage_loss": 0.5},
    "choices": lambda: {"normaliser": scored()},
    "both": lambda: {"coverage_loss": 0.5, "normaliser": scored()},
    "input feeding": lambda: {"coverage_loss": 0.5, "normaliser": scored(), "input_feeding": True},
    "attends first": lambda: {"normaliser": scored(), "order": "attend_update"},
    "carries coverage": lambda: {"coverage_loss": 0.5, "order": "attend_update"},
    "heads": lambda: {"coverage_loss": 0.5, "normaliser": scored(), "num_heads": 2},
}
every = pytest.mark.parametrize("kind", OPTIONS)


@pytest.mark.parametrize(
    "kind, eager", [("both", False), ("input feeding", False), ("attends first", True)]
)
def test_it_trains_is_saved_and_trains_on(kind, eager, tmp_path):
    model = learner(**OPTIONS[kind]())
    model.compile(keras.optimizers.Adam(0.01), jit_compile=False, run_eagerly=eager)
    history = model.fit(WORDS, SPOKEN, epochs=2, verbose=0, seed=0).history
    for values in history.values():
        assert np.isfinite(values).all()
    assert np.isfinite(model.terms.baseline) and model.terms.baseline < 0
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.terms.get_config() == model.terms.get_config()
    for weight, expected in zip(again.weights, model.weights, strict=True):
        np.testing.assert_array_equal(weight, expected)
    again.run_eagerly = True
    losses = again.fit(WORDS, SPOKEN, verbose=0, seed=0).history["loss"]
    assert np.isfinite(losses).all() and again.terms.baseline != model.terms.baseline


@pytest.mark.parametrize("kind, eager", [("both", False), ("input feeding", True)])
def test_it_trains_on_its_own_tokens(kind, eager):
    model = learner(**OPTIONS[kind]())
    model.compile("adam", scheduled_sampling=0.5, jit_compile=False, run_eagerly=eager)
    losses = model.fit(WORDS, SPOKEN, epochs=2, verbose=0, seed=0).history["loss"]
    assert np.isfinite(losses).all() and model.terms.baseline < 0
    source, target_in = small_models.some_ids(model)
    found = model({"source": source, "target_in": target_in}, training=True)
    assert type(found) is Trained and found.terms.shape == (*target_in.shape, 2)


@every
def test_training_alone_returns_terms(kind):
    model = small_models.randomised(learner(**OPTIONS[kind]()))
    source, target_in = small_models.some_ids(model)
    inputs = {"source": source, "target_in": target_in}
    found, plain = model(inputs, training=True), model(inputs)
    assert type(found) is Trained and tf.is_tensor(plain)
    assert found.logits.shape == plain.shape == (*target_in.shape, model.target_size)
    assert found.terms.shape == (*target_in.shape, 2) and found.terms.dtype == "float32"
    penalty, chance = np.moveaxis(np.array(found.terms), -1, 0)
    assert (chance < 0).any() == ("normaliser" in OPTIONS[kind]()) and (chance <= 0).all()
    assert (penalty > 0).any() == ("coverage_loss" in OPTIONS[kind]()) and (penalty >= 0).all()
    assert (penalty[:, 0] == 0).all()  # nothing was looked at before


@pytest.mark.parametrize("kind", ["both", "carries coverage"])
def test_the_loss_of_validation_has_no_terms(kind):
    model = small_models.randomised(learner(**OPTIONS[kind]()))
    model.compile("sgd", run_eagerly=True)
    baseline = model.terms.baseline.numpy()
    loss = model.evaluate(WORDS, SPOKEN, verbose=0, return_dict=True)["loss"]
    tokens = sum(len(spoken.split()) + 1 for spoken in SPOKEN)
    np.testing.assert_allclose(loss, -model.score(WORDS, SPOKEN).sum() / tokens, rtol=1e-5)
    assert model.terms.baseline == baseline


def test_the_coverage_loss_is_the_weighed_penalty_of_the_papers():
    model = small_models.randomised(learner(coverage_loss=0.5))
    source, target_in = small_models.some_ids(model)
    inputs = {"source": source, "target_in": target_in}
    found = model(inputs, training=True)
    total = np.zeros((len(source), source.shape[1]))
    alignments = np.array(model.alignments(inputs))
    for t in range(target_in.shape[1]):
        expected = 0.5 * np.minimum(alignments[:, t], total).sum(axis=1)
        np.testing.assert_allclose(found.terms[:, t, 0], expected, atol=1e-5)
        total += alignments[:, t]
    model.compile("sgd")
    weights = np.ones(len(source), "float32")
    plain = model.compute_loss(inputs, target_in, found.logits, weights)
    terms = model.terms(target_in, found, (target_in != 0) * 1.0)
    loss = model.compute_loss(inputs, target_in, found, weights)
    np.testing.assert_allclose(loss, plain + terms, rtol=1e-5)


def test_the_weights_of_the_scores_learn_from_choices_alone():
    model = small_models.randomised(learner(normaliser=scored()))
    source, target_in = small_models.some_ids(model)
    inputs = {"source": source, "target_in": target_in}
    model.compile("sgd")
    kernel = model.decoder.context.attention.scorer.kernel.value
    gradients = []
    for with_terms in (False, True):
        with tf.GradientTape() as tape:
            found = model(inputs, training=True)
            loss = model.compute_loss(inputs, target_in, found if with_terms else found.logits)
        gradients.append(tape.gradient(loss, kernel))
    assert gradients[0] is None or not np.any(gradients[0])
    assert np.abs(gradients[1]).max() > 0


@pytest.mark.parametrize(
    "options, feeds",
    [
        ({}, False),
        ({"input_feeding": True}, True),
        ({"order": "attend_update"}, True),
        ({"readout_state": "previous", "order": "attend_update"}, True),
        ({"scorer": "location_sensitive"}, True),
        ({"scorer": "coverage"}, True),
    ],
    ids=str,
)
def test_what_later_steps_read_of_a_choice_counts_for_its_reward(options, feeds):
    assert learner(normaliser=scored(), **options).terms.feeds == feeds
