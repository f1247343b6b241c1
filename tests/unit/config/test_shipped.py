"""The configurations that come along: found from a clone, and copied byte by byte."""

from pathlib import Path

import pytest

from dyhead_det.config.file import load_config
from dyhead_det.config.shipped import copy_shipped, describe_shipped, shipped_configs
from dyhead_det.errors import ConfigError

CONFIGS = Path(__file__).parents[3] / "configs"


def test_every_file_has_a_name_of_its_own():
    assert set(shipped_configs().values()) == set(CONFIGS.rglob("*.yaml"))


def test_each_is_listed_with_what_it_trains():
    lines = describe_shipped().splitlines()
    assert [line.split()[0] for line in lines] == list(shipped_configs())
    assert all(len(line.split()) > 3 for line in lines)


def test_a_copy_is_what_was_copied_and_loads(tmp_path):
    path = copy_shipped("demo", tmp_path)
    assert path == tmp_path / "demo.yaml"
    assert path.read_bytes() == (CONFIGS / "demo.yaml").read_bytes()
    other = copy_shipped("mmdet_atss_r50", tmp_path / "mine.yaml")
    assert load_config(other).model.compat == "mmdet"


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "demo.yaml").write_text("mine")
    with pytest.raises(ConfigError, match=r"demo\.yaml: is there already"):
        copy_shipped("demo", tmp_path)
    assert (tmp_path / "demo.yaml").read_text() == "mine"


def test_an_unknown_name_is_told_with_a_near_one(tmp_path):
    with pytest.raises(ConfigError, match="no configuration 'dmo'; did you mean 'demo'"):
        copy_shipped("dmo", tmp_path)
