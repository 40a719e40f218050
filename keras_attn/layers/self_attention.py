"""Self-attention: an encoder whose every layer lets each token look at all of them."""

from __future__ import annotations

from typing import Any

import keras

from keras_attn.layers.base import Component, build_once, positive
from keras_attn.layers.encoders import encoders
from keras_attn.layers.positions import PositionalEncoder, with_positions

# Keras adds 1e-3 to a variance, which would shrink short vectors.
EPSILON = 1e-6


@encoders.register("self_attention")
class SelfAttentionEncoder(PositionalEncoder):
    r"""The encoder of the Transformer: every token looks at all of them, block by block.

    x = sqrt(U) W e + positions;  of each block, x <- x + multi_head(norm(x)) and then
    x <- x + W_2 relu(W_1 norm(x) + b_1) + b_2;  values are norm(x).

    Source: Vaswani et al. 2017, arXiv:1706.03762, sec. 3.1 to 3.5. Deviations: layers are
    normalised before each part and once at the end (pre-norm), theirs behind each sum, because that
    trains without a warm-up of the learning rate; embeddings are projected to U.

    Weights: `projection` (E, U), of every block those of a `MultiHeadAttention` without biases, of
    two normalisations and of the layers (U, 4U) and (4U, U), and of the last normalisation.

    Args:
        units: Positive int, width U of the values.
        num_layers: Positive int, blocks.
        num_heads: Positive int that divides U.
        dropout: Fraction dropped of the sum of embeddings and positions and of what each part of a
            block adds (sec. 5.4).
        summary: "mean", "last", "max", "gated", "projected", or a summary. "last" is the value at
            the last token.

    Call arguments, results and errors are those of `PositionalEncoder`: embedded (B, S, E) and
    mask (B, S) to `Encoded`, with values (B, S, U) that are 0 at padding, and no states. Also:

    Raises:
        ValueError: `num_heads` does not divide U.
    """

    def __init__(
        self,
        units: int = 256,
        num_layers: int = 1,
        num_heads: int = 4,
        dropout: float = 0.0,
        summary: Any = "mean",
        **kwargs,
    ):
        super().__init__(units, num_layers, dropout, summary, **kwargs)
        self.num_heads = positive("num_heads", num_heads)
        if self.units % self.num_heads:
            raise ValueError(
                f"num_heads: expected a divisor of units, {self.units}, got {self.num_heads}."
            )
        options = {"dtype": self.dtype_policy}
        self.projection = keras.layers.Dense(
            self.units, use_bias=False, name="projection", **options
        )
        self.blocks = [
            SelfAttentionBlock(self.units, self.num_heads, dropout, name=f"block_{i}", **options)
            for i in range(self.num_layers)
        ]
        self.norm = keras.layers.LayerNormalization(epsilon=EPSILON, name="norm", **options)

    def build(self, input_shape):
        """Make the weights from the shape (B, S, E)."""
        build_once(self.projection, (None, None, input_shape[-1]))
        for layer in (*self.blocks, self.norm, self.summary):
            build_once(layer, (None, None, self.units))
        self.built = True

    def read(self, embedded, mask, training):
        """See `PositionalEncoder.read`."""
        x = with_positions(self.projection(embedded))  # (B, S, U)
        x = self.drop(x, training=training)
        for block in self.blocks:
            x = block(x, mask, training=training)
        return self.norm(x)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "num_heads": self.num_heads}


class SelfAttentionBlock(Component):
    """One layer of `SelfAttentionEncoder`: x (B, S, U) and mask (B, S) to (B, S, U)."""

    def __init__(self, units: int, num_heads: int, dropout: float, **kwargs):
        super().__init__(**kwargs)
        options = {"dtype": self.dtype_policy}
        self.units = units
        self.attention_norm = keras.layers.LayerNormalization(epsilon=EPSILON, **options)
        self.attention = keras.layers.MultiHeadAttention(
            num_heads, units // num_heads, use_bias=False, **options
        )
        self.feed_forward_norm = keras.layers.LayerNormalization(epsilon=EPSILON, **options)
        self.hidden = keras.layers.Dense(4 * units, activation="relu", **options)
        self.output_layer = keras.layers.Dense(units, **options)
        self.drop = keras.layers.Dropout(dropout, **options)

    def build(self, input_shape):
        """Make the weights from the shape (B, S, U)."""
        build_once(self.attention_norm, input_shape)
        build_once(self.attention, input_shape, input_shape)
        build_once(self.feed_forward_norm, input_shape)
        build_once(self.hidden, input_shape)
        build_once(self.output_layer, (*input_shape[:-1], 4 * self.units))
        self.built = True

    def call(self, x, mask, training=False):
        """See the class."""
        normed = self.attention_norm(x)
        seen = self.attention(normed, normed, attention_mask=mask[:, None, :], training=training)
        x = x + self.drop(seen, training=training)
        made = self.output_layer(self.hidden(self.feed_forward_norm(x)))
        return x + self.drop(made, training=training)
