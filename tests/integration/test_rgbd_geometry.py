"""The geometry benchmark on a rendered room, where flow, normals and points are right."""

import json
import subprocess
import sys
from pathlib import Path

from rgbd_factory import ROOM, pose, write_rgbd

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "rgbd_geometry.py"


def test_the_benchmark_finds_little_error_in_a_rendered_room(tmp_path):
    walk = [pose((0.02 * i, 0.0, 0.01 * i), yaw=0.3 * i) for i in range(12)]
    folder = write_rgbd(tmp_path / "room", ROOM, walk)
    command = [sys.executable, str(SCRIPT), str(folder), "--pairs", "4", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    for name in ("flow, pixels: next picture", "flow, pixels: 0.1 s"):
        assert found[name]["DIS"]["median"] < 0.5 * found[name]["zero"]["median"]
    assert found["normals, degrees"]["ours"]["median"] < 0.5
    assert found["normals, degrees"]["ours"]["n"] > 1000
    assert found["points"]["depth residual, m"]["median"] < 0.03
    assert found["points"]["pixel error in shared voxels"]["median"] < 4
    assert found["points"]["points"]["shared"] > 5
