"""Models that copy: unknown tokens in and out, in training, asking, scoring and export."""

from __future__ import annotations

import base64
import functools
import json
import random
import subprocess
import sys
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
import small_models
import tensorflow as tf

import keras_attn.serving
from keras_attn import text, zoo
from keras_attn.training import TokenMean
from keras_attn.types import BOS, EOS, SPECIAL_TOKENS

RUN = Path(__file__).parent.parent / "run_export.py"
SESSION = Path(keras_attn.serving.__file__).with_name("session.py")

# Words that no vocabulary knows are in capitals.
PHRASES = ["go to OSLO", "see ANN", "go", "see BOB go", "to ROMA"]
ANSWERS = ["OSLO go", "ANN see", "go", "go BOB", "ROMA"]
LETTERS = ["abcÄ", "bÖc", "ca", "Üb", "ab"]
TURNED = ["Äcba", "cÖb", "ac", "bÜ", "ba"]


def words(*known):
    return text.WhitespaceTokenizer([*SPECIAL_TOKENS, *known])


def letters(known):
    return text.CharacterTokenizer([*SPECIAL_TOKENS, *known])


TOKENISERS = {
    "words": (words("go", "to", "see"), words("go", "see")),
    "characters": (letters("abc"), letters("cab")),
}
DATA = {"words": (PHRASES, ANSWERS), "characters": (LETTERS, TURNED)}
every = pytest.mark.parametrize("kind", TOKENISERS)


def copier(kind="words", pair=None, **options):
    keras.utils.set_random_seed(0)
    source, target = pair or TOKENISERS[kind]
    options = {"units": 8, "embedding_size": 6, "max_source": 8, "max_target": 7, **options}
    return zoo.build("attention_copy", source=source, target=target, **{"dropout": 0.0, **options})


def always_copying(model, scale=1.5, seed=1):
    """Give random weights, but for the gate, which never generates."""
    small_models.randomised(model, scale, seed)
    gate = model.decoder.gate.project
    gate.kernel.assign(np.zeros(gate.kernel.shape))
    gate.bias.assign([-80.0])
    return model


@functools.cache
def shared(kind):
    """Return a model that always copies, made once: do not train it."""
    return always_copying(copier(kind), seed={"words": 1, "characters": 3}[kind])


def strings(number=50):
    """Return phrases with known and unknown words, and what could go wrong."""
    rng = random.Random(0)
    known = ["go", "to", "see", "OSLO", "ANN", "Ж", "👍", "</s>", "<unk>", "é"]
    odd = ["", " ", "X", "X X X", "go " * 20, "</s>", "Y\0Z go"]
    drawn = [" ".join(rng.choices(known, k=rng.randrange(1, 7))) for _ in range(number - len(odd))]
    return odd + drawn


# === Shapes and training ===


@every
def test_logits_are_log_probabilities_over_vocabulary_and_source(kind):
    model = small_models.randomised(copier(kind))
    source, target_in = small_models.some_ids(model, length=6)
    source[0, :2] = model.source_size + np.arange(2)
    target_in[0, 1] = model.target_size + 1  # read as an unknown token
    logits = model({"source": source, "target_in": target_in})
    assert logits.shape == (*target_in.shape, model.target_size + 6)
    np.testing.assert_allclose(np.exp(logits).sum(axis=-1), 1, atol=1e-5)
    memory, state = model.encode(source)
    for t in range(target_in.shape[1]):
        step, _, state = model.step(target_in[:, t], state, memory)
        np.testing.assert_allclose(step, logits[:, t], atol=1e-4)


@pytest.mark.parametrize("kind, stream", [("words", False), ("characters", True)])
def test_it_trains_on_strings(kind, stream):
    model, data = copier(kind), DATA[kind]
    model.compile(keras.optimizers.Adam(0.02), jit_compile=False, run_eagerly=stream)
    if stream:
        data = (tf.data.Dataset.from_tensor_slices(data), None)
    history = model.fit(*data, epochs=4, verbose=0, seed=0).history
    assert np.isfinite(history["loss"]).all() and history["loss"][-1] < history["loss"][0]


