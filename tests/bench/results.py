"""Write what a benchmark found: figures, budgets, and the machine they were found on."""

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench" / "results"


@dataclass(frozen=True, slots=True)
class Budget:
    """A figure and the most that it may be."""

    name: str
    value: float
    most: float
    unit: str = ""

    @property
    def kept(self) -> bool:
        """Say whether the figure is within its budget."""
        return self.value <= self.most

    def __str__(self) -> str:
        sign = "ok  " if self.kept else "OVER"
        return f"{sign} {self.name}: {self.value:.3g} {self.unit} (budget {self.most:g})"


def machine() -> dict[str, Any]:
    """Describe what the figures depend on."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gib": round(memory_kib / 2**20, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def revision() -> str:
    """Return the commit that was measured, with a mark where the tree differs from it."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() or "unknown"


def summary(values: Sequence[float]) -> dict[str, float]:
    """Return minimum, median and maximum."""
    return {
        "min": round(min(values), 4),
        "median": round(statistics.median(values), 4),
        "max": round(max(values), 4),
        "runs": len(values),
    }


def write(name: str, figures: Mapping[str, Any], budgets: Sequence[Budget]) -> Path:
    """Write bench/results/NAME.json and print its budgets; returns the path."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    document = {
        "benchmark": name,
        "command": f"make bench ARGS={name}",
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "revision": revision(),
        "machine": machine(),
        "budgets": [
            {
                "name": budget.name,
                "value": round(budget.value, 4),
                "most": budget.most,
                "unit": budget.unit,
                "kept": budget.kept,
            }
            for budget in budgets
        ],
        **figures,
    }
    path.write_text(json.dumps(document, indent=2) + "\n")
    for budget in budgets:
        print(budget, flush=True)
    return path
