"""Readouts: the features that the vocabulary projection reads, from state, context and input."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_attn.layers.base import Component, beside, positive
from keras_attn.layers.choices import Choices

readouts = Choices("readout")


class Readout(Component):
    """Base of the readouts; all shapes may have a time axis.

    Call arguments:
        state: Float (N, U), the top layer's output.
        context: Float (N, D), D = 0 without context.
        embedded: Float (N, E), the step's input, E = 0 without feedback.

    Returns:
        Features, float (N, F), with F = `depth(U, D, E)`.
    """

    def depth(self, units: int, context_depth: int, embedding_size: int) -> int:
        """Return the width F of the features."""
        raise NotImplementedError

    def build(self, units, context_depth, embedding_size):
        """Make the weights from the widths U, D, E."""
        self.built = True

    def features(self, state, context, embedded):
        """See the class."""
        raise NotImplementedError


@readouts.register("linear")
class LinearReadout(Readout):
    """State and context as they are, [s; c]."""

    def depth(self, units, context_depth, embedding_size):
        """See `Readout.depth`."""
        return units + context_depth

    def features(self, state, context, embedded):
        """See `Readout`."""
        return beside(state, context)


class DenseReadout(Readout):
    """Base of the readouts with one projection, without a bias.

    Args:
        units: Positive int, width F of the features, or None for the decoder's units.
    """

    def __init__(self, units: int | None = None, **kwargs):
        super().__init__(**kwargs)
        self.units = units if units is None else positive("units", units)

    def depth(self, units, context_depth, embedding_size):
        """See `Readout.depth`."""
        return self.units or units

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "units": self.units}


@readouts.register("tanh")
class TanhReadout(DenseReadout):
    r"""Attentional features, s~_t = tanh(W_c [c_t; s_t]).

    Source: Luong, Pham & Manning 2015, arXiv:1508.04025, eq. 5. Deviations: none.
    """

    def build(self, units, context_depth, embedding_size):
        """See `Readout.build`."""
        self.combine = keras.layers.Dense(
            self.units or units,
            activation="tanh",
            use_bias=False,
            name="combine",
            dtype=self.dtype_policy,
        )
        self.combine.build((None, context_depth + units))
        self.built = True

    def features(self, state, context, embedded):
        """See `Readout`."""
        return self.combine(beside(context, state))


@readouts.register("maxout")
class MaxoutReadout(DenseReadout):
    r"""Deep output, t_i = max over pairs of (O_s s_i + O_y E y_{i-1} + O_c c_i).

    Source: Cho et al. 2014, arXiv:1406.1078, appendix A; Bahdanau, Cho & Bengio 2015,
    arXiv:1409.0473, sec. A.2.2. Deviations: none here; see `readout_state` of the decoder.
    """

    def build(self, units, context_depth, embedding_size):
        """See `Readout.build`."""
        self.combine = keras.layers.Dense(
            2 * (self.units or units), use_bias=False, name="combine", dtype=self.dtype_policy
        )
        self.combine.build((None, units + embedding_size + context_depth))
        self.built = True

    def features(self, state, context, embedded):
        """See `Readout`."""
        pairs = self.combine(beside(state, embedded, context))
        shape = ops.shape(pairs)[:-1]
        return ops.max(ops.reshape(pairs, (*shape, pairs.shape[-1] // 2, 2)), axis=-1)
