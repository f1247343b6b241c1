"""Advice for runs that wait for their data: workers, image size, augmentation."""

# Up to here there is no advice.
TOLERABLE_SHARE = 0.2
# Decoding takes time by the pixel: from here on smaller files would help much.
_MUCH_LARGER = 4.0


def loading_advice(
    *, share: float, num_workers: int, num_cores: int, pixel_ratio: float, is_photometric: bool
) -> str | None:
    """Return in one line how much of the training time goes in waiting for data, and what helps.

    Args:
        share: of waiting in the time of training; with CUDA at most so much could be gained, since
            the GPU may still compute while the program waits.
        num_workers: processes that read images now, 0 for none besides the training itself.
        num_cores: cores that this process may use.
        pixel_ratio: pixels of a usual image by pixels of what the detector resizes it to.
        is_photometric: colors are changed at random.

    Returns:
        The advice, None where the share is tolerable.
    """
    if share <= TOLERABLE_SHARE:
        return None
    remedies = []
    if num_workers < num_cores - 1:
        remedies.append(f"raise data.num_workers from {num_workers} to {num_cores - 1}")
    elif num_workers == 0:
        remedies.append("set data.num_workers to 1")
    if pixel_ratio > _MUCH_LARGER:
        remedies.append(
            f"store the images smaller, they have {pixel_ratio:.0f} times the pixels that the "
            "detector sees"
        )
    if is_photometric:
        remedies.append("set data.augment.photometric to false")
    if not remedies:
        remedies.append("move the images to a faster disk, or use a machine with more CPU cores")
    return f"waiting for data takes {share:.0%} of the training time: {'; or '.join(remedies)}"
