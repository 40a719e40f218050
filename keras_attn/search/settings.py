"""What a search can be told, row by row, as tensors."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from keras_attn.search.beam import Beam, Ranking
from keras_attn.search.loop import Choice, Rule
from keras_attn.search.rules import Forbidden, Members, NoRepeat, Occasional, Prefix
from keras_attn.search.sample import Draw, Sample
from keras_attn.search.trie import NO_TRIE, Trie


class Settings(NamedTuple):
    """Limits and rules; out of their ranges, values are clamped. Lengths count EOS.

    Attributes:
        max_length: Int (B,), tokens, 1 to T.
        min_length: Int (B,), tokens, 0 to `max_length`.
        prefix: Int (B, P), the first ids of each target, PAD behind them; none has P = 0.
        banned: Int (B, M), ids that are never chosen, PAD where there is none.
        no_repeat: Int (B, 1), the n of n-grams that never come twice, or 0; none has width 0.
        trie: The targets that are allowed.
    """

    max_length: Any
    min_length: Any
    prefix: Any
    banned: Any
    no_repeat: Any
    trie: Trie


def plain(max_length) -> Settings:
    """Return settings without rules, of lengths (B,)."""
    nothing = tf.zeros_like(max_length)
    none = nothing[:, None][:, :0]
    return Settings(max_length, nothing, none, none, none, NO_TRIE)


def choice_of(how: Ranking | Draw, width: int, max_length, source_mask) -> Choice:
    """Return the choice that picks among K = `width` slots."""
    if isinstance(how, Draw):
        return Sample(width, how, max_length)
    return Beam(width, how, max_length, source_mask)


def clamped(settings: Settings, steps) -> Settings:
    """Return settings with lengths within 1 to `steps`."""
    longest = tf.clip_by_value(tf.cast(settings.max_length, tf.int64), 1, tf.cast(steps, tf.int64))
    least = tf.clip_by_value(tf.cast(settings.min_length, tf.int64), 0, longest)
    return settings._replace(max_length=longest, min_length=least)


def rules_of(settings: Settings, steps, width: int) -> tuple:
    """Return the rules; the prefix comes last, since it overrules the others.

    Rules that are known to be absent when the graph is made are left out of it.
    """
    rules: list[Rule] = []
    if settings.no_repeat.shape[1] != 0:
        rules.append(NoRepeat(settings.no_repeat, steps, width))
    if settings.trie.tokens.shape[0] != 0:
        rules.append(Members(settings.trie))
    forbidden = Forbidden(settings.banned, settings.min_length, width)
    return forbidden, Occasional(*rules, Prefix(settings.prefix, width))
