"""Frozen models answer as the models that they were made of."""

from __future__ import annotations

import contextlib
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_models import CHEAP, EVERY, EVIDENCE, WORDS, randomised, shared, small

from keras_attn import Seq2Seq, kernels, zoo
from keras_attn.models import frozen as module
from keras_attn.models import runner
from keras_attn.search import of_log_p


def assert_same(found, expected):
    """What is found is what is expected, but for rounding."""
    for name, x, y in zip(found._fields, found, expected, strict=True):
        assert x.shape == y.shape and x.dtype == y.dtype, name
        np.testing.assert_allclose(x, y, atol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    "name", EVERY if EVIDENCE else ["attention", "attention_copy", "bahdanau2015"]
)
def test_it_answers_as_the_model_does_for_every_name(name):
    model = shared(name)
    frozen = model.freeze()
    assert_same(frozen.search(WORDS, beam_size=2), model.search(WORDS, beam_size=2))
    assert frozen.generate(WORDS[2]) == model.generate(WORDS[2])


@pytest.fixture(scope="module")
def cheap():
    model = small("attention", **CHEAP)
    return model, model.freeze()


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 1.3, "top_k": 5, "top_p": 0.9, "seed": 3, "num_return": 2},
        {"prefix": "e d", "banned": ["a", "<unk>"], "min_length": 3},
        {"beam_size": 3, "length_penalty": 0.7, "coverage_penalty": 0.4, "no_repeat_ngram_size": 2},
        {"allowed": ["e d", "a b", "z z z"], "beam_size": 2},
        {"max_length": [1, 2, 3, 4, 5, 6, 7, 8]},
        {"target": ["e d"] * 8},
    ],
    ids=lambda options: next(iter(options)),
)
def test_every_option_means_the_same(cheap, options):
    model, frozen = cheap
    assert_same(frozen.search(WORDS, **options), model.search(WORDS, **options))


def test_any_number_of_any_length_is_answered(cheap):
    model, frozen = cheap
    for number in (0, 1, 7, 9, 33):
        words = ["abcdefghijk"[: 1 + i % 11] for i in range(number)]
        assert frozen.generate(words) == model.generate(words)
        assert_same(frozen.search(words), model.search(words))


def test_what_else_is_asked_is_answered_alike(cheap, tmp_path):
    model, frozen = cheap
    spoken = ["c b a"] * len(WORDS)
    np.testing.assert_allclose(frozen.score(WORDS, spoken), model.score(WORDS, spoken), atol=1e-5)
    assert list(frozen.stream("abc")) == list(model.stream("abc"))
    shown, expected = frozen.attend("abc"), model.attend("abc")
    assert shown.target_tokens == expected.target_tokens
    np.testing.assert_allclose(shown.matrix, expected.matrix, atol=1e-5)
    path = frozen.export(tmp_path / "1", verbose=False)
    served = tf.saved_model.load(path).signatures["serving_default"](tf.constant(WORDS))
    assert [x.decode() for x in served["target"].numpy()] == frozen.generate(WORDS)


def test_compiled_loops_have_no_kernel_of_cudnn_where_there_is_a_gpu(monkeypatch):
    model = small("attention", bidirectional=False)
    expected = model.generate(WORDS)
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: [kind])
    frozen = model.freeze()
    assert frozen.generate(WORDS) == expected
    (graph,) = (made[1] for made in frozen._runner._graphs.values() if isinstance(made, tuple))
    whole = graph.concrete.graph.as_graph_def()
    inner = (node for each in whole.library.function for node in each.node_def)
    assert not {node.op for node in (*whole.node, *inner) if "Cudnn" in node.op}


