"""Check of the README's first command: a row for each example photo, most kinds right, and no torch installed."""

import csv
import sys
from importlib.util import find_spec
from pathlib import Path

RIGHT_AT_LEAST = 11

with Path(sys.argv[1]).open(newline="") as file:
    rows = list(csv.DictReader(file))
with Path("examples/photos.csv").open(newline="") as file:
    kinds = {row["file"]: row["kind"] for row in csv.DictReader(file)}
right = sum(kinds[Path(row["image"]).name] == row["kind"] for row in rows)
print(f"{len(rows)} rows of {len(kinds)} photos, {right} kinds right")
if len(rows) != len(kinds) or right < RIGHT_AT_LEAST or find_spec("torch"):
    sys.exit(f"expected a row for each photo, {RIGHT_AT_LEAST} kinds right, and no torch in this environment")
