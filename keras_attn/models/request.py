"""What a caller asks of a search: checked before any work, and turned into rows of options."""

from __future__ import annotations

import difflib
import numbers
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypedDict

import numpy as np

from keras_attn.layers.base import positive
from keras_attn.models import inputs
from keras_attn.models.rows import padded
from keras_attn.search import NO_TRIE, Draw, Ranking, Settings, Trie, depth_of, fold, trie_of
from keras_attn.search.beam import LARGEST_PENALTY
from keras_attn.text.codec import Codec
from keras_attn.text.pipeline import Ids
from keras_attn.types import BOS, EOS, UNK

NO_LIMIT = 2**31 - 1


class SearchOptions(TypedDict, total=False):
    """What `generate`, `search`, `attend`, `stream` and `generation_metrics` can be told.

    A number may be given once for all sources, or as a list of n. Lengths count EOS.

    Attributes:
        beam_size: Hypotheses kept at each step; 1, the default, is greedy search.
        num_return: Hypotheses returned, best first, at most `beam_size`; or draws.
        length_penalty: Wu's alpha, 0 to 10: hypotheses are ordered by log p over
            ((5 + length) / 6)^alpha; 0 by default, larger favours longer ones.
        coverage_penalty: Wu's beta, 0 to 10: what log min(1, attention received) of every source
            token counts beside it; 0 by default. Needs attention.
        max_length: Most tokens, `max_target` by default.
        min_length: Fewest tokens, 0 by default.
        temperature: Draw tokens, with log p divided by this positive number.
        top_k: Draw from that many of the most probable tokens.
        top_p: Draw from the fewest tokens whose probabilities sum to it or more, in (0, 1].
        seed: Of the draws: an int, from which source i gets `search.fold(seed, i)`, so that the
            same seed gives the same texts however they are batched; or n ints, one a source. A new
            one by default.
        prefix: What every target starts with, or n of them; a text, or ids (n, P).
        target: n whole targets that are followed rather than searched for.
        banned: Tokens, by text or id, that are never chosen.
        no_repeat_ngram_size: The n of n-grams of tokens that never come twice in a target.
        allowed: The only targets there are, a list of texts, ids (m, T), or what `trie` returns.
    """

    beam_size: int | Sequence[int]
    num_return: int
    length_penalty: float | Sequence[float]
    coverage_penalty: float | Sequence[float]
    max_length: int | Sequence[int] | None
    min_length: int | Sequence[int]
    temperature: float | Sequence[float]
    top_k: int | Sequence[int]
    top_p: float | Sequence[float]
    seed: int | Sequence[int]
    prefix: Any
    target: Any
    banned: Sequence[str | int]
    no_repeat_ngram_size: int | Sequence[int]
    allowed: Any


OPTIONS = tuple(SearchOptions.__annotations__)
DRAWN = ("temperature", "top_k", "top_p")
RANKED = ("beam_size", "length_penalty", "coverage_penalty")
OF_ALL = ("banned", "allowed")  # lists that all sources share


class Request(NamedTuple):
    """What is asked of n sources, as NumPy arrays of n rows.

    Attributes:
        settings: `Settings`.
        how: `Ranking`, or `Draw`.
        width: Int K of the search.
        returned: Int, hypotheses of each source that are shown.
    """

    settings: Settings
    how: Ranking | Draw
    width: int
    returned: int

    @property
    def steps(self) -> int:
        """The most tokens of any target."""
        return int(self.settings.max_length.max(initial=1))

    def part(self, chosen: np.ndarray) -> tuple[Settings, Ranking | Draw]:
        """Return what is asked of the rows `chosen`."""
        trie = self.settings.trie
        settings = (x if x is trie else x[chosen] for x in self.settings)
        return Settings(*settings), type(self.how)(*(x[chosen] for x in self.how))


