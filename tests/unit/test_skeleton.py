"""The skeleton of a sense: written, built as a package of its own, found by its entry point."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from open_crema import cli
from open_crema.errors import ConfigError
from open_crema.skeleton import write_modality


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The package's folder, and the environment of processes that have it installed."""
    place = tmp_path_factory.mktemp("skeleton")
    assert cli.main(["modality", "new", "motion_sensor", "--out", str(place / "package")]) == 0
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    pip += ["--no-build-isolation", "--disable-pip-version-check", "--target"]
    subprocess.run([*pip, place / "site", place / "package"], check=True, timeout=120)
    paths = [str(place / "site"), str(Path(__file__).parents[2] / "src")]
    return place / "package", {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def run(installed, *command):
    package, environment = installed
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=package,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_every_command_knows_the_installed_sense(installed):
    listed = run(installed, "open_crema.cli", "modality", "list", "--json")
    assert listed.returncode == 0, listed.stderr
    rows = {row["name"]: row for row in json.loads(listed.stdout)}
    assert len(rows) == 9
    assert rows["motion_sensor"]["label"] == "Motion Sensor"
    assert rows["motion_sensor"]["encoder"] == "its own"


def test_the_package_s_own_tests_pass(installed):
    tested = run(installed, "pytest", "-q", "-p", "no:cacheprovider")
    assert tested.returncode == 0, tested.stdout
    assert "4 passed" in tested.stdout


def test_a_model_with_the_installed_sense_is_built_and_counted(installed, tmp_path):
    (tmp_path / "run.yaml").write_text("model: {senses: [video, motion_sensor]}\n")
    counted = run(installed, "open_crema.cli", "cost", str(tmp_path / "run.yaml"), "--json")
    assert counted.returncode == 0, counted.stderr
    assert "motion_sensor" in counted.stdout


def test_without_the_package_the_sense_is_unknown(tmp_path, capsys):
    (tmp_path / "run.yaml").write_text("model: {senses: [video, motion_sensor]}\n")
    assert cli.main(["cost", str(tmp_path / "run.yaml")]) == 2
    assert "unknown sense 'motion_sensor'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["Imu", "2d", "my-sense", "", "a b", "\u00e4", "../x"])
def test_a_name_that_cannot_be_one(tmp_path, name):
    with pytest.raises(ConfigError, match="lower-case ASCII"):
        write_modality(name, tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_taken(tmp_path):
    with pytest.raises(ConfigError, match="'audio' is already registered"):
        write_modality("audio", tmp_path / "x")


def test_an_existing_folder_is_left_alone(tmp_path, capsys):
    assert cli.main(["modality", "new", "imu", "--out", str(tmp_path)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
