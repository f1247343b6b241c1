"""Configuration files: what is refused, in which words, and what comes back unchanged."""

import os
from pathlib import Path

import pytest

from dyhead_det.config.file import load_config, load_dataset_config, to_yaml
from dyhead_det.config.schema import ValidationConfig, changed_keys, to_plain
from dyhead_det.errors import ConfigError

MINIMAL = """
data:
  train: {annotations: a.json, images: i}
model:
  detector: {name: fasterrcnn}
train: {epochs: 2}
"""


@pytest.fixture
def write(tmp_path):
    def write_file(text):
        path = tmp_path / "run.yaml"
        path.write_text(text)
        return path

    return write_file


def problems_of(path, *overrides):
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return [line.removeprefix(f"{path}: ") for line in str(caught.value).splitlines()]


def test_what_is_written_is_read_back_equal(write, tmp_path):
    config = load_config(write(MINIMAL))
    again = tmp_path / "again.yaml"
    again.write_text(to_yaml(config))
    assert load_config(again) == config


@pytest.mark.parametrize("name", ["1e-4", "off", "null", "yes", "12", "2026-01-01", "ä b"])
def test_text_that_looks_like_something_else_is_read_back_as_text(write, tmp_path, name):
    config = load_config(write(MINIMAL), (f'data.train.images="{name}"',))
    again = tmp_path / "again.yaml"
    again.write_text(to_yaml(config))
    assert load_config(again).data.train.images == name


def test_numbers_words_and_switches_are_read_as_yaml_1_2(write):
    config = load_config(write(MINIMAL), ("optim.lr=1e-4", "train.amp=off", "model.dyhead=null"))
    assert config.optim.lr == 1e-4
    assert config.train.amp == "off"
    assert config.model.dyhead is None


def test_all_problems_of_a_file_are_told_at_once(write):
    path = write(
        MINIMAL.replace("epochs: 2", "epochs: 0, batch_size: '8'").replace(
            "{name: fasterrcnn}", "{name: fastrcnn}"
        )
        + "optim: {momentum: 2, learning_rate: 1}\n"
    )
    problems = problems_of(path)
    assert [problem.partition(":")[0] for problem in problems] == [
        "model.detector.name",
        "optim.momentum",
        "optim.learning_rate",
        "train.epochs",
        "train.batch_size",
    ]


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("model.dyhead.num_bloks=3", "model.dyhead.num_bloks: unknown key; did you mean 'num_blo"),
        ("model.detector.rpn_nms_tresh=1", "model.detector.rpn_nms_tresh: unknown key; did you me"),
        ("model.detector.name=retina", "model.detector.name: \"retina\" is none of 'fasterrcnn'"),
        ("model.detector={}", "model.detector.name: missing"),
        (
            "model.backbone.name=resnet5",
            'model.backbone.name: "resnet5" is unknown; did you mean \'resnet5',
        ),
        ("train.batch_size=yes", 'train.batch_size: "yes" is not a valid integer'),
        ("train.batch_size=2.0", "train.batch_size: 2.0 is not a valid integer"),
        ("optim.lr=.nan", "optim.lr: NaN is not a finite number"),
        ("optim.lr=-1", "optim.lr: -1 is not greater than 0"),
        ("train.steps=5", "train: give the length of the run as either `epochs` or `steps`"),
        ("model.channels=40", "model.channels: must be divisible by 16"),
        ("model.detector.anchor_sizes=[[3]]", "model.detector.anchor_sizes: one list per level"),
        ("model.input.multi_scale=[600]", "model.input.multi_scale: must hold short_edge 800"),
        ("train.accumulate=17", "train.accumulate: at most one micro-batch per image"),
        (
            "train.freeze={}",
            "train.freeze: give how long it is frozen as either `backbone_ep",
        ),
        ("train.early_stopping={}", "train.early_stopping: needs validation data; give data.val"),
        ("train.ema.decay=1.0", "train.ema.decay: 1.0 is not less than 1"),
        ("data.sampling.name=lvis", "data.sampling.name: \"lvis\" is none of 'uniform', 'repeat_"),
        ("epochs", "--set epochs: write it as key.path=value"),
        ("a.b=[", "--set a.b=[: not a YAML value"),
    ],
)
def test_a_wrong_value_is_told_with_its_key(write, override, problem):
    assert problems_of(write(MINIMAL), override)[0].startswith(problem)


