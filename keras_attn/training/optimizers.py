"""Adam in one operation; and as it trained the zoo: warm-up, decay, clipping, averaged weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf

from keras_attn import kernels


@keras.saving.register_keras_serializable("keras_attn")
class Adam(keras.optimizers.Adam):
    """Keras' Adam, with one pass over each weight and its moments in place of one an operation.

    Options and variables are Keras', and so are values, up to rounding, but for embeddings: the
    gradients of an id that stands in a batch several times are summed before they are squared, as
    in the paper, where Keras squares each. What TensorFlow's operation does not
    do is left to Keras: AMSGrad, and strategies of several replicas. So is all of it within
    `kernels.plain()`.

    Source: Kingma & Ba 2015, arXiv:1412.6980, the form at the end of sec. 2.
    """

    def update_step(self, gradient, variable, learning_rate):
        """Update a weight."""
        if self.amsgrad or kernels.is_plain() or tf.distribute.has_strategy():
            super().update_step(gradient, variable, learning_rate)
            return
        rate, step, beta_1, beta_2, epsilon = (
            tf.cast(x, variable.dtype)
            for x in (learning_rate, self.iterations + 1, self.beta_1, self.beta_2, self.epsilon)
        )
        place = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[place].value.handle,
            v=self._velocities[place].value.handle,
            beta1_power=beta_1**step,
            beta2_power=beta_2**step,
            lr=rate,
            beta1=beta_1,
            beta2=beta_2,
            epsilon=epsilon,
            grad=tf.cast(tf.convert_to_tensor(gradient), variable.dtype),
        )


def adam(
    steps: int,
    *,
    learning_rate: float = 2e-3,
    warmup: float = 0.02,
    final: float = 0.01,
    clip: float = 1.0,
    average: float = 0.08,
) -> keras.optimizers.Optimizer:
    """Return Adam with a warm-up, a cosine decay, clipped gradients and averaged weights.

    The rate rises linearly to its peak and falls with half a cosine (Loshchilov & Hutter 2017,
    arXiv:1608.03983, without restarts). Gradients are clipped by their global norm (Pascanu,
    Mikolov & Bengio 2013, arXiv:1211.5063). An exponential moving average of the weights (Polyak &
    Juditsky 1992) takes their place when `fit` ends; `averaged` shows it before.

    Args:
        steps: Positive int, batches of the whole training.
        learning_rate: Positive float, the peak.
        warmup: Fraction of the steps, in [0, 1), over which the rate rises.
        final: Fraction of the peak that is left at the end.
        clip: Positive float, the largest norm of all gradients together.
        average: Fraction of the steps that the average reaches back, in [0, 1); 0 for none.

    Raises:
        ValueError: an argument outside its range.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps: expected a positive int, got {steps!r}.")
    for name, value in (("learning_rate", learning_rate), ("clip", clip)):
        if not isinstance(value, int | float) or not value > 0:
            raise ValueError(f"{name}: expected a positive number, got {value!r}.")
    for name, value in (("warmup", warmup), ("final", final), ("average", average)):
        if not isinstance(value, int | float) or not 0 <= value < 1:
            raise ValueError(f"{name}: expected a number in [0, 1), got {value!r}.")
    rising = int(warmup * steps)
    rate = keras.optimizers.schedules.CosineDecay(
        learning_rate / rising if rising else learning_rate,
        max(steps - rising, 1),
        alpha=final,
        warmup_target=learning_rate if rising else None,
        warmup_steps=rising,
    )
    reach = average * steps  # steps
    averaging = {"use_ema": True, "ema_momentum": 1 - 1 / reach} if reach > 1 else {}
    return Adam(rate, global_clipnorm=clip, **averaging)


@contextlib.contextmanager
def averaged(model: keras.Model) -> Iterator[None]:
    """Give a model its averaged weights for a while, if its optimizer keeps an average."""
    optimizer = model.optimizer
    if not getattr(optimizer, "use_ema", False) or not optimizer.built:
        yield
        return
    raw = [keras.ops.convert_to_numpy(weight) for weight in model.trainable_variables]
    optimizer.finalize_variable_values(model.trainable_variables)
    try:
        yield
    finally:
        for weight, value in zip(model.trainable_variables, raw, strict=True):
            weight.assign(value)
