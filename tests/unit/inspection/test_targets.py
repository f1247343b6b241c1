"""What a command line names is an annotation file with its images, or the parts of a run."""

from pathlib import Path

import pytest
import yaml

from dyhead_det.config.schema import to_plain
from dyhead_det.data.formats.source import Source
from dyhead_det.errors import ConfigError, DatasetError
from dyhead_det.inspection.targets import read_target

from conftest import make_config


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(to_plain(make_config(tmp_path))))
    return path


def test_a_json_file_has_the_images_that_are_given():
    target = read_target(Path("a.json"), images=Path("i"), also=[Path("b.json")])
    assert target.config_name == "own_data"
    assert target.config.data.train.annotations == str(Path.cwd() / "a.json")
    assert target.parts == (
        ("train", Source(Path("a.json"), Path("i"))),
        ("val", Source(Path("b.json"), Path("i"))),
    )


def test_a_run_names_its_parts_and_takes_overrides(config_file, tmp_path):
    target = read_target(config_file, overrides=["data.broken_images=skip"])
    assert target.skips_broken
    assert target.parts[1] == ("val", Source(tmp_path / "train.json", tmp_path / "images"))
    alone = read_target(config_file, overrides=["data.val=null"])
    with pytest.raises(ConfigError, match="there are no validation data"):
        alone.load("val")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a.json", {"images": Path("i"), "overrides": ["seed=1"]}, "--set changes a YAML file"),
        ("run.yaml", {"images": Path("i")}, "leave out --images and --also"),
        ("run.yaml", {"overrides": ["sed=1"]}, "sed: unknown key"),
    ],
)
def test_options_that_do_not_go_together_are_errors(config_file, name, options, message):
    with pytest.raises(ConfigError, match=message):
        read_target(config_file.parent / name, **options)


def test_a_data_yaml_without_any_images_is_an_error(tmp_path):
    (tmp_path / "data.yaml").write_text("names: [dog]\n")
    for place in (tmp_path, tmp_path / "data.yaml"):
        with pytest.raises(DatasetError, match="names no images: none of train, val, test"):
            read_target(place)


def test_a_folder_is_all_of_its_parts_and_the_first_is_trained_on(tmp_path):
    for part in ("val", "test"):
        (tmp_path / f"{part}.json").write_text("{}")
    target = read_target(tmp_path)
    assert [(part.split, part.source.split) for part in target.parts] == [
        ("train", "val"),
        ("val", "test"),
    ]
