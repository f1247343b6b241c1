"""What may differ between a run and its resumption, and what a finished run answers."""

import shutil

import pytest
from program import contents, rows_of

from dyhead_det.training.resume import EVAL_EVERY_EPOCHS, HARMLESS_KEYS

HARMLESS = {
    "data.num_workers": "1",
    "data.prefetch_factor": "3",
    "data.persistent_workers": "false",
    "data.pin_memory": "false",
    "eval": "{backend: pycocotools, batch_size: 3}",
    "train.accumulate": "2",
    "train.log_every_steps": "7",
    "train.log_parts": "true",
    "train.save_every_epochs": "5",
    "train.save_every_steps": "5",
    "train.save_every_minutes": "5",
    "train.keep_every_epochs": "5",
    "train.trackers": "[tensorboard]",
    "runtime": "{channels_last: false}",
}


@pytest.fixture
def finished(undisturbed, tmp_path):
    return shutil.copytree(undisturbed, tmp_path / "run")


def test_a_finished_run_says_so_and_harmless_keys_may_change(project, undisturbed, finished):
    data = shutil.copytree(project.data, finished.parent / "moved")
    changes = {**HARMLESS, "data.root": str(data)}
    # Evaluations feed the patience of this run.
    assert {*changes, EVAL_EVERY_EPOCHS} == set(HARMLESS_KEYS)
    settings = [f"{key}={value}" for key, value in changes.items()]
    outcome = project.train(finished, *settings, resume=True)
    assert outcome.code == 0
    assert "was finished already: 8 steps; AP " in outcome.text
    assert contents(finished / "last.pt") == contents(undisturbed / "last.pt")
    assert rows_of(finished) == rows_of(undisturbed)


def test_keys_that_matter_are_named_and_nothing_is_touched(project, finished):
    before = {path.name: path.read_bytes() for path in finished.iterdir() if path.name != ".lock"}
    settings = ["seed=1", "optim.lr=0.1", "model.channels=32", f"{EVAL_EVERY_EPOCHS}=2"]
    outcome = project.train(finished, *settings, "data.num_workers=1", resume=True)
    assert outcome.code == 2
    assert outcome.error == (
        f"error: {finished}/last.pt: cannot go on with another configuration; changed: seed, "
        f"model.channels, optim.lr, {EVAL_EVERY_EPOCHS}; undo that, or start a new run with "
        "another --out"
    )
    assert {name: (finished / name).read_bytes() for name in before} == before


def test_other_annotations_are_refused(project, finished):
    data = shutil.copytree(project.data, finished.parent / "changed")
    annotations = data / "train.json"
    annotations.write_text(annotations.read_text().replace('"bbox": [2', '"bbox": [3'))
    outcome = project.train(finished, f"data.root={data}", resume=True)
    assert outcome.code == 4
    assert "names, sizes or annotations of the 5 images have changed" in outcome.error
