"""What holds for every architecture of the zoo, whatever it is made of."""

from __future__ import annotations

import json
import re
import threading

import keras
import numpy as np
import pytest
import small_models
import tensorflow as tf

from keras_attn import layers, zoo

every_name = pytest.mark.parametrize("name", small_models.EVERY)
slow = pytest.mark.parametrize("name", small_models.SLOW)


def called(model, source, target_in):
    return np.array(model({"source": source, "target_in": target_in}))


@every_name
def test_whole_sequence_equals_single_steps(name):
    model = small_models.shared(name)
    source, target_in = small_models.some_ids(model)
    whole = called(model, source, target_in)
    memory, state = model.encode(source)
    for t in range(target_in.shape[1]):
        logits, alignments, state = model.step(target_in[:, t], state, memory)
        np.testing.assert_allclose(logits, whole[:, t], atol=1e-5)
        assert alignments.shape == (5, source.shape[1] if model.decoder.attends else 0)
    assert whole.dtype == np.float32 and np.ptp(whole) > 0.1


@every_name
def test_padding_changes_nothing(name):
    model = small_models.shared(name)
    source, target_in = small_models.some_ids(model)
    wider = np.pad(source, ((0, 0), (0, 3))), np.pad(target_in, ((0, 0), (0, 4)))
    expected = called(model, source, target_in)
    found = called(model, *wider)[:, : target_in.shape[1], : expected.shape[2]]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@every_name
def test_neighbours_change_nothing(name):
    model = small_models.shared(name)
    source, target_in = small_models.some_ids(model)
    together = called(model, source, target_in)
    for row in range(len(source)):
        alone = called(model, source[row : row + 1], target_in[row : row + 1])
        np.testing.assert_allclose(alone[0], together[row], atol=1e-6)


@every_name
def test_the_future_is_not_seen(name):
    model = small_models.shared(name)
    source, target_in = small_models.some_ids(model)
    expected = called(model, source, target_in)
    for t in range(target_in.shape[1] - 1):
        changed = target_in.copy()
        changed[:, t + 1 :] = 3 + (changed[:, t + 1 :] - 2) % (model.target_size - 3)
        assert (changed[:, t + 1 :] != target_in[:, t + 1 :]).all()
        found = called(model, source, changed)
        np.testing.assert_allclose(found[:, : t + 1], expected[:, : t + 1], atol=1e-6)
        if model.decoder.feedback:
            assert np.abs(found[:, t + 1 :] - expected[:, t + 1 :]).max() > 1e-3


@every_name
def test_every_weight_gets_a_gradient(name):
    model = small_models.shared(name)
    source, target_in = small_models.some_ids(model, rows=8)
    with tf.GradientTape() as tape:
        # What chooses one position at inference has a gradient in training alone.
        training = small_models.chooses(model)
        logits = model({"source": source, "target_in": target_in}, training=training)
        loss = tf.reduce_mean(tf.square(logits - 0.5))
    gradients = tape.gradient(loss, model.trainable_variables)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        assert gradient is not None, variable.path
        values = np.array(tf.convert_to_tensor(gradient))
        assert np.isfinite(values).all() and np.abs(values).max() > 0, variable.path


@every_name
def test_alignments_are_distributions_over_real_tokens(name):
    model = small_models.shared(name)
    source, target_in = small_models.some_ids(model)
    alignments = np.array(model.alignments({"source": source, "target_in": target_in}))
    if not model.decoder.attends:
        assert alignments.shape == (5, 6, 0)
        with pytest.raises(ValueError, match="no attention"):
            model.attend("abc")
        return
    assert alignments.dtype == np.float32 and (alignments >= 0).all()
    if type(model.decoder.context.attention.window) is layers.GlobalWindow:
        np.testing.assert_allclose(alignments.sum(-1), 1, atol=1e-6)
    else:  # a window may see nothing
        assert (alignments.sum(-1) < 1 + 1e-6).all() and alignments.sum() > 1
    assert (alignments[np.broadcast_to((source == 0)[:, None], alignments.shape)] == 0).all()
    shown = model.attend("abc")
    assert shown.source_tokens == ["a", "b", "c", "</s>"]
    assert shown.matrix.shape == (len(shown.target_tokens), 4)


