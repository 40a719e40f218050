"""Bridges: the decoder's initial state from what the encoder left."""

from __future__ import annotations

import keras
from keras import ops

from keras_attn.layers.base import Component
from keras_attn.layers.choices import Choices
from keras_attn.types import Encoded

bridges = Choices("bridge")


class Bridge(Component):
    """Base of the bridges.

    `build(state_depths, final_depths, summary_depth)` gets the widths of the decoder's states and
    of the encoder's final states, tuples over layers of tuples of int, and that of the summary.
    """

    uses_summary = False

    def build(self, state_depths, final_depths, summary_depth):
        """Make the weights, if any."""
        self.state_depths = state_depths
        self.built = True

    def start(self, encoded: Encoded) -> tuple[tuple, ...]:
        """Return the initial states: a tuple over layers of tuples of float (B, U)."""
        raise NotImplementedError


@bridges.register("zeros")
class ZeroBridge(Bridge):
    """Zeros: the decoder learns of the source through its context alone."""

    def start(self, encoded):
        """See `Bridge.start`."""
        batch = ops.shape(encoded.mask)[0]
        return tuple(tuple(self.zeros(batch, u) for u in layer) for layer in self.state_depths)


@bridges.register("copy")
class CopyBridge(Bridge):
    """The encoder's final states as they are, layer i to layer i.

    Source: Sutskever, Vinyals & Le 2014, arXiv:1409.3215, sec. 3.

    Raises:
        ValueError: the widths or the numbers of layers or states differ.
    """

    def build(self, state_depths, final_depths, summary_depth):
        """Check that the states fit."""
        if state_depths != final_depths:
            raise ValueError(
                "bridge='copy': the encoder's final states must fit the decoder's, layer by layer; "
                f"got widths {final_depths} for {state_depths}. Use bridge='dense', or halve the "
                "units of a bidirectional encoder."
            )
        super().build(state_depths, final_depths, summary_depth)

    def start(self, encoded):
        """See `Bridge.start`."""
        return encoded.states


class ProjectingBridge(Bridge):
    """Base of the bridges that project: each state is f(W x + b), with weights of its own."""

    activation: str | None = "tanh"

    def build(self, state_depths, final_depths, summary_depth):
        """Make a projection for every state of every layer."""
        inputs = self.input_depths(state_depths, final_depths, summary_depth)
        self.projections = []  # one flat list: Keras 3.14 saves no layers of nested lists
        for i, (units, depths) in enumerate(zip(state_depths, inputs, strict=True)):
            for j, (u, depth) in enumerate(zip(units, depths, strict=True)):
                projection = keras.layers.Dense(
                    u, activation=self.activation, name=f"state_{i}_{j}", dtype=self.dtype_policy
                )
                projection.build((None, depth))
                self.projections.append(projection)
        super().build(state_depths, final_depths, summary_depth)

    def input_depths(self, state_depths, final_depths, summary_depth):
        """Return the widths of what each projection reads."""
        raise NotImplementedError

    def inputs(self, encoded: Encoded):
        """Return what each projection reads."""
        raise NotImplementedError

    def start(self, encoded):
        """See `Bridge.start`."""
        projections = iter(self.projections)
        return tuple(tuple(next(projections)(x) for x in layer) for layer in self.inputs(encoded))


@bridges.register("dense")
class DenseBridge(ProjectingBridge):
    """Each state from the encoder's final state of the same layer and kind, s_0 = tanh(W h_S + b).

    Source: Bahdanau, Cho & Bengio 2015, arXiv:1409.0473, sec. A.2.2. Deviations: both directions
    are read, there is a bias, and an LSTM's cell state gets a projection too.

    Raises:
        ValueError: encoder and decoder differ in their numbers of layers or of states a layer.
    """

    called = "dense"

    def input_depths(self, state_depths, final_depths, summary_depth):
        """See `ProjectingBridge.input_depths`."""
        if [len(layer) for layer in state_depths] != [len(layer) for layer in final_depths]:
            raise ValueError(
                f"bridge={self.called!r}: encoder and decoder need as many layers and states a "
                f"layer; got widths {final_depths} for {state_depths}. Use bridge='summary'."
            )
        return final_depths

    def inputs(self, encoded):
        """See `ProjectingBridge.inputs`."""
        return encoded.states


@bridges.register("linear")
class LinearBridge(DenseBridge):
    """Each state from the encoder's final state of the same layer and kind, s_0 = W h_S + b.

    An LSTM's cell state has no bound, and grows with the source: tanh of it saturates, and lets
    little gradient through.

    Raises:
        ValueError: see `DenseBridge`.
    """

    activation = None
    called = "linear"


@bridges.register("summary")
class SummaryBridge(ProjectingBridge):
    """Every state from the summary, s_0 = tanh(V' c + b).

    Source: Cho et al. 2014, arXiv:1406.1078, appendix A. Deviation: there is a bias.
    """

    uses_summary = True

    def input_depths(self, state_depths, final_depths, summary_depth):
        """See `ProjectingBridge.input_depths`."""
        return tuple(tuple(summary_depth for _ in layer) for layer in state_depths)

    def inputs(self, encoded):
        """See `ProjectingBridge.inputs`."""
        return tuple(tuple(encoded.summary for _ in layer) for layer in self.state_depths)
