"""The network: embeddings, encoder, decoder and vocabulary projection, as one Keras model."""

from __future__ import annotations

import contextlib
import numbers
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from keras_attn.kernels import cudnn
from keras_attn.layers.base import at_least_float32, build_once, flag, fraction, inside, positive
from keras_attn.layers.copying import IMPOSSIBLE, copy_slots
from keras_attn.layers.unroll import unroll
from keras_attn.models import folding, stepping
from keras_attn.models.encoding import encoder_of
from keras_attn.models.terms import StepTerms, Trained
from keras_attn.models.unrolling import unrolled
from keras_attn.search import of_log_p, of_logits
from keras_attn.text.codec import Codec, CopyCodec
from keras_attn.training import losses
from keras_attn.training.metrics import auto as auto_metrics
from keras_attn.training.optimizers import Adam
from keras_attn.types import BOS, DecoderState, Encoded, Memory, Output

# Layers that the model makes itself, by attribute; other layers save whether they are trained.
OWN_LAYERS = ("source_embedding", "target_embedding", "projection")

# What a step on tokens goes round: a model with one of them of its own gets Keras' own step.
STEP_METHODS = ("call", "project", "compute_loss", "compute_metrics")

save, load = keras.saving.serialize_keras_object, keras.saving.deserialize_keras_object


def vocabulary_size(argument: str, vocabulary: Any) -> int:
    """Return the number of ids of a tokeniser or of a size.

    Raises:
        TypeError: neither.
        ValueError: less than the four special ids and one more.
    """
    if hasattr(vocabulary, "tokenize") and not isinstance(vocabulary, type):
        return vocabulary.vocabulary_size
    if isinstance(vocabulary, bool) or not isinstance(vocabulary, numbers.Integral):
        raise TypeError(
            f"{argument}: expected a tokeniser or a vocabulary size, got "
            f"{type(vocabulary).__name__}."
        )
    if vocabulary < 5:
        raise ValueError(
            f"{argument}: expected a vocabulary size of 5 or more (ids 0 to 3 are special), got "
            f"{vocabulary}."
        )
    return int(vocabulary)


