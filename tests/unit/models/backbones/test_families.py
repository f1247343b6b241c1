"""One table of backbones: the configuration's names and torchvision's classifiers agree with it."""

import torch
import torchvision
from torchvision.models.resnet import Bottleneck

from dyhead_det.config.schema import BACKBONE_NAMES, BOTTLENECK_BACKBONE_NAMES
from dyhead_det.models.backbones.families import BACKBONES
from dyhead_det.models.backbones.swin import SWIN_SHAPES


def test_the_configuration_has_the_names_of_the_table():
    assert tuple(BACKBONES) == BACKBONE_NAMES
    with_bottlenecks = [name for name, family in BACKBONES.items() if family.has_bottlenecks]
    assert tuple(with_bottlenecks) == BOTTLENECK_BACKBONE_NAMES
    assert [name for name, family in BACKBONES.items() if not family.stage_ends] == [*SWIN_SHAPES]


def test_ends_prefixes_and_bottlenecks_are_those_of_torchvisions_classifiers():
    """Behind the last end there is only what the prefixes name."""
    for name, family in BACKBONES.items():
        if name in SWIN_SHAPES:
            continue
        with torch.device("meta"):
            classifier = torchvision.models.get_model(name, weights=None)
        names = list(classifier.state_dict())
        last = max(i for i, key in enumerate(names) if key.startswith(f"{family.stage_ends[-1]}."))
        assert names[last + 1 :], name
        assert all(key.startswith(family.classifier_prefixes) for key in names[last + 1 :]), name
        bottlenecks = any(isinstance(module, Bottleneck) for module in classifier.modules())
        assert bottlenecks == family.has_bottlenecks, name
