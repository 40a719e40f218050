"""Seq2Seq with what Keras brings: optimizers, callbacks; and its own errors."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import small_models
import tensorflow as tf

from keras_attn import text, training, zoo

WORDS, SPOKEN = small_models.WORDS, small_models.SPOKEN


def learner(name="attention", **options):
    keras.utils.set_random_seed(0)
    source, target = small_models.tokenizers()
    options = {"units": 16, "embedding_size": 8, "dropout": 0.0, "max_source": 12, **options}
    return zoo.build(name, source=source, target=target, **options)


def cheap(**options):
    """Return a model whose graphs are made soon, where it does not matter which model it is."""
    return learner("context_as_init", **small_models.CHEAP, **options)


@pytest.mark.parametrize(
    "optimizer",
    small_models.some(
        ["rmsprop", keras.optimizers.Lion(1e-3), "sgd", keras.optimizers.Adadelta(1.0)], 2
    ),
)
def test_any_optimizer(optimizer):
    model = cheap()
    model.compile(optimizer, steps_per_execution=2)
    history = model.fit(WORDS * 2, SPOKEN * 2, epochs=3, verbose=0, seed=0).history
    assert history["loss"][-1] < history["loss"][0]
    assert set(history) == {"loss", "perplexity", "token_accuracy"}


def test_it_learns_and_keras_callbacks_work(tmp_path):
    model = learner()
    model.compile(keras.optimizers.Adam(0.02))
    callbacks = [
        training.GenerationMetrics(WORDS, SPOKEN, every=2),
        keras.callbacks.EarlyStopping("loss", patience=30),
        keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", "loss", save_best_only=True),
        keras.callbacks.BackupAndRestore(tmp_path / "backup"),
        keras.callbacks.TensorBoard(tmp_path / "logs"),
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
    ]
    history = model.fit(
        WORDS * 20,
        SPOKEN * 20,
        epochs=4,
        batch_size=4,
        validation_data=(WORDS, SPOKEN),
        callbacks=callbacks,
        verbose=0,
        seed=0,
    ).history
    assert model.generate(WORDS) == SPOKEN
    assert model.predict(WORDS) == SPOKEN and model.generate("abc") == "c b a"
    assert history["val_exact_match"][-1] == 1 and history["val_edit_distance_rate"][-1] == 0
    assert history["val_loss"][-1] < 0.3
    best = keras.saving.load_model(tmp_path / "best.keras")
    assert best.generate(WORDS) == SPOKEN
    assert list((tmp_path / "logs").rglob("events*")) and (tmp_path / "log.csv").stat().st_size
    logs = model.evaluate(WORDS, SPOKEN, verbose=0, return_dict=True)
    tokens = sum(len(spoken.split()) + 1 for spoken in SPOKEN)
    perplexity = np.exp(-model.score(WORDS, SPOKEN).sum() / tokens)
    assert logs["token_accuracy"] == 1 and abs(logs["perplexity"] - perplexity) < 1e-4


def test_fit_on_a_dataset_of_strings_is_fit_on_lists():
    losses = []
    for data in ((WORDS, SPOKEN), (tf.data.Dataset.from_tensor_slices((WORDS, SPOKEN)), None)):
        model = cheap()
        model.compile("sgd")
        history = model.fit(*data, epochs=2, verbose=0, shuffle=False, batch_size=100)
        losses.append(history.history["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_validation_split_takes_the_last_pairs():
    model = cheap()
    model.compile("sgd")
    model.fit(WORDS, SPOKEN, validation_split=0.25, verbose=0, seed=0)
    logs = model.fit(WORDS, SPOKEN, validation_split=0.25, verbose=0, seed=0, epochs=1).history
    expected = model.evaluate(WORDS[6:], SPOKEN[6:], verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["val_loss"], expected["loss"], rtol=1e-5)


def test_sample_weight_zero_is_as_if_the_pair_taught_nothing():
    weights = np.array([1, 1, 0, 0, 0, 0, 0, 0], np.float32)
    model = learner()
    model.compile("sgd")
    before = [w.numpy() for w in model.weights]
    model.fit(WORDS, SPOKEN, sample_weight=weights * 0, verbose=0)
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)
    model.compile(keras.optimizers.Adam(0.02))
    repeated = WORDS * 20, SPOKEN * 20
    model.fit(*repeated, sample_weight=np.tile(weights, 20), epochs=2, batch_size=4, verbose=0)
    assert model.generate(WORDS[:2]) == SPOKEN[:2] and model.generate(WORDS[4:]) != SPOKEN[4:]


def test_label_smoothing_and_scheduled_sampling():
    plain, smooth = (cheap() for _ in range(2))
    plain.compile("sgd")
    smooth.compile("sgd", label_smoothing=0.2)
    losses = [m.evaluate(WORDS, SPOKEN, verbose=0, return_dict=True) for m in (plain, smooth)]
    assert losses[0]["perplexity"] == losses[1]["perplexity"]
    sampled = learner()
    schedule = keras.optimizers.schedules.PolynomialDecay(0.0, 10, 0.5)
    sampled.compile(keras.optimizers.Adam(0.02), scheduled_sampling=schedule)
    sampled.fit(WORDS * 20, SPOKEN * 20, epochs=6, batch_size=4, verbose=0, seed=0)
    assert sampled.generate(WORDS) == SPOKEN


def test_scheduled_sampling_feeds_the_models_own_tokens():
    model = small_models.small("attention", dropout=0.0)
    model.compile("sgd", scheduled_sampling=1.0)
    source, target_in = small_models.some_ids(model)
    sampled = model({"source": source, "target_in": target_in}, training=True)
    memory, state = model.encode(source)
    token = target_in[:, 0]
    for t in range(target_in.shape[1]):
        logits, _, state = model.step(token, state, memory)
        np.testing.assert_allclose(sampled[:, t], logits, atol=1e-5)
        token = np.argmax(logits, -1)
    model.compile("sgd", scheduled_sampling=0.0)
    given = model({"source": source, "target_in": target_in}, training=True)
    assert np.abs(given - sampled).max() > 0.01


def test_predict_takes_what_fit_takes():
    model = small_models.small("attention")
    expected = model.generate(WORDS)
    pairs = tf.data.Dataset.from_tensor_slices((WORDS, SPOKEN))
    assert model.predict(WORDS) == model.predict(pairs) == model.predict(pairs.batch(3)) == expected
    source, target_in = small_models.some_ids(model)
    inputs = {"source": source, "target_in": target_in}
    np.testing.assert_allclose(model.predict(inputs, verbose=0), model(inputs), atol=1e-5)


def test_ids_are_cut_as_strings_are():
    model = zoo.build(
        "attention", source=9, target=9, units=4, embedding_size=4, max_source=4, max_target=3
    )
    small_models.randomised(model)
    model.compile("sgd")
    x = {"source": [[4, 5, 6, 7, 8, 2], [4, 2, 0, 0, 0, 0]]}
    x["target_in"] = [[1, 6, 7, 8, 5], [1, 6, 0, 0, 0]]
    y = [[6, 7, 8, 5, 2], [6, 2, 0, 0, 0]]
    with pytest.warns(UserWarning, match="1 of 2 pairs were longer than max_source=4 or max_tar"):
        loss = model.evaluate(x, y, verbose=0, return_dict=True)["loss"]
    with pytest.warns(UserWarning, match="1 of 2 (sources|targets) were longer"):
        scores = model.score(x["source"], y)
    np.testing.assert_allclose(loss, -scores.sum() / 5, rtol=1e-5)
    with pytest.warns(UserWarning, match="were dropped"):
        loss = model.evaluate(x, y, verbose=0, return_dict=True, too_long="drop")["loss"]
    np.testing.assert_allclose(loss, -scores[1] / 2, rtol=1e-5)
    with pytest.raises(ValueError, match="too_long"):
        model.fit(x, y, too_long="keep")


def test_sample_weights_of_any_shape_in_turn():
    model = small_models.randomised(cheap())
    model.compile("sgd")
    source, target_in = small_models.some_ids(model)
    x, y = {"source": source, "target_in": target_in}, target_in
    for shape in ((5, 6), (5, 1), (5,)):
        logs = model.evaluate(x, y, sample_weight=np.full(shape, 2.0), verbose=0, return_dict=True)
        plain = model.evaluate(x, y, verbose=0, return_dict=True)
        np.testing.assert_allclose(logs["loss"], 2 * plain["loss"], rtol=1e-5)
    for shape in ((8, 1), (8,)):
        model.fit(WORDS, SPOKEN, sample_weight=np.ones(shape), verbose=0)


def test_streams_of_nothing_are_refused_and_long_pairs_reported():
    model = cheap()
    model.compile("sgd")
    pairs = tf.data.Dataset.from_tensor_slices((WORDS, SPOKEN))
    nothing = pairs.filter(lambda source, target: False)
    for call in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match="got an empty dataset"):
            call(nothing, verbose=0)
    short = cheap(max_source=4)
    short.compile("sgd")
    for call in (short.evaluate, lambda x, verbose: short.fit("ab", "a", validation_data=x)):
        with pytest.warns(UserWarning, match="4 of 8 pairs were longer"):
            call(pairs, verbose=0)


def test_attend_warns_once_and_score_of_targets():
    model = small_models.small("attention", max_source=4, max_target=3)
    with pytest.warns(UserWarning) as warned:
        model.attend("abcdefg")
    assert len([w for w in warned if "were longer" in str(w.message)]) == 1
    with pytest.warns(UserWarning, match="1 of 1 targets were longer than max_target=3"):
        model.score("a", "a b c d")


def test_ids_as_lists():
    model = zoo.build("attention", source=9, target=9, units=4, embedding_size=4)
    model.compile("sgd")
    model.fit({"source": [[4, 5, 2]], "target_in": [[1, 6]]}, [[6, 2]], verbose=0)
    found = model.generate([[4, 5, 2]])
    np.testing.assert_array_equal(model.predict({"source": [[4, 5, 2]]}), found)


def test_generate_follows_training():
    model = learner()
    model.compile(keras.optimizers.Adam(0.02))
    before = model.generate(WORDS)
    model.fit(WORDS * 20, SPOKEN * 20, epochs=3, batch_size=4, verbose=0, seed=0)
    assert before != SPOKEN and model.generate(WORDS) == SPOKEN


def test_bytes_in_bytes_targets_and_shared_tokeniser():
    both = text.ByteTokenizer()
    model = zoo.build(
        "attention",
        source=both,
        target=both,
        units=8,
        embedding_size=8,
        share_embeddings=True,
        tie_readout=True,
    )
    model.compile("adam")
    model.fit([b"\xff\xfe", b"ab"], [b"\x00", b"b"], verbose=0)
    assert len(model.generate([b"\xff", "é"])) == 2
    assert len(model.weights) == len({id(w) for w in model.weights})


@pytest.fixture(scope="module")
def refusing():
    """A compiled model, which what it refuses does not change."""
    model = learner()
    model.compile("sgd")
    return model


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: m.fit([], []), ValueError, "x: expected at least one"),
        (lambda m: m.fit(WORDS, SPOKEN[:3]), ValueError, "y: expected 8 rows"),
        (lambda m: m.fit(["a", 3], ["b", "c"]), TypeError, r"x\[1\]: expected str or bytes.*int 3"),
        (lambda m: m.fit(WORDS, None), ValueError, "y: expected the targets"),
        (lambda m: m.fit(WORDS, SPOKEN, class_weight={0: 1}), ValueError, "class_weight"),
        (
            lambda m: m.fit(WORDS, SPOKEN, too_long="keep"),
            ValueError,
            "'cut' or 'drop', got 'keep'",
        ),
        (lambda m: m.fit(WORDS, SPOKEN, batch_size=0), ValueError, "batch_size.*got 0"),
        (lambda m: m.fit(WORDS, SPOKEN, shufle=True), TypeError, "shufle"),
        (lambda m: m.fit(WORDS, SPOKEN, validation_split=2.0), ValueError, "validation_split"),
        (
            lambda m: m.fit({"source": [[4, 2]], "target_in": [[1, 99]]}, [[4, 2]]),
            ValueError,
            r"target_in'\]\[0, 1\]: expected an id of the vocabulary, 0 to \d+, got 99",
        ),
        (lambda m: m.fit({"source": [[4, 2]]}, [[4]]), ValueError, r"got none of \['target_in'\]"),
        (
            lambda m: m.fit({"source": [[4, 2]], "target_in": [[1, 4]]}, [[4]]),
            ValueError,
            r"y: expected the shape of x\['target_in'\], \(1, 2\), got \(1, 1\)",
        ),
        (lambda m: m.generate([[4, 2]]), TypeError, "expected a string or a list of strings"),
        (lambda m: m.generate(WORDS, max_length=0), ValueError, "max_length: .* 1 to .*, got 0"),
        (lambda m: m.generate(WORDS, max_length=99), ValueError, "1 to max_target=64, got 99"),
        (lambda m: m.generate(WORDS, beams=3), TypeError, "'beams' is no option"),
        (lambda m: m.score(WORDS, SPOKEN[:2]), ValueError, "expected 8 rows"),
        (lambda m: m.compile(loss="mse"), ValueError, "use 'auto'"),
        (lambda m: m.compile(loss="no_such_loss"), ValueError, "no_such_loss"),
        (lambda m: m.compile(label_smoothing=1.0), ValueError, "label_smoothing"),
        (lambda m: m.compile(scheduled_sampling=2), ValueError, "scheduled_sampling"),
    ],
)
def test_errors_say_what_came(refusing, call, error, message):
    with pytest.raises(error, match=message):
        call(refusing)


def test_a_loss_that_is_no_number_stops_with_good_weights():
    model = cheap()
    model.compile("adam")
    weights = [1.0] * 7 + [float("inf")]
    with pytest.raises(FloatingPointError, match="smaller learning rate"):
        model.fit(WORDS, SPOKEN, sample_weight=weights, epochs=2, verbose=0, batch_size=2)
    assert all(np.isfinite(w.numpy()).all() for w in model.weights)


def test_too_long_pairs_are_counted():
    model = cheap(max_source=4, max_target=3)
    model.compile("sgd")
    with pytest.warns(UserWarning, match="6 of 8 pairs were longer than max_source=4 or max_t"):
        model.fit(WORDS, SPOKEN, verbose=0)
    with pytest.warns(UserWarning, match="were dropped"):
        model.fit(WORDS, SPOKEN, verbose=0, too_long="drop")
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="Nothing is left"):
        model.fit(["abcdef"], ["a"], verbose=0, too_long="drop")


def dataset_of(*parts):
    return tf.data.Dataset.from_tensor_slices(parts if len(parts) > 1 else parts[0])


COLUMN = np.array(WORDS)[:, None]
NONSENSE = {
    "strings of rank 2": (
        lambda model: model.fit(dataset_of(COLUMN, COLUMN).batch(2)),
        TypeError,
        "x: expected a dataset of",
    ),
    "dicts of strings": (
        lambda model: model.fit(dataset_of({"source": WORDS})),
        TypeError,
        "x: expected a dataset of",
    ),
    "nothing to evaluate": (lambda model: model.evaluate(), ValueError, "got nothing"),
    "wide weights": (
        lambda model: model.fit(WORDS, SPOKEN, sample_weight=np.ones((8, 3))),
        ValueError,
        r"sample_weight: expected shape \(8,\), got \(8, 3\)",
    ),
    "weights that are no numbers": (
        lambda model: model.fit(WORDS, SPOKEN, sample_weight=["a"] * 8),
        TypeError,
        "sample_weight: expected numbers",
    ),
    "no path": (lambda model: model.export(None), TypeError, "filepath: expected a path"),
}


@pytest.mark.parametrize("what", NONSENSE)
def test_nonsense_is_refused_by_name(refusing, what):
    call, error, message = NONSENSE[what]
    with pytest.raises(error, match=message):
        call(refusing)


def test_fit_without_an_optimizer_is_refused():
    model = small_models.small("combined")
    model.compile(None)
    with pytest.raises(ValueError, match="compile the model with an optimizer first"):
        model.fit(WORDS, SPOKEN)


def test_padding_before_tokens_is_refused():
    model = small_models.zoo.build("combined", source=9, target=9, size="tiny")
    with pytest.raises(ValueError, match=r"source\[0, 1\]: got PAD"):
        model.generate(np.array([[5, 0, 6, 2, 0]]))


def test_validation_data_may_be_a_list():
    model = cheap()
    model.compile()
    found = model.fit(WORDS, SPOKEN, validation_data=[WORDS, SPOKEN], verbose=0).history
    assert "val_loss" in found
