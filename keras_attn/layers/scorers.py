r"""Scores: how well each key answers a query, before anything is normalised.

A scorer has two halves. `project_keys` is what depends on the source alone and is done once for it;
`call` compares queries with keys that went through it.
"""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_attn.layers.base import Component, at_least_float32, positive, projected
from keras_attn.layers.choices import Choices
from keras_attn.layers.normalisers import MASKED

scorers = Choices("scorer")


class Scorer(Component):
    """Base of the scorers: `build`, `project_keys` and `call`.

    `build(query_shape, keys_shape)` gets the shapes of the query (B, Q, U) and of the keys before
    projection (B, S, C).

    Attributes:
        reads: Names of the fields of `AttentionState` that it needs; one that needs any overrides
            `score`.
        uses_keys: Whether keys matter at all.
    """

    reads: tuple[str, ...] = ()
    uses_keys = True

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True  # a mask that the query carries is the attention's to pass on

    def project_keys(self, keys):
        """Return what `call` wants of `keys` (B, S, C): here the keys themselves."""
        return ops.cast(keys, self.compute_dtype)

    def call(self, query, keys):
        """Return scores (B, Q, S), at least float32, of queries (B, Q, U) and projected keys."""
        raise NotImplementedError

    def score(self, query, keys, past):
        """Return scores (B, Q, S), given what attention did before.

        Args:
            query: Float (B, Q, U).
            keys: From `project_keys`.
            past: `AttentionState` with previous and total alignments (B, Q, S), of which those in
                `reads` are filled.
        """
        return self(query, keys)


scorers.base = Scorer


def inner_products(query, keys):
    """Return all inner products: (B, Q, U) and (B, S, U) -> (B, Q, S), at least float32."""
    return ops.matmul(
        at_least_float32(query), ops.transpose(at_least_float32(keys), (0, 2, 1))
    )  # (B, Q, S)


@scorers.register("dot")
class DotScorer(Scorer):
    r"""Dot product, e_ij = s_i^T h_j.

    Source: Luong, Pham & Manning 2015, arXiv:1508.04025, sec. 3.1 "dot". Deviations: none.

    Call arguments:
        query: Float (B, Q, U).
        keys: Float (B, S, U), from `project_keys`.

    Returns:
        Scores, float (B, Q, S), at least float32, unmasked. Cost: O(B*Q*S*U).

    Raises:
        ValueError: query and keys differ in depth.
    """

    def build(self, query_shape, keys_shape):
        """Check that the depths agree."""
        if query_shape[-1] != keys_shape[-1]:
            raise ValueError(
                f"scorer {self.name!r}: query and keys need the same depth, got query depth "
                f"{query_shape[-1]} and key depth {keys_shape[-1]}. Use scorer='general' for "
                "depths that differ."
            )
        self.built = True

    def call(self, query, keys):
        """See the class."""
        return inner_products(query, keys)


@scorers.register("scaled_dot")
class ScaledDotScorer(DotScorer):
    r"""Scaled dot product, e_ij = s_i^T h_j / sqrt(U).

    Source: Vaswani et al. 2017, arXiv:1706.03762, sec. 3.2.1. The scale is a constant, not learnt.
    Shapes and errors as for `DotScorer`.
    """

    def call(self, query, keys):
        """See the class."""
        return inner_products(query, keys) / float(query.shape[-1]) ** 0.5