def test_lists_and_datasets_give_the_same_loss():
    losses = []
    for data in ((PHRASES, ANSWERS), (tf.data.Dataset.from_tensor_slices((PHRASES, ANSWERS)),)):
        model = small_models.randomised(copier())
        model.compile("sgd", run_eagerly=True)
        losses.append(model.evaluate(*data, verbose=0, return_dict=True)["perplexity"])
    tokens = sum(len(answer.split()) + 1 for answer in ANSWERS)
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    perplexity = np.exp(-model.score(PHRASES, ANSWERS).sum() / tokens)
    np.testing.assert_allclose(losses[0], perplexity, rtol=1e-4)


def test_it_learns_to_copy_what_it_has_never_seen():
    model = copier(pair=(words("go"), words("go")), units=16, max_source=5, max_target=5)
    rng = random.Random(0)
    names = ["".join(rng.choices("ABCDEFGH", k=3)) for _ in range(256)]
    data = [f"go {name}" for name in names], names
    model.compile(keras.optimizers.Adam(0.02), jit_compile=False)
    model.fit(*data, epochs=8, batch_size=32, verbose=0, seed=0)
    assert model.generate(["go ZZZ", "go QX"]) == ["ZZZ", "QX"]


@every
def test_label_smoothing_is_over_the_vocabulary_and_no_place_in_a_source(kind):
    """Against a loop: (1 - e) of an answer's own -log p, known or copied, and e of the mean."""
    model = small_models.randomised(copier(kind), 1.0, 1)
    model.compile("sgd", label_smoothing=0.3, metrics=[])
    copied = 0
    for source, target in zip(*DATA[kind], strict=True):
        source_ids = [[*model.codec.source_ids([source]).numpy()[0], EOS]]
        tokens = [*model.codec.target_ids([target], [source]).numpy()[0], EOS]
        copied += max(tokens) >= model.target_size
        inputs = {"source": np.array(source_ids), "target_in": np.array([[BOS, *tokens[:-1]]])}
        logits, total = model(inputs)[0].numpy().astype(np.float64), 0.0
        for row, token in zip(logits, tokens, strict=True):
            total -= 0.7 * row[token] + 0.3 * sum(row[: model.target_size]) / model.target_size
        found = model.evaluate([source], [target], verbose=0)
        assert found == pytest.approx(total / len(tokens), rel=1e-5)
    assert copied >= 3


@every
def test_with_label_smoothing_every_weight_learns(kind):
    model = copier(kind)
    model.compile(keras.optimizers.Adam(0.01), label_smoothing=0.1)
    before = [weight.numpy() for weight in model.trainable_weights]
    history = model.fit(*DATA[kind], epochs=10, verbose=0, seed=0).history["loss"]
    assert np.isfinite(history).all() and history[-1] < history[0]
    for weight, was in zip(model.trainable_weights, before, strict=True):
        assert (weight.numpy() != was).any(), weight.path


def test_a_loss_that_smooths_over_places_in_the_source_is_refused():
    model = copier()
    for size in (None, model.target_size + 1):
        message = rf"^loss: .*, got vocabulary_size={size}; give .*={model.target_size} to the loss"
        with pytest.raises(ValueError, match=message):
            model.compile("sgd", TokenMean(label_smoothing=0.1, vocabulary_size=size))
    model.compile("sgd", TokenMean(label_smoothing=0.1, vocabulary_size=model.target_size))
    given = model.evaluate(PHRASES, ANSWERS, verbose=0)
    model.compile("sgd", label_smoothing=0.1)
    assert given == model.evaluate(PHRASES, ANSWERS, verbose=0)


def test_tokenisers_that_forget_the_text_are_refused():
    with pytest.raises(ValueError, match="^source: copying needs the text of unknown tokens"):
        copier(pair=(text.ByteTokenizer(), words("go")))


def test_it_survives_its_file(tmp_path):
    model = shared("words")
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    inputs = dict(zip(("source", "target_in"), small_models.some_ids(model, length=6), strict=True))
    np.testing.assert_allclose(again(inputs), model(inputs), atol=1e-6)
    assert again.codec.max_source == model.codec.max_source


# === Asking ===


