"""Preparing a data set for TFDS: from published files or a folder, without TensorFlow.

What comes out is what TFDS itself would have written, and either all of it or nothing.
"""

import contextlib
import errno
import hashlib
import importlib.util
import io
import os
import shutil
import sys
import urllib.error
import urllib.request
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from kdjax.data.folder_builder import folder_builder
from kdjax.data.official import OFFICIAL, Official, builder_like
from kdjax.data.published import Splits
from kdjax.data.tfds_set import alone
from kdjax.progress import tracked

ANSWER_SECONDS = 10
"""How long a server may take to answer at all; TFDS would go on trying for minutes."""
FULL = tuple(map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)))
"""What the system says of a full disk; the writer of records hands on its words, not its number."""


def prepare(
    name: str, source: Path | None = None, directory: str | None = None, title: str | None = None
) -> Any:
    """The builder of a data set that is prepared afterwards, if it was not before.

    `source` holds its published files, as archives or extracted; None: where TFDS downloads to, or
    the network. `title` is what a folder of images shall be called. ValueError for what a user
    can mend.
    """
    if source is not None and not source.is_dir():
        raise ValueError(f"--from: {source} is no directory.")
    builder = _builder(name, source, directory, title)
    if builder.is_prepared():
        return builder
    folder = Path(builder.data_path).parent
    with alone(folder, f"another process prepares {name} in {folder}; waiting for it"):
        builder = _builder(name, source, directory, title)
        if not builder.is_prepared():
            for left in folder.glob(f"incomplete.*_{Path(builder.data_path).name}"):
                shutil.rmtree(left)  # by one that was killed
            _write(builder, source)
    return builder


def _builder(name: str, source: Path | None, directory: str | None, title: str | None) -> Any:
    if name.startswith("folder:"):
        if not title:
            raise ValueError("--name: a folder needs a name as a data set, such as --name flowers.")
        return folder_builder(name, title)(data_dir=directory, file_format="array_record")
    kind, _, config = name.removeprefix("tfds:").partition("/")
    if kind not in OFFICIAL:
        return _stock_builder(name.removeprefix("tfds:"), directory)

    def splits(builder: Any, manager: Any) -> Splits:
        official = OFFICIAL[kind]
        folder = official.folder(source, builder) if source else None
        found = official.splits(folder or _archives(official, builder, manager, source), builder)
        return {split: tracked(x, None, f"{name} {split}") for split, x in found.items()}

    cls: Any = builder_like(kind, splits)
    if config and config not in cls.builder_configs:
        known = ", ".join(f"{kind}/{x}" for x in cls.builder_configs) or kind
        raise ValueError(f"{name}: TFDS knows {known}.")
    return cls(data_dir=directory, file_format="array_record", config=config or None)


def _stock_builder(name: str, directory: str | None) -> Any:
    """Any other builder of TFDS."""
    try:
        builder = tfds.builder(name, data_dir=directory, file_format="array_record", try_gcs=False)
    except tfds.core.DatasetNotFoundError as error:
        raise ValueError(f"{name}: TFDS knows no such data set.") from error
    if importlib.util.find_spec("tensorflow") is None and not builder.is_prepared():
        raise ValueError(
            f"{name}: only {', '.join(OFFICIAL)} and folders are prepared without TensorFlow; "
            "pip install 'kdjax[tf]'."
        )
    return builder


def _archives(
    official: Official, builder: Any, manager: Any, source: Path | None
) -> Sequence[Path]:
    """The archives, verified: from `source`, or as TFDS finds or downloads them."""
    urls = official.urls(builder)
    infos = [builder.url_infos[url] for url in urls]
    if source is not None:
        for info in infos:
            _verify(source / info.filename, info)
    elif not all(_downloaded(builder, info) for info in infos):
        megabytes = sum(info.size for info in infos) / 1e6
        print(f"downloading {megabytes:,.0f} MB from {urls[0]}", file=sys.stderr, flush=True)
        _reach(urls[0], ", ".join(info.filename for info in infos))
    return [Path(path) for path in manager.download(urls)]  # those of `source`, if it has them


def _verify(path: Path, info: Any) -> None:
    """ValueError unless the file is the published one."""
    if not path.is_file():
        raise ValueError(
            f"--from: {path.parent} has neither {path.name} nor what is in it, extracted."
        )
    size = path.stat().st_size
    if size != info.size:
        short = "truncated" if size < info.size else "another file"
        raise ValueError(f"{path} is {short}: it has {size:,} bytes, not {info.size:,}.")
    with path.open("rb") as file:
        same = hashlib.file_digest(file, "sha256").hexdigest() == info.checksum
    if not same:
        raise ValueError(f"{path} is damaged, or another file: its SHA-256 is not {info.checksum}.")


def _downloaded(builder: Any, info: Any) -> bool:
    """Whether TFDS will find the archive among its downloads, under its name or its digest."""
    root = Path(builder._data_dir_root) / "downloads"
    digest = urlsafe_b64encode(bytes.fromhex(info.checksum)).decode().rstrip("=")
    return (root / "manual" / info.filename).is_file() or any(root.rglob(f"*{digest}*.INFO"))


def _reach(url: str, files: str) -> None:
    """ValueError if the server does not answer."""
    request = urllib.request.Request(url, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=ANSWER_SECONDS).close()
    except urllib.error.HTTPError:
        return  # it answers
    except OSError as error:
        raise ValueError(
            f"{url} cannot be reached. Fetch {files} on another machine, and say --from DIR."
        ) from error


def _write(builder: Any, source: Path | None) -> None:
    tfds.disable_progress_bar()
    config = tfds.download.DownloadConfig(manual_dir=source)
    where = Path(builder.data_path).parent
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS announces on stdout what it does
            builder.download_and_prepare(download_config=config)
    except (OSError, RuntimeError) as error:
        if not any(words in str(error) for words in FULL):
            raise
        raise ValueError(
            f"{builder.name}: no space left in {where}; nothing was kept. Make room, or choose "
            "another --directory."
        ) from error