def request_of(model: Any, source: Any, rows: Ids, asked: dict[str, Any]) -> Request:
    """Return what is asked of the sources.

    Args:
        model: Has `codec`, `max_target` and `attends`.
        source: The n sources, as they were given.
        rows: Their ids.
        asked: `SearchOptions`.

    Raises:
        TypeError: an unknown option, or one of the wrong kind.
        ValueError: an option outside its range, or options that exclude each other.
    """
    for name in asked:
        if name not in OPTIONS:
            raise TypeError(f"{name!r} is no option of a search; they are {sorted(OPTIONS)}.")
    given = {name: value for name, value in asked.items() if value is not None}
    _refuse_contradictions(model, given)
    n = len(rows.lengths)
    limit = f"max_target={model.max_target}"
    longest = _ints(given, "max_length", n, model.max_target, (1, model.max_target), limit)
    least = _ints(given, "min_length", n, 0, (0, model.max_target), limit)
    if (least > longest).any():
        row = int(np.argmax(least > longest))
        raise ValueError(
            f"min_length: expected at most max_length={longest[row]}, got {least[row]}."
        )
    trie = _trie(model, given, longest)
    prefix = _prefix(model, given, source, rows.lengths, longest)
    if "target" in given:  # nothing follows it
        longest = (prefix != 0).sum(axis=1).astype(np.int32)
    settings = Settings(
        max_length=longest,
        min_length=least,
        prefix=prefix,
        banned=np.tile(_banned(model, given), (n, 1)),
        no_repeat=_optional(_ints, given, "no_repeat_ngram_size", n, (0, NO_LIMIT)),
        trie=trie,
    )
    if any(name in given for name in DRAWN):
        returned = positive("num_return", given.get("num_return", 1))
        return Request(settings, _draw(given, n, returned), returned, returned)
    ranking, width, returned = _ranking(given, n)
    return Request(settings, ranking, width, returned)


def check_for_all(model: Any, asked: dict[str, Any]) -> None:
    """Check options that are the same for all sources, before any source is read.

    Of a model that copies, what a prefix may say is not known before its source is.

    Args:
        model: As for `request_of`, with text sources.
        asked: `SearchOptions`.

    Raises:
        TypeError: as `request_of` does.
        ValueError: as `request_of` does of any source, or an option that has one value a source.
    """
    if asked.get("target") is not None:
        raise ValueError("target: it is of one source, so give a list of sources, not an iterator.")
    for name, value in asked.items():
        several = isinstance(value, list | tuple) or np.ndim(value) > 0
        if several and name not in OF_ALL:
            raise ValueError(
                f"{name}: for an iterator expected one value for all sources, got {value!r:.60}."
            )
    if model.codec.copies:
        asked = {name: value for name, value in asked.items() if name != "prefix"}
    request_of(model, [""], model._source_rows([""]), asked)


def _refuse_contradictions(model, given):
    drawn = [name for name in DRAWN if name in given]
    ranked = [n for n in RANKED if n in given and np.any(_array(n, given[n]) != (n == "beam_size"))]
    if drawn and ranked:
        raise ValueError(
            f"{ranked[0]}: a beam keeps the best hypotheses and {drawn[0]} draws one; give one of "
            "both. num_return draws several."
        )
    if "seed" in given and not drawn:
        raise ValueError(f"seed: without {', '.join(DRAWN[:2])} or {DRAWN[2]} nothing is drawn.")
    if "target" in given and "prefix" in given:
        raise ValueError("prefix: target says all tokens already; give one of both.")
    if "coverage_penalty" in ranked and not model.attends:
        raise ValueError(
            "coverage_penalty: it is about where the model looks, and this one has no attention."
        )


def _ranking(given, n) -> tuple[Ranking, int, int]:
    beam_size = _ints(given, "beam_size", n, 1, (1, NO_LIMIT))
    width = int(np.max(given.get("beam_size", 1), initial=1))
    returned = positive("num_return", given.get("num_return", width))
    if (returned > beam_size).any() and "num_return" in given:
        raise ValueError(
            f"num_return: expected at most beam_size={int(beam_size.min())}, got {returned}."
        )
    ranking = Ranking(
        beam_size=beam_size,
        num_return=np.minimum(beam_size, returned).astype(np.int32),
        length_penalty=_floats(given, "length_penalty", n, 0, (0, LARGEST_PENALTY)),
        coverage_penalty=_optional(_floats, given, "coverage_penalty", n, (0, LARGEST_PENALTY)),
    )
    return ranking, width, returned


