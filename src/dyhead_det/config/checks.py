"""Settings that contradict each other, and settings without effect: what no section sees alone.

They stand beside the schema, not in it: a checkpoint of a run that was trained with such settings
still loads.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dyhead_det.config.schema import DyHeadConfig, InputConfig, RunConfig
from dyhead_det.errors import ConfigError


def require_honorable(config: RunConfig, *, num_steps: int, steps_per_epoch: int) -> None:
    """Refuse a run whose settings cannot all be honored.

    Args:
        config: The run.
        num_steps: Its length, known once the data are.
        steps_per_epoch: Likewise.

    Raises:
        ConfigError: With every contradiction.
    """
    problems = [
        *contradictions(config),
        *_too_long(config, num_steps=num_steps, steps_per_epoch=steps_per_epoch),
    ]
    if problems:
        raise ConfigError(*dict.fromkeys(problems))


def contradictions(config: RunConfig) -> list[str]:
    """Return what cannot be honored, as far as it can be told without the data."""
    problems = list(_edges(config.model.input))
    if config.train.steps is not None:
        problems += _too_long(config, num_steps=config.train.steps, steps_per_epoch=None)
    freeze, epochs = config.train.freeze, config.train.epochs
    if freeze is not None and epochs is not None and (freeze.backbone_epochs or 0) >= epochs:
        problems.append(
            f"train.freeze.backbone_epochs: {freeze.backbone_epochs} of {epochs} epochs, so the "
            "backbone would never train; if so, write model.backbone.frozen_stages=4"
        )
    if config.runtime.deterministic and config.runtime.cudnn_benchmark:
        problems.append(
            "runtime.cudnn_benchmark: takes whichever algorithm is fastest at the moment, which "
            "runtime.deterministic forbids; write one of them false"
        )
    dyhead = config.model.dyhead
    if config.runtime.deterministic and dyhead is not None and dyhead.deform_backend == "triton":
        problems.append(
            "model.dyhead.deform_backend: triton adds gradients in any order, which "
            "runtime.deterministic forbids; write deform_backend=auto or deterministic=false"
        )
    return problems


def _edges(image: InputConfig) -> Iterator[str]:
    for key, edges in (
        ("short_edge", (image.short_edge,)),
        ("multi_scale", image.multi_scale),
    ):
        longest = max(edges, default=0)
        if longest > image.long_edge:
            yield (
                f"model.input.{key}: {longest} is longer than long_edge, {image.long_edge}, to "
                f"which images would be resized; raise long_edge or lower {key}"
            )


def _too_long(config: RunConfig, *, num_steps: int, steps_per_epoch: int | None) -> list[str]:
    problems = []
    if config.schedule.warmup_steps > num_steps:
        problems.append(
            f"schedule.warmup_steps: {config.schedule.warmup_steps}, but the run has {num_steps} "
            "steps and would never reach its learning rate; lower it or train longer"
        )
    freeze = config.train.freeze
    if freeze is not None:
        num_frozen = freeze.backbone_steps or 0
        if steps_per_epoch is not None:
            num_frozen += (freeze.backbone_epochs or 0) * steps_per_epoch
        if num_frozen >= num_steps:
            problems.append(
                f"train.freeze: {num_frozen} of {num_steps} steps, so the backbone would never "
                "train; if so, write model.backbone.frozen_stages=4"
            )
    return problems


@dataclass(frozen=True, slots=True)
class _Unused:
    """Keys without effect where a condition holds, and why."""

    keys: tuple[str, ...]
    is_unused: Callable[[RunConfig], bool]
    reason: str


def without_effect(config: RunConfig) -> list[str]:
    """Return a line for each setting that was written, is not the default, and changes nothing."""
    return [
        f"{key}: has no effect, {rule.reason}"
        for rule in _RULES
        if rule.is_unused(config)
        for key in rule.keys
        if _is_written(config, key)
    ]


def _is_written(config: RunConfig, dotted_key: str) -> bool:
    """Return whether a key was given, with another value than its default."""
    *sections, key = dotted_key.split(".")
    section: object = config
    for name in sections:
        section = getattr(section, name)
        if section is None:
            return False
    fields = type(section).model_fields  # type: ignore[attr-defined]  # a section
    is_given = key in section.model_fields_set  # type: ignore[attr-defined]
    return is_given and bool(getattr(section, key) != fields[key].default)


def _dyhead(condition: Callable[[DyHeadConfig], bool]) -> Callable[[RunConfig], bool]:
    def holds(config: RunConfig) -> bool:
        return config.model.dyhead is not None and condition(config.model.dyhead)

    return holds


def _num_evaluations(config: RunConfig) -> float:
    epochs = config.train.epochs
    return float("inf") if epochs is None else -(-epochs // config.train.eval_every_epochs)


_RULES = (
    _Unused(("optim.momentum",), lambda c: c.optim.name == "adamw", "it is SGD's"),
    _Unused(
        ("optim.backbone_lr_factor",),
        lambda c: c.model.backbone.frozen_stages == 4,
        "no stage of the backbone trains (model.backbone.frozen_stages)",
    ),
    _Unused(
        ("train.freeze",),
        lambda c: c.model.backbone.frozen_stages == 4,
        "no stage of the backbone trains at any time (model.backbone.frozen_stages)",
    ),
    _Unused(
        ("optim.offset_lr_factor", "optim.decay_offsets_and_scale"),
        lambda c: c.model.dyhead is None,
        "there is no DyHead",
    ),
    _Unused(
        ("schedule.milestones", "schedule.gamma"),
        lambda c: c.schedule.name == "cosine",
        "the schedule is a cosine",
    ),
    _Unused(
        ("schedule.final_lr_factor",),
        lambda c: c.schedule.name == "multi_step",
        "it is the cosine's",
    ),
    _Unused(
        ("schedule.warmup_factor",), lambda c: c.schedule.warmup_steps == 0, "nothing warms up"
    ),
    _Unused(
        ("data.prefetch_factor", "data.persistent_workers"),
        lambda c: c.data.num_workers == 0,
        "no other process reads images (data.num_workers)",
    ),
    _Unused(
        ("data.group_by_aspect_ratio",),
        lambda c: c.train.batch_size == 1,
        "a batch is one image (train.batch_size)",
    ),
    _Unused(
        ("model.backbone.weights",),
        lambda c: c.model.weights is not None,
        "model.weights brings the backbone's too",
    ),
    _Unused(
        tuple(
            f"model.dyhead.{key}"
            for key in ("coarse_offsets", "zero_init_offsets", "deform_backend")
        ),
        _dyhead(lambda d: "spatial" not in d.attention or d.spatial == "conv"),
        "DyHead has no deformable convolutions",
    ),
    _Unused(
        ("model.dyhead.spatial",),
        _dyhead(lambda d: "spatial" not in d.attention),
        "DyHead has no spatial attention",
    ),
    _Unused(
        ("model.dyhead.dynamic_relu",),
        _dyhead(lambda d: "task" not in d.attention),
        "DyHead has no task attention",
    ),
    _Unused(
        ("model.dyhead.residual_scale",),
        _dyhead(lambda d: not d.residual),
        "DyHead adds no residual",
    ),
    _Unused(
        ("train.eval_every_epochs", "train.ema.evaluate_raw"),
        lambda c: c.data.val is None,
        "there are no validation data (data.val)",
    ),
    _Unused(
        ("train.keep_every_epochs",),
        lambda c: c.train.epochs is not None and (c.train.keep_every_epochs or 0) > c.train.epochs,
        "the run has fewer epochs",
    ),
    _Unused(
        ("train.early_stopping",),
        lambda c: (
            c.train.early_stopping is not None
            and c.train.early_stopping.patience >= _num_evaluations(c)
        ),
        "the run has not so many evaluations as its patience",
    ),
)
