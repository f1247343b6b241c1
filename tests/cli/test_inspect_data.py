"""`data check` prints what it finds and ends with the exit code of the documentation."""

import json

import pytest
import yaml
from typer.testing import CliRunner

from dyhead_det.cli.data import app
from dyhead_det.config.schema import to_plain
from dyhead_det.errors import DatasetError

from conftest import draw_tiny_dataset, make_config


@pytest.fixture
def folder(tmp_path):
    return draw_tiny_dataset(tmp_path / "tiny")


def run(folder, *options):
    arguments = ["check", str(folder / "train.json"), "--images", str(folder / "images"), *options]
    return CliRunner().invoke(app, arguments)


def test_a_usable_data_set_is_listed_and_code_0(folder):
    result = run(folder)
    assert result.exit_code == 0
    assert "note: classes without an object: 1 (circle)" in result.stdout
    assert "4 images (4 opened)" in result.stdout


def test_a_damaged_image_is_an_error_of_the_data_unless_images_stay_closed(folder):
    (folder / "images" / "2.png").write_bytes(b"")
    result = run(folder)
    assert isinstance(result.exception, DatasetError)
    assert result.exception.exit_code == 3
    assert "error: images that cannot be read: 1 (2.png" in result.stdout
    unopened = run(folder, "--no-images")
    assert unopened.exit_code == 0
    assert "4 images (0 opened)" in unopened.stdout


def test_all_findings_go_to_files_where_there_is_a_folder(folder, tmp_path):
    for number in range(1, 4):
        (folder / "images" / f"{number}.png").write_bytes(b"")
    result = run(folder, "--out", str(tmp_path / "found"))
    assert result.exception.exit_code == 3
    document = json.loads((tmp_path / "found" / "check.json").read_text())
    assert document["findings"][0]["count"] == 3
    assert "check.csv" in result.stdout


def test_parts_of_a_run_are_compared(folder, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(to_plain(make_config(folder))))
    result = CliRunner().invoke(app, ["check", str(path), "--set", "seed=3"])
    assert result.exit_code == 0, result.stdout
    assert "images in both parts (equal files), scores will be too good: 4" in result.stdout


def test_statistics_and_a_preview_are_written(folder, tmp_path):
    target = [str(folder / "train.json"), "--images", str(folder / "images")]
    counted = CliRunner().invoke(app, ["stats", *target, "--out", str(tmp_path / "counted")])
    assert counted.exit_code == 0, counted.output
    assert "square            4        4" in counted.stdout
    numbers = json.loads((tmp_path / "counted" / "stats.json").read_text())
    assert numbers["total"]["num_objects"] == 4
    assert (tmp_path / "counted" / "stats.png").read_bytes().startswith(b"\x89PNG")
    sheet = tmp_path / "sheets" / "preview.png"
    drawn = CliRunner().invoke(app, ["preview", *target, "--out", str(sheet), "--num", "2"])
    assert drawn.exit_code == 0, drawn.output
    assert drawn.stdout == f"written: {sheet}\n"
    assert sheet.read_bytes().startswith(b"\x89PNG")


def test_a_repaired_copy_ends_with_the_code_of_the_copy(folder):
    content = json.loads((folder / "train.json").read_text())
    content["annotations"][0]["image_id"] = 99
    (folder / "train.json").write_text(json.dumps(content))
    fixed = run(folder, "--fix", str(folder / "fixed.json"))
    assert fixed.exit_code == 0, fixed.output
    assert "error: annotations of an unknown image: 1 (1)" in fixed.stdout
    assert "repaired: left out: 1 annotations -> " in fixed.stdout
    assert (folder / "fixed.changes.csv").is_file()
    again = run(folder, "--fix", str(folder / "fixed.json"))
    assert again.exception.exit_code == 2
    (folder / "images" / "0.png").write_bytes((folder / "images" / "1.png").read_bytes()[:50])
    unrepaired = run(folder)
    assert unrepaired.exception.exit_code == 3