@scorers.register("general")
class GeneralScorer(Scorer):
    r"""Bilinear score, e_ij = s_i^T W h_j.

    Source: Luong, Pham & Manning 2015, arXiv:1508.04025, sec. 3.1 "general". Deviations: none.
    W h_j is computed once per source. Weights: `kernel` (U, C).

    Call arguments:
        query: Float (B, Q, U).
        keys: Float (B, S, U), from `project_keys`.

    Returns:
        Scores, float (B, Q, S), at least float32, unmasked. Cost: O(B*S*C*U) once, O(B*Q*S*U)
        after.
    """

    def build(self, query_shape, keys_shape):
        """Make the kernel."""
        self.kernel = self.add_weight(shape=(query_shape[-1], keys_shape[-1]), name="kernel")
        self.built = True

    def project_keys(self, keys):
        """Return W h_j: (B, S, C) -> (B, S, U)."""
        keys = ops.cast(keys, self.compute_dtype)
        return projected(keys, ops.transpose(self.weight(self.kernel)))  # (B, S, U)

    def call(self, query, keys):
        """See the class."""
        return inner_products(query, keys)


@scorers.register("low_rank")
class LowRankScorer(Scorer):
    r"""Bilinear score of low rank, e_ij = (P s_i)^T (K h_j), so that W = P^T K has rank R.

    Source: Luong, Pham & Manning 2015, arXiv:1508.04025, sec. 3.1 "general", of low rank; the
    factors are those of a single attention head in Vaswani et al. 2017, arXiv:1706.03762, sec.
    3.2.2, without its scale. K h_j is computed once per source. Weights: `query_kernel` (U, R),
    `key_kernel` (C, R).

    Args:
        rank: Positive int R.

    Call arguments:
        query: Float (B, Q, U).
        keys: Float (B, S, R), from `project_keys`.

    Returns:
        Scores, float (B, Q, S), at least float32, unmasked. Cost: O(B*S*C*R) once,
        O(B*Q*R*(U + S)) after.

    Raises:
        ValueError: `rank` is not positive.
    """

    def __init__(self, rank: int = 32, **kwargs):
        super().__init__(**kwargs)
        self.rank = positive("rank", rank)

    def build(self, query_shape, keys_shape):
        """Make the kernels."""
        self.query_kernel = self.add_weight(shape=(query_shape[-1], self.rank), name="query_kernel")
        self.key_kernel = self.add_weight(shape=(keys_shape[-1], self.rank), name="key_kernel")
        self.built = True

    def project_keys(self, keys):
        """Return K h_j: (B, S, C) -> (B, S, R)."""
        return projected(ops.cast(keys, self.compute_dtype), self.weight(self.key_kernel))

    def call(self, query, keys):
        """See the class."""
        return inner_products(projected(query, self.weight(self.query_kernel)), keys)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "rank": self.rank}


def weighed(hidden, scale):
    """Return v^T hidden, (B, Q, S, A) and (A,) -> (B, Q, S), at least float32."""
    scale = at_least_float32(scale)
    return ops.squeeze(projected(at_least_float32(hidden), scale[:, None]), -1)


class HiddenScorer(Scorer):
    """Base of the scorers that compare in a hidden space of A units, v^T tanh(...).

    Args:
        units: Positive int A, or None for the query's depth.

    Raises:
        ValueError: `units` is not positive.
    """

    def __init__(self, units: int | None = None, **kwargs):
        super().__init__(**kwargs)
        self.units = units if units is None else positive("units", units)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "units": self.units}


@scorers.register("additive")
class AdditiveScorer(HiddenScorer):
    r"""Additive (MLP) score, e_ij = v^T tanh(W s_i + U h_j).

    Source: Bahdanau, Cho & Bengio 2015, arXiv:1409.0473, sec. A.1.2; our query is their s_{i-1}.
    U h_j is computed once per source. Deviation: v starts from Glorot's uniform distribution, not
    from zero. Weights: `query_kernel` (U, A), `key_kernel` (C, A), `scale` (A,).

    Args:
        units: Positive int, width A of the compared space, or None for the query's depth.

    Call arguments:
        query: Float (B, Q, U).
        keys: Float (B, S, A), from `project_keys`.

    Returns:
        Scores, float (B, Q, S), at least float32, unmasked. Cost: O(B*S*C*A) once,
        O(B*Q*S*A) time and memory after.

    Raises:
        ValueError: `units` is not positive.
    """

    def build(self, query_shape, keys_shape):
        """Make the kernels."""
        units = self.units or query_shape[-1]
        self.query_kernel = self.add_weight(shape=(query_shape[-1], units), name="query_kernel")
        self.key_kernel = self.add_weight(shape=(keys_shape[-1], units), name="key_kernel")
        self.scale = self.add_weight(shape=(units,), name="scale")
        self.built = True

    def project_keys(self, keys):
        """Return U h_j: (B, S, C) -> (B, S, A)."""
        return projected(ops.cast(keys, self.compute_dtype), self.weight(self.key_kernel))

    def compared(self, query, keys):
        """Return W s_i + U h_j: (B, Q, S, A)."""
        queries = projected(query, self.weight(self.query_kernel))  # (B, Q, A)
        return queries[:, :, None, :] + keys[:, None, :, :]

    def call(self, query, keys):
        """See the class."""
        return weighed(ops.tanh(self.compared(query, keys)), self.weight(self.scale))


