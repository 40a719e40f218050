"""cuDNN's kernel, by a NumPy loop over its documented equations, against the loop that we run.

https://docs.nvidia.com/deeplearning/cudnn, cudnnRNNMode_t, gives the equations; parameters are all
input matrices, all recurrent matrices, and both biases of each gate, in the kernel's own order.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest
import small_models
import tensorflow as tf

from keras_attn import kernels
from keras_attn.kernels import cudnn
from keras_attn.serving import inspection
from keras_attn.serving.session import Session, SessionError

GATES = {"lstm": 4, "gru": 3}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def emulated(input, input_h, input_c, params, sequence_lengths, rnn_mode, is_training, time_major):
    """CudnnRNNV3 of one layer and one direction, rows first: (B, T, D) -> (B, T, U), (B, 1, U)."""
    x, given, lengths = np.array(input), np.array(params), np.array(sequence_lengths)
    assert not time_major and not is_training and (lengths > 0).all() and len(lengths) > 0
    (rows, steps, depth), units, number = x.shape, input_h.shape[-1], GATES[rnn_mode]
    sizes = [units * depth] * number + [units * units] * number + [units] * 2 * number
    assert len(given) == sum(sizes)
    parts = np.split(given, np.cumsum(sizes)[:-1])
    of_x = [part.reshape(units, depth) for part in parts[:number]]
    of_h = [part.reshape(units, units) for part in parts[number : 2 * number]]
    b_x, b_h = parts[2 * number : 3 * number], parts[3 * number :]
    outputs, h_last = np.zeros((rows, steps, units), x.dtype), np.array(input_h)
    c_last = np.array(input_c) if rnn_mode == "lstm" else np.zeros_like(h_last)
    for b in range(rows):
        h, c = h_last[b, 0], c_last[b, 0]
        for t in range(lengths[b]):
            w = [of_x[k] @ x[b, t] + b_x[k] for k in range(number)]
            r = [of_h[k] @ h + b_h[k] for k in range(number)]
            if rnn_mode == "lstm":
                i, f, o = (sigmoid(w[k] + r[k]) for k in (0, 1, 3))
                c = f * c + i * np.tanh(w[2] + r[2])
                h = o * np.tanh(c)
            else:
                reset, update = (sigmoid(w[k] + r[k]) for k in (0, 1))
                h = (1 - update) * np.tanh(w[2] + reset * r[2]) + update * h
            outputs[b, t] = h
        h_last[b, 0], c_last[b, 0] = h, c
    found = (tf.constant(value) for value in (outputs, h_last, c_last))
    return *found, None, None


@pytest.fixture
def emulator(monkeypatch):
    """Put `emulated` in the kernel's place; return what it was called with."""
    calls = []

    def called(**given):
        calls.append(given)
        return emulated(**given)

    monkeypatch.setattr(tf.raw_ops, "CudnnRNNV3", called)
    return calls


MASKS = {
    "none": None,
    "right-padded": [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 0]],
    "an empty row": [[1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]],
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("options", [{}, {"go_backwards": True}, {"zero_output_for_mask": True}])
def test_the_kernel_gives_what_the_loop_does(emulator, kind, mask, options):
    random = np.random.default_rng(0)
    layer = (kernels.LSTM if kind == "lstm" else kernels.GRU)(
        3, return_sequences=True, return_state=True, **options
    )
    x = tf.constant(random.normal(size=(4, 5, 2)), tf.float32)
    layer.build(x.shape)
    layer.set_weights([random.normal(size=w.shape) for w in layer.get_weights()])
    states = [
        random.normal(size=(4, 3)).astype(np.float32) for _ in range(2 if kind == "lstm" else 1)
    ]
    given = {"mask": None if MASKS[mask] is None else np.array(MASKS[mask], bool)}
    for initial in (None, states):
        expected = layer(x, initial_state=initial, **given)
        with cudnn.rnn_kernel("cudnn"):
            found = layer(x, initial_state=initial, **given)
        for here, there in zip(found, expected, strict=True):
            assert here.dtype == there.dtype and here.shape == there.shape
            np.testing.assert_allclose(here, there, atol=1e-6)
    assert len(emulator) == 2


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_the_kernel_is_never_given_an_empty_batch(emulator, kind):
    cell = kernels.LSTM if kind == "lstm" else kernels.GRU
    layer = cell(3, return_sequences=True, return_state=True)
    nothing = tf.zeros([0, 5, 2])
    layer(tf.zeros([1, 5, 2]))
    with cudnn.rnn_kernel("cudnn"):
        outputs, *states = layer(nothing, mask=tf.zeros([0, 5], tf.bool))
    assert emulator[0]["input"].shape == (1, 5, 2)
    assert outputs.shape == (0, 5, 3) and all(state.shape == (0, 3) for state in states)