@every
def test_what_is_copied_consists_of_source_tokens(kind):
    model, (sources, _) = shared(kind), DATA[kind]
    split = str.split if kind == "words" else list
    found = model.generate(sources)
    for source, said in zip(sources, found, strict=True):
        assert set(split(said)) <= set(split(source))
    unknown = [w for said in found for w in split(said) if w.isupper()]
    assert unknown
    assert [model.generate(source) for source in sources] == found


def test_a_repeated_word_is_one_answer():
    model = shared("words")
    ids = model.search(["X X X"]).token_ids[0, 0]
    assert {*ids.tolist()} <= {model.target_size, EOS, 0}


@every
def test_a_target_that_stands_in_the_source_is_never_impossible(kind):
    model, (sources, targets) = small_models.randomised(copier(kind)), DATA[kind]
    lengths = [len(model.target.tokenize([target]).to_list()[0]) + 1 for target in targets]
    scores = model.score(sources, targets)
    assert np.isfinite(scores).all() and (scores > np.log(1e-20) * np.array(lengths)).all()
    elsewhere = model.score(sources[:1], [targets[0].replace("OSLO", "LIMA")])
    assert np.isfinite(elsewhere).all()


@every
def test_the_score_of_a_search_is_that_of_its_text(kind):
    model, (sources, _) = shared(kind), DATA[kind]
    found = model.search(sources)
    done = found.finished[:, 0]
    said = model.generate(sources)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* targets were longer than max_target")
        scores = model.score(sources, said)
    full = np.array(
        [len(model.target.tokenize([s]).to_list()[0]) == model.max_target for s in said]
    )
    same = done | full
    assert same.any()
    expected = found.scores[same, 0]
    np.testing.assert_allclose(scores[same], expected, rtol=1e-4, atol=1e-4)


@every
def test_a_copied_unknown_token_counts_as_right(kind):
    model, (sources, _) = shared(kind), DATA[kind]
    said = model.generate(sources)
    assert any(letter.isupper() for letter in "".join(said))
    metrics = model.generation_metrics(sources, said)
    assert metrics["edit_distance_rate"] == 0 and metrics["exact_match"] == 1
    several = [["go nowhere", answer] for answer in said]
    assert model.generation_metrics(sources, several)["exact_match"] == 1


def test_a_token_that_the_target_alone_knows_can_be_copied_and_counts_as_right():
    model = always_copying(copier(pair=(words("go"), words("go", "OSLO"))), seed=2)
    said = model.generate("OSLO")
    assert said.split() and set(said.split()) == {"OSLO"}
    found = model.search(["OSLO"])
    assert (said.split() == ["OSLO"] * 7) == (not found.finished[0, 0])
    assert model.generation_metrics(["OSLO"], [said])["edit_distance_rate"] == 0


def test_attend_shows_the_text():
    model = shared("words")
    shown = model.attend(PHRASES)
    for alignments, phrase, said in zip(shown, PHRASES, model.generate(PHRASES), strict=True):
        source, target, matrix = alignments[:3]
        assert list(source) == [*phrase.split(), "</s>"]
        assert [token for token in target if token != "</s>"] == said.split()
        assert matrix.shape == (len(target), len(source))
        np.testing.assert_allclose(matrix.sum(axis=-1), 1, atol=1e-5)


def test_what_is_cut_off_is_not_copied():
    model = always_copying(copier(max_source=3))
    with pytest.warns(UserWarning, match="sources were longer than max_source=3"):
        said = model.generate(["X Y Z W"])
    assert set(said[0].split()) <= {"X", "Y"}


# === Ids ===

VS, V = 10, 9


def ids_model(**options):
    return small_models.randomised(copier(pair=(VS, V), **options), scale=1.0)


def test_ids_up_to_the_places_of_the_source_are_taken():
    model = ids_model()
    source = np.array([[VS, 5, VS + 2, VS, EOS, 0], [9, VS + 1, EOS, 0, 0, 0]])
    target_out = np.array([[V, V + 2, EOS], [V + 1, 4, EOS]])
    target_in = np.concatenate([np.full((2, 1), BOS), target_out[:, :-1]], axis=1)
    found = model.search(source)
    assert (found.token_ids < V + 6).all()
    assert np.isfinite(model.score(source, target_out)).all()
    np.testing.assert_array_equal(model.generate(source), found.token_ids[:, 0])
    model.compile("sgd", run_eagerly=True)
    inputs = {"source": source, "target_in": target_in}
    losses = model.fit(inputs, target_out, verbose=0).history["loss"]
    assert np.isfinite(losses).all()


