"""A new metric is one entry of the registry and its function: files, summary, comparison, study and report then have it."""

import csv
import json
import subprocess
import sys

from rawfiles import make_nnunet

WITH_ANOTHER = """
import sys, types, pathlib, utseg
package = types.ModuleType("utseg.evaluate")
package.__path__ = [f"{utseg.__path__[0]}/evaluate"]
sys.modules["utseg.evaluate"] = package
from utseg.evaluate import metrics
missed = metrics.Metric(
    "missed_share", "missed", lambda m: 1 - m.shared / m.referenced,
    better=-1, missed=1.0, uses=("study", "comparison"), rank=9,
)
metrics.METRICS = (*metrics.METRICS, missed)
metrics.METRIC[missed.key] = missed
del sys.modules["utseg.evaluate"]
from utseg.commands.evaluate import main
from utseg.evaluate import compare_models, read_metrics
from utseg.study.record import RESULTS_COLUMNS, cases_columns
code = main(sys.argv[1:])
rows = read_metrics(pathlib.Path(sys.argv[-1]) / "metrics.csv")
found = compare_models({"a": rows, "b": rows}, metric="missed_share")
assert found["higher_is_better"] is False and found["all"]["labels"]["LV"]["models"]["a"]["mean"] == 0.0, found
assert "missed_share" in RESULTS_COLUMNS and "missed_share" in cases_columns(())
from utseg.commands.report import main
scores = sys.argv[-1]
sys.exit(code or main([scores, "-o", f"{scores}.html", "--home", scores, "--no-pictures"]))
"""


def test_a_new_metric_is_an_entry_and_its_function(tmp_path):
    make_nnunet(tmp_path / "raw" / "Heart", subjects=1)
    labels = tmp_path / "raw" / "Heart" / "labelsTr"
    (tmp_path / "masks").mkdir()
    for path in labels.iterdir():
        (tmp_path / "masks" / path.name).write_bytes(path.read_bytes())
    words = ("-p", tmp_path / "masks", "-g", labels, "-o", tmp_path / "scores")
    result = subprocess.run(
        [sys.executable, "-c", WITH_ANOTHER, *map(str, words)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    for name in ("metrics.csv", "slices.csv", "regions.csv"):
        rows = list(csv.DictReader((tmp_path / "scores" / name).open()))
        assert rows and {row["missed_share"] for row in rows} <= {"0", "1", ""}, name
    summary = json.loads((tmp_path / "scores" / "summary.json").read_text())
    assert summary["all"]["labels"]["LV"]["missed_share"]["mean"] == 0.0
    assert "Missed" in (tmp_path / "scores_tables" / "tables.md").read_text()
    assert "Missed" in (tmp_path / "scores.html").read_text()
