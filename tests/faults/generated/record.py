"""The record of a run: mutants.csv, rules.csv and mutants.md made from it, and environment.json.

While a run lasts, its outcomes stand in `unfinished.jsonl`, a line each as it comes, and what the tests reach in
`unfinished_reach/`: a killed run goes on from there.
"""

import csv
import hashlib
import io
import math
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.faults.generated.mutants import Mutant
from tests.faults.generated.rules import RULES
from tests.faults.generated.trial import Verdict
from tidepool.records import SCHEMA_VERSION, read_rows, write_atomically

Row = dict[str, Any]
COLUMNS = (
    "schema_version", "mutant", "rule", "file", "line", "function", "old", "new",
    "outcome", "argument", "tests", "caught_by", "failure", "seconds", "commit",
)  # fmt: skip
RULE_COLUMNS = (
    "schema_version", "rule", "places", "tried", "killed", "by_assertion", "survived", "not_reached", "argued",
    "not_tested", "kill_rate_percent", "low_percent", "high_percent",
)  # fmt: skip
OUTCOMES = ("killed", "survived", "not reached", "not tested")
"""A test failed; none of those that run the place did; no test runs it; no test could start."""
UNFINISHED, REACH = "unfinished.jsonl", "unfinished_reach"


def fingerprint(root: Path, names: Sequence[str]) -> str:
    """A hash of these files, and of the Python files in these folders."""
    found = [[root / name] if (root / name).is_file() else (root / name).rglob("*.py") for name in names]
    paths = sorted({path for paths in found for path in paths})
    joined = b"\0".join(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() for path in paths)
    return hashlib.sha256(joined).hexdigest()[:16]


