"""Make the zoo's pages and pictures from its results: README.md, cards, curves.

    python zoo/pages.py

A card is made of its recipe, its architecture's card, results.json, what errors.py, searches.py and
ideas.py have found, if they were asked, and notes.md if there is one, which is written by hand;
README.md is written by hand but for its tables.
"""

from __future__ import annotations

import json
import math
import re
import textwrap
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from keras_attn import recipes, zoo
from keras_attn.zoo import shipped
from keras_attn.zoo.options import OPTIONS

HERE = Path(__file__).parent
TABLE = re.compile(r"(<!-- table (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
RATES = {
    "exact_match": "exact, %",
    "sequence_error_rate": "wrong, %",
    "token_error_rate": "edits, %",
}
TRANSLATION = {"bleu": "BLEU", "chrf": "chrF"}
VARIANTS = ("context_every_step", "context_as_init", "combined", "attention", "attention_copy")
ENCODED = VARIANTS[:3]  # without attention
TELLING = 0.05  # of the sources, at least: of a class by length that is told
RUNS_TO_TELL_APART = 3  # at least: fewer have no range to speak of
TICKS = (0, 1, 2, 5, 10, 20, 30, 50, 100)  # of what is wrong, %
PUBLISHED = json.loads((HERE / "published.json").read_text())

Results = dict[str, Any]


def results() -> dict[str, Results]:
    """Return the results of all folders, by name."""
    files = sorted(HERE.glob("*/results.json"))
    return {file.parent.name: json.loads(file.read_text()) for file in files}


def group(name: str) -> str:
    """Return what a folder's model is compared within: its data, and the part of that."""
    recipe = recipes.read(HERE / name / "recipe.toml")
    parts = [recipe.data]
    for option, value in recipe.data_options.items():
        if value is True:
            parts.append(option)
        elif value is not False and value != recipes.OF_SEED:
            parts.append(value)
    return "_".join(parts)


def label(name: str) -> str:
    """Return what a model is called in its group: its architecture, and a tag, if it has one."""
    architecture, _, rest = name.partition(".")
    return " ".join([architecture, *rest.removeprefix(group(name)).split("_")[1:]])


def table(heads: list[Any], rows: list[list[Any]]) -> str:
    """Return a table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def rates(summary: dict[str, dict]) -> dict[str, str]:
    """Return the columns of what was measured, and how to write them."""
    found = {head: percent(summary[key]) for key, head in RATES.items()}
    for key, head in TRANSLATION.items():
        if key in summary:
            found[head] = percent({of: x / 100 for of, x in summary[key].items()})
    return found


def percent(found: dict[str, float]) -> str:
    """Return mean and range over seeds, percent."""
    mean, least, most = (f"{100 * found[key]:.2f}" for key in ("mean", "least", "most"))
    return mean if least == most else f"{mean} ({least}–{most})"


def runs_are(name: str) -> str:
    """Return what tells the runs of a folder apart: seeds, or folds that each hold out others."""
    options = recipes.read(HERE / name / "recipe.toml").data_options
    return next((f"{key}s" for key, value in options.items() if value == recipes.OF_SEED), "seeds")


def overview(found: dict[str, Results]) -> str:
    """Return a table with a line for each folder."""
    rows: list[list[Any]] = []
    heads, apart = list(RATES.values()), "seeds"
    for name, of in found.items():
        runs = list(of["runs"].values())
        minutes = [run["minutes"] for run in runs]
        spent = "–".join(dict.fromkeys(f"{most(minutes):.0f}" for most in (min, max)))
        said = rates(of["summary"])
        heads, apart = list(said), runs_are(name)
        link = f"[{name}]({name}/card.md)"
        rows.append([link, f"{runs[0]['weights']:,}", len(runs), *said.values(), spent])
    return table(["model", "weights", apart, *heads, "minutes of training"], rows)


def by_task(found: dict[str, Results]) -> dict[str, dict[str, Results]]:
    """Return the results of each task, by the architecture."""
    tasks: dict[str, dict[str, Results]] = {}
    for name, of in found.items():
        architecture, _, task = name.partition(".")
        tasks.setdefault(task, {})[architecture] = of
    return tasks


def variants(found: dict[str, Results]) -> str:
    """Return a table of how good each variant is at each task, of those that several learnt.

    Bold is one that is ahead: of three runs or more, as all others of its task, and its range lies
    above theirs.
    """
    tasks = {task: models for task, models in by_task(found).items() if len(models) > 1}
    heads = [name for name in VARIANTS if any(name in models for models in tasks.values())]
    rows = []
    for task, models in tasks.items():
        shown = "bleu" if all("bleu" in of["summary"] for of in models.values()) else "exact_match"
        said = {name: of["summary"][shown] for name, of in models.items()}
        few = min(len(of["runs"]) for of in models.values()) < RUNS_TO_TELL_APART
        best = max(said, key=lambda name: said[name]["mean"])
        others = max(x["most"] for name, x in said.items() if name != best)
        ahead = "**" * (not few and said[best]["least"] > others)
        head = TRANSLATION.get(shown) or RATES[shown]
        cells = {name: rates(of["summary"])[head] for name, of in models.items()}
        cells[best] = f"{ahead}{cells[best]}{ahead}"
        rows.append([task, head, *(cells.get(name, "") for name in heads)])
    return table(["task", "measure", *heads], rows)


def short_and_long(found: dict[str, Results]) -> str:
    """Return a table of what attention, and the best without it, get right of short and long.

    Of each task that both learnt: the first and the last class of lengths that has a share of the
    sources that tells something.
    """
    rows = []
    for task, models in by_task(found).items():
        others = [name for name in ENCODED if name in models]
        if "attention" not in models or not others:
            continue
        classes = {}
        for name in ("attention", *others):
            rows_of = by_length(models[name], sharing(f"{name}.{task}", models[name]))
            classes[name] = {row["from"]: row for row in rows_of}
        ours = classes["attention"]
        sources = sum(row["sources"] for row in ours.values())
        telling = [of for of, row in ours.items() if row["sources"] >= sources * TELLING]
        line = [task, kind_of(next(iter(models["attention"]["runs"].values())))]
        for of in (telling[0], telling[-1]):
            right = {name: rows[of]["right"] for name, rows in classes.items()}
            best = max(others, key=lambda name: right[name])
            line.append(f"{lengths_of(ours[of])}: {ours[of]['sources']:,}")
            line += [f"{right['attention']:.1f}", f"{right[best]:.1f} ({best})"]
        rows.append(line)
    return table(["task", "measure", *("tokens: sources", "attention", "best without") * 2], rows)


def lengths_of(row: dict[str, Any]) -> str:
    """Return which lengths a class of sources has, tokens."""
    return "–".join(dict.fromkeys(str(row[end]) for end in ("from", "to")))


def measured(name: str, of: Results) -> str:
    """Return a card's tables: a line for each run, and what depends on the length of sources."""
    runs, apart = of["runs"], runs_are(name)
    each = apart.removesuffix("s")
    rows = []
    for seed, run in runs.items():
        said = rates({key: {"mean": x, "least": x, "most": x} for key, x in numbers(run)})
        heads = [each, *said, "best epoch", "minutes", "memory, MB", "commit"]
        epochs = f"{run['best_epoch']} of {len(run['log'])}"
        minutes = f"{run['minutes']:.1f}"
        rows.append([seed, *said.values(), epochs, minutes, run["peak_memory_mb"], run["commit"]])
    run = next(iter(runs.values()))
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    lengths = [
        [lengths_of(row), f"{row['sources']:,}", f"{row['right']:.1f}"]
        for row in by_length(of, sharing(name, of))
    ]
    fitted = [f"{seed}: {100 * run['fitted']['exact_match']:.1f}" for seed, run in runs.items()]
    chosen = [[each, "best", "last", "of least loss"]]
    chosen += [[seed, *by_epoch(run)] for seed, run in runs.items()]
    signature = run["measured"].get("bleu_signature")
    signed = f" BLEU in lower case, `{signature}`." if signature else ""
    return "\n\n".join(
        [
            f"{run['measured']['sources']:,} sources that chose the best epoch; nothing was "
            f"trained on them. {run['weights']:,} weights; {run['machine']}; {versions}. Made by "
            f"`{run['command']}`.{signed}",
            table(heads, rows),
            f"Exact, of {run['fitted']['sources']:,} sources that were trained on, %, by {each}: "
            f"{', '.join(fitted)}.",
            f"What chooses an epoch flatters it. {'BLEU' if signature else 'Exact, %'}, greedily "
            "(epoch): the one chosen, the last, and that which the loss of the same sources would "
            "choose, in the precision of training.",
            table(chosen[0], chosen[1:]),
            f"By the length of sources, all {apart}:",
            table(["source, tokens", "sources", kind_of(run)], lengths),
        ]
    )


OTHER_RUNS = {
    "earlier": "Trained before, from the same recipe",
    "reruns": "Trained once more from the recipe, from nothing",
}


def trained_again(name: str, of: Results) -> str:
    """Return what runs measured that were made from the recipe before or after, or nothing."""
    told = [compared(name, of["runs"], of[kind], kind) for kind in OTHER_RUNS if kind in of]
    return "".join(told)


def compared(name: str, runs: dict[str, dict], others: dict[str, dict], kind: str) -> str:
    """Return a table of runs of equal seeds, the first one first."""
    each = runs_are(name).removesuffix("s")
    heads, rows = [], []
    there = {seed: run for seed, run in others.items() if seed in runs}
    for seed, run in there.items():
        both = (run, runs[seed]) if kind == "earlier" else (runs[seed], run)
        first, second = (
            rates({key: {"mean": x, "least": x, "most": x} for key, x in numbers(made)})
            for made in both
        )
        heads = [each, *first, "minutes", "commit"]
        cells = [f"{before} then {second[head]}" for head, before in first.items()]
        rows.append([seed, *cells, f"{run['minutes']:.1f}", run["commit"]])
    anew = any(run.get("teachers") != runs[seed].get("teachers") for seed, run in there.items())
    taught = ", by other models of its teachers" * anew
    return f"{OTHER_RUNS[kind]}{taught}:\n\n{table(heads, rows)}\n\n"


def by_epoch(run: dict) -> list[str]:
    """Return what is right, greedily, of three epochs: chosen, the last, and of least loss."""
    log = run["log"]
    by_loss = min(log, key=lambda entry: math.inf if (x := entry["val_loss"]) is None else x)
    entries = log[run["best_epoch"] - 1], log[-1], by_loss
    shown = "val_bleu" if "val_bleu" in log[0] else "val_exact_match"
    scale = 1 if shown == "val_bleu" else 100
    return [f"{scale * entry[shown]:.2f} ({entry['epoch']:.0f})" for entry in entries]


def by_length(of: Results, shared: int = 1) -> list[dict[str, Any]]:
    """Return classes of sources by length, and the mean of what is right of them over all runs.

    That is "right", the BLEU of translations, else the percentage of exact matches. Of `shared`
    runs that were asked for the same sources, these are counted once.
    """
    rows: dict[int, dict[str, Any]] = {}
    for run in of["runs"].values():
        for row in run["measured"]["by_length"]:
            new = {"from": row["from"], "to": row["to"], "sources": 0, "right": 0.0}
            found = rows.setdefault(row["from"], new)
            total = found["sources"] + row["sources"]
            right = row.get("bleu", 100 * row["exact_match"]) * row["sources"]
            found["right"] = (found["right"] * found["sources"] + right) / total
            found |= {"sources": total, "to": max(found["to"], row["to"])}
    return [rows[x] | {"sources": rows[x]["sources"] // shared} for x in sorted(rows)]


def sharing(name: str, of: Results) -> int:
    """Return how many runs of a folder were asked for the same sources: all, or one by one."""
    return len(of["runs"]) if runs_are(name) == "seeds" else 1


def kind_of(run: dict) -> str:
    """Return what a run is measured by: BLEU, or exact matches."""
    return "BLEU" if "bleu" in run["measured"] else "exact, %"


def numbers(run: dict) -> list[tuple[str, float]]:
    """Return what a run measured that is a number of the whole."""
    return [(key, run["measured"][key]) for key in (*RATES, *TRANSLATION) if key in run["measured"]]


def published(task: str) -> str:
    """Return what others report of a group, or nothing."""
    if task not in PUBLISHED:
        return ""
    found = PUBLISHED[task]
    told = (
        f"## Published\n\nFigures for the {found['parts']}, of single models where a line does not "
        "say otherwise. Those sources are others than ours, so they are a scale rather than a "
        "ranking.\n\n"
    )
    return told + table(["model", *found["columns"]], found["rows"]) + "\n\n"


def card(name: str, of: Results) -> str:
    """Return the card of a folder."""
    recipe = recipes.read(HERE / name / "recipe.toml")
    about, architecture = recipes.DATA[recipe.data].ABOUT, zoo.card(recipe.architecture)
    notes = HERE / name / "notes.md"
    own = notes.exists() and "## Equations" in notes.read_text()
    equations = textwrap.indent("\n".join(equations_of(recipe)), "    ")
    parts = [
        f"# {name}\n\n{architecture.title}. "
        + (
            "Its equations are [below](#equations).\n\n"
            if own
            else f"{architecture.paper}\n\n{equations}\n\n"
        ),
        built(recipe),
        otherwise(recipe, own),
        "" if own else deviations(recipe),
        f"**Data.** {about.title}. Home: {about.home}. Licence: {about.licence}"
        f"{notice(recipe)}.\n\n",
        limits(recipe),
        taught(recipe, of["runs"]),
        f"## Results\n\n{measured(name, of)}\n\n",
        trained_again(name, of),
        f"![learning](../{group(name)}_learning.png)\n"
        f"![by length](../{group(name)}_lengths.png)\n\n",
        looked(name),
        published(group(name)),
        mistakes(name),
        searched(name),
        tried(name),
        notes.read_text() + "\n" if notes.exists() else "",
        f"## Use\n\nThe recipe is [recipe.toml](recipe.toml): `keras-attn train "
        f"zoo/{name}/recipe.toml --out run` trains the model, and `keras-attn export run served` "
        "makes of it what TensorFlow Serving loads.\n",
        used(name, of["shipped"]) if "shipped" in of else "",
    ]
    return "".join(parts)


def notice(recipe: recipes.Recipe) -> str:
    """Return where the notice is that a data set's licence asks for, or nothing."""
    file = f"LICENSE.{recipe.data}"
    return f", [notice](../../{file})" if (HERE.parent / file).exists() else ""


CELLS = {"lstm": "an LSTM", "gru": "a GRU", "simple_rnn": "a plain recurrent cell with tanh"}


def built(recipe: recipes.Recipe) -> str:
    """Return how large a model is and how it is trained, what its recipe leaves out included."""
    of = recipes.resolved(recipe)
    layers = of["options.num_layers"]
    smoothing = of["training.label_smoothing"]
    smoothed = f"with label smoothing of {smoothing:g}" if smoothing else "without label smoothing"
    return (
        f"**As built.** f is {CELLS[of['options.cell']]}, {layers} layer{'s' * (layers > 1)} of "
        f"{of['options.units']} units; embeddings of {of['options.embedding_size']}; a dropout of "
        f"{of['options.dropout']:g}. Trained for at most {of['training.epochs']} epochs in batches "
        f"of {of['training.batch_size']}, by Adam with a learning rate of up to "
        f"{of['training.learning_rate']:g}, {smoothed}.\n\n"
    )


# A step as Bahdanau et al. 2015 have it, arXiv:1409.0473, sec. A.2, in place of Luong's.
BAHDANAU = {"order": "attend_update", "scorer": "additive"}
SCORES = "e_tj = v_a^T tanh(W_a s_{t-1} + U_a h_j)"
UPDATE = "s_t = f([E y_{t-1}; c_t], s_{t-1})"


def bahdanau(recipe: recipes.Recipe) -> bool:
    """Return whether a recipe has Bahdanau's step where its architecture has Luong's."""
    usual = zoo.card(recipe.architecture).options
    return all(recipe.options.get(key) == x != usual[key] for key, x in BAHDANAU.items())


def equations_of(recipe: recipes.Recipe) -> list[str]:
    """Return the equations of an architecture, with the step that a recipe has."""
    lines = list(zoo.card(recipe.architecture).equations)
    if not bahdanau(recipe):
        return lines
    lines = [SCORES if line.startswith("e_tj = ") else line for line in lines]
    lines = [line for line in lines if not line.startswith("s_t = ")]
    (at,) = (i for i, line in enumerate(lines) if line.startswith("c_t = "))
    return [*lines[: at + 1], UPDATE, *lines[at + 1 :]]


def deviations(recipe: recipes.Recipe) -> str:
    """Return what an architecture has otherwise than the paper that it names."""
    told = zoo.card(recipe.architecture).deviations
    if bahdanau(recipe):
        told = tuple(x for x in told if not x.startswith("The score is bilinear"))
    return f"**Otherwise than the paper.** {' '.join(told)}\n\n"


UNITS = {"character": "characters", "byte": "bytes", "whitespace": "tokens between blanks"}
UNKNOWN = {
    "byte": "",
    "character": "Characters that were not in the training data are one unknown token to it.",
    "whitespace": "What was not in the training data is one unknown token to it.",
    "wordpiece": "Words with characters that were not in the training data are unknown to it.",
    "sentencepiece": "Characters that were not in the training data are unknown to it.",
}


def limits(recipe: recipes.Recipe) -> str:
    """Return what a model cannot read or write."""
    kinds = {side: getattr(recipe, side)["tokeniser"] for side in ("source", "target")}
    joint = kinds["target"] == recipes.JOINT
    kinds["target"] = kinds["source"] if joint else kinds["target"]
    most = {
        side: recipe.options.get(f"max_{side}", OPTIONS[f"max_{side}"].default) for side in kinds
    }
    units = {side: UNITS.get(kind, "pieces of words") for side, kind in kinds.items()}
    lower = {side: getattr(recipe, side).get("lowercase", False) for side in kinds}
    lower["target"] = lower["source"] if joint else lower["target"]
    lowered = " and ".join(f"{side}s" for side, is_so in lower.items() if is_so)
    told = [
        f"It reads the first {most['source'] - 1} {units['source']} of a source, and warns in "
        f"Python if there are more; it writes at most {most['target']} {units['target']}.",
        f"It knows {lowered} in lower case alone." if lowered else "",
        UNKNOWN[kinds["source"]],
        "It can copy them." if "copy" in recipe.architecture and UNKNOWN[kinds["source"]] else "",
    ]
    return f"**Limits.** {' '.join(filter(None, told))}\n\n"


# What changes how large a model is, how it is trained or what it can read, and no equation.
NO_EQUATION = (
    *("units", "embedding_size", "readout_units", "size", "dropout", "recurrent_dropout"),
    *("max_source", "max_target", "dtype"),
)


def otherwise(recipe: recipes.Recipe, own: bool = False) -> str:
    """Return in which options a model is not as its architecture's equations say, or nothing.

    Args:
        recipe: Its recipe.
        own: Whether its notes have equations of its own.
    """
    usual = zoo.card(recipe.architecture).options
    other = {
        option: f"`{option}` is {value!r}, not {usual[option]!r}"
        for option, value in recipe.options.items()
        if option not in NO_EQUATION and value != usual[option]
    }
    if not other:
        return ""
    told = "; ".join(other.values())
    if own:
        return f"**Otherwise than `{recipe.architecture}`.** {told}.\n\n"
    if not bahdanau(recipe):
        return f"**Otherwise here.** {told}, which the equations above do not show.\n\n"
    shown = "; ".join(other.pop(option) for option in BAHDANAU)
    others = f" {'; '.join(other.values())}, which they do not show." if other else ""
    return (
        f"**Otherwise than `{recipe.architecture}`.** {shown}: the equations above have the step "
        f"of Bahdanau et al. 2015, arXiv:1409.0473, sec. A.2.{others}\n\n"
    )


def taught(recipe: recipes.Recipe, runs: dict[str, Results]) -> str:
    """Return whom a model learnt from, or nothing."""
    names = recipe.training.get("teacher", [])
    if not names:
        return ""
    teachers = ", ".join(f"[{name}](../{name}/card.md)" for name in names)
    now = {name: shipped.digest(name) for name in names}
    others = [seed for seed, run in runs.items() if run["teachers"] != now]
    told = (
        f" Seed{'s' * (len(others) > 1)} {', '.join(others)} learnt from earlier models of these "
        "names, which have been trained anew since."
    )
    taken = f"**Teachers.** {teachers}. What they took is not in the minutes below."
    return f"{taken}{told * bool(others)}\n\n"


def looked(name: str) -> str:
    """Return the picture of a model's attention, or nothing."""
    there = (HERE / name / "alignments.png").exists()
    return "Where it looks, a source of development:\n\n![alignments](alignments.png)\n\n" * there


def mistakes(name: str) -> str:
    """Return what errors.py found in a folder, or nothing."""
    file = HERE / name / "errors.json"
    if not file.exists():
        return ""
    found = json.loads(file.read_text())
    several = found["words_by_edits"]
    kinds = [
        [kind, f"{of['words']:,}", f"{100 * of['wrong']:.1f}"]
        for kind, of in found["kinds"].items()
    ]
    swapped = ", ".join(f"{x['wanted']} → {x['said']} {x['number']}" for x in found["swapped"])
    kept = [
        [f"{100 * of['fraction']:.0f} %", f"{of['from']:.2f}", f"{100 * of['exact_match']:.1f}"]
        for of in found["kept"]
    ]
    sure = [
        [of["word"], of["said"], " or ".join(of["wanted"]), f"{of['probability']:.2f}"]
        for of in found["surest_mistakes"]
    ]
    return "\n\n".join(
        [
            f"## Mistakes\n\nOf the model that comes with the package, by `python zoo/errors.py "
            f"{name}`. Of the wrong words {several['1']} have one wrong phoneme, {several['2']} "
            f"two, and {several['3 or more']} more. A common word is one in 100,000 words of "
            "text, or more frequent (wordfreq); a name is one that the US census of 1990 lists, "
            "and not common.",
            table(["kind of word", "words", "wrong, %"], kinds),
            table(["edit", "number"], [[kind, n] for kind, n in found["edits"].items()]),
            f"The phonemes that are most often taken for others: {swapped}.",
            "**Does it know?** The probability of an answer, exp of its score, against how often "
            f"it is right: they differ by {100 * found['calibration_error']:.1f} points on average "
            "(the expected calibration error). Where a word has several pronunciations, they share "
            "the probability, and each is right. Those of which the model is surest:",
            "![reliability](reliability.png)",
            table(["kept", "probability from", "right, %"], kept),
            "The mistakes of which it is surest:",
            table(["word", "answer", "wanted", "probability"], sure) + "\n\n",
        ]
    )


def searched(name: str) -> str:
    """Return what searches.py found in a folder, or nothing."""
    file = HERE / name / "searches.json"
    if not file.exists():
        return ""
    found = json.loads(file.read_text())
    rows = []
    for search, of in found["searches"].items():
        wrong, edits = (f"{100 * of[key]:.2f}" for key in list(RATES)[1:])
        listed = f"{100 * of['in_the_list']:.2f}"
        rows.append([search, wrong, edits, f"{of['mean_score']:.4f}", of["lower"], listed])
    heads = ["search", *list(RATES.values())[1:], "mean score", "lower", "in the list, %"]
    return "\n\n".join(
        [
            "## Searches",
            f"The weights of the package, {found['sources']:,} sources, by `python "
            f"zoo/searches.py {name}`. The mean score is log p of what was found, nats; lower "
            "counts the sources whose answer scores less than that of greedy search; in the list "
            "are those that have a right answer anywhere in the beam.",
            table(heads, rows) + "\n\n",
        ]
    )


def tried(name: str) -> str:
    """Return what ideas.py found in a folder, or nothing."""
    file = HERE / name / "ideas.json"
    if not file.exists():
        return ""
    rows, heads = [], []
    for idea, of in json.loads(file.read_text()).items():
        said = rates({key: {"mean": x, "least": x, "most": x} for key, x in numbers(of)})
        shown = {head: said[head] for head in said if head != RATES["exact_match"]}
        fitted = f"{100 * of['fitted']['exact_match']:.1f}"
        spent = len(of["log"]), f"{of['minutes']:.0f}"
        rows.append([idea, f"{of['weights']:,}", *shown.values(), fitted, *spent])
        heads = ["idea", "weights", *shown, "trained, exact, %", "epochs", "minutes"]
    return "\n\n".join(
        [
            "## Ideas",
            "What was tried, in runs of one seed, often shorter ones, of [ideas.toml](ideas.toml), "
            f"by `python zoo/ideas.py {name}`:",
            table(heads, rows) + "\n\n",
        ]
    )


def used(name: str, of: Results) -> str:
    """Return how to load and serve a model that is published, and what it measures so."""
    seed, forms = of["seed"], {form: of[form] for form in ("package", "saved_model") if of[form]}
    wrong = {form: f"{100 * found['sequence_error_rate']:.2f}" for form, found in forms.items()}
    edits = {form: f"{100 * found['token_error_rate']:.2f}" for form, found in forms.items()}
    told = f"""
[saved_models/{name}](../../saved_models/{name}/1/README.md) is the export of seed {seed}:
{wrong["saved_model"]} % wrong, {edits["saved_model"]} % of edits, asked through TensorFlow's C++
session on a CPU; `keras-attn evaluate saved_models/{name} zoo/{name}/recipe.toml` asks it again.
Neither `tensorflow_model_server` itself nor a GPU has run it yet.
"""
    if "package" in forms:
        told += f"""
```python
from keras_attn import zoo

model = zoo.build("{name}")
```

loads these weights from the package, where they are stored in float16, as a float32 model:
{wrong["package"]} % wrong, {edits["package"]} % of edits.
"""
    return told


def pages() -> dict[Path, str]:
    """Return the text of every page that has results."""
    found = results()
    texts = {HERE / name / "card.md": card(name, of) for name, of in found.items()}
    readme = HERE / "README.md"
    if readme.exists():

        def filled(match: re.Match) -> str:
            of = {name: x for name, x in found.items() if group(name) == match[2]}
            made = WHOLE[match[2]](found) if match[2] in WHOLE else overview(of)
            return f"{match[1]}{made}\n{match[3]}"

        texts[readme] = TABLE.sub(filled, readme.read_text())
    return texts


WHOLE = {"variants": variants, "lengths": short_and_long}  # tables of all tasks


def axes_of(title: str, x: str, y: str):
    """Return a figure and its axes."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    return figure, axes


def curve(run: dict) -> list[float]:
    """Return what is drawn of each epoch: BLEU, or the percentage of wrong sources."""
    if kind_of(run) == "BLEU":
        return [entry["val_bleu"] for entry in run["log"]]
    return [100 * (1 - entry["val_exact_match"]) for entry in run["log"]]


def draw(data: str, found: dict[str, Results]) -> None:
    """Draw learning curves, and what is right by length, of the models of a data set."""
    runs = {name: next(iter(of["runs"].values())) for name, of in found.items()}
    (kind,) = {kind_of(run) for run in runs.values()}
    translates = kind == "BLEU"
    shown = "BLEU of development" if translates else "development sources wrong, %"
    figure, axes = axes_of(f"{data}: learning, first runs", "epoch", shown)
    curves = {name: curve(run) for name, run in runs.items()}
    for name, points in curves.items():
        axes.plot(range(1, len(points) + 1), points, marker=".", label=label(name))
    if not translates:
        least = min(map(min, curves.values()))
        axes.set_yscale("symlog", linthresh=1)  # a model may have none wrong
        axes.set_yticks(TICKS, map(str, TICKS))
        axes.set_ylim(0 if least < 1 else 0.8 * least, 110)
        axes.yaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside lower center", ncols=4, fontsize=8)  # where no point lies
    figure.savefig(HERE / f"{data}_learning.png", dpi=110)
    below = "source, tokens; how many there are"
    figure, axes = axes_of(f"{data}: by length, mean of the runs", below, kind)
    for name, of in found.items():
        rows = by_length(of, sharing(name, of))
        ranges = [f"{lengths_of(row)}\n{row['sources']:,}" for row in rows]
        axes.plot(ranges, [row["right"] for row in rows], marker="o", label=label(name))
    if not translates:
        axes.set_ylim(top=101)  # a point at 100 is seen whole
        bottom, _ = axes.get_ylim()
        axes.set_yticks([tick for tick in axes.get_yticks() if bottom <= tick <= 100])
    figure.legend(loc="outside lower center", ncols=4, fontsize=8)  # where no point lies
    figure.savefig(HERE / f"{data}_lengths.png", dpi=110)


def draw_reliability(file: Path) -> None:
    """Draw how often answers of a probability are right, beside an errors.json."""
    found = json.loads(file.read_text())["bins"]
    figure, axes = axes_of(
        f"{file.parent.name}: does it know?", "probability of the answer", "right, %"
    )
    middles = [(row["from"] + row["to"]) / 2 for row in found]
    axes.bar(middles, [100 * row["exact_match"] for row in found], width=0.09, label="right")
    axes.plot([0, 1], [0, 100], color="black", linewidth=1, label="as sure as right")
    for middle, row in zip(middles, found, strict=True):
        axes.annotate(f"{row['words']:,}", (middle, 2), ha="center", fontsize=7, color="white")
    axes.legend(fontsize=8)
    figure.savefig(file.parent / "reliability.png", dpi=110)


def main():
    """Write pages and pictures."""
    for file, text in pages().items():
        file.write_text(text)
    found = results()
    for data in sorted({group(name) for name in found}):
        draw(data, {name: of for name, of in found.items() if group(name) == data})
    for file in HERE.glob("*/errors.json"):
        draw_reliability(file)


if __name__ == "__main__":
    main()
