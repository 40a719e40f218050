"""Results as JSON, as a page and as pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib
from measuring import ENOUGH, HERE, ratio

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

COLOURS = {
    "product": "#1b6ca8",
    "stock_keras": "#e08e45",
    "tutorial": "#c8b273",
    "pytorch": "#8a5a9e",
    "opennmt": "#b08fc0",
    "joeynmt": "#7f9f7a",
    "yoyodyne": "#b5716b",
}
OTHER = "#888888"


def load(name: str) -> dict[str, Any]:
    """Return the sections that an earlier run wrote."""
    path = HERE / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def save(name: str, sections: dict[str, Any]) -> dict[str, Any]:
    """Write the sections, and return them as they are read again."""
    (HERE / f"{name}.json").write_text(json.dumps(rounded(sections), indent=1) + "\n")
    return load(name)


def rounded(value):
    """Return a value with all floats in it cut to five digits."""
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [rounded(part) for part in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def surroundings(sections: dict[str, Any]) -> str:
    """Return machine and versions of all sections, in one paragraph."""
    machines, found = [], {}
    for section in sections.values():
        about = section["machine"]
        text = f"{about['cpu']}, {about['cores']} cores ({', '.join(about['flags'])})"
        machines.append(f"{text}, Python {about['python']}")
        for contestant in section["contestants"]:
            for library, version in contestant["facts"].get("versions", {}).items():
                found.setdefault(library, set()).add(version)
    versions = ", ".join(f"{name} {'/'.join(sorted(found[name]))}" for name in sorted(found))
    return f"Machine: {'; '.join(dict.fromkeys(machines))}. Versions: {versions}."


def best(section: dict[str, Any], family: str) -> dict[str, Any] | None:
    """Return the fastest contestant of a family."""
    measured = [c for c in section["contestants"] if c["family"] == family and c["seconds"]]
    return min(measured, key=lambda c: c["seconds"]["median"], default=None)


def measured(section: dict[str, Any]) -> str:
    """Return in how many rounds a section was measured, when, and at which commit."""
    rounds = max(len(contestant["samples"]) for contestant in section["contestants"])
    at = f", at {section['commit']}" if section.get("commit") else ""
    return f"{rounds} rounds, {section['when']}{at}."


def times(found: dict[str, float] | None) -> str:
    """Return a ratio and its range."""
    if not found:
        return ""
    return f"{found['median']:.2f} ({found['least']:.2f}–{found['most']:.2f})"


def milliseconds(found: dict[str, float]) -> str:
    """Return a time and its range."""
    digits = 3 if found["median"] < 0.001 else 2 if found["median"] < 0.1 else 0
    return " ".join(
        (
            f"{1000 * found['median']:.{digits}f}",
            f"({1000 * found['least']:.{digits}f}–{1000 * found['most']:.{digits}f})",
        )
    )


def checked(contestant: dict[str, Any]) -> str:
    """Return how the answer compares."""
    compared = contestant["agreement"]
    if not compared:
        return ""
    if "loss" in compared:
        return f"{compared['loss']:.4f}"
    return f"{100 * compared['equal_tokens']:.0f} %"


def table(section: dict[str, Any], unit: str, check: str) -> str:
    """Return the table of a section.

    Args:
        section: Of `Team.measure`.
        unit: What a time is a time of.
        check: What the last column shows.
    """
    rival = best(section, "pytorch")
    lines = [
        f"| | ms a {unit} | times as fast as {section['base']} | as the best PyTorch | cores "
        f"| weights | {check} |",
        "|---|---|---|---|---|---|---|",
    ]
    without = []
    for contestant in section["contestants"]:
        label, facts = contestant["label"], contestant["facts"]
        if not contestant["seconds"]:
            failed = facts.get("failed", "see the JSON").partition("\n")[0].rstrip(":")
            reason = facts.get("absent") or f"failed, {failed}"
            without.append(f"{label}: {reason}.")
            continue
        mark = "" if contestant["counted"]["good"] else " †"
        against = times(rival and ratio(contestant["samples"], rival["samples"]))
        cells = [
            f"**{label}**" if contestant is rival else label,
            milliseconds(contestant["seconds"]) + mark,
            times(contestant["times_as_fast"]),
            against,
            f"{contestant['cores']['median']:.1f}",
            f"{facts['parameters']:,}",
            checked(contestant),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    text = "\n".join(lines) + f"\n\n{measured(section)}"
    if any(c["seconds"] and not c["counted"]["good"] for c in section["contestants"]):
        text += f"\n\n† Fewer than {ENOUGH} good samples: all were taken."
    return text + ("\n\nNot measured: " + " ".join(without) if without else "")


def bars(path: Path, panels: dict[str, dict[str, Any]], unit: str):
    """Draw the medians of sections as bars, with least and most, one panel a section.

    Args:
        path: Of the PNG.
        panels: Sections by their titles.
        unit: What a time is a time of.
    """
    most = max(
        sum(bool(c["seconds"]) for c in section["contestants"]) for section in panels.values()
    )
    figure, axes = pyplot.subplots(
        len(panels), 1, figsize=(8, len(panels) * (0.28 * most + 0.9)), squeeze=False
    )
    for axis, (title, section) in zip(axes[:, 0], panels.items(), strict=True):
        shown = [c for c in section["contestants"] if c["seconds"]]
        for place, contestant in enumerate(shown):
            found = {key: 1000 * value for key, value in contestant["seconds"].items()}
            middle = found["median"]
            axis.barh(
                place,
                middle,
                xerr=[[middle - found["least"]], [found["most"] - middle]],
                color=COLOURS.get(contestant["family"], OTHER),
                error_kw={"elinewidth": 1, "capsize": 2, "ecolor": "#333333"},
            )
            text = f" {middle:.3g}"
            axis.text(found["most"], place, text, va="center", fontsize=8)
        axis.set_yticks(range(len(shown)), [c["label"] for c in shown], fontsize=8)
        axis.invert_yaxis()
        axis.margins(x=0.12)
        axis.set_title(title, fontsize=9, loc="left")
        axis.tick_params(axis="x", labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1, 0].set_xlabel(f"ms a {unit}: median, least to most", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
