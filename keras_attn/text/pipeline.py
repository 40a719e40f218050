"""From pairs of strings to padded batches of ids, bucketed by length.

Strings in memory are tokenised once. Every epoch then has an order of its own, a function of the
seed and the number of the epoch alone, so that a run resumed at epoch n sees what an uninterrupted
one saw. Pairs of similar length share a batch, and a batch is padded to one of a few widths.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_attn.types import BOS, EOS, PAD

CHUNK = 8192  # strings tokenised at a time


class Ids(NamedTuple):
    """Token ids of many texts, and how many texts were too long.

    Attributes:
        values: Int32 numpy array, all ids one after another.
        starts: Int64 numpy array (n + 1,), where each text starts; the last entry is the end.
        cut: Bool numpy array (n,), True where a text was longer than the limit.
    """

    values: np.ndarray
    starts: np.ndarray
    cut: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each text, EOS included."""
        return np.diff(self.starts)


def with_end(ids: tf.RaggedTensor) -> tf.RaggedTensor:
    """Append EOS to every row."""
    end = tf.fill([ids.nrows(), 1], tf.cast(EOS, ids.dtype))
    return tf.concat([ids, end], axis=1)


def source_ids(ids: tf.RaggedTensor, max_source: int) -> tf.RaggedTensor:
    """Return source rows: at most `max_source` tokens, the last of which is always EOS."""
    return with_end(ids[:, : max_source - 1])


def target_ids(ids: tf.RaggedTensor, max_target: int) -> tf.RaggedTensor:
    """Return target rows: at most `max_target` tokens, ending with EOS unless they were cut."""
    return with_end(ids)[:, :max_target]


def rows_of(encode, limit: int, finish):
    """Return a function of columns of strings to rows of ids, and whether each was cut.

    Args:
        encode: Function of the columns that returns ragged ids.
        limit: Most tokens of a row, EOS included.
        finish: `source_ids` or `target_ids`.
    """

    def rows(*columns):
        ids = encode(*columns)
        return finish(ids, limit), ids.row_lengths() + 1 > limit

    return rows


def tokenized(rows, columns) -> Ids:
    """Tokenise texts in chunks.

    Args:
        rows: From `rows_of`, or that as a graph.
        columns: One or more lists or arrays of n strings.
    """
    values, lengths, cut = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)], [np.zeros(0, bool)]
    for i in range(0, len(columns[0]), CHUNK):
        ids, beyond = rows(*(texts[i : i + CHUNK] for texts in columns))
        cut.append(beyond.numpy())
        values.append(ids.flat_values.numpy().astype(np.int32))
        lengths.append(np.diff(ids.row_splits.numpy()))
    starts = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
    return Ids(np.concatenate(values), starts, np.concatenate(cut))


def selected(ids: Ids, rows: np.ndarray) -> Ids:
    """Return the texts at `rows`, int positions."""
    lengths = ids.lengths[rows]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    within = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
    return Ids(ids.values[np.repeat(ids.starts[rows], lengths) + within], starts, ids.cut[rows])


def widths(longest: int) -> np.ndarray:
    """Return the widths that batches are padded to, in tokens: 4, 8 ... 32, 40 ... 64, 80 ..."""
    steps = [*range(4, 32, 4), *range(32, 64, 8), *range(64, max(longest, 64) + 16, 16)]
    return np.array(steps[: np.searchsorted(steps, longest) + 1], np.int64)


def width_for(length, longest: int):
    """Return the smallest width that holds `length`, an int tensor; at most `longest`."""
    grid = tf.constant(widths(longest))
    return tf.minimum(tf.gather(grid, tf.searchsorted(grid, [length])[0]), longest)


class Plan(NamedTuple):
    """How pairs are cut into batches: the same sizes of batches every epoch, other pairs in them.

    Attributes:
        bucket: Int64 (n,), the bucket of each pair.
        starts: Int64 (m,), where each batch starts among the pairs sorted by bucket.
        sizes: Int64 (m,), pairs in each batch.
    """

    bucket: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray


def plan(lengths: np.ndarray, batch_size: int) -> Plan:
    """Put pairs of similar `lengths` (n,) together, `batch_size` at a time."""
    bucket = np.searchsorted(widths(int(lengths.max())), lengths)
    starts, sizes, first = [], [], 0
    for count in np.bincount(bucket):
        for i in range(0, count, batch_size):
            starts.append(first + i)
            sizes.append(min(batch_size, count - i))
        first += count
    return Plan(bucket.astype(np.int64), np.array(starts, np.int64), np.array(sizes, np.int64))


