"""Losses: means over the real tokens of a whole batch."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import tensorflow as tf
from keras import ops

from keras_attn.kernels.cross_entropy import cross_entropy
from keras_attn.types import PAD

serializable = keras.saving.register_keras_serializable(package="keras_attn")


def real_tokens(target_out, dtype="float32"):
    """Return 1 at real tokens of target_out (B, T), 0 at padding."""
    return ops.cast(ops.not_equal(target_out, PAD), dtype)


def token_weights(target_out, sample_weight=None):
    """Return the weights (B, T) of target_out: 0 at padding, else `sample_weight`.

    Args:
        target_out: Int (B, T).
        sample_weight: Float (B,), (B, 1) or (B, T), or None for 1.
    """
    weights = real_tokens(target_out)
    if sample_weight is None:
        return weights
    # The rank is not asked for: Keras traces once for weights of several ranks.
    sample_weight = ops.cast(sample_weight, weights.dtype)
    return weights * tf.reshape(sample_weight, [tf.shape(weights)[0], -1])


def negative_log_likelihood(target_out, logits, label_smoothing=0.0, vocabulary_size=None):
    r"""Return the cross-entropy of each token, in nats.

    With smoothing e the target distribution is (1 - e) one_hot + e / V (Szegedy et al. 2016,
    arXiv:1512.00567, sec. 7). Of a model that copies, V are the ids of its vocabulary: those of a
    source's own tokens, V + j, of which most stand for none, get nothing of e.

    Args:
        target_out: Int (B, T).
        logits: Float (B, T, V), or (B, T, V + S).
        label_smoothing: Float e in [0, 1).
        vocabulary_size: Int V, or None for all ids.

    Returns:
        Float (B, T).
    """
    logits, ids = ops.convert_to_tensor(logits), ops.cast(target_out, "int32")
    loss = cross_entropy(logits, ids)
    if label_smoothing:
        expected = ops.squeeze(ops.take_along_axis(logits, ids[..., None], axis=-1), -1)
        smoothed = logits if vocabulary_size is None else logits[..., :vocabulary_size]
        loss += label_smoothing * (expected - ops.mean(smoothed, axis=-1))
    return loss


class SoftTargets(NamedTuple):
    """Distributions to learn in place of single tokens.

    Attributes:
        ids: Int32 (..., K), the tokens that have a share.
        probabilities: Float32 (..., K), which sum to 1.
    """

    ids: Any
    probabilities: Any


def soft_targets_of(x: Any) -> Any:
    """Return the soft targets that come with a batch's inputs, or an empty tuple."""
    found = x.get("soft_targets", ()) if isinstance(x, dict) else ()
    return SoftTargets(*found) if found else ()


def soft_cross_entropy(soft: SoftTargets, logits):
    """Return the cross-entropy of logits (..., V) with distributions, nats (...)."""
    shares = ops.cast(soft.probabilities, logits.dtype)
    of_tokens = tf.gather(logits, soft.ids, batch_dims=logits.shape.rank - 1)
    return tf.reduce_logsumexp(logits, axis=-1) - ops.sum(shares * of_tokens, axis=-1)


def soft_token_mean(soft: SoftTargets, y_true, logits, sample_weight=None):
    """Return the mean of `soft_cross_entropy` over the real tokens, see `token_mean`."""
    padding = ops.equal(y_true, PAD)  # as in `TokenMean`
    values = soft_cross_entropy(soft, ops.where(padding[..., None], 0, logits))
    return token_mean(values, y_true, sample_weight)


def num_replicas() -> int:
    """Return how many replicas of a distribution strategy run this; 1 outside of `run`."""
    if tf.distribute.in_cross_replica_context():
        return 1
    return tf.distribute.get_strategy().num_replicas_in_sync


def over_replicas(x):
    """Return the sum of `x` over the replicas of a distribution strategy."""
    if num_replicas() == 1:
        return x
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, x)


def token_mean(values, y_true, sample_weight=None):
    """Return the weighed sum of `values` over the number of real tokens of the whole batch.

    Under a distribution strategy the gradient is that of the sum over a replica's tokens divided by
    the number of real tokens of all replicas, where a replica without any contributes 0. The value
    is the same on each replica, the mean over their number, as Keras scales losses: Keras weighs
    what replicas report by their rows, which differ.

    Args:
        values: Float (B, T).
        y_true: Int (B, T), PAD where there is no token; what stands there does not matter.
        sample_weight: Float (B,), (B, 1) or (B, T), or None; tokens count for the divisor whatever
            their weight.
    """
    weights = ops.cast(token_weights(y_true, sample_weight), values.dtype)
    total = ops.sum(ops.where(ops.equal(y_true, PAD), 0, values * weights))
    share = ops.divide_no_nan(total, over_replicas(ops.sum(real_tokens(y_true, values.dtype))))
    if num_replicas() == 1:
        return share
    value = over_replicas(ops.stop_gradient(share)) / num_replicas()
    return value + (share - ops.stop_gradient(share))


