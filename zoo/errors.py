"""What a model that spells out words gets wrong, and whether it knows: writes NAME/errors.json.

    pip install names wordfreq
    python zoo/errors.py NAME [--data-dir DIR]

It asks the model of CMUdict that comes with the package for the words that chose its epoch, as the
recipe says. `python zoo/pages.py` makes tables and a picture of it. Names are those of the package
names, which the US census of 1990 counted; how common a word is comes from wordfreq.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rapidfuzz.distance import Levenshtein

HERE = Path(__file__).parent
VOWELS = set("AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW".split())  # ARPAbet
COMMON = 4.0  # Zipf's scale: a word in 100,000
BINS = 10
KEPT = (0.25, 0.5, 0.75, 0.9, 1.0)
SHOWN = 12


def edit(said: str | None, wanted: str | None) -> str:
    """Return what kind of edit it is that a phoneme stands for another, or for none."""
    if said is None:
        return "missing"
    if wanted is None:
        return "too many"
    vowels = (said in VOWELS) + (wanted in VOWELS)
    return ("consonant for consonant", "a vowel and a consonant", "vowel for vowel")[vowels]


def edits(said: Sequence[str], wanted: Sequence[str]) -> list[tuple[str | None, str | None]]:
    """Return the fewest edits, in pairs of what is said and what is wanted."""
    found = []
    for kind, i, j in Levenshtein.editops(said, wanted).as_list():
        found.append(
            (None if kind == "insert" else said[i], None if kind == "delete" else wanted[j])
        )
    return found


def closest(answer: str, references: Sequence[str]) -> list[tuple[str | None, str | None]]:
    """Return the edits between an answer and the reference that needs the fewest."""
    return min((edits(answer.split(), reference.split()) for reference in references), key=len)


def rates(edited: Sequence[int]) -> dict[str, Any]:
    """Return how many words there are, and the share that is wrong."""
    return {"words": len(edited), "wrong": sum(map(bool, edited)) / max(len(edited), 1)}


def reliability(confidence: Sequence[float], right: Sequence[bool]) -> dict[str, Any]:
    """Return, for bins of the probability of answers, how many of them are right.

    "calibration_error" is the expected one of Guo et al. 2017, arXiv:1706.04599, eq. 3. "kept" is
    what comes out right of the answers that a model is surest of.
    """
    bins: list[list[int]] = [[] for _ in range(BINS)]
    for i, value in enumerate(confidence):
        bins[min(int(value * BINS), BINS - 1)].append(i)
    rows, error = [], 0.0
    for number, within in enumerate(bins):
        if within:
            mean = sum(confidence[i] for i in within) / len(within)
            exact = sum(right[i] for i in within) / len(within)
            error += abs(mean - exact) * len(within) / len(confidence)
            edge = {"from": number / BINS, "to": (number + 1) / BINS}
            rows.append({**edge, "words": len(within), "confidence": mean, "exact_match": exact})
    surest = sorted(range(len(confidence)), key=lambda i: -confidence[i])
    kept = []
    for fraction in KEPT:
        among = surest[: max(round(fraction * len(surest)), 1)]
        exact = sum(right[i] for i in among) / len(among)
        kept.append({"fraction": fraction, "from": confidence[among[-1]], "exact_match": exact})
    return {"bins": rows, "calibration_error": error, "kept": kept}


def analysed(
    words: Sequence[str],
    answers: Sequence[str],
    scores: Sequence[float],
    references: Sequence[Sequence[str]],
    kind: Callable[[str], str],
) -> dict[str, Any]:
    """Return what is wrong.

    Args:
        words: n strings.
        answers: n strings, phonemes with spaces between.
        scores: n floats, log p of the answers, nats.
        references: n lists of strings.
        kind: What kind of word a word is.
    """
    found = [closest(*pair) for pair in zip(answers, references, strict=True)]
    numbers = [len(of) for of in found]
    every = [pair for of in found for pair in of]
    kinds: dict[str, list[int]] = {}
    for word, number in zip(words, numbers, strict=True):
        kinds.setdefault(kind(word), []).append(number)
    swapped = Counter((wanted, said) for said, wanted in every if said and wanted)
    wrong = [i for i, number in enumerate(numbers) if number]
    surest = sorted(wrong, key=lambda i: -scores[i])[:SHOWN]
    return {
        "words": len(words),
        "edits": dict(Counter(edit(*pair) for pair in every).most_common()),
        "swapped": [
            {"wanted": wanted, "said": said, "number": number}
            for (wanted, said), number in swapped.most_common(SHOWN)
        ],
        "words_by_edits": {
            "1": numbers.count(1),
            "2": numbers.count(2),
            "3 or more": sum(number > 2 for number in numbers),
        },
        "kinds": {name: rates(kinds[name]) for name in sorted(kinds)},
        "surest_mistakes": [
            {
                "word": words[i],
                "said": answers[i],
                "wanted": list(references[i]),
                "probability": math.exp(scores[i]),
            }
            for i in surest
        ],
        **reliability([math.exp(score) for score in scores], [not number for number in numbers]),
    }


def kinds_of_words() -> Callable[[str], str]:
    """Return a function of a word that tells common words, names, and others apart."""
    import names
    import wordfreq

    listed = set()
    for file in names.FILES.values():
        listed |= {line.split()[0].lower() for line in Path(file).read_text().splitlines()}

    def kind(word: str) -> str:
        word = word.lower()
        if wordfreq.zipf_frequency(word, "en") >= COMMON:
            return "common words"
        return "names" if word in listed else "other words"

    return kind


def main():
    """Look at a run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--data-dir", help="where the data lies, if it is not to be downloaded")
    given = parser.parse_args()
    import train

    from keras_attn import recipes, scoring, zoo
    from keras_attn.zoo import shipped

    train.one_of(parser, given.name, [x for x in shipped.names() if ".cmudict" in x])
    kind = kinds_of_words()
    recipe = recipes.read(HERE / given.name / "recipe.toml")
    seed = json.loads((HERE / given.name / "results.json").read_text())["shipped"]["seed"]
    _, held_out = recipes.pairs_of(recipe, given.data_dir, seed)
    words, references = scoring.grouped(*held_out)
    model = zoo.build(given.name)
    answers, scores = model.generate(words, return_scores=True, **recipe.decoding)
    found = {"weights_sha256": shipped.digest(given.name), "options": recipe.decoding}
    found |= analysed(words, answers, scores, references, kind)
    file = HERE / given.name / "errors.json"
    aside = file.with_name(f".{file.name}")
    aside.write_text(json.dumps(found, indent=1) + "\n")
    os.replace(aside, file)


if __name__ == "__main__":
    import train

    with train.told():
        main()