def count(source, target, pairs, max_source, max_target, batch_size) -> int:
    """Return the number of batches of an epoch over pairs of strings.

    It is more than pairs over `batch_size`: every width ends with a batch that may not be full.

    Args:
        source: The source tokeniser.
        target: The target tokeniser.
        pairs: n sources and n targets.
        max_source: Most tokens of a source.
        max_target: Most tokens of a target.
        batch_size: Most pairs of a batch.
    """
    sources = tokenized(rows_of(source.tokenize, max_source, source_ids), pairs[:1])
    targets = tokenized(rows_of(target.tokenize, max_target, target_ids), pairs[1:2])
    return len(plan(np.maximum(sources.lengths, targets.lengths), batch_size).sizes)


def batches(
    sources: Ids,
    targets: Ids,
    sample_weight: np.ndarray | None = None,
    *,
    soft_targets: Any = (),
    batch_size: int,
    shuffle: bool = False,
    seed: int = 0,
    epoch: Any = 0,
) -> tf.data.Dataset:
    """Return one epoch's batches, prefetched.

    Args:
        sources: n texts, from `tokenized`.
        targets: n texts.
        sample_weight: Float (n,), or None.
        soft_targets: A tuple of arrays (m, K), of the m tokens of all targets, one behind the
            other; or an empty one.
        batch_size: Most pairs of a batch.
        shuffle: Whether pairs and batches come in the order that `seed` and `epoch` give.
        seed: Int.
        epoch: Int, or a variable that holds one and is read whenever the dataset is started.

    Returns:
        A dataset of ({"source": (B, S), "target_in": (B, T)}, target_out (B, T)[, sample_weight
        (B,)]), ids int32, padded with 0; and with "soft_targets", (B, T, K) each, if there are any.
    """
    cut = plan(np.maximum(sources.lengths, targets.lengths), batch_size)
    limits = int(sources.lengths.max()), int(targets.lengths.max())
    weights = None if sample_weight is None else np.asarray(sample_weight, np.float32)
    bucket = tf.constant(cut.bucket)
    data = [
        tf.constant(x) for x in (sources.values, sources.starts, targets.values, targets.starts)
    ]

    soft = tf.nest.map_structure(tf.constant, soft_targets)

    def order(now):
        if not shuffle:
            return tf.argsort(bucket, stable=True), tf.range(len(cut.starts))
        rows = _permutation(tf.size(bucket), seed, 2 * now)
        rows = tf.gather(rows, tf.argsort(tf.gather(bucket, rows), stable=True))
        return rows, _permutation(len(cut.starts), seed, 2 * now + 1)

    def batch(rows, start, size):
        taken = rows[start : start + size]
        source = _padded(_rows(data[0], data[1], taken), limits[0])
        target_out = _padded(_rows(data[2], data[3], taken), limits[1])
        example = {"source": source, "target_in": shifted(target_out)}, target_out
        if soft:
            width = tf.shape(target_out, tf.int64)[1]
            example[0]["soft_targets"] = tf.nest.map_structure(
                lambda x: _rows(x, data[3], taken).to_tensor(
                    0, shape=tf.stack([-1, width, x.shape[1]])
                ),
                soft,
            )
        return example if weights is None else (*example, tf.gather(weights, taken))

    def one_epoch(_):
        now = tf.cast(epoch, tf.int64)
        rows, sequence = order(now)
        slices = tf.gather(cut.starts, sequence), tf.gather(cut.sizes, sequence)
        return tf.data.Dataset.from_tensor_slices(slices).map(
            lambda start, size: batch(rows, start, size), num_parallel_calls=2
        )

    dataset = tf.data.Dataset.range(1).flat_map(one_epoch)
    return _finished(dataset.apply(tf.data.experimental.assert_cardinality(len(cut.starts))))


