"""The configuration files of the published models are what the importers write."""

from pathlib import Path

import published_checkpoints as checkpoints
import pytest
import torch

from dyhead_det.config.file import load_config
from dyhead_det.config.schema import to_plain
from dyhead_det.pretrained import detectron2, mmdet
from dyhead_det.pretrained.catalogue import PUBLISHED_MODELS
from dyhead_det.pretrained.importing import published_run

CONFIGS = Path(__file__).parents[2] / "configs" / "published"

KEYS = {
    "dyhead_r50_rcnn_fpn_1x": lambda: checkpoints.authors_keys("fasterrcnn"),
    "dyhead_r50_retina_fpn_1x": lambda: checkpoints.authors_keys("retinanet"),
    "dyhead_r50_atss_fpn_1x": lambda: checkpoints.authors_keys("atss"),
    "dyhead_swint_atss_fpn_2x_ms": lambda: checkpoints.authors_keys("atss_swin_t"),
    "mmdet_atss_r50": lambda: checkpoints.mmdet_keys("r50"),
    "mmdet_atss_r50_caffe": lambda: checkpoints.mmdet_keys("r50_caffe"),
    "mmdet_atss_swin_l": lambda: checkpoints.mmdet_keys("swin_l"),
}


@pytest.mark.parametrize("model", PUBLISHED_MODELS, ids=lambda model: model.name)
def test_the_file_is_what_the_importer_writes(model):
    path = CONFIGS / f"{model.name}.yaml"
    tensors = {
        name: torch.empty(shape, device="meta") for name, shape in KEYS[model.name]().items()
    }
    importer = mmdet if model.name.startswith("mmdet") else detectron2
    config, _ = importer.describe_model(tensors, source=model.name)
    written, shipped = to_plain(published_run(config)), to_plain(load_config(path))
    assert Path(shipped["data"].pop("root")).name == written["data"].pop("root")
    assert shipped == written
    assert f"AP {model.box_ap} on COCO val2017" in path.read_text()
    assert model.page in path.read_text()


@pytest.mark.parametrize(
    "path", sorted(CONFIGS.parent.glob("finetune_*.yaml")), ids=lambda p: p.stem
)
def test_what_is_fine_tuned_is_the_model_that_the_weights_are_for(path):
    config = to_plain(load_config(path).model)
    weights = config.pop("weights")
    if weights == "fasterrcnn_resnet50_fpn_coco":  # torchvision's, with a DyHead of our own
        plain = to_plain(load_config(CONFIGS.parent / "fasterrcnn_r50.yaml").model)
        ours = {key: config[key] for key in ("compat", "channels")}
        assert ours == {key: plain[key] for key in ours}
        assert config["detector"]["anchor_sizes"] == plain["detector"]["anchor_sizes"]
        return
    published = to_plain(load_config(CONFIGS / f"{weights}.yaml").model)
    for model in (config, published):
        del model["backbone"]["weights"]  # the published file waits for model.weights
    assert config == {key: value for key, value in published.items() if key != "weights"}