def test_ids_beyond_the_places_of_the_source_are_refused():
    model = ids_model()
    with pytest.raises(ValueError, match=r"source\[0, 1\]: expected an id .* 0 to 13, got 14"):
        model.generate(np.array([[4, VS + 4, 4, 2]]))
    with pytest.raises(ValueError, match=r"target\[0, 0\]: expected an id .* 0 to 11, got 12"):
        model.score(np.array([[4, 5, 2]]), np.array([[V + 3, 2]]))
    inputs = {"source": np.array([[4, 5, 2]]), "target_in": np.array([[1, 4]])}
    model.compile("sgd")
    with pytest.raises(ValueError, match=r"y\[0, 0\]: expected an id .* 0 to 11, got 12"):
        model.fit(inputs, np.array([[V + 3, 2]]))


def test_the_score_of_a_search_is_that_of_its_ids():
    model = always_copying(copier(pair=(VS, V)), scale=1.0)
    source = np.array([[VS, 5, VS + 2, VS, EOS], [9, VS + 1, EOS, 0, 0], [4, 5, 6, 7, EOS]])
    for bias in (-80.0, 0.0):
        model.decoder.gate.project.bias.assign([bias])
        found = model.search(source)
        scores = model.score(source, found.token_ids[:, 0])
        np.testing.assert_allclose(scores, found.scores[:, 0], rtol=1e-4, atol=1e-4)


def test_places_that_are_cut_off_are_unknown_as_they_are_in_strings():
    model = ids_model(max_source=4)
    source, target_out = np.array([[4, 5, 6, 7, VS + 4, EOS]]), np.array([[V + 4, EOS]])
    with pytest.warns(UserWarning, match="were cut"):
        assert np.isfinite(model.score(source, target_out)).all()


def test_places_in_the_padding_of_the_source_do_no_harm():
    model = ids_model()
    source, target_out = np.array([[4, 5, EOS, 0, 0, 0]]), np.array([[V + 5, EOS]])
    assert np.isfinite(model.score(source, target_out)).all()


# === Export ===


def test_an_export_gives_the_same_text(tmp_path):
    model = always_copying(copier(max_source=12), scale=1.0, seed=3)
    model.decoder.gate.project.bias.assign([-1.0])  # now copying, now generating
    batch = strings()
    with pytest.warns(UserWarning, match="sources were longer than"):
        expected, shown = model.generate(batch), model.attend(batch)
    assert len(set(expected)) > 20 and any("OSLO" in said for said in expected)
    model.export(tmp_path / "1", verbose=False)
    encoded = [base64.b64encode(source.encode()).decode() for source in batch]
    requests = [
        {"signature": name, "source": source}
        for name in ("serving_default", "attend")
        for source in (encoded, encoded[:1], [])
    ]
    done = subprocess.run(
        [sys.executable, str(RUN), str(SESSION), str(tmp_path / "1")],
        input="\n".join(map(json.dumps, requests)),
        capture_output=True,
        text=True,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answers = [json.loads(line) for line in done.stdout.splitlines()[:-1]]

    def decoded(texts):
        return [base64.b64decode(said).decode("utf-8", "replace") for said in texts]

    assert decoded(answers[0]["target"]) == decoded(answers[3]["target"]) == expected
    assert decoded(answers[1]["target"]) == decoded(answers[4]["target"]) == expected[:1]
    assert answers[2]["target"] == answers[5]["target"] == []
    for i, alignments in enumerate(shown):
        source, target, matrix = alignments[:3]
        assert decoded(answers[3]["source_tokens"][i])[: len(source)] == list(source)
        assert decoded(answers[3]["target_tokens"][i])[: len(target)] == list(target)
        found = np.array(answers[3]["alignments"][i])[: len(target), : len(source)]
        np.testing.assert_allclose(found, matrix, atol=1e-5)
