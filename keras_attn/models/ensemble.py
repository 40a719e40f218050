"""Ensemble: several models that answer as one."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from keras_attn.models.frozen import Frozen
from keras_attn.models.generation import Generation
from keras_attn.models.runner import Runner
from keras_attn.models.seq2seq import Seq2Seq, copied
from keras_attn.search import of_log_p

SAME = ("source", "target", "max_source", "max_target")


class Ensemble(Generation):
    """Models that answer as one: log p of a token is the mean of theirs.

    So the score of a target is the mean of the scores that they give it. It generates, searches,
    streams, scores, attends and exports as a `Seq2Seq` does; alignments are the mean of those that
    have any. It is not trained or saved: its models are.

    Args:
        models: Two or more `Seq2Seq` models of the same vocabularies and limits.

    Raises:
        TypeError: something else than models.
        ValueError: fewer than two, or models that do not fit.
    """

    def __init__(self, models: Iterable[Seq2Seq]):
        if not isinstance(models, Iterable):
            raise TypeError(f"models: expected a list of models, got {type(models).__name__}.")
        self.models = tuple(models)
        for i, model in enumerate(self.models):
            if not isinstance(model, Seq2Seq):
                raise TypeError(f"models[{i}]: expected a Seq2Seq, got {type(model).__name__}.")
        if len(self.models) < 2:
            raise ValueError(f"models: expected two or more, got {len(self.models)}.")
        first = self.models[0]
        for i, model in enumerate(self.models):
            for name in SAME:
                if getattr(model, name) != getattr(first, name):
                    raise ValueError(
                        f"models[{i}]: expected {name}={getattr(first, name)!r}, as models[0] has "
                        f"it, got {getattr(model, name)!r}."
                    )
            if model.decoder.gate.copies != first.decoder.gate.copies:
                raise ValueError(f"models[{i}]: all models copy, or none.")
        self.source, self.target, self.codec = first.source, first.target, first.codec
        self.max_source, self.max_target = first.max_source, first.max_target
        self.attends = any(model.attends for model in self.models)
        self._runner = Runner(self)

    @property
    def weights(self) -> list[Any]:
        """The weights of all models, each once."""
        return list({id(w): w for model in self.models for w in model.weights}.values())

    def __call__(self, inputs):
        """Return the mean of log p of every next token of given targets, (B, T, V).

        Args:
            inputs: As for `Seq2Seq.call`.
        """
        return mean([model.log_probabilities(model(inputs)) for model in self.models])

    def encode(self, source_ids):
        """Return the memories and the states of the models, see `Seq2Seq.encode`."""
        return tuple(zip(*(model.encode(source_ids) for model in self.models), strict=True))

    def step(self, token_ids, state, memory):
        """Take one decoding step of every model, see `Seq2Seq.step`.

        Returns:
            The mean of log p (N, V), the mean of the alignments (N, S), and the next states.
        """
        steps = [model.step for model in self.models]
        return self._stepped(steps, [(token_ids, *x) for x in zip(state, memory, strict=True)])

    def encoders(self):
        """Return `encode`, see `Seq2Seq.encoders`."""
        each = [model.encoders() for model in self.models]
        return lambda ids: tuple(zip(*(encode(ids) for encode in each), strict=True))

    def steppers(self, kept: bool = False):
        """Return a function of a memory to its `stepper`, see `Seq2Seq.steppers`."""
        each = [model.steppers(kept) for model in self.models]

        def stepper(memory):
            steps = [steppers(m) for steppers, m in zip(each, memory, strict=True)]
            return lambda token_ids, state: self._stepped(steps, [(token_ids, x) for x in state])

        return stepper

    def stepper(self, memory):
        """Return `step` of one memory, (token_ids, state), for many steps in a row."""
        return self.steppers()(memory)

    def freeze(self, *, jit_compile: bool = True) -> Frozen:
        """Return what answers as this ensemble does now, only faster; see `Seq2Seq.freeze`."""
        return Frozen(self._twin(copied(model) for model in self.models), jit_compile)

    def in_full_precision(self) -> Ensemble:
        """Return an ensemble of models that compute in the precision of their weights."""
        return self._twin(model.in_full_precision() for model in self.models)

    def _twin(self, models) -> Ensemble:
        twin = copy.copy(self)
        twin.models = tuple(models)
        twin._runner = Runner(twin)
        return twin

    def _stepped(self, steps, arguments):
        found = [step(*given) for step, given in zip(steps, arguments, strict=True)]
        log_p = [
            model.log_probabilities(logits)
            for model, (logits, *_) in zip(self.models, found, strict=True)
        ]
        attending = [
            x for model, (_, x, _) in zip(self.models, found, strict=True) if model.attends
        ]
        alignments = mean(attending) if attending else found[0][1]
        return mean(log_p), alignments, tuple(state for *_, state in found)

    def log_probabilities(self, logits):
        """Return what `step` gives as it is: log p already."""
        return logits

    def scored(self, logits):
        """Return what `step` gives as the scores of a search's step."""
        return of_log_p(self.log_probabilities(logits))

    def log_likelihood(self, source_ids, target_in, target_out):
        """Return log p of targets, nats (B,); ids (B, S), (B, T) and (B, T)."""
        return mean(
            [model.log_likelihood(source_ids, target_in, target_out) for model in self.models]
        )

    @contextlib.contextmanager
    def portable(self, rnn_kernel: str = "cpu"):
        """Return a context in which graphs are traced, see `Seq2Seq.portable`."""
        with contextlib.ExitStack() as stack:
            for model in self.models:
                stack.enter_context(model.portable(rnn_kernel))
            yield


def mean(tensors):
    """Return the mean of tensors of one shape, in the widest of their dtypes."""
    widest = max((x.dtype for x in tensors), key=lambda dtype: dtype.size)
    return tf.add_n([tf.cast(x, widest) for x in tensors]) / len(tensors)
