"""Downloads: resumed where they broke off, checked by hash, whole or not there at all."""

import hashlib
import http.client
import logging
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import torch
from tqdm import tqdm

from dyhead_det.checkpoints.recognize import beginning_looks_like
from dyhead_det.errors import CheckpointError
from dyhead_det.files import DISK_FULL, require_writable

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20
_TIMEOUT_SECONDS = 60
_HTTP_PARTIAL = 206
_HTTP_RANGE_NOT_SATISFIABLE = 416


def weights_folder() -> Path:
    """Return the folder where torch.hub keeps weights."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def download(url: str, folder: Path, *, sha256_prefix: str | None) -> Path:
    """Fetch a file, unless it is there; go on with a part that an earlier try left.

    Args:
        url: What to fetch.
        folder: Where to put it, under its own name; made if it is missing.
        sha256_prefix: What its SHA-256 begins with; None where nobody published it.

    Returns:
        The file.

    Raises:
        CheckpointError: If it cannot be fetched, or is another file than it should be.
        ConfigError: If nothing can be written to the folder.
        OSError: If the disk is full; the part that fits stays there.
    """
    path = folder / url.rpartition("/")[2]
    if path.exists():
        _check_hash(path, sha256_prefix, url=url)
        return path
    require_writable(folder, option="--folder")
    part = path.with_name(f"{path.name}.part")
    try:
        _fetch(url, part)
    except (URLError, OSError, http.client.HTTPException) as error:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise OSError(error.errno, error.strerror, str(part)) from error
        raise CheckpointError(
            f"cannot download {url}: {error}; run the command again to go on where it broke off, "
            f"or fetch the file elsewhere and put it at {path}"
        ) from error
    _check_hash(part, sha256_prefix, url=url)
    part.replace(path)
    return path


def _fetch(url: str, part: Path) -> None:
    """Append what is missing to a part, or start anew where the server cannot go on.

    Raises:
        OSError: If the connection fails or ends early.
    """
    start = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "dyhead-det"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        response = urlopen(Request(url, headers=headers), timeout=_TIMEOUT_SECONDS)
    except HTTPError as error:
        if error.code != _HTTP_RANGE_NOT_SATISFIABLE:
            raise
        part.unlink()  # longer than the file: not a part of it
        _fetch(url, part)
        return
    with response:
        if response.status != _HTTP_PARTIAL:
            start = 0
        length = response.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        with (
            part.open("ab" if start else "wb") as file,
            tqdm(
                total=total, initial=start, unit="B", unit_scale=True, desc=part.stem, disable=None
            ) as bar,
        ):
            while chunk := response.read(_CHUNK_BYTES):
                file.write(chunk)
                bar.update(len(chunk))
    size = part.stat().st_size
    if total is not None and size < total:
        raise OSError(f"the connection ended after {size} of {total} bytes")


def _check_hash(path: Path, sha256_prefix: str | None, *, url: str) -> None:
    """Compare a file with what was published; a wrong one is removed."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        kind = beginning_looks_like(file.read(64))
    if kind is not None:  # as a proxy or a moved site answers
        path.unlink()
        raise CheckpointError(
            f"{url}: no file of weights; it looks like {kind}; it was removed, fetch the weights "
            f"elsewhere and put them into {path.parent}"
        )
    if sha256_prefix is None:
        logger.info("%s: no hash was published for it; its sha256 is %s", path.name, found)
    elif not found.startswith(sha256_prefix):
        path.unlink()
        raise CheckpointError(
            f"{url}: another file than was published: its sha256 should begin with "
            f"{sha256_prefix}, it is {found}; it was removed, run the command again"
        )
