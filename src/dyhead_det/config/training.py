"""The sections of training: optimizer, schedule, length and manner of the run, scores, speed."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from dyhead_det.config.precision import Amp
from dyhead_det.config.section import (
    Fraction,
    NonNegative,
    Positive,
    Section,
    Steps,
    setting,
)

BatchSize = Annotated[int, Field(ge=1, le=65536)]
TrackerName = Literal["tensorboard", "wandb", "mlflow"]
LearningRate = Annotated[float, Field(gt=0, le=1000)]


class AutoScaleLRConfig(Section):
    """Multiply `lr` by `train.batch_size` / `base_batch_size`."""

    base_batch_size: BatchSize = setting(16, "The batch size that `lr` is for.", unit="images")


class OptimConfig(Section):
    """Optimizer and its parameter groups."""

    name: Literal["sgd", "adamw"] = setting("sgd", "SGD with momentum, or AdamW.")
    lr: LearningRate = setting(0.02, "Learning rate after the warm-up.", unit="rate")
    auto_scale_lr: AutoScaleLRConfig | None = setting(
        None, "Take `lr` for that of another batch size; null takes it as it is."
    )
    momentum: Fraction = setting(
        0.9, "What SGD keeps of the last step; AdamW has none.", unit="factor"
    )
    weight_decay: NonNegative = setting(
        1e-4, "How fast weights shrink, times the learning rate.", unit="rate"
    )
    decay_norms_and_biases: bool = setting(
        True, "Whether parameters of one dimension decay too, as in torchvision and detectron2."
    )
    decay_offsets_and_scale: bool = setting(
        True, "Whether the convolutions for DyHead's offsets and masks, and its scale, decay too."
    )
    backbone_lr_factor: NonNegative = setting(
        1.0, "What the backbone's learning rate is multiplied by.", unit="factor"
    )
    offset_lr_factor: NonNegative = setting(
        1.0,
        "What the learning rate of the convolutions for DyHead's offsets and masks is multiplied "
        "by. AdamW moves all of their weights by the rate in every step, and an offset is the sum "
        "of 9 x `channels` of them.",
        unit="factor",
    )
    clip_norm: Positive | None = setting(
        None,
        "Longer gradients, of all weights together, are shortened to this; null: as they are.",
        unit="L2 norm",
    )


class ScheduleConfig(Section):
    """Learning rate over the run: linear warm-up in steps, then steps down or a cosine."""

    name: Literal["multi_step", "cosine"] = setting(
        "multi_step", "Steps down at `milestones`, or a cosine down to `final_lr_factor`."
    )
    warmup_steps: Annotated[int, Field(ge=0, le=10**9)] = setting(
        1000, "Over which the rate rises at first; at most the length of the run.", unit="steps"
    )
    warmup_factor: Fraction = setting(0.001, "Where it begins, times `lr`.", unit="factor")
    milestones: Annotated[tuple[Fraction, ...], Field(max_length=100)] = setting(
        (2 / 3, 8 / 9), "When `multi_step` steps down.", unit="share of the run"
    )
    gamma: Fraction = setting(0.1, "What each step down multiplies the rate by.", unit="factor")
    final_lr_factor: Fraction = setting(0.0, "Where the cosine ends, times `lr`.", unit="factor")


class EMAConfig(Section):
    """The moving average of the weights, which is evaluated and kept in place of the weights."""

    decay: Annotated[float, Field(ge=0, lt=1)] = setting(
        0.9998, "The share of the average that each step keeps.", unit="share"
    )
    warmup: bool = setting(
        True, "Less in the first steps, so that it reaches back over a ninth of the run so far."
    )
    evaluate_raw: bool = setting(False, "Score the weights that are trained as well, as `raw/AP`.")


class EarlyStoppingConfig(Section):
    """End a run when AP has not risen by more than `min_delta` in `patience` evaluations."""

    patience: Steps = setting(
        5, "Evaluations without a rise that are waited for.", unit="evaluations"
    )
    min_delta: Fraction = setting(0.0, "Rises of AP up to this count as none.", unit="AP, 0 to 1")


class FreezeConfig(Section):
    """Keep the backbone as it is for the first epochs or steps of a run."""

    backbone_epochs: Steps | None = setting(
        None, "How long; give this or `backbone_steps`.", unit="epochs"
    )
    backbone_steps: Steps | None = setting(
        None, "How long; give this or `backbone_epochs`.", unit="steps"
    )

    @model_validator(mode="after")
    def _one_length(self) -> "FreezeConfig":
        if (self.backbone_epochs is None) == (self.backbone_steps is None):
            msg = "give how long it is frozen as either `backbone_epochs` or `backbone_steps`"
            raise ValueError(msg)
        return self


class TrainConfig(Section):
    """Length and manner of a training run."""

    epochs: Steps | None = setting(None, "Length of the run; give this or `steps`.", unit="epochs")
    steps: Steps | None = setting(None, "Length of the run; give this or `epochs`.", unit="steps")
    batch_size: BatchSize = setting(
        16, "Images of a step of the optimizer, of all processes together.", unit="images"
    )
    accumulate: BatchSize = setting(
        1,
        "Take them in so many micro-batches, one after the other, to save memory.",
        unit="micro-batches",
    )
    ema: EMAConfig | None = setting(None, "Keep a moving average of the weights; null: none.")
    early_stopping: EarlyStoppingConfig | None = setting(
        None, "End the run when AP does not rise any more; null: never."
    )
    freeze: FreezeConfig | None = setting(
        None, "Keep the backbone as it is at first; null: train it from the start."
    )
    amp: Amp = setting("off", "Mixed precision: the type of the forward pass's products.")
    eval_every_epochs: Steps = setting(
        1, "How often the validation data are evaluated; always at the end.", unit="epochs"
    )
    log_every_steps: Steps = setting(
        20, "How often losses are written to metrics.jsonl.", unit="steps"
    )
    log_parts: bool = setting(
        False,
        "Also log gradient norm, relative step and clipping of backbone, FPN, DyHead, its offsets, "
        "its scale and the heads, and draw them; takes a copy of the weights.",
    )
    trackers: Annotated[tuple[TrackerName, ...], Field(max_length=10)] = setting(
        (),
        "Also send what metrics.jsonl holds to tensorboard, wandb or mlflow, which are extras.",
    )
    save_every_epochs: Steps | None = setting(
        1,
        "When `last.pt` is written besides before and after every evaluation; null: not by epochs.",
        unit="epochs",
    )
    save_every_steps: Steps | None = setting(
        None, "The same in steps; null: not by steps.", unit="steps"
    )
    save_every_minutes: Positive | None = setting(
        10.0, "The same in minutes; null: not by time.", unit="min"
    )
    keep_every_epochs: Steps | None = setting(
        None,
        "Also keep the checkpoint of every K-th epoch as `epoch_<number>.pt`; null: none.",
        unit="epochs",
    )

    @model_validator(mode="after")
    def _one_length(self) -> "TrainConfig":
        if (self.epochs is None) == (self.steps is None):
            msg = "give the length of the run as either `epochs` or `steps`"
            raise ValueError(msg)
        if self.accumulate > self.batch_size:
            msg = (
                f"accumulate: at most one micro-batch per image of `batch_size`, {self.batch_size}"
            )
            raise ValueError(msg)
        return self


class EvalConfig(Section):
    """How detections are scored."""

    backend: Literal["auto", "pycocotools", "faster-coco-eval"] = setting(
        "auto", "Who computes COCO's numbers: the faster one that is installed, or the one named."
    )
    batch_size: Annotated[int, Field(ge=1, le=4096)] = setting(
        4, "Images that go through the detector together.", unit="images"
    )
    max_detections: Annotated[int, Field(gt=10, le=10**6)] = setting(
        100,
        "Detections of an image and class that AP counts, best first. 100 is COCO's own; with "
        "another number the metric AR100 is called after it. More than the detector's "
        "detections_per_img changes nothing.",
        unit="boxes",
    )


class RuntimeConfig(Section):
    """How fast it runs: nothing here changes what is computed, but for the last digits."""

    channels_last: bool = setting(
        True, "Backbones run 1.1 to 1.4 times faster with it on a CPU, and on tensor cores."
    )
    tf32: bool = setting(
        True, "Float32 products on tensor cores with ten bits of mantissa; CUDA only."
    )
    cudnn_benchmark: bool = setting(
        False, "Try cuDNN's algorithms for every new size; only for images of few sizes."
    )
    deterministic: bool = setting(
        False, "Equal bits on CUDA too, slower; on a CPU they are equal anyway."
    )
    compile: bool = setting(
        False,
        "Compile backbone, FPN and DyHead's blocks by torch.compile in training, but not the fast "
        "DyHead, which is slower compiled; the first step takes minutes.",
    )
