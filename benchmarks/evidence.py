"""What `make evidence` found, kept: how many tests passed, where, when and of which commit.

    python benchmarks/evidence.py begin      before the tests
    python benchmarks/evidence.py REPORT.xml

REPORT.xml is what pytest writes with --junitxml. Goes to evidence.json and evidence.md beside this
file, unless a test failed, or the code is another one than when they began.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

from measuring import HERE, commit, machine

BEGUN = HERE.parent / "build" / "evidence.commit"
PAGE = """# Evidence: every name of the zoo, and what takes long

The tests of `make evidence` passed on {when}, of commit {commit}: {passed:,} passed, {skipped} were
skipped, in {minutes:.0f} minutes; {machine}; TensorFlow {tensorflow}, Keras {keras}.
The data is evidence.json.

| tests | passed |
|---|---|
{rows}
"""


def counted(report: Path) -> dict:
    """Return what a report says.

    Raises:
        SystemExit: a test failed, or none passed.
    """
    suites = list(ElementTree.parse(report).getroot().iter("testsuite"))
    passed, skipped = Counter(), 0
    for case in (case for suite in suites for case in suite.iter("testcase")):
        kinds = {child.tag for child in case}
        if kinds & {"failure", "error"}:
            raise SystemExit(f"{case.get('classname')}.{case.get('name')} failed")
        skipped += "skipped" in kinds
        passed[case.get("classname").replace(".", "/") + ".py"] += "skipped" not in kinds
    if not passed.total():
        raise SystemExit(f"{report}: no test passed")
    seconds = sum(float(suite.get("time", 0)) for suite in suites)
    return {
        "passed": passed.total(),
        "skipped": skipped,
        "seconds": seconds,
        "files": dict(sorted(passed.items())),
    }


def page(results: dict) -> str:
    """Return the page of the results."""
    about = results["machine"]
    return PAGE.format(
        rows="\n".join(f"| {file} | {number:,} |" for file, number in results["files"].items()),
        minutes=results["seconds"] / 60,
        machine=f"{about['cpu']}, {about['cores']} cores, Python {about['python']}",
        **{key: results[key] for key in ("when", "commit", "passed", "skipped")},
        **results["versions"],
    )


def main() -> None:
    """Keep it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path, help="or begin")
    report = parser.parse_args().report
    if str(report) == "begin":
        BEGUN.parent.mkdir(exist_ok=True)
        BEGUN.write_text(commit())
        return
    if BEGUN.read_text() != commit():
        raise SystemExit(f"the tests began with commit {BEGUN.read_text()}, now it is {commit()}")
    results = counted(report) | {
        "when": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": commit(),
        "machine": machine(),
        "versions": {package: version(package) for package in ("tensorflow", "keras")},
    }
    (HERE / "evidence.json").write_text(json.dumps(results, indent=1) + "\n")
    (HERE / "evidence.md").write_text(page(results))
    print(page(results))


if __name__ == "__main__":
    main()
