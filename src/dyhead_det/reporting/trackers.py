"""Programs that follow a run beside metrics.jsonl: TensorBoard, Weights & Biases, MLflow (extras).

Each takes the rows of metrics.jsonl as they come. A resumed run repeats the steps behind its
checkpoint, and goes on in the same run of the tracker, which gets each step once.
"""

import importlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from dyhead_det.config.schema import TrackerName, flat_keys
from dyhead_det.errors import ConfigError
from dyhead_det.escaping import printable
from dyhead_det.files import written_whole
from dyhead_det.reporting.metrics_file import Row
from dyhead_det.reporting.tensorboard import TensorBoardLog

PROJECT = "dyhead-det"
"""Project or experiment of a run, unless the environment of the tracker names another."""
MODULES: dict[TrackerName, str] = {
    "tensorboard": "torch.utils.tensorboard",
    "wandb": "wandb",
    "mlflow": "mlflow",
}


class Tracker(Protocol):
    """Follows one run; whatever it raises costs the run no more than a warning."""

    def add(self, row: Row) -> None:
        """Take the next row."""

    def close(self, *, is_finished: bool) -> None:
        """End: the run has come to its end, or was stopped or failed."""


class Service(Protocol):
    """The run of a tracker that keeps runs by an id."""

    id: str

    def send(self, values: Mapping[str, float], *, step: int, epoch: float) -> None:
        """Add the numbers of a step."""

    def close(self, *, is_finished: bool) -> None:
        """End."""


def require_trackers(names: Iterable[TrackerName]) -> None:
    """Find out whether these are there.

    Raises:
        ConfigError: naming the first that is not.
    """
    for name in names:
        try:
            importlib.import_module(MODULES[name])
        except ImportError as error:
            raise ConfigError(
                f"train.trackers: {name} cannot be imported ({error}); "
                f"`pip install 'dyhead-det[{name}]'`, or leave it out"
            ) from error


def open_tracker(
    name: TrackerName, out: Path, rows: Iterable[Row], config: dict[str, Any]
) -> Tracker:
    """Begin to follow a run, or go on.

    Args:
        name: which one.
        out: the run folder.
        rows: of metrics.jsonl so far; none for a new run.
        config: plain values of the run's configuration.
    """
    folder = out / name
    if name == "tensorboard":
        return TensorBoardLog(folder, rows)
    rows = list(rows)
    state = SentSteps.read(folder / "resume.json") if rows else SentSteps(folder / "resume.json")
    open_service = WandbRun if name == "wandb" else MLflowRun
    service = open_service(out, config, run_id=state.run_id)
    return ServiceLog(service, state, rows)


class SentSteps:
    """What a tracker has got already, kept in the run folder.

    last: the last step of losses and of evaluations that was sent.
    """

    def __init__(
        self, path: Path, run_id: str | None = None, last: Mapping[str, int] | None = None
    ) -> None:
        self.path, self.run_id = path, run_id
        self.last = dict(last or {})

    @classmethod
    def read(cls, path: Path) -> "SentSteps":
        """Read what `write` wrote; nothing was sent where there is no such file."""
        if not path.is_file():
            return cls(path)
        kept = json.loads(path.read_text("utf-8"))
        return cls(path, str(kept["run"]), {kind: int(step) for kind, step in kept["last"].items()})

    def write(self) -> None:
        """Write it, whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(self.path) as unfinished:
            unfinished.write_text(json.dumps({"run": self.run_id, "last": self.last}), "utf-8")


class ServiceLog:
    """Sends each row to a service once, also where a resumed run repeats it."""

    def __init__(self, service: Service, sent: SentSteps, rows: Iterable[Row]) -> None:
        self._service, self._sent = service, sent
        sent.run_id = service.id
        sent.write()
        for row in rows:
            self.add(row)

    def add(self, row: Row) -> None:
        """Send a row unless it was sent before."""
        kind, step = "evaluation" if "AP" in row else "losses", int(row["step"] or 0)
        if step <= self._sent.last.get(kind, -1):
            return
        values = {
            printable(name): float(value)
            for name, value in row.items()
            if name not in ("step", "epoch") and value is not None
        }
        self._service.send(values, step=step, epoch=float(row["epoch"] or 0.0))
        self._sent.last[kind] = step
        self._sent.write()

    def close(self, *, is_finished: bool) -> None:
        """End the run of the service."""
        self._service.close(is_finished=is_finished)


class WandbRun:
    """A run of Weights & Biases; its environment variables (`WANDB_MODE`, ...) count as ever."""

    def __init__(self, out: Path, config: dict[str, Any], *, run_id: str | None) -> None:
        import wandb  # noqa: PLC0415 - an extra

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=out.resolve().name,
            dir=str(out),
            id=run_id,
            resume="allow" if run_id else None,
            config=config,
            # What the program prints stays the program's.
            settings=wandb.Settings(console="off", silent=True),
        )
        # Its own count of steps must never go back; curves are drawn over ours.
        self._run.define_metric("*", step_metric="step")
        self.id = str(self._run.id)

    def send(self, values: Mapping[str, float], *, step: int, epoch: float) -> None:
        """Add the numbers of a step."""
        self._run.log({**values, "step": step, "epoch": epoch})

    def close(self, *, is_finished: bool) -> None:
        """Send what is left, and end."""
        self._run.finish(exit_code=0 if is_finished else 1)


class MLflowRun:
    """A run of MLflow, where `MLFLOW_TRACKING_URI` says, else in `mlflow/runs.db` below `out`.

    MLflow refuses names with most signs; these become `_`.
    """

    def __init__(self, out: Path, config: dict[str, Any], *, run_id: str | None) -> None:
        # Other processes wait for this one: a server that is not there must not hold them for the
        # minutes in which MLflow tries again by default.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        from mlflow.tracking import MlflowClient  # noqa: PLC0415 - an extra

        folder = (out / "mlflow").resolve()
        folder.mkdir(parents=True, exist_ok=True)
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder / 'runs.db'}"
        self._client = MlflowClient(tracking_uri=uri)
        self.id = run_id or self._create(out, config)
        self._client.update_run(self.id, status="RUNNING")

    def _create(self, out: Path, config: dict[str, Any]) -> str:
        from mlflow.entities import Param  # noqa: PLC0415 - an extra

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self._client.create_experiment(name)
        run_id = str(self._client.create_run(number, run_name=out.resolve().name).info.run_id)
        settings = [Param(key, str(value)[:500]) for key, value in flat_keys(config).items()]
        for start in range(0, len(settings), 100):  # as many as it takes at once
            self._client.log_batch(run_id, params=settings[start : start + 100])
        return run_id

    def send(self, values: Mapping[str, float], *, step: int, epoch: float) -> None:
        """Add the numbers of a step."""
        from mlflow.entities import Metric  # noqa: PLC0415 - an extra

        now = int(time.time() * 1000)
        metrics = [
            Metric(
                "".join(c if c.isalnum() or c in "_-. /" else "_" for c in name), value, now, step
            )
            for name, value in {**values, "epoch": epoch}.items()
        ]
        for start in range(0, len(metrics), 1000):  # as many as it takes at once
            self._client.log_batch(self.id, metrics=metrics[start : start + 1000])

    def close(self, *, is_finished: bool) -> None:
        """End."""
        self._client.set_terminated(self.id, status="FINISHED" if is_finished else "FAILED")