@pytest.mark.parametrize("dtype", ["float32", "float64", "mixed_bfloat16"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_both_directions_of_an_encoder(emulator, dtype, cell):
    model = small_models.small("bahdanau2015", dtype=dtype, cell=cell)
    ids = np.array([[5, 6, 7, 2], [8, 2, 0, 0]], np.int32)
    memory, state = model.encode(ids)
    with model.portable("cudnn"):
        found, after = model.encode(ids)
    pairs = zip(*(tf.nest.flatten(x) for x in ((found, after), (memory, state))), strict=True)
    for here, there in pairs:
        assert here.dtype == there.dtype
        here, there = (np.array(tf.cast(x, tf.float64)) for x in (here, there))
        np.testing.assert_allclose(here, there, atol=2e-2 if "16" in dtype else 1e-6)
    assert len(emulator) == 2


def kinds(found):
    return {op.kind for counted in found.operations.values() for op in counted if "Cudnn" in op.op}


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_a_portable_graph_has_one_type_whatever_runs_it(dtype):
    """Both branches give the same types, or TensorFlow makes no graph of them."""
    model = small_models.small("attention", dtype=dtype)
    ids = np.array([[5, 6, 7, 2], [8, 2, 0, 0]], np.int32)
    memory, _ = model.encode(ids)
    with model.portable("portable"):
        found, _ = tf.function(model.encode, autograph=False)(ids)
    for here, there in zip(found, memory, strict=True):
        here, there = tf.cast(here, "float32"), tf.cast(there, "float32")
        np.testing.assert_allclose(here, there, atol=1e-2 if "16" in dtype else 1e-5)


def test_a_portable_export_has_both_and_runs_here(tmp_path):
    model = small_models.small("attention")
    expected = model.generate(["abc", "", "hello"])
    model.export(tmp_path / "1", rnn_kernel="portable", verbose=False)
    found = inspection.inspect(tmp_path / "1")
    assert kinds(found) == {inspection.GPU_ONLY} and found.about["rnn_kernel"] == "portable"
    ops = {op.op for op in found.operations["ids"]}
    assert {
        "CudnnRNNV3",
        "StatelessCase",
        "DeviceIndex",
        "StatelessWhile",
    } <= ops and not found.pinned
    with Session(tmp_path / "1") as session:
        said = session.run(source=["abc", "", "hello"])
    assert [target.decode() for target in said["target"]] == expected


def test_an_export_for_gpus_alone_says_so_here(tmp_path):
    model = small_models.small("context_as_init", cell="gru")
    model.export(tmp_path / "1", rnn_kernel="cudnn", verbose=False)
    found = inspection.inspect(tmp_path / "1")
    assert kinds(found) == {inspection.GPU_ONLY}
    assert "DeviceIndex" not in {op.op for op in found.operations["ids"]}
    assert isinstance(model.generate("abc"), str)  # which keeps its own kernel
    with Session(tmp_path / "1") as session, pytest.raises(SessionError, match="CudnnRNNV3"):
        session.run(source=["abc"])


def test_other_kernels_are_refused(tmp_path):
    with pytest.raises(ValueError, match="rnn_kernel: expected one of .*, got 'gpu'"):
        small_models.shared("combined").export(tmp_path / "1", rnn_kernel="gpu")


def test_a_kernel_that_nothing_would_run_is_refused(tmp_path):
    model = small_models.small("combined", **small_models.CHEAP)
    with pytest.raises(ValueError, match="rnn_kernel: nothing in this model .* export it with"):
        model.export(tmp_path / "1", rnn_kernel="portable")
    assert not list(tmp_path.iterdir())


def test_keras_own_layers_keep_their_loop():
    with cudnn.rnn_kernel("cudnn"), kernels.plain():
        assert keras.layers.LSTM(2)(tf.zeros([1, 2, 3])).shape == (1, 2)


def test_cudnn_is_off_inside_and_as_before_outside():
    single = [keras.layers.LSTM(2), keras.layers.GRU(2, use_cudnn=False)]
    both = keras.layers.Bidirectional(keras.layers.LSTM(2))
    inner = [*single, both.forward_layer, both.backward_layer]
    before = [layer.use_cudnn for layer in inner]
    assert before == ["auto", False, "auto", "auto"]
    with pytest.raises(ZeroDivisionError):
        with cudnn.without_cudnn([*single, both, keras.layers.SimpleRNN(2)]):
            assert [layer.use_cudnn for layer in inner] == [False] * 4
            raise ZeroDivisionError
    assert [layer.use_cudnn for layer in inner] == before