@pytest.mark.parametrize(
    ("override", "old", "new"),
    [
        ("model.body={name: resnet18}", "model.body", "model.backbone"),
        ("optim.body_lr_factor=0.1", "optim.body_lr_factor", "optim.backbone_lr_factor"),
        (
            "train.freeze={body_epochs: 1}",
            "train.freeze.body_epochs",
            "train.freeze.backbone_epochs",
        ),
        ("train.freeze={body_steps: 1}", "train.freeze.body_steps", "train.freeze.backbone_steps"),
    ],
)
def test_a_key_of_version_0_1_is_told_with_its_new_name(write, override, old, new):
    assert problems_of(write(MINIMAL), override) == [f"{old}: is called {new} now; rename it"]


def test_a_key_written_twice_is_refused_with_both_lines(write):
    assert problems_of(write(MINIMAL + "seed: 1\nseed: 2\n")) == [
        "seed: written twice, in lines 7 and 8"
    ]


def test_missing_sections_are_named(write):
    assert problems_of(write("seed: 1\n")) == [
        "data: missing; it has no default",
        "model: missing; it has no default",
        "train: missing; it has no default",
    ]


@pytest.mark.parametrize("text", ["[1, 2]", "just words", ""])
def test_a_file_without_sections_is_refused(write, text):
    assert problems_of(write(text)) == [
        "expected sections (seed, data, model, optim, schedule, train, eval, runtime) at the top "
        "level"
    ]


def test_a_file_that_is_no_yaml_is_refused_in_one_line(write):
    (problem,) = problems_of(write("data: {"))
    assert problem.startswith("not a YAML file:")


def test_a_missing_file_is_refused(tmp_path):
    (problem,) = problems_of(tmp_path / "none.yaml")
    assert problem == "cannot read the configuration: No such file or directory"


def test_an_override_may_open_a_section(write):
    config = load_config(write(MINIMAL), ("model.dyhead.num_blocks=2",))
    assert config.model.dyhead is not None
    assert config.model.dyhead.num_blocks == 2


