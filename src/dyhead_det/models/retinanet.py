"""RetinaNet: torchvision's, or detectron2's variant of it."""

from torchvision.models.detection import RetinaNet
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from dyhead_det.config.schema import Compat, RetinaNetConfig
from dyhead_det.models.anchors import build_anchor_generator
from dyhead_det.models.backbones.pyramid import P3_TO_P7, DyHeadBackbone, Levels
from dyhead_det.models.compat.retinanet import Detectron2RetinaNet
from dyhead_det.models.detector_spec import DetectorSpec
from dyhead_det.models.full_precision import return_full_precision


def build_retinanet(
    config: RetinaNetConfig,
    *,
    backbone: DyHeadBackbone,
    levels: Levels,
    transform: GeneralizedRCNNTransform,
    num_classes: int,
    compat: Compat,
) -> RetinaNet:
    """Build the model; see `BuildModel` for the arguments."""
    del levels  # anchors take their distance from the sizes of the maps
    retinanet = RetinaNet if compat == "none" else Detectron2RetinaNet
    model = retinanet(
        backbone,
        num_classes,
        anchor_generator=build_anchor_generator(
            config.anchor_sizes, config.anchor_ratios, compat=compat
        ),
        score_thresh=config.score_thresh,
        nms_thresh=config.nms_thresh,
        detections_per_img=config.detections_per_img,
        fg_iou_thresh=config.fg_iou_thresh,
        bg_iou_thresh=config.bg_iou_thresh,
        topk_candidates=config.topk_candidates,
    )
    model.transform = transform
    return_full_precision(model.head)
    return model


RETINANET_SPEC = DetectorSpec(
    name="retinanet",
    levels=P3_TO_P7,
    first_label=0,
    build=build_retinanet,
    class_layers={"head.classification_head.cls_logits": 1},
)
