"""The public DyHead checkpoints that can be imported: what they are and where they lie."""

from dataclasses import dataclass

from dyhead_det.config.schema import did_you_mean
from dyhead_det.errors import ConfigError
from dyhead_det.tables import text_table


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """One file of weights.

    name: What the command line calls it.
    detector: In words.
    box_ap: COCO val2017, in percent, as its publisher states it.
    page: Where it was published.
    url: The file, as linked there.
    sha256_prefix: The first digits of the file's SHA-256 as the publisher gives them (in the
        file's name), or None where none were published.
    """

    name: str
    detector: str
    box_ap: float
    page: str
    url: str
    sha256_prefix: str | None

    @property
    def file_name(self) -> str:
        """The file's own name."""
        return self.url.rpartition("/")[2]


_AUTHORS_PAGE = "https://github.com/microsoft/DynamicHead"
_AUTHORS_FILES = "https://xiyang.blob.core.windows.net/public/"
_MMDET_PAGE = "https://github.com/open-mmlab/mmdetection/tree/main/configs/dyhead"
_MMDET_R50_FILES = "https://github.com/shinya7y/weights/releases/download/v1.0.0/"
_MMDET_FILES = "https://download.openmmlab.com/mmdetection/v2.0/dyhead/"
_SWIN_L = "atss_swin-l-p4-w12_fpn_dyhead_mstrain_2x_coco"

PUBLISHED_MODELS = (
    PublishedModel(
        "dyhead_r50_rcnn_fpn_1x",
        "Faster R-CNN, ResNet-50, 1x",
        40.3,
        _AUTHORS_PAGE,
        f"{_AUTHORS_FILES}dyhead_r50_rcnn_fpn_1x.pth",
        None,
    ),
    PublishedModel(
        "dyhead_r50_retina_fpn_1x",
        "RetinaNet, ResNet-50, 1x",
        39.9,
        _AUTHORS_PAGE,
        f"{_AUTHORS_FILES}dyhead_r50_retina_fpn_1x.pth",
        None,
    ),
    PublishedModel(
        "dyhead_r50_atss_fpn_1x",
        "ATSS, ResNet-50, 1x",
        42.4,
        _AUTHORS_PAGE,
        f"{_AUTHORS_FILES}dyhead_r50_atss_fpn_1x.pth",
        None,
    ),
    PublishedModel(
        "dyhead_swint_atss_fpn_2x_ms",
        "ATSS, Swin-T, 2x, multi-scale",
        49.8,
        _AUTHORS_PAGE,
        f"{_AUTHORS_FILES}dyhead_swint_atss_fpn_2x_ms.pth",
        None,
    ),
    PublishedModel(
        "mmdet_atss_r50",
        "ATSS, ResNet-50, 1x",
        43.3,
        _MMDET_PAGE,
        f"{_MMDET_R50_FILES}atss_r50_fpn_dyhead_4x4_1x_coco_20211219_023314-eaa620c6.pth",
        "eaa620c6",
    ),
    PublishedModel(
        "mmdet_atss_r50_caffe",
        "ATSS, ResNet-50 (caffe), 1x",
        42.5,
        _MMDET_PAGE,
        f"{_MMDET_R50_FILES}atss_r50_fpn_dyhead_for_reproduction_4x4_1x_coco_20220107_213939"
        "-162888e6.pth",
        "162888e6",
    ),
    PublishedModel(
        "mmdet_atss_swin_l",
        "ATSS, Swin-L, 2x, multi-scale",
        56.2,
        _MMDET_PAGE,
        f"{_MMDET_FILES}{_SWIN_L}/{_SWIN_L}_20220509_100315-bc5b6516.pth",
        "bc5b6516",
    ),
)


def find_published(name: str) -> PublishedModel:
    """Return the model of a name.

    Raises:
        ConfigError: If there is none.
    """
    for model in PUBLISHED_MODELS:
        if model.name == name:
            return model
    names = [model.name for model in PUBLISHED_MODELS]
    raise ConfigError(
        f"no published model {name!r}; {did_you_mean(name, names)}known: {', '.join(names)}"
    )


def describe_published() -> str:
    """Return a table of all models for a person."""
    return text_table(
        ("name", "detector", "box AP", "sha256", "published at"),
        [
            (m.name, m.detector, m.box_ap, m.sha256_prefix or "none given", m.page)
            for m in PUBLISHED_MODELS
        ],
    )