def test_loops_are_traced_once_for_each_width(monkeypatch):
    made = []
    graph = runner.graph_of

    def counted(*given, jit_compile=None):
        made.append(jit_compile)
        return graph(*given, jit_compile=jit_compile)

    for place in (runner, module):
        monkeypatch.setattr(place, "graph_of", counted)
    frozen = small("attention", **CHEAP).freeze()
    threads = [
        threading.Thread(target=frozen.search, args=(["ab", "cd", "abc"][: 1 + i],))
        for i in (1, 2, 2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    frozen.search(WORDS[:4], max_length=3)
    frozen.search(["abc"] * 9, max_length=[1] * 9)
    assert made.count(True) == 1
    frozen.search(WORDS, beam_size=2)
    assert made.count(True) == 2
    for number in range(1, 6):  # one loop for some tokens, few or more
        frozen.search(WORDS, banned=list("abcdef")[:number])
    assert made.count(True) == 3


def test_every_loop_is_compiled_alone(monkeypatch):
    compiled = []

    @contextlib.contextmanager
    def compiling():
        compiled.append(module._compiling.locked())
        yield

    monkeypatch.setattr(module.cache, "compiling", compiling)
    frozen = small("attention", **CHEAP).freeze()
    for _ in range(2):
        frozen.search(["ab"])
    assert compiled == [True]
    with kernels.plain():  # another graph of the same shapes
        frozen.search(["ab"])
    assert compiled == [True, True]


def test_training_on_does_not_change_it():
    model = small("attention", **CHEAP)
    frozen = model.freeze(jit_compile=False)
    before = model.search(WORDS)
    randomised(model, seed=1)
    assert_same(frozen.search(WORDS), before)
    assert not np.array_equal(model.search(WORDS).scores, before.scores)


def test_an_ensemble_freezes():
    models = [small("attention", **CHEAP), randomised(small("attention", **CHEAP), seed=2)]
    ensemble = zoo.ensemble(models)
    expected = ensemble.search(WORDS)
    frozen = ensemble.freeze()
    randomised(models[0], seed=3)
    assert_same(frozen.search(WORDS), expected)


class Ending(Seq2Seq):
    """A model that always ends."""

    def step(self, token_ids, state, memory, training=False):
        logits, alignments, state = super().step(token_ids, state, memory, training)
        return logits + 100 * tf.one_hot(2, logits.shape[-1]), alignments, state


def test_a_step_of_ones_own_is_taken():
    model = Ending.from_config(small("attention", **CHEAP).get_config())
    assert set(model.freeze().search(WORDS[:1]).lengths.ravel()) == {1}


class Loud(Seq2Seq):
    """A model whose stepper doubles its logits."""

    def stepper(self, memory):
        step = super().stepper(memory)

        def doubled(token_ids, state):
            logits, *rest = step(token_ids, state)
            return 2 * logits, *rest

        return doubled


class Halved(zoo.ensemble([shared("attention")] * 2).__class__):
    """An ensemble whose log p is half."""

    def log_probabilities(self, logits):
        return super().log_probabilities(logits) / 2


def test_what_a_subclass_brings_is_kept():
    plain = small("attention", **CHEAP)
    loud = Loud.from_config(plain.get_config())
    loud.set_weights(plain.get_weights())
    halved = Halved([plain, plain])
    for model in (loud, halved):
        assert_same(model.freeze(jit_compile=False).search(WORDS), model.search(WORDS))
    whole, half = (x.search(WORDS[:1], max_length=1) for x in (plain, halved))
    np.testing.assert_allclose(half.scores, whole.scores / 2, rtol=1e-5)
    assert not np.allclose(loud.search(WORDS[:1]).scores, plain.search(WORDS[:1]).scores)


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`")
def test_what_a_copy_would_not_have_is_refused():
    model = small("attention", **CHEAP)
    model.project = lambda features: model.projection(features)
    with pytest.raises(ValueError, match="model: 'project' was put on the model itself"):
        model.freeze()
    del model.project
    model.scored = lambda logits: of_log_p(-tf.nn.softplus(logits))
    with pytest.raises(ValueError, match="model: 'scored' was put on the model itself"):
        model.freeze()
    changes = (
        lambda m: m.quantize("int8"),
        lambda m: m.projection.enable_lora(2),
    )
    for change in changes:
        model = small("attention", **CHEAP)
        change(model)
        with pytest.raises(ValueError, match="model: its layers have other weights"):
            model.freeze()


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_a_layer_that_was_changed_is_refused(dtype):
    model = small("attention", dtype=dtype, **CHEAP)
    model.decoder.readout.combine.activation = keras.activations.relu
    with pytest.raises(ValueError, match="model: a copy .* answers otherwise"):
        model.freeze()


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_is_frozen_in_full(policy):
    plain = small("attention", **CHEAP)
    keras.config.set_dtype_policy(policy)  # what a global policy would bring into the copy
    try:
        halved = small("attention", **CHEAP)
        halved.set_weights(plain.get_weights())
        found = halved.freeze(jit_compile=False).search(WORDS, beam_size=2)
    finally:
        keras.config.set_dtype_policy("float32")
    assert halved.compute_dtype == policy.removeprefix("mixed_")
    assert_same(found, plain.search(WORDS, beam_size=2))