def _draw(given, n, returned) -> Draw:
    temperature = _floats(given, "temperature", n, 1, (0, np.inf))
    if (temperature == 0).any():
        raise ValueError("temperature: expected a positive number, got 0; leave it out for greedy.")
    top_p = _floats(given, "top_p", n, 1, (0, 1))
    if (top_p == 0).any():
        raise ValueError("top_p: expected a number in (0, 1], got 0.")
    top_k = _ints(given, "top_k", n, 1, (1, NO_LIMIT)) * ("top_k" in given)
    seeds = _seeds(given, n)[:, None]
    others = fold(fold(seeds, -1), np.arange(1, returned)[None, :]).numpy()
    return Draw(np.concatenate([seeds, others], axis=1), temperature, top_k.astype(np.int32), top_p)


def _seeds(given, n):
    seed = given.get("seed")
    if seed is None:
        seed = random.getrandbits(62)
    array = _array("seed", seed)
    if array.dtype.kind not in "iu" or array.ndim > 1 or (array > 2**63 - 1).any():
        raise ValueError(f"seed: expected an int of 64 bits, or {n} of them, got {seed!r:.60}.")
    if array.ndim == 0:
        return fold(array.astype(np.int64), np.arange(n)).numpy()
    return _of_rows("seed", array.astype(np.int64), n)


def _prefix(model, given, source, source_lengths, longest):
    """Return the first ids of every target, int32 (n, P)."""
    n = len(source_lengths)
    name = "target" if "target" in given else "prefix"
    if name not in given or not n:
        return np.zeros((n, 0), np.int32)
    texts = given[name]
    if isinstance(texts, str | bytes) and (name == "prefix" or isinstance(source, str | bytes)):
        texts = [texts] * n
    limit = model.max_target if name == "target" else NO_LIMIT
    sources = [source] if isinstance(source, str | bytes) else source
    rows = inputs.target_rows(name, texts, model.codec, limit, sources)
    if len(rows.lengths) != n:
        raise ValueError(f"{name}: expected {n} rows, one a source, got {len(rows.lengths)}.")
    owners = np.repeat(source_lengths, rows.lengths)
    array = padded(rows._replace(values=model.codec.reachable(rows.values, owners)))
    if name == "prefix" and not isinstance(model.target, int):
        array = np.where(array == EOS, 0, array)  # which was appended
        if (array == UNK).any():
            row = int(np.argmax((array == UNK).any(axis=1)))
            raise ValueError(f"prefix: a token of {texts[row]!r:.60} is not in the vocabulary.")
    if (array == BOS).any():
        raise ValueError(f"{name}: got BOS (1); a target starts with its first token.")
    lengths = (array != 0).sum(axis=1)
    if name == "target" and not lengths.all():
        raise ValueError(
            f"target[{int(np.argmin(lengths))}]: expected at least one token, got PAD."
        )
    if (lengths > longest).any():
        row = int(np.argmax(lengths > longest))
        raise ValueError(
            f"{name}[{row}]: expected at most max_length={longest[row]} tokens, got {lengths[row]}."
        )
    return array[:, : int(lengths.max(initial=0))]


def _banned(model, given):
    """Return the ids that are never chosen, int32 (M,)."""
    tokens = given.get("banned", ())
    if isinstance(tokens, str | bytes | Iterator) or not isinstance(tokens, Iterable):
        raise TypeError(f"banned: expected a list of tokens or ids, got {tokens!r:.60}.")
    return np.array([_token_id(model, token) for token in tokens], np.int32)


def _token_id(model, token):
    size = model.codec.target_size
    token = token.decode("utf-8", "replace") if isinstance(token, bytes) else token
    if isinstance(token, numbers.Integral) and not isinstance(token, bool):
        if 0 <= token < size:
            return int(token)
        raise ValueError(f"banned: expected ids from 0 to {size - 1}, got {token}.")
    if not isinstance(token, str):
        raise TypeError(f"banned: expected tokens or ids, got {type(token).__name__}.")
    if isinstance(model.target, int):
        raise TypeError(f"banned: this model has no tokenisers; expected ids, got {token!r}.")
    if token not in model.target.vocabulary:
        close = difflib.get_close_matches(token, model.target.vocabulary, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"banned: {token!r} is no token of the target's vocabulary.{hint}")
    return model.target.vocabulary.index(token)


