"""Generation: everything that is asked of a trained model, on top of `encode` and `step`."""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Iterator
from typing import Any, Unpack

import numpy as np

from keras_attn.kernels import cudnn
from keras_attn.layers.base import positive
from keras_attn.models import corpus, inputs
from keras_attn.models.request import (
    NO_LIMIT,
    SearchOptions,
    check_for_all,
    request_of,
    trie_for,
)
from keras_attn.models.rows import chunks, padded, stacked
from keras_attn.models.runner import Runner, served
from keras_attn.plots import Alignments
from keras_attn.search import Trie
from keras_attn.serving.export import export_saved_model
from keras_attn.serving.formats import export_format
from keras_attn.text import pipeline
from keras_attn.training.callbacks import edit_distances
from keras_attn.types import EOS, PAD, UNK, SearchResult

GENERATED_AT_A_TIME = 256
FORMATS = ("tf_saved_model", "onnx", "litert")
DEFAULTS = {"rnn_kernel": "cpu", "beam_size": 5, "batch_size": 1}
UNREAD = {  # options that a format has no use for
    "tf_saved_model": ["batch_size"],
    "onnx": ["rnn_kernel", "beam_size", "batch_size"],
    "litert": ["rnn_kernel", "beam_size"],
}
SCORED_AT_A_TIME = 128  # logits of all steps are there at once