@serializable
class TokenMean(keras.losses.Loss):
    """The mean of a loss over the real tokens of the whole batch, see `token_mean`.

    Args:
        loss: A Keras loss object of one value a token, or None for cross-entropy from logits.
        label_smoothing: Float in [0, 1), for cross-entropy.
        vocabulary_size: Int, how many ids are smoothed over, or None for all.

    Call arguments:
        y_true: Int (B, T), PAD where there is no token.
        y_pred: Logits, float (B, T, V), or (B, T, V + S) of a model that copies.
        sample_weight: Float (B,), (B, 1) or (B, T), or None; tokens count for the divisor whatever
            their weight.

    Returns:
        Float scalar, nats a token.

    Raises:
        ValueError: label smoothing outside [0, 1), or beside another loss; no ids to smooth over.
    """

    def __init__(
        self,
        loss: Any = None,
        label_smoothing: float = 0.0,
        name="token_mean",
        vocabulary_size: int | None = None,
    ):
        super().__init__(name=name, reduction="sum")
        if not 0 <= label_smoothing < 1:
            raise ValueError(
                f"label_smoothing: expected a number in [0, 1), got {label_smoothing!r}."
            )
        if loss is not None and label_smoothing:
            raise ValueError("label_smoothing: goes with cross-entropy; give it to `loss` itself.")
        if vocabulary_size is not None and not (
            type(vocabulary_size) is int and vocabulary_size > 0
        ):
            raise ValueError(
                f"vocabulary_size: expected a number of ids, or None, got {vocabulary_size!r}."
            )
        self.loss = keras.saving.deserialize_keras_object(loss) if isinstance(loss, dict) else loss
        self.label_smoothing = float(label_smoothing)
        self.vocabulary_size = vocabulary_size

    def call(self, y_true, y_pred):
        """Return the loss of each token, (B, T)."""
        if self.loss is None:
            smoothing = self.label_smoothing, self.vocabulary_size
            return negative_log_likelihood(y_true, y_pred, *smoothing)
        return self.loss.call(y_true, y_pred)

    def __call__(self, y_true, y_pred, sample_weight=None):
        """Return the mean; see the class."""
        # `where`, not a product: what stands at padding may be anything, and 0 * NaN is NaN. Before
        # the loss for the gradient's sake, behind it for the value's.
        padding = ops.equal(y_true, PAD)
        losses = self.call(y_true, ops.where(padding[..., None], 0, y_pred))
        return token_mean(losses, y_true, sample_weight)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        loss = None if self.loss is None else keras.saving.serialize_keras_object(self.loss)
        return {
            "name": self.name,
            "loss": loss,
            "label_smoothing": self.label_smoothing,
            "vocabulary_size": self.vocabulary_size,
        }


def is_cross_entropy(loss: Any) -> bool:
    """Return whether a loss is the mean cross-entropy over tokens, wherever in a row they stand."""
    plain = keras.losses.SparseCategoricalCrossentropy
    return type(loss) is TokenMean and (loss.loss is None or type(loss.loss) is plain)


def smooths_others(loss: Any, vocabulary_size: int) -> bool:
    """Return whether a loss smooths labels over other ids than those of a vocabulary."""
    smooths = isinstance(loss, TokenMean) and loss.label_smoothing > 0
    return smooths and loss.vocabulary_size != vocabulary_size


def by_name(loss: Any, label_smoothing: float = 0.0, vocabulary_size: int | None = None) -> Any:
    """Return the loss that `compile` means: "auto" and names average over tokens, objects stay.

    `vocabulary_size` is how many ids are smoothed over, or None for all.

    Raises:
        ValueError: an unknown name, or label smoothing beside a loss that is not "auto".
    """
    if loss == "auto":
        return TokenMean(label_smoothing=label_smoothing, vocabulary_size=vocabulary_size)
    if label_smoothing:
        raise ValueError(
            f"label_smoothing: goes with loss='auto' alone, got loss={loss!r}; "
            "give it to the loss itself."
        )
    if not isinstance(loss, str):
        return loss
    if loss == "sparse_categorical_crossentropy":
        return TokenMean()
    found = keras.losses.get(loss)
    raise ValueError(
        f"loss: {loss!r} is known to Keras as {found!r}, but targets here are ids (B, T) and "
        "outputs are logits (B, T, V); use 'auto', or give a loss object or function."
    )
