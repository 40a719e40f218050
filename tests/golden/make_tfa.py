"""Write tfa.npz, golden arrays of tensorflow_addons' attention: `python tests/golden/make_tfa.py`.

Run in an environment of its own, Python 3.11 with
    pip install tensorflow==2.13.1 tensorflow-addons==0.21.0 "numpy==1.24.3"
TensorFlow is imported inside functions, because pytest imports this file to look for doctests.

Weights are normal with scale 0.5, data with scale 1, memory beyond its lengths included. Kernels
are (inputs, outputs). An LSTM's gates are in Keras' order: input, forget, candidate, output.
"""

from pathlib import Path

import numpy as np

B, S, T, E, U, A, D = 3, 5, 4, 3, 4, 7, 6
LENGTHS = np.array([5, 3, 1], "int32")


def dense(kernel, **kwargs):
    """Return a Dense layer without bias that starts, and stays, at `kernel`.

    Weights come in by initialisers, not by `set_weights`: a mechanism projects its memory to keys
    once, when it is made, so weights that are set later would leave the keys as they were.
    """
    import tensorflow as tf

    start = tf.constant_initializer(kernel)
    return tf.keras.layers.Dense(
        kernel.shape[1], use_bias=False, kernel_initializer=start, **kwargs
    )


def luong(normal):
    """Return AttentionWrapper(LSTMCell, LuongAttention), teacher-forced: 'general', input feeding.

    Orders, in attention_wrapper.py:
        cell input       concat([inputs, attention]): rows of `kernel` are E, then U
        attention layer  concat([cell_output, context]): rows of `attention_kernel` are U, then D
    The query is the cell's new output h; the score is h . (memory @ memory_kernel).
    """
    import tensorflow as tf
    import tensorflow_addons as tfa
    from tensorflow_addons.seq2seq.attention_wrapper import _compute_attention

    a = {
        "inputs": normal(B, T, E),
        "memory": normal(B, S, D),
        "lengths": LENGTHS,
        "h0": normal(B, U),
        "c0": normal(B, U),
        "kernel": normal(E + U, 4 * U, scale=0.5),
        "recurrent_kernel": normal(U, 4 * U, scale=0.5),
        "bias": normal(4 * U, scale=0.5),
        "memory_kernel": normal(D, U, scale=0.5),
        "attention_kernel": normal(U + D, U, scale=0.5),
    }
    outputs = {name: [] for name in ("cell_outputs", "alignments", "contexts", "attentions")}

    def recorded(mechanism, cell_output, state, layer):
        """Do what TFA does by default, and keep it: without a layer it returns the context."""
        context, _, _ = _compute_attention(mechanism, cell_output, state, None)
        attention, alignments, state = _compute_attention(mechanism, cell_output, state, layer)
        for steps, step in zip(
            outputs.values(), (cell_output, alignments, context, attention), strict=True
        ):
            steps.append(step)
        return attention, alignments, state

    cell = tf.keras.layers.LSTMCell(
        U,
        kernel_initializer=tf.constant_initializer(a["kernel"]),
        recurrent_initializer=tf.constant_initializer(a["recurrent_kernel"]),
        bias_initializer=tf.constant_initializer(a["bias"]),
        unit_forget_bias=False,  # True would replace the forget gate's bias by ones
    )
    mechanism = tfa.seq2seq.LuongAttention(
        U,
        memory=a["memory"],
        memory_sequence_length=a["lengths"],
        scale=False,
        memory_layer=dense(a["memory_kernel"]),
    )
    wrapper = tfa.seq2seq.AttentionWrapper(
        cell,
        mechanism,
        attention_layer=dense(a["attention_kernel"], activation="tanh"),
        attention_fn=recorded,
    )
    state = wrapper.get_initial_state(batch_size=B, dtype=tf.float32)  # attention is zero
    state = state.clone(cell_state=[tf.constant(a["h0"]), tf.constant(a["c0"])])
    for t in range(T):
        _, state = wrapper(a["inputs"][:, t], state)
    return a | {name: np.stack(steps, axis=1) for name, steps in outputs.items()}


def bahdanau(normal):
    """Return BahdanauAttention for given queries: v . tanh(memory @ W_m + query @ W_q)."""
    import tensorflow as tf
    import tensorflow_addons as tfa
    from tensorflow_addons.seq2seq.attention_wrapper import _compute_attention

    a = {
        "queries": normal(B, T, U),
        "memory": normal(B, S, D),
        "lengths": LENGTHS,
        "query_kernel": normal(U, A, scale=0.5),
        "memory_kernel": normal(D, A, scale=0.5),
        "attention_v": normal(A, scale=0.5),
    }
    mechanism = tfa.seq2seq.BahdanauAttention(
        A,
        memory=a["memory"],
        memory_sequence_length=a["lengths"],
        normalize=False,
        kernel_initializer=tf.constant_initializer(a["attention_v"]),  # of attention_v only
        query_layer=dense(a["query_kernel"]),
        memory_layer=dense(a["memory_kernel"]),
    )
    state = mechanism.initial_state(B, tf.float32)
    steps = [_compute_attention(mechanism, a["queries"][:, t], state, None) for t in range(T)]
    return a | {
        "alignments": np.stack([alignments for _, alignments, _ in steps], axis=1),
        "contexts": np.stack([context for context, _, _ in steps], axis=1),
    }


def main():
    """Write the arrays next to this file."""
    rng = np.random.default_rng(0)

    def normal(*shape, scale=1.0):
        return rng.normal(scale=scale, size=shape).astype("float32")

    arrays = {
        f"{name}_{key}": array
        for name, make in (("luong", luong), ("bahdanau", bahdanau))
        for key, array in make(normal).items()
    }
    np.savez_compressed(Path(__file__).with_name("tfa.npz"), **arrays)


if __name__ == "__main__":
    main()