class Generation:
    """What `Seq2Seq` and `Ensemble` answer.

    They have the vocabularies `source` and `target`, a `codec`, the limits `max_source` and
    `max_target`, `attends`, and the functions `encode`, `step`, `stepper`, `scored` and
    `log_likelihood`.
    """

    codec: Any
    source: Any
    target: Any
    max_source: int
    max_target: int
    attends: bool
    _runner: Runner

    def generate(
        self,
        source: Any,
        *,
        batch_size: int = GENERATED_AT_A_TIME,
        return_scores: bool = False,
        return_alignments: bool = False,
        **options: Unpack[SearchOptions],
    ):
        """Return the best target of each source, or several, or draws.

        Args:
            source: A string, n strings, or ids (n, S); or an iterator of strings, of any length.
            batch_size: Most sources of a batch, which are of like length; long ones are fewer,
                16,384 tokens in all. On CPUs as many batches are decoded at a time as there are
                cores, which share a large batch.
            return_scores: Whether log p of each target, nats, comes beside it.
            return_alignments: Whether its alignments do, a list of floats for each of its tokens,
                EOS included, one for each of the source's.
            **options: `SearchOptions`: beam_size, num_return, length_penalty, max_length,
                temperature, ...

        Returns:
            A str for a string, a list of str for strings, an int array (n, T) for ids. With
            `num_return` a list of str takes the place of each str, the best first, and may be
            shorter: some sources have fewer targets. For ids it is (n, num_return, T). With
            `return_scores` or `return_alignments` it is a tuple of that and these, nested alike. A
            source for which nothing is possible has "" and -inf.

            For an iterator it is an iterator, of what a list would give for each source: a str, a
            list of them, or a tuple. It reads some thousands of sources ahead (64 times
            `batch_size`), and never holds more; options are then the same for all sources.

        Raises:
            TypeError: something that is neither, or ids for a model with tokenisers; an unknown
                option.
            ValueError: ids outside the vocabulary, an option outside its range, or options that
                exclude each other.
        """
        if return_alignments:
            self._need_attention("return_alignments")
        if isinstance(source, Iterator) and isinstance(self.source, int):
            raise TypeError("source: an iterator is one of strings; this model takes ids (n, S).")
        if isinstance(source, Iterator):
            check_for_all(self, dict(options))
            shown = {"return_scores": return_scores, "return_alignments": return_alignments}
            size = positive("batch_size", batch_size)
            return corpus.generated(self.generate, source, size, {**options, **shown})
        rows = self._source_rows(source)
        best = _best_alone(options)
        found = self._searched(source, rows, batch_size, best, aligned=return_alignments)
        counts = (found.lengths > 0).sum(axis=1)
        nested = options.get("num_return") is not None
        answers = [self._targets(found, source, counts, nested)]
        if return_scores:
            answers.append(_nested(found.scores.tolist(), counts, nested))
        if return_alignments:
            answers.append(_nested(_trimmed(found, rows.lengths), counts, nested))
        if isinstance(source, str | bytes):
            answers = [answer[0] for answer in answers]
        return tuple(answers) if len(answers) > 1 else answers[0]

    def _targets(self, found, source, counts, nested):
        if isinstance(self.target, int):
            return found.token_ids if nested else found.token_ids[:, 0]
        n, width, steps = found.token_ids.shape
        texts = inputs.texts("source", source)
        repeated = [text for text in texts for _ in range(width)]
        flat = self._texts(found.token_ids.reshape(n * width, steps), repeated)
        return _nested([flat[i * width : (i + 1) * width] for i in range(n)], counts, nested)

    def _texts(self, token_ids, sources) -> list[str]:
        if not len(token_ids):
            return []
        texts = self._runner.texts(token_ids, sources).numpy().tolist()
        return [text.decode("utf-8", "replace") for text in texts]

    def search(
        self,
        source: Any,
        *,
        batch_size: int = GENERATED_AT_A_TIME,
        **options: Unpack[SearchOptions],
    ) -> SearchResult:
        """Return targets with their scores and alignments, as NumPy arrays.

        Arguments and errors are those of `generate`. K is `num_return`, by default all of
        `beam_size`; the arrays are as wide as the longest target (T) and the longest source (S)
        need. Draws are in the order in which they were drawn.
        """
        return self._searched(source, self._source_rows(source), batch_size, options)

    def _searched(self, source, rows, batch_size, options, aligned=True) -> SearchResult:
        """Search; without `aligned`, alignments are left out: of many rows they take most room."""
        request = request_of(self, source, rows, dict(options))

        def search(chosen, source_ids):
            result = self._runner.search(
                source_ids, *request.part(chosen), request.width, request.steps
            )
            return chosen, _shown(result, request.returned, aligned)

        number, size = len(rows.lengths), positive("batch_size", batch_size)
        if number > size or number * request.width >= self._runner.shared:
            size = min(size, max(1, -(-number // corpus.workers())))
        parts = chunks(rows, size)
        first = next(parts)
        if len(first[0]) == number:
            return stacked([search(*first)], number)
        calls = (functools.partial(search, *part) for part in itertools.chain([first], parts))
        return stacked(list(corpus.in_order(calls, corpus.workers())), number)

    def stream(self, source: Any, **options: Unpack[SearchOptions]) -> Iterator[Any]:
        """Yield the tokens of a target as they come, without EOS: str, or int for ids.

        Args:
            source: A string, or ids (1, S).
            **options: `SearchOptions`, but for beams.

        Raises:
            TypeError: more than one source.
            ValueError: a beam, or several draws: all but the best would be taken back.
        """
        rows = self._source_rows(source)
        if len(rows.lengths) != 1 or (inputs.is_text(source) != isinstance(source, str | bytes)):
            raise TypeError("source: expected one string, or ids (1, S).")
        request = request_of(self, source, rows, dict(options))
        if request.width > 1:
            raise ValueError("beam_size, num_return: a stream follows one target; leave them out.")
        return self._streamed(source, padded(rows), request)

    def _streamed(self, source, source_ids, request):
        options = request.part(np.array([0]))
        for token, _ in self._runner.stream(source_ids, *options, request.steps):
            if token in (EOS, PAD):
                return
            ids = np.array([[token]])
            yield token if isinstance(self.target, int) else self._named(ids, [source])[0][0]

    def trie(self, targets: Any) -> Trie:
        """Return targets as a trie, which `allowed` takes again and again.

        Args:
            targets: m texts, or ids (m, T).

        Raises:
            TypeError: neither texts nor ids.
            ValueError: none, one that is longer than `max_target`, or one with a token that the
                target's vocabulary does not know.
        """
        return trie_for(self, targets)

    def score(self, source: Any, target: Any, *, batch_size: int = SCORED_AT_A_TIME) -> np.ndarray:
        """Return log p(target | source) in nats, float32 (n,).

        EOS is part of a target that is not cut at `max_target`; ids are scored as they stand.

        Args:
            source: A string, n strings, or ids (n, S).
            target: As many targets.
            batch_size: Most pairs scored at a time; long ones are fewer, see `generate`.

        Raises:
            TypeError: something that is neither strings nor ids.
            ValueError: unequal numbers, or ids outside the vocabulary.
        """
        sources = self._source_rows(source)
        targets = self._target_rows(target, source)
        inputs.same_number(sources.lengths, targets.lengths, ("source", "target"))
        owners = np.repeat(sources.lengths, targets.lengths)
        targets = targets._replace(values=self.codec.reachable(targets.values, owners))
        scores = np.zeros(len(sources.lengths), np.float32)
        longest = np.maximum(sources.lengths, targets.lengths)
        for chosen, source_ids in chunks(sources, positive("batch_size", batch_size), longest):
            target_out = padded(pipeline.selected(targets, chosen))
            target_in = pipeline.shifted(target_out).numpy()
            scores[chosen] = self._runner.score(source_ids, target_in, target_out).numpy()
        return scores

    def attend(self, source: Any, **options: Unpack[SearchOptions]):
        """Generate, and return which source token each target token looked at.

        Args:
            source: A string, or n strings, or ids (n, S).
            **options: `SearchOptions`; with `target` it is that target's tokens.

        Returns:
            `Alignments` for a string, a list of them otherwise. EOS is shown as `</s>`.

        Raises:
            ValueError: the model has no attention.
        """
        self._need_attention("attend")
        rows = self._source_rows(source)
        found = self._searched(source, rows, GENERATED_AT_A_TIME, _best_alone(options))
        texts = inputs.texts("source", source) if inputs.is_text(source) else source
        target_tokens = self._named(found.token_ids[:, 0], texts)
        source_tokens = _decoded(
            self.source, padded(rows), lambda ids: self.codec.source_tokens(ids, texts)
        )
        shown = []
        for i, matrix in enumerate(_trimmed(found, rows.lengths)):
            length, size = found.lengths[i, 0], rows.lengths[i]
            array = np.array(matrix[0], found.alignments.dtype).reshape(length, size)
            shown.append(Alignments(source_tokens[i][:size], target_tokens[i][:length], array))
        return shown[0] if isinstance(source, str | bytes) else shown

    def _need_attention(self, what):
        if not self.attends:
            raise ValueError(
                f"{what}: this model has no attention, so there are no alignments; "
                "zoo.names('attention*') lists those that have."
            )

    def _named(self, target_ids, texts) -> list[list[str]]:
        """Return the text of ids (n, T), or the ids themselves without tokenisers."""
        return _decoded(self.target, target_ids, lambda ids: self.codec.target_tokens(ids, texts))

    def generation_metrics(
        self,
        source: Any,
        target: Any,
        *,
        batch_size: int = GENERATED_AT_A_TIME,
        return_texts: bool = False,
        **options: Any,
    ) -> Any:
        """Generate, and return how good the whole sequences are.

        Args:
            source: n strings, or ids (n, S). Without options equal strings are searched once.
            target: The reference of each, or n lists of strings, any of which is right.
            batch_size: See `generate`.
            return_texts: Whether what was generated, n strings or ids, comes beside it.
            **options: `SearchOptions`.

        Returns:
            "exact_match", the fraction without any error, and "edit_distance_rate", edits over the
            tokens of the references, both to the closest reference, the one with the fewest edits.
            A token unknown to the target vocabulary matches nothing. A dict, or a tuple of that and
            what was generated.

        Raises:
            ValueError: unequal numbers, or a source without a reference.
        """
        source = inputs.texts("source", source) if inputs.is_text(source) else source
        expected, owners = self._references(source, target)
        once = isinstance(source, list) and not options
        asked, places = _once(source) if once else (source, slice(None))
        found = self._searched(
            asked, self._source_rows(asked), batch_size, _best_alone(options), aligned=False
        ).token_ids[:, 0][places]
        measured = self._compared(source, found, expected, owners)
        if not return_texts:
            return measured
        return measured, found if isinstance(self.target, int) else self._texts(found, source)

    def _references(self, source, target):
        """Return ids (m, T) of all references, and (m,) which source each is of."""
        target, owners = inputs.references(target)
        owners = np.arange(len(target)) if owners is None else owners
        inputs.same_number(source, np.unique(owners), ("source", "target"))
        sources = [source[i] for i in owners] if isinstance(source, list) else source
        rows = inputs.target_rows("target", target, self.codec, NO_LIMIT, sources)
        return padded(rows), owners

    def _compared(self, source, found, expected, owners) -> dict:
        """Return what `generation_metrics` says of ids (n, T) that were generated."""
        found = self.codec.canonical(found, source)
        edits = edit_distances(found[owners], np.where(expected == UNK, -1, expected))
        tokens = np.isin(expected, (PAD, EOS), invert=True).sum(axis=1)
        order = np.lexsort((np.arange(len(owners)), edits, owners))
        closest = order[np.unique(owners[order], return_index=True)[1]]
        return {
            "exact_match": float((edits[closest] == 0).mean()),
            "edit_distance_rate": float(edits[closest].sum() / max(tokens[closest].sum(), 1)),
        }

    # === Export ===

    def export(
        self,
        filepath: Any,
        format: str = "tf_saved_model",
        *,
        overwrite: bool = False,
        rnn_kernel: str = "cpu",
        beam_size: int = 5,
        batch_size: int = 1,
        verbose: Any = None,
    ) -> str:
        """Write a SavedModel that TF Serving loads as it is, strings in and strings out.

        It computes in the precision of the weights, as a frozen model does: one that was trained in
        half precision answers alike on any processor.

        Args:
            filepath: The version's folder, for example "saved_models/attention.dates/1". It appears
                all at once, when it is complete.
            format: "tf_saved_model"; or "onnx" or "litert", graphs of ids for other runtimes and a
                script that answers texts by them, see docs/serving.md.
            overwrite: Whether an existing folder is replaced.
            rnn_kernel: How LSTM and GRU read whole sequences: "cpu", by a loop that runs on every
                device; "cudnn", by cuDNN's kernel, which runs on GPUs alone; "portable", by either,
                as the device has it. The last two are experimental: no GPU has run them yet.
            beam_size: Int K of the signature `beam`, and the most that `options` takes.
            batch_size: Int, how many sources LiteRT's graphs take at a time.
            verbose: Whether to print where it went; as in Keras, None prints.

        Returns:
            The path.

        Raises:
            ValueError: another format or kernel, an option that the format does not have, or a size
                is not positive; or a model in half precision cannot be copied, see `freeze`.
            TypeError: a model without tokenisers.
            ImportError: what writes ONNX is not installed.
            FileExistsError: the folder exists, and `overwrite` is False.
            OSError: the folder cannot be written.
        """
        if format not in FORMATS:
            raise ValueError(f"format: expected one of {FORMATS}, got {format!r}.")
        if rnn_kernel not in cudnn.KINDS:
            raise ValueError(f"rnn_kernel: expected one of {cudnn.KINDS}, got {rnn_kernel!r}.")
        given = {"rnn_kernel": rnn_kernel, "beam_size": beam_size, "batch_size": batch_size}
        for name in UNREAD[format]:
            if given[name] != DEFAULTS[name]:
                raise ValueError(f"{name}: format {format!r} has none, got {given[name]!r}.")
        batch_size = positive("batch_size", batch_size)
        if format != "tf_saved_model":
            options = {"batch_size": batch_size, "overwrite": overwrite, "verbose": verbose}
            return export_format(self.in_full_precision(), filepath, format, **options)
        return export_saved_model(
            self.in_full_precision(),
            served,
            filepath,
            beam_size=positive("beam_size", beam_size),
            rnn_kernel=rnn_kernel,
            overwrite=overwrite,
            verbose=verbose,
        )

    def in_full_precision(self) -> Generation:
        """Return what answers as this does, in the precision of its weights."""
        return self

    # === Rows ===

    def _source_rows(self, source):
        rows = inputs.source_rows(
            "source", source, self.codec, self.max_source, self._runner.source_rows
        )
        self._warn_of_cut(rows, "sources", "max_source")
        return rows

    def _target_rows(self, target, source):
        rows = inputs.target_rows("target", target, self.codec, self.max_target, source)
        self._warn_of_cut(rows, "targets", "max_target")
        return rows

    def _warn_of_cut(self, rows, what, limit):
        if rows.cut.any():
            warnings.warn(
                f"{int(rows.cut.sum())} of {len(rows.cut)} {what} were longer than "
                f"{limit}={getattr(self, limit)} tokens (EOS counts) and were cut.",
                stacklevel=4,
            )


def _shown(found: SearchResult, returned: int, aligned: bool) -> SearchResult:
    """Return the hypotheses that were asked for as arrays, as wide as the longest of them."""
    found = found._replace(alignments=found.alignments if aligned else found.alignments[..., :0])
    found = SearchResult(*(np.asarray(x)[:, :returned] for x in found))
    longest = int(found.lengths.max(initial=1))
    return found._replace(
        token_ids=found.token_ids[:, :, :longest],
        token_scores=found.token_scores[:, :, :longest],
        alignments=found.alignments[:, :, :longest],
    )


def _once(texts: list) -> tuple[list, np.ndarray]:
    """Return texts without what comes again, and where among these each of them is."""
    places = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    return list(places), np.array([places[text] for text in texts], int)


def _best_alone(options):
    """Return options that ask for one target, if they do not say how many: it is found soonest."""
    many = options.get("num_return")
    return {**options, "num_return": 1 if many is None else many}


def _nested(rows: list[list], counts, nested: bool) -> list:
    """Return the first of each row, or, nested, as many as there are."""
    if nested:
        return [row[:count] for row, count in zip(rows, counts, strict=True)]
    return [row[0] for row in rows]


def _trimmed(found: SearchResult, source_lengths) -> list[list[list[list[float]]]]:
    """Return alignments (n, K, T, S) as lists without what stands behind ends."""
    return [
        [matrix[:length, :size].tolist() for matrix, length in zip(rows, lengths, strict=True)]
        for rows, lengths, size in zip(found.alignments, found.lengths, source_lengths, strict=True)
    ]


def _decoded(vocabulary, ids, names) -> list[list[str]]:
    """Return the text of each id (n, T), or the id itself where there is no tokeniser."""
    if isinstance(vocabulary, int):
        return [[str(i) for i in row] for row in ids]
    return [[token.decode("utf-8", "replace") for token in row] for row in names(ids).numpy()]
