"""What every part of the library agrees on: special ids, records, and the glossary of shapes.

Letters in shape comments:
    B batch · S source tokens · T target tokens · Q queries · K beams · N rows of a step (B, or B*K)
    E embedding · U units of a recurrence or a query · C key depth · A attention units
    D value (memory) depth · F features · V target vocabulary · H heads

Words, each with one meaning:
    scores -> alignments -> context    raw (B, Q, S) -> normalised (B, Q, S) -> summed (B, Q, D)
    source, target_in, target_out      ids (B, S); `<s> y...` (B, T); `y... </s>` (B, T)
    memory                             what a source leaves behind; constant while decoding
    state                              what one decoding step hands to the next
    step / unroll / search             one position / a teacher-forced loop / an id-choosing loop

Row n of a step belongs to source n // K, with K = N // B: beams never copy the memory.
"""

from __future__ import annotations

from typing import Any, NamedTuple

PAD, BOS, EOS, UNK = 0, 1, 2, 3
SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<unk>")


class Encoded(NamedTuple):
    """What an encoder makes of a batch of sources.

    Attributes:
        values: Float (B, S, D), one vector a source token, zero at padding.
        mask: Bool (B, S), True at tokens (EOS included).
        summary: Float (B, D'), one vector a source.
        states: Tuple over layers of tuples of float (B, D''), the final recurrent states,
            directions concatenated.
    """

    values: Any
    mask: Any
    summary: Any
    states: tuple[tuple[Any, ...], ...]


class Memory(NamedTuple):
    """What decoding reads of a source: constant, closed over, never gathered by a beam.

    Attributes:
        keys: Float (B, H*S, C'), projected keys as the scorer wants them, head after head; width 0
            without attention.
        values: Float (B, H*S, D / H), what alignments weigh; width 0 without attention.
        mask: Bool (B, S), True at tokens (EOS included).
        summary: Float (B, D'), the fixed context vector; width 0 where nothing reads it.
        start: Float (B, E), the first decoder input; width 0 where that is the start token.
        slots: Int (B, S), the id that a copy of each source token gets; width 0 without copying.
    """

    keys: Any
    values: Any
    mask: Any
    summary: Any
    start: Any
    slots: Any


class AttentionState(NamedTuple):
    """What attention carries from step to step; widths are 0 where nothing reads it.

    Attributes:
        position: Float (N, 1), the number of steps taken.
        previous: Float (N, H, S), the last alignments of every head.
        total: Float (N, H, S), the sum of all alignments so far.
        terms: Float (N, 2), what the last step adds to the loss: the penalty of looking where it
            has looked, and the log-probability of the position that it chose, in nats.
    """

    position: Any
    previous: Any
    total: Any
    terms: Any


class DecoderState(NamedTuple):
    """What one decoding step hands to the next: carried, gathered by parent beam.

    Attributes:
        recurrent: Tuple over layers of tuples of float (N, U).
        context: Named tuple of tensors (N, ...) that the context carries; empty where it carries
            nothing.
        fed: Float (N, F), the last features, for input feeding; width 0 without it.
    """

    recurrent: tuple[tuple[Any, ...], ...]
    context: tuple[Any, ...]
    fed: Any


class Output(NamedTuple):
    """What a decoding step shows; with a time axis behind the first, what all steps show.

    Attributes:
        features: Float (N, F), what the vocabulary projection reads.
        gate: Float (N, 1), the logit of generating rather than copying; width 0 without copying.
        alignments: Float (N, S); width 0 without attention.
        terms: Float (N, 2), see `AttentionState`; width 0 where the loss has no such terms.
    """

    features: Any
    gate: Any
    alignments: Any
    terms: Any


class SearchResult(NamedTuple):
    """Hypotheses, best first. A length counts EOS; scores are in nats.

    Attributes:
        token_ids: Int (B, K, T), with EOS where `finished`, PAD behind it.
        lengths: Int (B, K), tokens.
        scores: Float (B, K), the sum of `token_scores`: log p of the hypothesis.
        penalised_scores: Float (B, K), what the rows are ordered by.
        token_scores: Float (B, K, T), log p of each token, 0 behind the end.
        alignments: Float (B, K, T, S), 0 behind the end; S is 0 without attention.
        finished: Bool (B, K), False where the hypothesis was cut at the maximum length.
    """

    token_ids: Any
    lengths: Any
    scores: Any
    penalised_scores: Any
    token_scores: Any
    alignments: Any
    finished: Any