class Network(keras.Model):
    """Source ids and target_in ids to logits; one set of layers for training and for decoding.

    See `Seq2Seq`, which adds strings, search and export.
    """

    def __init__(
        self,
        encoder,
        decoder,
        source: Any = 8000,
        target: Any = 8000,
        embedding_size: int = 128,
        dropout: float = 0.0,
        share_embeddings: bool = False,
        tie_readout: bool = False,
        max_source: int = 64,
        max_target: int = 64,
        frozen: Any = (),
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.encoder, self.decoder = encoder, decoder
        self.source_size = vocabulary_size("source", source)
        self.target_size = vocabulary_size("target", target)
        self.source: Any = source if hasattr(source, "tokenize") else self.source_size
        self.target: Any = target if hasattr(target, "tokenize") else self.target_size
        self.embedding_size = positive("embedding_size", embedding_size)
        self.dropout = fraction("dropout", dropout)
        self.share_embeddings = flag("share_embeddings", share_embeddings)
        self.tie_readout = flag("tie_readout", tie_readout)
        self.max_source = positive("max_source", max_source)
        self.max_target = positive("max_target", max_target)
        self.codec = Codec(self.source, self.target)
        if self.decoder.gate.copies:
            self.codec = CopyCodec(self.source, self.target, self.max_source)
        self.scheduled_sampling: Any = 0.0
        self.loss_is_weighed = False
        self.sampling_seed = keras.random.SeedGenerator()
        self._make_layers()
        self.build()
        for name in frozen:
            getattr(self, name).trainable = False

    def _make_layers(self):
        options = {"dtype": self.dtype_policy}
        size, feedback = self.embedding_size, self.decoder.feedback
        if self.share_embeddings and self.source != self.target:
            raise ValueError(
                "share_embeddings: expected one vocabulary for source and target, got "
                f"{self.source!r} and {self.target!r}. Give both the same tokeniser."
            )
        if not feedback and (self.share_embeddings or self.tie_readout):
            raise ValueError(
                "share_embeddings and tie_readout need target embeddings, but with feedback=False "
                "there are none."
            )
        self.source_embedding = keras.layers.Embedding(
            self.source_size, size, name="source_embedding", **options
        )
        self.target_embedding = self.source_embedding
        if feedback and not self.share_embeddings:
            self.target_embedding = keras.layers.Embedding(
                self.target_size, size, name="target_embedding", **options
            )
        self.drop = keras.layers.Dropout(self.dropout, **options)
        projection = TiedProjection if self.tie_readout else keras.layers.Dense
        self.projection = projection(self.target_size, name="projection", **options)
        feeds = not (self.decoder.parallel and self.decoder.context.parallel)
        self.terms = StepTerms(self.decoder.terms_depth, feeds, name="terms")

    def build(self, input_shape=None):
        """Make all weights; the constructor calls it."""
        if self.built:
            return
        for embedding in (self.source_embedding, self.target_embedding):
            build_once(embedding)
        build_once(self.encoder, (None, None, self.embedding_size))
        fed_back = self.embedding_size if self.decoder.feedback else 0
        self.decoder.build_for(self.encoder, fed_back)
        features = self.decoder.features_depth
        if self.tie_readout and features != self.embedding_size:
            raise ValueError(
                "tie_readout: the readout's features must be as wide as the embeddings, "
                f"{self.embedding_size}, got {features}. Use readout='tanh' or 'maxout' with "
                "that many units."
            )
        build_once(self.projection, (None, features))
        build_once(self.terms)
        self.built = True

    def encode(self, source_ids, training: bool = False) -> tuple[Memory, DecoderState]:
        """Encode sources.

        Args:
            source_ids: Int (B, S), rows that end with EOS, PAD behind it. Ids outside the
                vocabulary are UNK.
            training: Whether to drop out.

        Returns:
            What decoding reads of the sources, and the state that it starts from.
        """
        source_ids = ops.convert_to_tensor(source_ids)
        mask = ops.not_equal(source_ids, 0)  # (B, S)
        embedded = self.source_embedding(inside(source_ids, self.source_size))
        embedded = self.drop(embedded, training=training)  # (B, S, E)
        return self.prepared(source_ids, self.encoder(embedded, mask, training=training), training)

    def prepared(self, source_ids, encoded: Encoded, training: bool = False):
        """Return what `encode` does, of what the encoder made of sources."""
        memory, state = self.decoder.prepare(encoded, training)
        if self.decoder.gate.copies:
            slots = copy_slots(source_ids, self.codec.to_target, self.target_size)
            memory = memory._replace(slots=slots)
        return memory, state

    def step(self, token_ids, state: DecoderState, memory: Memory, training: bool = False):
        """Take one decoding step.

        Args:
            token_ids: Int (N,), the previous tokens; BOS at first.
            state: From `encode`, or the last step's.
            memory: From `encode`.
            training: Whether to drop out.

        Returns:
            Logits, at least float32 (N, V), or (N, V + S) with copying, alignments (N, S), width 0
            without attention, and the next state.
        """
        token_ids = ops.convert_to_tensor(token_ids)
        embedded = self._embed_target(token_ids, memory, training)
        output, state = self.decoder.step(embedded, state, memory, training)
        return self._logits(output, memory), output.alignments, state

    def encoders(self):
        """Return `encode` in inference, of a model whose weights nobody will change."""
        return encoder_of(self)

    def steppers(self, kept: bool = False):
        """Return a function of a memory to its `stepper`; `kept` as in `folding.stepper_of`."""
        return self.stepper if self.overrides("stepper") else self._steppers(kept)

    def _steppers(self, kept):
        if self.overrides("step"):
            return folding.unfolded(self)
        return folding.stepper_of(self, kept)

    def stepper(self, memory: Memory):
        """Return `step` of one memory in inference, (token_ids, state), for many steps in a row."""
        return self._steppers(kept=False)(memory)

    def call(self, inputs, training: bool = False, features: bool = False):
        """Predict every next token of given targets.

        Args:
            inputs: Dict of "source", int (B, S), and "target_in", int (B, T).
            training: Whether to drop out.
            features: Whether to return what `project` reads, (B, T, F), in place of logits.

        Returns:
            Logits, at least float32 (B, T, V), or (B, T, V + S) with copying, where they are
            log-probabilities. In training, a model whose attention adds terms to the loss returns
            `Trained(logits, terms)`, which `compute_loss` takes.
        """
        source_ids, target_in = inputs["source"], ops.convert_to_tensor(inputs["target_in"])
        memory, state = self.encode(source_ids, training=training)
        if training and self._samples():
            logits, terms = self._sampled(target_in, state, memory)
        else:
            output = self._unrolled(target_in, state, memory, training)
            if features:
                return output.features
            logits, terms = self._logits(output, memory), output.terms
        return Trained(logits, terms) if training and self.decoder.terms_depth else logits

    def project(self, features):
        """Return logits (..., V) of features (..., F), at least float32."""
        table = (self.target_embedding.embeddings,) if self.tie_readout else ()
        return at_least_float32(self.projection(features, *table))

    def log_probabilities(self, logits):
        """Return log p of what `step` gives, (..., V), at most 0.

        With copying it is -inf for an id that stands for no token of the source.
        """
        log_p = tf.nn.log_softmax(logits)
        if not self.decoder.gate.copies:
            return log_p
        copies = tf.range(tf.shape(logits)[-1]) >= self.target_size
        nothing = tf.constant(float("-inf"), log_p.dtype)
        return tf.where(copies & (logits < IMPOSSIBLE), nothing, log_p)

    def scored(self, logits):
        """Return what `step` gives, (N, V), as the scores of a search's step."""
        if self.decoder.gate.copies or self.overrides("log_probabilities"):
            return of_log_p(self.log_probabilities(logits))
        return of_logits(logits)

    def log_likelihood(self, source_ids, target_in, target_out):
        """Return log p of targets, nats (B,); ids (B, S), (B, T) and (B, T)."""
        logits = self({"source": source_ids, "target_in": target_in}, training=False)
        each = losses.negative_log_likelihood(target_out, logits)
        return -ops.sum(each * losses.real_tokens(target_out, each.dtype), axis=-1)

    @property
    def attends(self) -> bool:
        """Whether there are alignments."""
        return self.decoder.attends

    @contextlib.contextmanager
    def portable(self, rnn_kernel: str = "cpu"):
        """Return a context in which graphs are traced for every device, not for that which is here.

        Args:
            rnn_kernel: "cpu", "portable" or "cudnn", see `export`.
        """
        layers = [*self.encoder.layers, *self.decoder.recurrence.layers]
        with cudnn.without_cudnn(layers), cudnn.rnn_kernel(rnn_kernel):
            yield

    def alignments(self, inputs):
        """Return the alignments (B, T, S) of given targets; `inputs` as for `call`."""
        memory, state = self.encode(inputs["source"])
        target_in = ops.convert_to_tensor(inputs["target_in"])
        return self._unrolled(target_in, state, memory, training=False).alignments

    def _unrolled(self, target_in, state, memory, training) -> Output:
        embedded = self._embed_target(target_in, memory, training)
        return unrolled(self.decoder, embedded, state, memory, training)

    def _embed_target(self, ids, memory, training):
        """Embed ids (N,) or (B, T) with a last axis E, which is 0 without feedback."""
        if not self.decoder.feedback:
            return ops.zeros((*ops.shape(ids), 0), dtype=self.compute_dtype)
        embedded = self.target_embedding(inside(ids, self.target_size))
        embedded = self.decoder.start.embed(embedded, ids, memory)
        return self.drop(embedded, training=training)

    def _logits(self, output, memory):
        return self.decoder.gate.mix(self.project(output.features), output, memory)

    def _samples(self) -> bool:
        return callable(self.scheduled_sampling) or self.scheduled_sampling > 0

    def _sampled(self, target_in, state, memory):
        """Return logits and terms, feeding the model's own best token back at a rate.

        Source: Bengio et al. 2015, arXiv:1506.03099, sec. 2.4; the most probable token is fed back,
        each with a chance of its own.
        """
        rate = self.scheduled_sampling
        if callable(rate):
            rate = rate(self.optimizer.iterations)
        chance = keras.random.uniform(ops.shape(target_in), seed=self.sampling_seed)
        own = ops.cast(ops.logical_and(chance < rate, target_in != BOS), "float32")
        columns = ops.stack([ops.cast(target_in, "float32"), own], axis=-1)  # (B, T, 2)

        def step(column, carried):
            state, best = carried
            given, replace = ops.cast(column[:, 0], "int32"), column[:, 1] > 0
            token_ids = ops.where(replace, best, given)
            logits, _, state = self.step(token_ids, state, memory, training=True)
            best = ops.cast(ops.argmax(ops.stop_gradient(logits), axis=-1), "int32")
            terms = self.decoder.context.terms(state.context, ops.shape(token_ids)[0])
            return logits, terms, (state, best)

        first = (state, ops.cast(target_in[:, 0], "int32"))
        with self.decoder.recurrence.one_sequence(state.recurrent):
            return unroll(step, columns, first)[:2]

    def compile(
        self,
        optimizer: Any = "adam",
        loss: Any = "auto",
        metrics: Any = "auto",
        weighted_metrics: Any = None,
        label_smoothing: float = 0.0,
        scheduled_sampling: Any = 0.0,
        **kwargs,
    ):
        """Configure training, as `keras.Model.compile` does.

        Args:
            optimizer: Any Keras optimizer, or its name; "adam" is `training.Adam`.
            loss: "auto" (cross-entropy, the mean over the real tokens of a batch), or any Keras
                loss of (target_out, logits). A loss object's own reduction holds.
            metrics: "auto" (token accuracy and perplexity), or any Keras metrics. All are weighted,
                so that padding does not count.
            weighted_metrics: More of them.
            label_smoothing: Float in [0, 1), for "auto"; over the vocabulary, where a model copies.
            scheduled_sampling: Float in [0, 1], the chance that the model's own token is fed back
                in training, or a Keras schedule of the optimizer's iterations.
            **kwargs: `run_eagerly`, `steps_per_execution`, `jit_compile`, ... of Keras.

        Raises:
            ValueError: an unknown loss, one that smooths over what is copied, or a fraction outside
                its range.
        """
        if isinstance(scheduled_sampling, dict):
            scheduled_sampling = load(scheduled_sampling)
        number = isinstance(scheduled_sampling, int | float) and 0 <= scheduled_sampling <= 1
        if not callable(scheduled_sampling) and not number:
            raise ValueError(
                "scheduled_sampling: expected a number in [0, 1] or a schedule, got "
                f"{scheduled_sampling!r}."
            )
        smoothed = self.target_size if self.decoder.gate.copies else None
        if smoothed and losses.smooths_others(loss, smoothed):
            raise ValueError(
                "loss: label smoothing of a model that copies is over its vocabulary, got "
                f"vocabulary_size={loss.vocabulary_size!r}; give label_smoothing to compile, or "
                f"vocabulary_size={smoothed} to the loss."
            )
        given = auto_metrics() if isinstance(metrics, str) and metrics == "auto" else metrics or []
        super().compile(
            optimizer=Adam() if optimizer == "adam" else optimizer,
            loss=losses.by_name(loss, label_smoothing, smoothed),
            weighted_metrics=[*_as_list(given), *_as_list(weighted_metrics or [])],
            **kwargs,
        )
        self.scheduled_sampling = scheduled_sampling
        self.loss_is_weighed = bool(kwargs.get("loss_weights"))
        others = weighted_metrics or self.loss_is_weighed
        self.usual_metrics = "others"
        if (isinstance(metrics, str) or not metrics) and not others:
            self.usual_metrics = "auto" if metrics else "none"

    def get_compile_config(self):
        """Return what `compile` was given, for saving."""
        config = super().get_compile_config()
        if config:
            config["metrics"] = None
            if self.usual_metrics == "auto":
                config["metrics"], config["weighted_metrics"] = "auto", None
            config["scheduled_sampling"] = save(self.scheduled_sampling)
        return config

    def compile_from_config(self, config):
        """Compile as `get_compile_config` says."""
        self.compile(**load(config))
        if self.optimizer is not None:
            self.optimizer.build(self.trainable_variables)

    def train_step(self, data):
        """Train on one batch, as `keras.Model.train_step` does."""
        if not self._steps_on_tokens():
            return self.step_on_rows(data)
        return stepping.step(self, data)

    def step_on_rows(self, data):
        """Train on one batch by Keras' own step, which takes any loss and metrics."""
        return super().train_step(data)

    def overrides(self, *names) -> bool:
        """Return whether this model, or its class, has methods of its own by one of the names."""
        bound = [getattr(getattr(self, name), "__func__", self) for name in names]
        return any(x is not getattr(Network, n) for n, x in zip(names, bound, strict=True))

    def _steps_on_tokens(self) -> bool:
        """Return whether loss and metrics are known to be means over tokens, and nothing else."""
        means = losses.is_cross_entropy(self.loss) and self.usual_metrics != "others"
        plain = not self.decoder.terms_depth and not self.decoder.gate.copies
        once = losses.num_replicas() == 1 and not self.jit_compile
        ours = not self.overrides(*STEP_METHODS) and type(self).metrics is Network.metrics
        sampled = self._samples() or not self.trainable_weights
        return means and plain and once and ours and not sampled

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Compute the loss, in which padding has weight 0, and the terms that attention adds."""
        weights = losses.token_weights(y, sample_weight)
        trained = isinstance(y_pred, Trained)
        logits = y_pred.logits if trained else y_pred
        soft = losses.soft_targets_of(x)
        if soft:
            loss = losses.soft_token_mean(soft, y, logits, weights)
            for added in self.losses:  # as Keras does
                loss += ops.sum(ops.cast(added, loss.dtype)) / losses.num_replicas()
        else:
            loss = super().compute_loss(x, y, logits, weights, training)
        return loss + self.terms(y, y_pred, weights) if trained else loss

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Compute the metrics, in which padding has weight 0."""
        logits = y_pred.logits if isinstance(y_pred, Trained) else y_pred
        return super().compute_metrics(x, y, logits, losses.token_weights(y, sample_weight))

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "encoder": save(self.encoder),
            "decoder": save(self.decoder),
            "source": save(self.source),
            "target": save(self.target),
            "embedding_size": self.embedding_size,
            "dropout": self.dropout,
            "share_embeddings": self.share_embeddings,
            "tie_readout": self.tie_readout,
            "max_source": self.max_source,
            "max_target": self.max_target,
            "frozen": [name for name in OWN_LAYERS if not getattr(self, name).trainable],
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Return the model that `get_config` describes."""
        parts = {key: load(config[key]) for key in ("encoder", "decoder", "source", "target")}
        return cls(**{**config, **parts})


class TiedProjection(keras.layers.Layer):
    """Logits by the target embeddings themselves (Press & Wolf 2017, arXiv:1608.05859), and a bias.

    Call arguments:
        features: Float (..., E).
        embeddings: Float (V, E).

    Returns:
        Logits (..., V).
    """

    def __init__(self, vocabulary_size: int, **kwargs):
        super().__init__(**kwargs)
        self.vocabulary_size = vocabulary_size

    def build(self, features_shape, embeddings_shape=None):
        """Make the bias."""
        self.bias = self.add_weight(shape=(self.vocabulary_size,), initializer="zeros", name="bias")
        self.built = True

    def call(self, features, embeddings):
        """See the class."""
        table = ops.cast(embeddings, features.dtype)
        return ops.matmul(features, ops.transpose(table)) + self.bias


def _as_list(given):
    return list(given) if isinstance(given, list | tuple) else [given]
