"""Keep a finished audit in the records that docs/reproduction/audits.md and docs/results/search.md are made from.

    uge audit COPY --test DATA --clean DATA --key KEY --plan benchmarks/quality/uge.toml --out AUDIT
    uge audit COPY --test DATA --clean DATA --key KEY --budget 2h --runner local:workers=2 --out AUDIT
    python benchmarks/quality/audit.py AUDIT --data DATA --name "uge 10gm+fd@32"

Every training of the audit that is not there yet becomes a row of `benchmarks/results/audit/records.jsonl`, under the
name of the protection, and what is known of the copy one more.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from uge.audit.run import read_finished
from uge.records import append_record, read_records

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "audit" / "records.jsonl"


def keep(audit: Path, name: str, dataset: str, results: Path = RESULTS) -> int:
    """Append what is missing; the number of new trainings."""
    facts = json.loads((audit / "audit.json").read_text())
    about = {"name": name, "dataset": dataset, "plan": facts["plan"]["name"]}
    kept = {(row["name"], row["dataset"], row.get("cell")) for row in read_records(results)}
    new = [row for row in read_finished(audit) if (name, dataset, row["cell"]) not in kept]
    for row in new:
        append_record(results, about | row)
    if new:
        told = {entry: facts[entry] for entry in ("manifest", "quality", "settings", "skipped", "environment")}
        append_record(results, about | {"kind": "facts", "budget_seconds": facts["plan"]["budget"]} | told)
    return len(new)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("audit", type=Path, help="folder of a finished `uge audit`")
    parser.add_argument("--data", required=True, help="the originals; their file names the data set in the tables")
    parser.add_argument("--name", required=True, help="of the protection, in the tables")
    arguments = parser.parse_args()
    print(f"{keep(arguments.audit, arguments.name, Path(arguments.data).stem)} new trainings")


if __name__ == "__main__":
    main()
