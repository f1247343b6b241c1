"""The conventions under which published weights were trained, where torchvision's differ.

`model.compat` chooses them: `detectron2` for the authors' four models, `mmdet` for mmdetection's.
A wrong one costs boxes without any error. Each has its place:

| convention | place |
|---|---|
| pixels are resized as integers, sizes rounded half up, then normalized | `transform.py` |
| boxes are clipped to the image that was given, and empty ones dropped | `transform.py` |
| anchors are not rounded, and come size by size | `anchors.py` |
| proposals: by logit, clipped without padding, only empty ones dropped | `fasterrcnn.py` |
| regions: aligned pooling, adaptive samples, levels | `fasterrcnn.py` |
| no removal of small boxes | `fasterrcnn.py` |
| RetinaNet: no clipping before the non-maximum suppression | `retinanet.py` |
| mmdetection: boxes shrink by no more than they may grow | `box_coder.py` |
| rounding of frozen batch norms; mmdetection's P7 | `layers.py` |
| Swin's windows are shifted on small maps too | `../backbones/swin.py` |

The rest follows from ordinary options: the stride in the 1x1 convolution
(`model.backbone.stride_in_1x1`), the offsets of the coarser level (`model.dyhead.coarse_offsets`),
anchor sizes, thresholds, ATSS's options, and the padding, which is the coarsest level's stride
(with less, P6 and P7 have other sizes, and every feature changes by way of the global poolings).
The builder of a detector chooses between these classes and torchvision's by `compat`.
"""