def _trie(model, given, longest) -> Trie:
    """Return the trie of the targets that are allowed."""
    if "allowed" not in given:
        return NO_TRIE
    trie = given["allowed"]
    if not isinstance(trie, Trie):
        trie = trie_for(model, trie)
    if int(trie.tokens.max(initial=0)) >= model.codec.target_size:
        raise ValueError("allowed: this trie is of a model with a larger vocabulary.")
    depth = depth_of(trie)
    if len(longest) and depth > longest.min():
        raise ValueError(
            f"allowed: the longest target has {depth} tokens, EOS included, more than "
            f"max_length={longest.min()}."
        )
    return trie


def trie_for(model: Any, targets: Any) -> Trie:
    """Return the trie of targets, texts or ids (m, T), for a model.

    Raises:
        TypeError: neither texts nor ids.
        ValueError: none, one that is longer than `max_target`, or one with a token that the
            target's vocabulary does not know.
    """
    if isinstance(targets, str | bytes) or not hasattr(targets, "__len__") or not len(targets):
        raise ValueError(f"allowed: expected a list of targets, one or more, got {targets!r:.60}.")
    codec = Codec(model.source, model.target)  # nothing is copied
    sources = targets if inputs.is_text(targets) else np.zeros((len(targets), 0))
    found = inputs.target_rows("allowed", targets, codec, NO_LIMIT, sources)
    rows = np.split(found.values, found.starts[1:-1])
    rows = [row if row[-1:] == EOS else np.append(row, EOS) for row in rows]
    for target, row in zip(targets, rows, strict=True):
        if len(row) > model.max_target:
            raise ValueError(
                f"allowed: expected at most max_target={model.max_target} tokens, EOS included, "
                f"got {len(row)}: {target!r:.60}."
            )
        if UNK in row and not isinstance(model.target, int):
            raise ValueError(f"allowed: a token of {target!r:.60} is not in the vocabulary.")
    return trie_of(rows)


# === Numbers, one a source ===


def _array(name, value) -> np.ndarray:
    """Return a number, or a list of them, as an array; an empty list is one of ints."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(
            f"{name}: expected a number, or one a source, got {value!r:.60}."
        ) from error
    return array if array.size else array.astype(np.int32)


def _ints(given, name, n, default, bounds, limit="") -> np.ndarray:
    """Return an option as int32 (n,); `limit` is what messages call the upper bound."""
    array = _array(name, given.get(name, default))
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name}: expected an int, or {n} of them, got {given[name]!r:.60}.")
    return _within(name, array, n, bounds, limit).astype(np.int32)


def _floats(given, name, n, default, bounds) -> np.ndarray:
    """Return an option as float32 (n,)."""
    array = _array(name, given.get(name, default))
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name}: expected a number, or {n} of them, got {given[name]!r:.60}.")
    return _within(name, array, n, bounds).astype(np.float32)


def _optional(kind, given, name, n, bounds) -> np.ndarray:
    """Return an option as (n, 1), or (n, 0) where it is 0 for all."""
    array = kind(given, name, n, 0, bounds)[:, None]
    return array if array.any() else array[:, :0]


def _within(name, array, n, bounds, limit=""):
    low, high = bounds
    outside = ~((array >= low) & (array <= high) & np.isfinite(array))
    if outside.any():
        limits = f"{low} to {limit or high}"
        if high in (NO_LIMIT, np.inf) and not (array > high).any():
            limits = f"at least {low}"
        raise ValueError(f"{name}: expected {limits}, got {array[outside].flat[0]}.")
    return _of_rows(name, array, n)


def _of_rows(name, array, n):
    if array.shape not in ((), (n,)):
        raise ValueError(f"{name}: expected one value, or {n}, one a source, got {array.shape}.")
    return np.broadcast_to(array, (n,))
