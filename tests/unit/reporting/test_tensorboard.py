"""Event files hold each number of metrics.jsonl once, after a resumption too."""

from dyhead_det.reporting.tensorboard import TensorBoardLog


def row(step, **values):
    return {"step": step, "epoch": step / 4, **values}


def points(folder):
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    return [
        (value.tag, event.step, round(value.tensor.float_val[0], 6))
        for path in sorted(folder.glob("events*"))
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
    ]


def test_numbers_are_grouped_and_stand_at_their_step(tmp_path):
    board = TensorBoardLog(tmp_path, [])
    board.add(row(2, loss=1.5, loss_box=0.5, lr=0.25))
    board.add(row(4, AP=0.5, APl=None, **{"AP/cat": 0.75, "raw/AP": 0.25}))
    board.close(is_finished=True)
    assert points(tmp_path) == [
        ("losses/loss", 2, 1.5),
        ("losses/loss_box", 2, 0.5),
        ("run/lr", 2, 0.25),
        ("COCO/AP", 4, 0.5),
        ("AP by class/cat", 4, 0.75),
        ("raw/AP", 4, 0.25),
    ]


def test_a_resumed_run_leaves_no_step_out_and_none_twice(tmp_path):
    killed = TensorBoardLog(tmp_path, [])
    for step in (2, 4, 6):
        killed.add(row(step, loss=float(step)))
    killed.close(is_finished=True)
    resumed = TensorBoardLog(
        tmp_path, [row(2, loss=2.0), row(4, loss=4.0)]
    )  # the checkpoint was at 4
    for step in (6, 8):
        resumed.add(row(step, loss=10.0 * step))
    resumed.close(is_finished=True)
    assert points(tmp_path) == [
        ("losses/loss", step, value) for step, value in [(2, 2.0), (4, 4.0), (6, 60.0), (8, 80.0)]
    ]


def test_an_open_tensorboard_sees_each_step_once_too(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    killed = TensorBoardLog(tmp_path, [])
    for step in (2, 4, 6):
        killed.add(row(step, loss=float(step)))
    killed.close(is_finished=True)
    open_one = EventAccumulator(str(tmp_path))
    open_one.Reload()
    resumed = TensorBoardLog(tmp_path, [row(2, loss=2.0)])
    resumed.add(row(4, loss=40.0))
    resumed.close(is_finished=True)
    open_one.Reload()
    assert [(event.step, event.value) for event in open_one.Scalars("losses/loss")] == [
        (2, 2.0),
        (4, 40.0),
    ]
