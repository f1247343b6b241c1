"""`model.weights: NAME`: published weights by name, downloaded and imported once, then at hand."""

import logging
from pathlib import Path

import torchvision

from dyhead_det.config.model import is_weight_name
from dyhead_det.config.schema import did_you_mean
from dyhead_det.errors import CheckpointError, ConfigError
from dyhead_det.pretrained.catalogue import PUBLISHED_MODELS, PublishedModel
from dyhead_det.pretrained.download import download, weights_folder
from dyhead_det.pretrained.importing import import_weights

logger = logging.getLogger(__name__)

_DETECTION = torchvision.models.detection

# Training starts from these files as they are.
TORCHVISION_WEIGHTS = {
    "fasterrcnn_resnet50_fpn_coco": _DETECTION.FasterRCNN_ResNet50_FPN_Weights.COCO_V1,
    "retinanet_resnet50_fpn_coco": _DETECTION.RetinaNet_ResNet50_FPN_Weights.COCO_V1,
    "fcos_resnet50_fpn_coco": _DETECTION.FCOS_ResNet50_FPN_Weights.COCO_V1,
}


def find_weights(weights: str) -> Path:
    """Return the file that `model.weights` means: a path as it is, a name's file once it is here.

    A DyHead model is imported into torch.hub's folder, as <name>.pt beside what was downloaded.

    Raises:
        ConfigError: If it is neither a file nor a known name.
        CheckpointError: If a name's file cannot be downloaded or imported.
    """
    published = {model.name: model for model in PUBLISHED_MODELS}
    if not is_weight_name(weights):
        return Path(weights)
    try:
        if weights in published:
            return _imported(published[weights])
        if weights in TORCHVISION_WEIGHTS:
            return _downloaded(TORCHVISION_WEIGHTS[weights].url)
    except CheckpointError as error:
        raise CheckpointError(
            f"model.weights: {error}{_by_hand(published.get(weights))}"
        ) from error
    names = [*published, *TORCHVISION_WEIGHTS]
    raise ConfigError(
        f"model.weights: no file and no published weights {weights!r}; "
        f"{did_you_mean(weights, names)}known: {', '.join(names)}"
    )


def _imported(model: PublishedModel) -> Path:
    """Return the checkpoint of a published DyHead model."""
    checkpoint = weights_folder() / f"{model.name}.pt"
    if not checkpoint.exists():
        source = download(model.url, weights_folder(), sha256_prefix=model.sha256_prefix)
        logger.info("%s: importing %s", model.name, source)
        import_weights(source, checkpoint, format="auto")
    return checkpoint


def _downloaded(url: str) -> Path:
    """Return torchvision's file, whose name ends in the first digits of its SHA-256."""
    digits = url.removesuffix(".pth").rpartition("-")[2]
    return download(url, weights_folder(), sha256_prefix=digits)


def _by_hand(model: PublishedModel | None) -> str:
    """Say how to do without a network what could not be done with one."""
    if model is None:
        return ""
    return (
        f"; where there is a network: `dyhead-det weights download {model.name}`, then here "
        f"`dyhead-det weights import FILE {model.name}.pt` and model.weights={model.name}.pt"
    )