@scorers.register("concat")
class ConcatScorer(HiddenScorer):
    r"""Score of both, joined, e_ij = v^T tanh(W [s_i; h_j]).

    Source: Luong, Pham & Manning 2015, arXiv:1508.04025, sec. 3.1 "concat". Deviations: none. It is
    the additive score with one kernel for two. W's half for h_j is applied once per source.
    Weights: `kernel` (U + C, A), query first, `scale` (A,). Shapes and cost as for
    `AdditiveScorer`.
    """

    def build(self, query_shape, keys_shape):
        """Make the kernel."""
        units, self.query_depth = self.units or query_shape[-1], query_shape[-1]
        depth = query_shape[-1] + keys_shape[-1]
        self.kernel = self.add_weight(shape=(depth, units), name="kernel")
        self.scale = self.add_weight(shape=(units,), name="scale")
        self.built = True

    def project_keys(self, keys):
        """Return W's half for the keys of them: (B, S, C) -> (B, S, A)."""
        kernel = self.weight(self.kernel)[self.query_depth :]
        return projected(ops.cast(keys, self.compute_dtype), kernel)

    def call(self, query, keys):
        """See the class."""
        queries = projected(query, self.weight(self.kernel)[: self.query_depth])
        hidden = ops.tanh(queries[:, :, None, :] + keys[:, None, :, :])  # (B, Q, S, A)
        return weighed(hidden, self.weight(self.scale))


@scorers.register("location")
class LocationScorer(Scorer):
    r"""Scores of positions from the query alone, e_i = W s_i.

    Source: Luong, Pham & Manning 2015, arXiv:1508.04025, eq. 8 "location": for a source of S
    tokens, the first S scores. Weights: `kernel` (U, L).

    Args:
        length: Positive int L, tokens; positions beyond it are never looked at.

    Call arguments:
        query: Float (B, Q, U).
        keys: Float (B, S, 0), from `project_keys`; only their number counts.

    Returns:
        Scores, float (B, Q, S), at least float32, unmasked. Cost: O(B*Q*U*L).

    Raises:
        ValueError: `length` is not positive.
    """

    uses_keys = False

    def __init__(self, length: int = 64, **kwargs):
        super().__init__(**kwargs)
        self.length = positive("length", length)

    def build(self, query_shape, keys_shape):
        """Make the kernel."""
        self.kernel = self.add_weight(shape=(query_shape[-1], self.length), name="kernel")
        self.built = True

    def project_keys(self, keys):
        """Return keys of no depth: (B, S, ...) -> (B, S, 0)."""
        return ops.cast(keys, self.compute_dtype)[..., :0]

    def call(self, query, keys):
        """See the class."""
        scores = at_least_float32(projected(query, self.weight(self.kernel)))  # (B, Q, L)
        length = ops.shape(keys)[1]
        missing = ((0, 0), (0, 0), (0, length))
        return ops.pad(scores, missing, constant_values=MASKED)[..., :length]

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "length": self.length}
