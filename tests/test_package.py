import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile


def test_the_wheel_is_typed_and_has_the_reports_template(tmp_path):
    build = f"from hatchling.build import build_wheel; build_wheel({str(tmp_path)!r})"
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", build], cwd=root, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = ZipFile(wheel).namelist()
    assert "laddercast/py.typed" in names
    templates = "laddercast/reporting/templates"
    assert {f"{templates}/report.html", f"{templates}/sort.js"} <= set(names)
    tables = [name for name in names if name.endswith(".csv")]
    assert tables == ["laddercast/data/known_tasks.csv"]
