"""Which versions of TensorFlow run what is exported here, by the C API of their wheels.

    python benchmarks/wheels.py [NAME ...] [--versions VERSION ...]

Every architecture of the zoo, small and with random weights, is exported once; each version's wheel
for this Python is unpacked in build/wheels, without what it depends on; and a process that imports
none of TensorFlow's Python holds the export to its golden answers, its warm-up requests and all
else that tests/check_export.py asks. Results go to wheels.json beside this file, and the oldest
version of each architecture to keras_attn/serving/oldest.json, which exports tell.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

from measuring import commit

HERE = Path(__file__).parent
ROOT = HERE.parent
BUILD = ROOT / "build" / "wheels"
RESULTS = HERE / "wheels.json"
OLDEST = ROOT / "keras_attn" / "serving" / "oldest.json"
SESSION = ROOT / "keras_attn" / "serving" / "session.py"
# Of the weights: such that answers differ, and that versions' own rounding is not blown up.
SCALE = 0.5
VERSIONS = ("2.20.0", "2.19.1", "2.14.1")


def unpacked(version: str) -> Path:
    """Return a folder with the wheel of a version, and nothing that it depends on."""
    folder = BUILD / f"tensorflow-{version}"
    if not folder.exists():
        aside = folder.with_name(f".{folder.name}.{os.getpid()}")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        wheel = ["--no-deps", "--no-compile", "--only-binary", ":all:", f"tensorflow=={version}"]
        subprocess.run([*pip, *wheel, "--target", str(aside)], check=True)
        aside.rename(folder)
    return folder


def exported(name: str) -> Path:
    """Return a small export of an architecture, with random weights."""
    sys.path.insert(0, str(ROOT / "tests"))
    import small_models

    path = BUILD / "exports" / name / "1"
    model = small_models.randomised(small_models.small(name), SCALE)
    model.export(path, beam_size=3, overwrite=True, verbose=False)
    return path


def asked(path: Path, version: str) -> str | None:
    """Return what went wrong with an export in a version, if anything did."""
    command = [sys.executable, str(ROOT / "tests" / "check_export.py"), str(SESSION), str(path)]
    found = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": str(unpacked(version)), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        cwd="/",
    )
    if found.returncode:
        lines = found.stderr.strip().splitlines() or [f"it ended with {found.returncode}"]
        return lines[-1][:300]
    counted = json.loads(found.stdout)
    same, close = counted["golden"], counted["close calls"]
    return None if same + close == 10 and close <= 1 else f"only {same} of 10 answers are equal"


def oldest(results: dict) -> dict:
    """Return for each architecture the oldest version that passed, as did all newer ones."""
    found = {}
    for name, versions in sorted(results.items()):
        order = sorted(versions, key=lambda one: tuple(map(int, one.split("."))), reverse=True)
        for version in order:
            if versions[version] is not None:
                break
            found[name] = version
    return found


def save(results: dict, commits: dict) -> None:
    """Write both files; `commits` are those that each architecture was exported by."""
    machine = f"{platform.machine()}, Python {platform.python_version()}"
    found = {"command": "python benchmarks/wheels.py", "machine": machine, "failed": results}
    found["commits"] = commits
    RESULTS.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    OLDEST.write_text(json.dumps(oldest(results), indent=1) + "\n")


def main() -> None:
    """Ask, and keep what is not asked anew."""
    from keras_attn import zoo

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="all of the zoo by default")
    parser.add_argument("--versions", nargs="+", default=VERSIONS, metavar="VERSION")
    given = parser.parse_args()
    names = given.names or zoo.names()
    if unknown := sorted(set(names) - set(zoo.names())):
        parser.error(f"NAME: expected names of the zoo, got {', '.join(unknown)}.")
    before = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results, commits = before.get("failed", {}), before.get("commits", {})
    for name in names:
        path = exported(name)
        for version in given.versions:
            wrong = asked(path, version)
            results.setdefault(name, {})[version] = wrong
            print(f"{name:28} {version:8} {wrong or 'passes'}", flush=True)
        commits[name] = commit()
        save(results, commits)


if __name__ == "__main__":
    main()
