"""Convolution: an encoder whose every layer reads a few neighbours of each token."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from keras_attn.layers.base import build_once, positive
from keras_attn.layers.encoders import encoders
from keras_attn.layers.positions import PositionalEncoder, with_positions


@encoders.register("conv")
class ConvEncoder(PositionalEncoder):
    r"""Gated convolutions: [a b] = conv(x), x' = sqrt(1/2) (a * sigmoid(b) + x), block by block.

    Source: Gehring et al. 2017, arXiv:1705.03122, sec. 3.1 (positions), 3.2 (blocks), 3.4 (the
    square root) and 3.5 (initial weights). Deviations: positions are sinusoids, theirs are learnt,
    and embeddings are multiplied by sqrt(E) to be of their size; there is no weight normalisation;
    values keep the width U, theirs go back to E.

    Weights: `projection` (E, U) with a bias, and of every block a kernel (kernel_size, U, 2U) and a
    bias.

    Args:
        units: Positive int, width U of the values.
        num_layers: Positive int, blocks.
        kernel_size: Positive odd int, tokens that a block reads around and with each token.
        dropout: Fraction dropped of the input of every block.
        summary: "mean", "last", "max", "gated", "projected", or a summary. "last" is the value at
            the last token.

    Call arguments, results and errors are those of `PositionalEncoder`: embedded (B, S, E) and
    mask (B, S) to `Encoded`, with values (B, S, U) that are 0 at padding, and no states. Also:

    Raises:
        ValueError: an even `kernel_size`.
    """

    def __init__(
        self,
        units: int = 256,
        num_layers: int = 1,
        kernel_size: int = 3,
        dropout: float = 0.0,
        summary: Any = "mean",
        **kwargs,
    ):
        super().__init__(units, num_layers, dropout, summary, **kwargs)
        self.kernel_size = positive("kernel_size", kernel_size)
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size: expected an odd int, got {kernel_size}.")
        self.projection = keras.layers.Dense(self.units, name="projection", dtype=self.dtype_policy)
        self.convolutions = [self._convolution(f"block_{i}") for i in range(self.num_layers)]

    def _convolution(self, name):
        return keras.layers.Conv1D(
            2 * self.units,
            self.kernel_size,
            padding="same",
            # The gate leaves about a quarter of the variance.
            kernel_initializer=keras.initializers.VarianceScaling(
                4.0, "fan_in", "untruncated_normal"
            ),
            name=name,
            dtype=self.dtype_policy,
        )

    def build(self, input_shape):
        """Make the weights from the shape (B, S, E)."""
        build_once(self.projection, (None, None, input_shape[-1]))
        for convolution in self.convolutions:
            build_once(convolution, (None, None, self.units))
        build_once(self.summary, (None, None, self.units))
        self.built = True

    def read(self, embedded, mask, training):
        """See `PositionalEncoder.read`."""
        tokens = ops.cast(mask, self.compute_dtype)[:, :, None]
        x = self.projection(with_positions(embedded))  # (B, S, U)
        for convolution in self.convolutions:
            x = x * tokens  # what the last token sees of the padding is what lies past the end: 0
            gated = ops.glu(_convolved(convolution, self.drop(x, training=training)))
            x = (gated + x) * math.sqrt(0.5)  # as large as each of the two
        return x

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "kernel_size": self.kernel_size}


def _convolved(convolution, x):
    """Return `convolution(x)`, also of no rows, for which TensorFlow 2.21 gets the width wrong."""
    return convolution(ops.pad(x, ((0, 1), (0, 0), (0, 0))))[:-1]
