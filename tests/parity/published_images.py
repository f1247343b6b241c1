"""What the published models do to images, written down from their description.

Part of `published_reference.py`.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image


def resize_shortest_edge(image, short_edge, long_edge):
    """image: (H, W, 3) uint8."""
    height, width = image.shape[:2]
    scale = short_edge / min(height, width)
    new_height, new_width = height * scale, width * scale
    if max(new_height, new_width) > long_edge:
        again = long_edge / max(new_height, new_width)
        new_height, new_width = new_height * again, new_width * again
    size = (int(new_width + 0.5), int(new_height + 0.5))
    return np.array(Image.fromarray(image).resize(size, Image.BILINEAR))


def normalize(image, mean, std):
    x = torch.from_numpy(image.copy()).permute(2, 0, 1).float()
    return (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def pad_batch(images, multiple):
    height = max(x.shape[1] for x in images)
    width = max(x.shape[2] for x in images)
    height = math.ceil(height / multiple) * multiple
    width = math.ceil(width / multiple) * multiple
    return torch.stack([F.pad(x, (0, width - x.shape[2], 0, height - x.shape[1])) for x in images])


def resize_pil(image, size_hw):
    """Pillow's filter along the rows, then along the columns: what one call is before Pillow 13."""
    (height, width), picture = size_hw, Image.fromarray(image)
    along_rows = picture.resize((width, picture.height), Image.BILINEAR)
    return np.array(along_rows.resize((width, height), Image.BILINEAR))


def resize_cv2(image, size_hw):
    """OpenCV's INTER_LINEAR for 8-bit pixels, pixel by pixel."""
    height, width = image.shape[:2]

    def taps(old, new):
        result = []
        for index in range(new):
            place = np.float32((index + 0.5) * (1 / (new / old)) - 0.5)
            first = int(np.floor(place))
            fraction = np.float32(place - first)
            weights = [int(np.rint((np.float32(1) - fraction) * np.float32(2048)))]
            weights.append(int(np.rint(fraction * np.float32(2048))))
            # A neighbor outside is the pixel at the border, its weight stays.
            result.append((max(first, 0), min(first + 1, old - 1), *weights))
        return result

    source = image.astype(np.int64)
    columns = taps(width, size_hw[1])
    out = np.empty((*size_hw, 3), np.uint8)
    for y, (top, bottom, b0, b1) in enumerate(taps(height, size_hw[0])):
        for x, (left, right, a0, a1) in enumerate(columns):
            upper = source[top, left] * a0 + source[top, right] * a1
            lower = source[bottom, left] * a0 + source[bottom, right] * a1
            out[y, x] = (((b0 * (upper >> 4)) >> 16) + ((b1 * (lower >> 4)) >> 16) + 2) >> 2
    return out
