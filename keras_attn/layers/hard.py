"""Hard attention: one position a query, and three ways to train what has no gradient."""

from __future__ import annotations

import numbers
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from keras_attn.layers.base import Component
from keras_attn.layers.normalisers import MASKED, Normaliser, Softmax, normalisers

CHOICES = ("argmax", "sample")
TRAININGS = ("straight_through", "gumbel", "score_function")


def annealing():
    """Return the default temperature of `Hard`: from 1 down to 0.1 over 2,000 batches."""
    return keras.optimizers.schedules.PolynomialDecay(1.0, 2000, 0.1)


@normalisers.register("hard")
class Hard(Normaliser, Component):
    r"""All weight on one position, drawn from the softmax of the scores or its largest.

    At inference alignments are exactly one-hot; a tie goes to the first position. A choice has no
    gradient, so training takes one of these:

    - "straight_through": one-hot forwards, the softmax's gradient backwards (Bengio, Leonard &
      Courville 2013, arXiv:1308.3432). The simplest, biased.
    - "gumbel": softmax((log a_i + g_i) / t) with Gumbel noise g and a falling temperature t (Jang,
      Gu & Poole 2017, arXiv:1611.01144, eq. 2). Soft in training, ever less so.
    - "score_function": a sampled one-hot, and in the loss -(R - b) log a_z for the position z that
      was drawn, with the reward R the log-probability of the tokens that it bears on and b a moving
      average of it (Xu et al. 2015, arXiv:1502.03044, sec. 4.1). Unbiased, noisy. Deviation: no
      entropy term, and no step that takes the expectation in half of the cases. Only models of
      this package add the term to their loss.

    Args:
        choice: "argmax", or "sample": at inference, one draw for all rows of a batch at each step,
            the same for the same `seed`.
        training: One of the three.
        temperature: For "gumbel": a positive float, or a Keras schedule of the number of batches;
            from 1 down to 0.1 over 2,000 batches by default.
        seed: Int of the draws at inference.

    Raises:
        ValueError: an argument outside its range.

    Shapes: see `Normaliser`. Weights: `batches` (), not trained.
    """

    def __init__(
        self,
        choice: str = "argmax",
        training: str = "straight_through",
        temperature: Any = None,
        seed: int = 0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        for argument, value, valid in (
            ("choice", choice, CHOICES),
            ("training", training, TRAININGS),
        ):
            if value not in valid:
                raise ValueError(f"{argument}: expected one of {valid}, got {value!r}.")
        if isinstance(seed, bool) or not isinstance(seed, numbers.Integral):
            raise ValueError(f"seed: expected an int, got {seed!r}.")
        if temperature is not None and training != "gumbel":
            raise ValueError(
                f"temperature: has an effect with training='gumbel' alone, got {temperature!r} "
                f"beside training={training!r}."
            )
        if isinstance(temperature, dict):
            temperature = keras.saving.deserialize_keras_object(temperature)
        if not callable(temperature) and temperature is not None:
            temperature = Softmax(temperature).temperature  # which checks it
        self.choice: str = choice
        self.training: str = training
        self.seed: int = int(seed)
        self.temperature: Any = temperature
        self.noise_seed = keras.random.SeedGenerator()
        self.batches = self.add_weight(
            shape=(), dtype="int32", initializer="zeros", trainable=False, name="batches"
        )
        self.built = True

    @property
    def chooses(self):
        """Whether training needs the log-probability of what was chosen."""
        return self.training == "score_function"

    @property
    def reads(self):
        """Names of the fields of `AttentionState` that it needs."""
        return ("position",) if self.choice == "sample" else ()

    def distribution(self, scores, mask):
        """See `Normaliser.distribution`."""
        return Softmax().distribution(scores, mask)

    def begin(self, training):
        """Count batches of training, for the temperature."""
        if training and self.training == "gumbel":
            self.batches.assign(self.batches + 1)

    def choose(self, soft, position, training=False):
        """See `Normaliser.choose`."""
        if not training:
            noise = self._same_noise(soft, position) if self.choice == "sample" else 0.0
            return one_hot_of(soft, noise), ops.zeros_like(soft[..., 0])
        noise = gumbel(keras.random.uniform(ops.shape(soft), seed=self.noise_seed))
        noise = ops.cast(noise, soft.dtype)
        if self.training == "gumbel":
            relaxed = tf.nn.softmax((logarithm(soft) + noise) / self._temperature(soft.dtype))
            # A row without any position stays zero.
            return ops.where(soft > 0, relaxed, 0.0), ops.zeros_like(soft[..., 0])
        draws = self.choice == "sample" or self.chooses
        hard = ops.stop_gradient(one_hot_of(soft, noise if draws else 0.0))
        if self.chooses:
            # Of what was drawn from: a window may leave weights that do not sum to 1.
            total = ops.sum(soft, axis=-1, keepdims=True)
            chance = logarithm(soft) - ops.log(ops.where(total > 0, total, 1.0))
            return hard, ops.sum(ops.where(hard > 0, chance, 0.0), axis=-1)
        return hard + soft - ops.stop_gradient(soft), ops.zeros_like(soft[..., 0])

    def _temperature(self, dtype):
        temperature = self.temperature or annealing()
        if callable(temperature):
            temperature = temperature(ops.convert_to_tensor(self.batches))
        return ops.cast(temperature, dtype)

    def _same_noise(self, soft, position):
        """Return noise (Q, S) that depends on the step and the source position alone."""
        steps = tf.cast(tf.reduce_max(position, axis=0)[:, 0], tf.int32)  # (Q,)
        first = mixed(tf.constant(self.seed % 2**32, tf.uint32))
        rows = mixed(tf.cast(steps, tf.uint32) + first)[:, None]
        columns = mixed(tf.cast(tf.range(tf.shape(soft)[-1]), tf.uint32) + GOLDEN)
        bits = tf.bitwise.right_shift(mixed(rows + columns), tf.constant(8, tf.uint32))
        uniforms = tf.cast(tf.cast(bits, tf.int32), "float32") / 2**24  # (Q, S)
        return ops.cast(gumbel(uniforms), soft.dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        temperature = self.temperature
        if callable(temperature):
            temperature = keras.saving.serialize_keras_object(temperature)
        return {
            **super().get_config(),
            "choice": self.choice,
            "training": self.training,
            "temperature": temperature,
            "seed": self.seed,
        }


GOLDEN = 0x9E3779B9  # 2**32 over the golden ratio: far from any small number


def mixed(x):
    """Return uint32 numbers whose bits all depend on all bits of x (the finaliser of MurmurHash3).

    A hash, since TensorFlow's stateless random numbers differ between XLA and other devices, and
    are not promised to be the same for a source that is padded further.
    """
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        high = tf.bitwise.right_shift(x, tf.constant(shift, tf.uint32))
        x = tf.bitwise.bitwise_xor(x, high) * tf.constant(factor, tf.uint32)
    return tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, tf.constant(16, tf.uint32)))


def logarithm(soft):
    """Return the logarithm of alignments, far below 0 where they are 0, and without a gradient."""
    positive = soft > 0
    return ops.where(positive, ops.log(ops.where(positive, soft, 1.0)), MASKED)


def gumbel(uniform):
    """Return Gumbel noise of uniform numbers in [0, 1)."""
    return -ops.log(-ops.log(ops.maximum(uniform, 1e-20)) + 1e-20)


def one_hot_of(soft, noise=0.0):
    """Return 1 at the position where log soft + noise is largest, 0 elsewhere and in empty rows."""
    best = tf.argmax(logarithm(soft) + noise, axis=-1)
    hard = ops.one_hot(best, ops.shape(soft)[-1], dtype=soft.dtype)
    return hard * ops.cast(soft > 0, soft.dtype)