def row(mutant: Mutant, tests: Sequence[str], verdict: Verdict, seconds: float, commit: str | None) -> Row:
    """One mutant's row, its argument left to the end of the run."""
    if not tests:
        outcome = "not reached"
    elif not verdict.tested:
        outcome = "not tested"
    else:
        outcome = "killed" if verdict.caught_by else "survived"
    values = (
        SCHEMA_VERSION, mutant.name, mutant.rule, mutant.file, mutant.line, mutant.function, mutant.old,
        mutant.edit.text, outcome, "", len(tests), verdict.caught_by, verdict.failure, f"{seconds:.1f}", commit or "",
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def known_rows(folder: Path) -> dict[str, Row]:
    """The rows of a record and of a run that broke off, by mutant; the later of two."""
    rows = [*read_csv(folder / "mutants.csv"), *read_rows(folder / UNFINISHED)]
    return {row["mutant"]: {column: row[column] for column in COLUMNS} for row in rows}


def read_csv(path: Path) -> list[Row]:
    """The rows of a CSV, none where there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_record(folder: Path, rows: Sequence[Row], places: Counter[str], seed: int) -> None:
    """The tables of these rows, in their order; then the files of the unfinished run go."""
    _write_csv(folder / "mutants.csv", COLUMNS, rows)
    rules = rule_rows(rows, places)
    _write_csv(folder / "rules.csv", RULE_COLUMNS, rules)
    write_atomically(folder / "mutants.md", page(rows, rules, seed).encode())
    (folder / UNFINISHED).unlink(missing_ok=True)
    shutil.rmtree(folder / REACH, ignore_errors=True)


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def wilson(successes: int, number: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a proportion; all of [0, 1] where nothing was tried."""
    if number == 0:
        return 0.0, 1.0
    z = 1.959963984540054
    share, wide = successes / number, z * z / number
    centre = (share + wide / 2) / (1 + wide)
    half = z * math.sqrt(share * (1 - share) / number + wide / number / 4) / (1 + wide)
    return max(0.0, centre - half), min(1.0, centre + half)


def rule_rows(rows: Sequence[Row], places: Counter[str]) -> list[Row]:
    """Rule by rule, then of all: kill rate of the mutants that are neither argued to be equivalent nor untestable."""
    groups = [(rule, [row for row in rows if row["rule"] == rule], places[rule]) for rule in RULES]
    return [_rule_row(*group) for group in [*groups, ("all", list(rows), places.total())]]


def _rule_row(rule: str, rows: Sequence[Row], places: int) -> Row:
    count = Counter(row["outcome"] for row in rows)
    lived = [row for row in rows if row["outcome"] in ("survived", "not reached")]
    argued = sum(bool(row["argument"]) for row in lived)
    killed = count["killed"]
    judged = killed + len(lived) - argued
    low, high = wilson(killed, judged)
    by_assertion = sum(row["outcome"] == "killed" and row["failure"] == "AssertionError" for row in rows)
    values = (
        SCHEMA_VERSION, rule, places, len(rows), killed, by_assertion, count["survived"], count["not reached"], argued,
        count["not tested"], f"{100 * killed / judged:.1f}" if judged else "", f"{100 * low:.1f}", f"{100 * high:.1f}",
    )  # fmt: skip
    return dict(zip(RULE_COLUMNS, values, strict=True))


def unexplained(rows: Iterable[Row]) -> list[Row]:
    """Mutants that lived without an argument, and those that were caught in spite of one."""
    judged = [row for row in rows if row["outcome"] != "not tested"]
    return [row for row in judged if (row["outcome"] == "killed") == bool(row["argument"])]


def page(rows: Sequence[Row], rules: Sequence[Row], seed: int) -> str:
    """mutants.md: the table of rules, what lived, and what contradicts an argument."""
    total = rules[-1]
    lines = [
        "# Generated mutants",
        "",
        f"{total['tried']} of the {total['places']} mutants that the rules make of the kernels and device functions,",
        f"as seed {seed} takes them: {total['killed']} caught by a test, {total['survived']} not, and "
        f"{total['not_reached']} at a place that no test of",
        f"the detectors runs; of these {total['argued']} are argued to change no result (`equivalent.toml`), and left",
        "out of the kill rate, beside which its 95 % Wilson interval stands. The sample is even over the rules before",
        "it is even over the places, so that the last line is of the sample, not of all places. Made from",
        "`mutants.csv`, whose column `commit` says which code tried each row.",
        "",
        "| rule | places | tried | killed | by an assertion | lived | argued | kill rate % | 95 % |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for rule in rules:
        lived = rule["survived"] + rule["not_reached"]
        rate = rule["kill_rate_percent"] or "–"
        interval = f"{rule['low_percent']}–{rule['high_percent']}" if rule["kill_rate_percent"] else "–"
        lines.append(
            f"| {rule['rule']} | {rule['places']} | {rule['tried']} | {rule['killed']} | {rule['by_assertion']} "
            f"| {lived} | {rule['argued']} | {rate} | {interval} |"
        )
    lived_rows = [row for row in rows if row["outcome"] in ("survived", "not reached")]
    wrong = [row for row in rows if row["outcome"] == "killed" and row["argument"]]
    lines += _listed("Lived", lived_rows) + _listed("Caught, though an argument says that it cannot be", wrong)
    return "\n".join(lines) + "\n"


def _listed(title: str, rows: Sequence[Row]) -> list[str]:
    if not rows:
        return []
    heads = ["| place | function | rule | code | became | tests | argument |", "|---|---|---|---|---|---:|---|"]
    return ["", f"## {title}", "", *heads, *[_line(row) for row in rows]]


def _line(row: Row) -> str:
    place = f"{row['file'].removeprefix('kernels/')}:{row['line']}"
    argument = row["argument"] or "**none**"
    code = f"{_code(row['old'])} | {_code(row['new'])}"
    return f"| {place} | `{row['function']}` | {row['rule']} | {code} | {row['tests']} | {argument} |"


def _code(text: str) -> str:
    """Inline code of a table cell, where a bar would end the cell; the beginning of what is long."""
    short = " ".join(text.split())
    return "`" + (short if len(short) <= 100 else short[:99] + "…").replace("|", "\\|") + "`"
