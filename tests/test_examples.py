"""The examples run as they stand, as a user runs them."""

import os
import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_sensors(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / "sensors.py"],
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    score = re.search(r"^trained +(\d\.\d\d) +\(chance (\d\.\d\d)\)", done.stdout, re.MULTILINE)
    assert float(score[1]) > 2 * float(score[2])
    gap = re.search(r"largest difference from the whole series (\S+)", done.stdout)
    assert float(gap[1]) < 1e-4