@slow
def test_reload_is_equal(name, tmp_path):
    model = small_models.small(name)
    model.compile("adam", label_smoothing=0.1, run_eagerly=True)
    model.fit(small_models.FEW, small_models.FEW_SPOKEN, verbose=0, seed=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for ours, theirs in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert loaded.source == model.source and loaded.target == model.target
    assert described(loaded) == described(model)
    expected = model.score(small_models.WORDS, small_models.SPOKEN)
    np.testing.assert_array_equal(loaded.score(small_models.WORDS, small_models.SPOKEN), expected)
    assert loaded.generate(small_models.WORDS) == model.generate(small_models.WORDS)
    assert loaded.loss.get_config() == model.loss.get_config()
    for ours, theirs in zip(model.optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert loaded.optimizer.iterations > 0


def described(model):
    """Return a model's configuration without the numbers that Keras gives shared objects."""
    return re.sub(r'"shared_object_id": \d+', "", json.dumps(model.get_config()))


@pytest.mark.parametrize(
    ("name", "policy"),
    [*((name, "mixed_bfloat16") for name in small_models.SLOW), ("attention", "mixed_float16")],
)
def test_mixed_precision_trains(name, policy):
    model = small_models.small(name, dtype=policy, dropout=0.0)
    model.compile(keras.optimizers.Adam(0.03), run_eagerly=True)
    few = small_models.FEW * 4, small_models.FEW_SPOKEN * 4
    history = model.fit(*few, epochs=4, verbose=0, seed=0)
    losses = history.history["loss"]
    assert np.isfinite(losses).all() and losses[-1] < 0.9 * losses[0]
    assert all(variable.dtype == "float32" for variable in model.trainable_variables)
    source, target_in = small_models.some_ids(model)
    logits = model({"source": source, "target_in": target_in})
    assert logits.dtype == tf.float32
    memory, state = model.encode(source)
    for t in range(target_in.shape[1]):
        stepped, _, state = model.step(target_in[:, t], state, memory)
        assert stepped.dtype == tf.float32
        np.testing.assert_allclose(stepped, logits[:, t], atol=0.1)
    assert len(model.generate(small_models.WORDS)) == len(small_models.WORDS)


@every_name
def test_generate_is_the_same_alone_in_any_order_and_in_threads(name):
    model = small_models.shared(name)
    sources = [*small_models.WORDS, "", "🙂🙂", "never seen: ЖЖ", "x" * 50]
    with pytest.warns(UserWarning, match="2 of 12 sources were longer than max_source=12"):
        expected = model.generate(sources)
    short = sources[:-2]
    assert [model.generate(source) for source in short] == expected[:-2]
    assert model.generate(short[::-1], batch_size=3) == expected[:-2][::-1]
    assert expected[sources.index("")] == ""
    found = {}
    threads = [
        threading.Thread(target=lambda i=i: found.update({i: model.generate(short)}))
        for i in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] for i in range(6)] == [expected[:-2]] * 6


@every_name
def test_scores_of_search_are_those_of_score(name):
    model = small_models.shared(name)
    source = ["abc", "", "hello", "zzz"]
    found = model.search(source, max_length=7)
    rows = found.token_ids[:, 0]
    memory, state = model.encode(tokens_of(model, source))
    previous, total = np.full(4, 1), np.zeros(4)
    for t in range(rows.shape[1]):  # an independent sum over the steps
        logits, _, state = model.step(previous, state, memory)
        log_p = np.array(tf.nn.log_softmax(logits, axis=-1))
        total += np.where(rows[:, t] == 0, 0, log_p[np.arange(4), rows[:, t]])
        previous = rows[:, t]
    np.testing.assert_allclose(found.scores[:, 0], total, atol=1e-4)
    np.testing.assert_allclose(found.token_scores.sum(-1), found.scores, atol=1e-5)
    ended = found.finished[:, 0]
    texts = model.generate(source, max_length=7)
    scores = model.score(source, texts)
    for i in np.flatnonzero(ended):
        if "<unk>" not in texts[i]:
            assert abs(scores[i] - found.scores[i, 0]) < 1e-4
    assert ended[1] and found.lengths[1, 0] == 1


def tokens_of(model, texts):
    rows = [[*row, 2] for row in model.codec.source_ids(texts).to_list()]
    width = max(map(len, rows))
    return np.array([row + [0] * (width - len(row)) for row in rows], np.int32)


WITHOUT_NOISE = {"attention_monotonic": lambda: {"window": layers.MonotonicWindow(noise=0.0)}}


@slow
def test_xla_gives_the_same_loss_and_gradients(name):
    model = small_models.small(name, dropout=0.0, **WITHOUT_NOISE.get(name, dict)())
    source, target_in = small_models.some_ids(model, rows=3)
    target_out = np.pad(target_in[:, 1:], ((0, 0), (0, 1)))

    def learnt():
        with tf.GradientTape() as tape:
            logits = model({"source": source, "target_in": target_in}, training=True)
            loss = model.compute_loss(None, target_out, logits)
        return loss, *tape.gradient(loss, model.trainable_variables)

    model.compile("sgd")
    compiled = tf.function(learnt, jit_compile=True)()
    for found, expected in zip(compiled, learnt(), strict=True):
        scale = 1 + np.abs(tf.convert_to_tensor(expected)).max()
        np.testing.assert_allclose(
            tf.convert_to_tensor(found), tf.convert_to_tensor(expected), atol=1e-4 * scale
        )


@pytest.mark.parametrize("name", small_models.FITTED_BY_XLA)
def test_xla_fits(name):
    losses = []
    for jit in (False, True):
        model = small_models.small(name, dropout=0.0)
        model.compile(keras.optimizers.SGD(0.1), jit_compile=jit)
        history = model.fit(["abc", "zz"], ["c b a", "z z"], epochs=2, verbose=0, shuffle=False)
        losses.append(history.history["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-4)
    assert losses[0][1] < losses[0][0]


@slow
def test_ids_without_tokenisers(name):
    model = zoo.build(name, source=11, target=9, units=8, embedding_size=6)
    small_models.randomised(model)
    source, target_in = small_models.some_ids(model)
    target_out = np.concatenate([target_in[:, 1:], np.full((5, 1), 2)], axis=1)
    model.compile("adam", run_eagerly=True)
    model.fit({"source": source, "target_in": target_in}, target_out, verbose=0)
    found = model.generate(source)
    size = model.codec.target_limit(source.shape[1])
    assert size == 9 + source.shape[1] * (name == "attention_copy")  # no other knows more ids
    assert found.dtype.kind == "i" and len(found) == 5 and ((found >= 0) & (found < size)).all()
    scores = model.score(source, found)
    np.testing.assert_allclose(scores, model.search(source).scores[:, 0], atol=1e-4)
    logits = model.predict({"source": source, "target_in": target_in}, verbose=0)
    assert logits.shape == (5, 6, size)