def stream(pairs, codec, max_source, max_target, *, batch_size, drop, counts):
    """Return batches of a dataset of string pairs, in its order but for the bucketing.

    Args:
        pairs: Dataset of (source, target[, sample_weight]) scalars.
        codec: Turns both into ids.
        max_source: Most tokens of a source.
        max_target: Most tokens of a target.
        batch_size: Most pairs of a batch.
        drop: Whether pairs that are too long are dropped, rather than cut.
        counts: Int64 variable (2,), to which the numbers of all and of too long pairs are added.
    """

    def tokenised(source_text, target_text, *weight):
        sources = codec.source_ids(source_text[None])
        targets = codec.target_ids(target_text[None], source_text[None])
        lengths = sources.row_lengths()[0] + 1, targets.row_lengths()[0] + 1
        too_long = (lengths[0] > max_source) | (lengths[1] > max_target)
        counts.assign_add(tf.stack([tf.constant(1, tf.int64), tf.cast(too_long, tf.int64)]))
        rows = source_ids(sources, max_source)[0], target_ids(targets, max_target)[0]
        return tuple(tf.cast(row, tf.int32) for row in rows), too_long, weight

    def example(ids, too_long, weight):
        x = {"source": ids[0], "target_in": shifted(ids[1][None])[0]}, ids[1]
        return (*x, tf.cast(weight[0], tf.float32)) if weight else x

    dataset = pairs.map(tokenised, num_parallel_calls=2, deterministic=True)
    if drop:
        dataset = dataset.filter(lambda ids, too_long, weight: ~too_long)
    longest = max(max_source, max_target)
    grid = [int(w) for w in widths(longest)]
    bounds = [w + 1 for w in grid[:-1]]
    dataset = dataset.map(example).bucket_by_sequence_length(
        lambda x, *rest: tf.maximum(tf.size(x["source"]), tf.size(rest[0])),
        bounds,
        [batch_size] * len(grid),
    )
    return _finished(dataset.map(lambda *batch: _repadded(batch, max_source, max_target)))


def _repadded(batch, max_source, max_target):
    """Widen a batch to the common widths."""
    x, target_out, *weight = batch

    def pad(ids, longest):
        missing = width_for(tf.shape(ids, tf.int64)[1], longest) - tf.shape(ids, tf.int64)[1]
        return tf.pad(ids, [[0, 0], [0, missing]])

    target_out = pad(target_out, max_target)
    return (
        {"source": pad(x["source"], max_source), "target_in": shifted(target_out)},
        target_out,
        *weight,
    )


def _finished(dataset):
    """Prefetch, and shard by batches.

    There is nothing to tune, and who tunes may sleep when an epoch is over: now and then the end
    waits for it, until 2.5, 5 or 10 seconds from the beginning.
    """
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    options.autotune.enabled = False
    return dataset.with_options(options).prefetch(2)


def even(dataset: tf.data.Dataset, replicas: int) -> tf.data.Dataset:
    """Fill batches up to a multiple of `replicas` with rows without tokens, which weigh nothing.

    Keras averages the first batch over the replicas, so its rows have to split evenly.

    Args:
        dataset: Of ({"source": (B, S), "target_in": (B, T)}, target_out (B, T)[, sample_weight]),
            perhaps with "soft_targets", as `batches` gives them.
        replicas: Positive int.
    """

    def more(x, missing, first=PAD):
        row = tf.concat([[tf.cast(first, x.dtype)], tf.zeros([tf.shape(x)[1] - 1], x.dtype)], 0)
        return tf.concat([x, tf.repeat(row[None], missing, axis=0)], axis=0)

    def fill(x, target_out, *weight):
        missing = -tf.shape(target_out)[0] % replicas

        def zeros(values):
            return tf.pad(values, [[0, missing], *[[0, 0]] * (values.shape.rank - 1)])

        x = {key: tf.nest.map_structure(zeros, values) for key, values in x.items()} | {
            "source": more(x["source"], missing, EOS),  # no row is ever empty
            "target_in": more(x["target_in"], missing),
        }
        return x, more(target_out, missing), *map(zeros, weight)

    return dataset.map(fill, num_parallel_calls=2).prefetch(2)


def shifted(target_out):
    """Return target_in (B, T) of target_out (B, T): BOS in front, the last column gone."""
    first = tf.fill([tf.shape(target_out)[0], 1], tf.cast(BOS, target_out.dtype))
    return tf.where(target_out == PAD, PAD, tf.concat([first, target_out[:, :-1]], axis=1))


def _permutation(size, seed, number):
    keys = tf.random.stateless_uniform(
        [size],
        seed=tf.stack([tf.cast(seed, tf.int64), number]),
        maxval=None,
        dtype=tf.int64,
        minval=None,
    )
    return tf.argsort(keys, stable=True)


def _rows(values, starts, rows):
    """Gather rows of flat ids: (n,) positions -> ragged."""
    return tf.gather(tf.RaggedTensor.from_row_splits(values, starts, validate=False), rows)


def _padded(ids: tf.RaggedTensor, longest: int):
    """Pad to one of the common widths."""
    width = width_for(tf.reduce_max(ids.row_lengths()), longest)
    return ids.to_tensor(PAD, shape=tf.stack([tf.cast(-1, tf.int64), width]))
