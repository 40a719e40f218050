"""Scores of generated texts against one or several references."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

MISSING = "needs {0}, which is not installed: pip install {0}."


class Grouped(NamedTuple):
    """Sources without repetition, in the order of their first appearance, and their references.

    Attributes:
        sources: List of n strings.
        references: List of n lists of strings, at least one each.
    """

    sources: list[str]
    references: list[list[str]]


def grouped(sources: Sequence[str], targets: Sequence[str]) -> Grouped:
    """Bring together the targets of equal sources: all of them are right.

    Raises:
        ValueError: unequal numbers.

    >>> grouped(["a", "b", "a"], ["AH", "B IY", "EY"])
    Grouped(sources=['a', 'b'], references=[['AH', 'EY'], ['B IY']])
    """
    if len(sources) != len(targets):
        raise ValueError(f"targets: expected {len(sources)}, one a source, got {len(targets)}.")
    found: dict[str, list[str]] = {}
    for source, target in zip(sources, targets, strict=True):
        found.setdefault(source, []).append(target)
    return Grouped(list(found), list(found.values()))


def sequence_scores(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    tokens: Callable[[str], Sequence[Any]] = str.split,
) -> dict[str, float]:
    """Return how many sequences are right, and how far off the others are.

    A sequence is right if its tokens are those of any of its references. The token error rate
    counts the edits (insertions, deletions, substitutions) to the closest reference, the one with
    the fewest edits, the first of equals, over the tokens of the closest references. For words and
    their phonemes these are the word and the phoneme error rate, as in Yao & Zweig 2015,
    arXiv:1506.00196, sec. 4.

    Args:
        hypotheses: n strings.
        references: n lists of strings, at least one each.
        tokens: Function that splits a string; `list` for characters.

    Returns:
        "exact_match", "sequence_error_rate" (1 - exact match) and "token_error_rate", fractions.

    Raises:
        ValueError: unequal numbers, none, or an item without references.
        ImportError: rapidfuzz is not installed.

    >>> sequence_scores(["K AE T", "D AO G"], [["K AE T"], ["D AA G", "D AO G Z"]])["exact_match"]
    0.5
    """
    try:
        from rapidfuzz.distance import Levenshtein
    except ImportError as error:
        raise ImportError("sequence_scores " + MISSING.format("rapidfuzz")) from error
    _check(hypotheses, references)
    right = edits = length = 0
    for hypothesis, several in zip(hypotheses, references, strict=True):
        said, wanted = tokens(hypothesis), [tokens(reference) for reference in several]
        distances = [Levenshtein.distance(said, reference) for reference in wanted]
        closest = distances.index(min(distances))
        right += distances[closest] == 0
        edits += distances[closest]
        length += len(wanted[closest])
    return {
        "exact_match": right / len(hypotheses),
        "sequence_error_rate": 1 - right / len(hypotheses),
        "token_error_rate": edits / max(length, 1),
    }


def translation_scores(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]], *, lowercase: bool = False
) -> dict[str, Any]:
    """Return BLEU and chrF of a whole test set, by sacrebleu, with the signatures to report.

    Source: Post 2018, arXiv:1804.08771. Texts are given as they are, not tokenised.

    Args:
        hypotheses: n strings.
        references: n lists of strings; where their numbers differ, missing ones count as none.
        lowercase: Whether case is ignored.

    Returns:
        "bleu" and "chrf", 0 to 100, "bleu_signature" and "chrf_signature".

    Raises:
        ValueError: unequal numbers, none, or an item without references.
        ImportError: sacrebleu is not installed.
    """
    try:
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError as error:
        raise ImportError("translation_scores " + MISSING.format("sacrebleu")) from error
    _check(hypotheses, references)
    most = max(map(len, references))
    streams: list[Any] = [[r[i] if i < len(r) else None for r in references] for i in range(most)]
    scores = {}
    for name, metric in (("bleu", BLEU(lowercase=lowercase)), ("chrf", CHRF(lowercase=lowercase))):
        scores[name] = metric.corpus_score(list(hypotheses), streams).score
        scores[f"{name}_signature"] = str(metric.get_signature())
    return scores


def _check(hypotheses, references):
    for name, given in (("hypotheses", hypotheses), ("references", references)):
        if isinstance(given, str):
            raise ValueError(f"{name}: expected a list, got a single string.")
    if len(hypotheses) != len(references) or not len(hypotheses):
        raise ValueError(
            "references: expected a list of them for each hypothesis, and at least one; got "
            f"{len(references)} for {len(hypotheses)}."
        )
    for i, several in enumerate(references):
        if isinstance(several, str) or not len(several):
            raise ValueError(f"references[{i}]: expected a list of strings, got {several!r}.")
