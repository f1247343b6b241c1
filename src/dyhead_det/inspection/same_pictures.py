"""Which images show the same: equal files, and pictures alike after scaling or compression.

Near duplicates are found by a perceptual hash (pHash: the signs of the lowest frequencies) and told
from mere resemblance by comparing small copies in color. Every image is compared with the ones
beside it in a few orders of the hashes, so the time grows with the number of images, not with its
square.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dyhead_det.data.stores.store import ImageFile, open_image

_SIDE, _FREQUENCIES = 32, 8  # of the gray copy that is hashed, along each axis
_COPY_SIDE = 16  # of the copy in color
_NUM_ORDERS, _NUM_BESIDE = 8, 32
_BLOCK = 2**20  # bytes of a file that are read at once
_AT_ONCE = 4096  # pairs whose copies are compared
# Of 64 bits. The worst of JPEG at quality 50, half the size and 15 % more light change 10.
_MOST_DIFFERENT_BITS = 10
# Correlation of the copies: 0.96 or more for the same picture so changed, 0.955 or less for any two
# of 1500 drawn pictures and photographs that are not.
_LEAST_ALIKE = 0.96
_LEAST_CONTRAST = 2.0  # gray levels; a flat picture resembles every other one

_COSINES = np.cos(
    np.pi * np.outer(np.arange(_FREQUENCIES), 2 * np.arange(_SIDE) + 1) / (2 * _SIDE)
)  # (8, 32), a discrete cosine transform
_NUM_BITS = np.array([number.bit_count() for number in range(256)], dtype=np.uint8)


class Fingerprint(NamedTuple):
    """What images are compared by.

    digest: of the file's bytes; hash: (64,) bits; copy: (768,) bytes, 16 x 16 pixels in color.
    """

    digest: bytes
    hash: NDArray[np.bool_]
    copy: NDArray[np.uint8]


def fingerprint(file: ImageFile, image: Tensor) -> Fingerprint:
    """Return what an image file is compared by.

    Args:
        file: the file.
        image: what was read from it, (3, H, W) uint8, at any scale.

    Raises:
        OSError: if the file cannot be read.
    """
    checksum = hashlib.blake2b(digest_size=16)
    with open_image(file) as opened:
        while block := opened.read(_BLOCK):
            checksum.update(block)
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    gray = picture.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    frequencies = (_COSINES @ np.asarray(gray, dtype=np.float64) @ _COSINES.T).ravel()
    bits = frequencies > np.median(frequencies[1:])
    bits[0] = False  # the brightness
    copy = picture.resize((_COPY_SIDE, _COPY_SIDE), Image.Resampling.BOX)
    return Fingerprint(checksum.digest(), bits, np.asarray(copy).ravel())


def equal_files(fingerprints: Sequence[Fingerprint]) -> list[list[int]]:
    """Return groups of two or more images whose files have the same bytes, by position."""
    groups: dict[bytes, list[int]] = {}
    for position, each in enumerate(fingerprints):
        groups.setdefault(each.digest, []).append(position)
    return [group for group in groups.values() if len(group) > 1]


def near_duplicates(fingerprints: Sequence[Fingerprint]) -> list[list[int]]:
    """Return groups of two or more images that show the same in files that differ, by position.

    Of equal files only the first one is in a group, and flat pictures are in none. An image is in
    the group of any that it is alike to, so the first and the last of a series may be unlike.
    """
    first_of_digest = {each.digest: i for i, each in reversed(list(enumerate(fingerprints)))}
    positions = [
        i for i in sorted(first_of_digest.values()) if fingerprints[i].copy.std() >= _LEAST_CONTRAST
    ]
    if len(positions) < 2:
        return []
    hashes = np.packbits([fingerprints[i].hash for i in positions], axis=1)  # (N, 8) bytes
    copies = np.stack([fingerprints[i].copy for i in positions])  # (N, 768)
    groups = _joined(_alike(hashes, copies))
    return [[positions[row] for row in group] for group in groups]


def _alike(hashes: NDArray[np.uint8], copies: NDArray[np.uint8]) -> Iterable[tuple[int, int]]:
    """Yield pairs of rows that are alike, some of them twice.

    Two hashes that differ in a few bits stand beside each other in most of the orders that begin
    at different bytes.
    """
    for start in range(_NUM_ORDERS):
        order = np.lexsort(np.roll(hashes, -start, axis=1).T[::-1])
        for shift in range(1, min(_NUM_BESIDE + 1, len(order))):
            one, other = order[:-shift], order[shift:]
            distance = _NUM_BITS[hashes[one] ^ hashes[other]].sum(axis=1)
            near = np.flatnonzero(distance <= _MOST_DIFFERENT_BITS)
            for some in np.split(near, range(_AT_ONCE, len(near), _AT_ONCE)):
                is_alike = _correlations(copies[one[some]], copies[other[some]]) >= _LEAST_ALIKE
                pairs = one[some[is_alike]].tolist(), other[some[is_alike]].tolist()
                yield from zip(*pairs, strict=True)


def _correlations(ones: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.floating[Any]]:
    """Return how alike the copies (N, 768) in each row are, (N,)."""
    centered = [
        copies - copies.mean(axis=1, keepdims=True, dtype=np.float32) for copies in (ones, others)
    ]
    contrasts = [copies.std(axis=1) for copies in centered]
    products = (centered[0] * centered[1]).mean(axis=1)
    return np.asarray(products / (contrasts[0] * contrasts[1]))


def _joined(pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Return the groups that pairs make, each in order."""
    group_of: dict[int, list[int]] = {}
    for one, other in pairs:
        ours, theirs = group_of.setdefault(one, [one]), group_of.setdefault(other, [other])
        if ours is not theirs:
            small, large = sorted((ours, theirs), key=len)
            large += small
            group_of.update(dict.fromkeys(small, large))
    groups = {id(group): sorted(group) for group in group_of.values()}
    return sorted(groups.values())
