"""Prints how much of each package the tests ran, of what `make test COVERAGE=1` has measured."""

import sys
from collections import defaultdict
from pathlib import Path

from coverage import Coverage

ROOT = Path(__file__).resolve().parents[1] / "deepscan"

measured = Coverage()
measured.load()
lines: dict[str, list[int]] = defaultdict(lambda: [0, 0])
for file in measured.get_data().measured_files():
    inner = Path(file).relative_to(ROOT)
    _, stated, _, missing, _ = measured.analysis2(file)
    for name in (inner.parts[0] if len(inner.parts) > 1 else "(top)", "all"):
        lines[name][0] += len(stated)
        lines[name][1] += len(stated) - len(missing)
sys.stdout.write("package        lines    run\n")
for name, (stated, run) in sorted(lines.items(), key=lambda item: (item[0] == "all", item[0])):
    sys.stdout.write(f"{name:<14} {stated:>5} {run / max(stated, 1):>6.1%}\n")