def test_paths_are_made_absolute(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config(write(MINIMAL), ("data.root=photos", "model.backbone.weights=w.pth"))
    assert config.data.root == str(tmp_path / "photos")
    assert config.model.backbone.weights == str(tmp_path / "w.pth")


def test_changed_keys_names_what_differs_without_what_is_harmless(write):
    path = write(MINIMAL)
    old = to_plain(load_config(path))
    new = to_plain(load_config(path, ("optim.lr=0.5", "model.dyhead=null", "data.num_workers=9")))
    assert changed_keys(old, new, ("data.num_workers",)) == ["model.dyhead", "optim.lr"]


def test_a_data_set_by_itself_is_read(tmp_path):
    path = tmp_path / "val.yaml"
    path.write_text("root: coco\nannotations: val.json\nimages: val\n")
    assert load_dataset_config(path).annotations == "val.json"
    path.write_text("root: coco\nannotation: val.json\nimages: val\n")
    with pytest.raises(ConfigError, match="annotation: unknown key; did you mean 'annotations'"):
        load_dataset_config(path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\xff\xfea\x00", "not a YAML file: line 1: no UTF-8 text; save it as UTF-8"),
        (b"seed: 1\nname: \xe4\n", "not a YAML file: line 2: no UTF-8 text; save it as UTF-8"),
        (b"a" * 300_000, "not a configuration: larger than 262144 bytes"),
        (b"? [1, 2]\n: 3\n", "not a YAML file: line 1: a list or a mapping is no key"),
        (b"seed: !!int abc\n", "not a YAML file: line 1: 'abc' is no int"),
        (b"data: &d {root: x, train: *d}\n", "not a YAML file: line 1: *d lies within &d itself"),
        (b"a: 1\x00\n", "not a YAML file: line 1: \\x00 may not stand in YAML"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused_in_one_line(tmp_path, content, problem):
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    assert problems_of(path)[0].startswith(problem)
    assert len(problems_of(path)) == 1


def test_a_byte_order_mark_is_no_problem(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + MINIMAL.encode())
    assert load_config(path).train.epochs == 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_and_a_device_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    for path in (tmp_path / "pipe.yaml", Path("/dev/zero")):
        (problem,) = problems_of(path)
        assert problem == ("cannot read the configuration: Is a named pipe, a device or a socket")


def test_a_folder_is_refused(tmp_path):
    (problem,) = problems_of(tmp_path)
    assert problem.startswith("cannot read the configuration: Is a directory; a folder of data is")


def test_a_yolo_data_set_is_told_how_to_train_on_it(write):
    path = write("train: images/train\nval: images/val\nnc: 1\nnames: [cat]\n")
    with pytest.raises(ConfigError, match=r"YOLO data set and no .*--set data.root="):
        load_config(path)


def test_a_video_is_told_the_command_that_takes_it(tmp_path):
    (tmp_path / "a.mp4").write_bytes(bytes(8))
    with pytest.raises(ConfigError, match=r"a\.mp4 is a video; .*dyhead-det predict"):
        load_config(tmp_path / "a.mp4")


def test_the_steps_of_010_are_ten(write):
    path = write(MINIMAL.replace("epochs: 2", "steps: 010") + "schedule: {warmup_steps: 2}\n")
    assert load_config(path).train.steps == 10
    assert load_config(path, ("seed=09",)).seed == 9


def test_a_merge_key_takes_over_what_the_section_has_not(write):
    text = MINIMAL.replace(
        "train: {annotations: a.json, images: i}",
        "train: &t {annotations: a.json, images: i}\n  val:\n    <<: *t\n    annotations: b.json",
    )
    assert load_config(write(text)).data.val == ValidationConfig(annotations="b.json", images="i")


def test_a_change_of_one_section_leaves_another_alias_of_it_alone(write):
    text = MINIMAL.replace(
        "train: {annotations: a.json, images: i}",
        "train: &t {annotations: a.json, images: i}\n  val: *t",
    )
    data = load_config(write(text), ("data.val.images=v",)).data
    assert (data.train.images, data.val) == (
        "i",
        ValidationConfig(annotations="a.json", images="v"),
    )


@pytest.mark.parametrize("key", ["data.root", "model.weights", "model.backbone.weights"])
def test_a_home_of_nobody_is_told_with_its_key(write, key):
    with pytest.raises(ConfigError, match=rf"^{key}: ~nosuchuser/x leads nowhere: "):
        load_config(write(MINIMAL), (f"{key}=~nosuchuser/x",))


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        (".".join("a" * 40) + "=1", "--set a.a.a."),
        ("train.steps=" + "9" * 99_999, "--set train.steps=999"),
        ("a=\x1b[2J", "--set a=\\x1b[2J: not a YAML value: line 1: \\x1b may not stand in YAML"),
        ("a\x1b[2J=1", "a\\x1b[2J: unknown key"),
        ("data.root=${HOME}", "--set data.root=${HOME}: line 1: ${HOME}: environment variables"),
        ("data.persistent_workers=yes", 'data.persistent_workers: "yes" is not a valid boolean'),
        ("data.persistent_workers=no", 'data.persistent_workers: "no" is not a valid boolean'),
        ("train.steps=1_000", 'train.steps: "1_000" is not a valid integer'),
        ("train.steps=1:30", 'train.steps: "1:30" is not a valid integer'),
        ("train={<<: 1}", "--set train={<<: 1}: not a YAML value: line 1: `<<` takes a mapping"),
        ("model.backbone.name=timm/../x", 'model.backbone.name: "timm/../x" is unknown'),
    ],
)
def test_a_hostile_override_is_one_short_line(write, override, problem):
    problems = problems_of(write(MINIMAL), override)
    assert any(each.startswith(problem) for each in problems)
    assert all(len(each) < 400 and each.isprintable() for each in problems)


def test_a_value_of_the_wrong_type_is_shown_cut_and_many_problems_are_counted(write):
    (problem,) = problems_of(write(MINIMAL), f"seed={'x' * 5000}")
    assert len(problem) < 200
    problems = problems_of(write(MINIMAL + "".join(f"k{n}: 1\n" for n in range(100))))
    assert len(problems) == 21
    assert problems[-1] == "and 80 more problems"
