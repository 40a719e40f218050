"""One entry learns what benchmarks/learning.py asks of all; its table is that of its data."""

import importlib.util
import json
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
spec = importlib.util.spec_from_file_location("learning", BENCHMARKS / "learning.py")
learning = importlib.util.module_from_spec(spec)
spec.loader.exec_module(learning)


def test_attention_turns_strings_of_eight_letters_round():
    assert learning.run("attention", "reverse", 8, epochs=3)["exact"] >= 0.95


def test_training_and_measuring_share_no_string_and_no_unknown_word():
    (x, y), (held, _) = learning.data("reverse", 8, seed=0, unknown=True)
    assert not set(x) & set(held) and y[0].split() == x[0].split()[::-1]
    words = [{word for line in part for word in line.split()} for part in (x, held)]
    assert words[0] & words[1] == set(learning.LETTERS) and len(words[0]) > 1000
    assert all(learning.has_a_number(line.split()) for line in held)


def test_every_entry_was_measured_and_learnt_what_it_can():
    results = json.loads((BENCHMARKS / "learning.json").read_text())
    rows = results["runs"]
    exact = {
        (r["name"], r["label"], r["task"], r["longest"], r["unknown"]): r["exact"] for r in rows
    }
    assert (BENCHMARKS / "learning.md").read_text() == learning.page(results)
    names = set(learning.zoo.names())
    assert {key[0] for key in exact} == names
    for name in names - {*learning.WITHOUT_ATTENTION, "attention_monotonic", "attention_hard"}:
        assert exact[name, "", "reverse", 8, False] >= 0.95, name
    for name in set(learning.WITHOUT_ATTENTION) - {"context_every_step"}:
        assert exact[name, "", "reverse", 5, False] >= 0.95, name
    page = (BENCHMARKS.parent / "docs" / "attention.md").read_text()
    for label in learning.HARD:
        shown = exact["attention_hard", label, "reverse", 8, False]
        assert f"| `{label}` | {shown:.1%} |" in page
        assert exact["attention_hard", label, "reverse", 8, False] >= 0.9, label
    assert exact["attention_monotonic", "", "double", 8, False] >= 0.95
    assert exact["attention_copy", "", "reverse", 8, True] >= 0.95
    assert exact["attention", "", "reverse", 8, True] == 0
