"""Raw layouts: one file per layout, all listed in `READERS`."""

from dataclasses import replace
from typing import Final

from poselib.errors import InputError
from shards.readers import h36m_eth, h36m_kf, h36m_mks0601, human36m, mpii, mpii_hrnet, voc
from shards.readers.h36m_stills import check_pinhole
from shards.readers.mpii_index import MPII_INDEX
from shards.readers.stills_index import stills_index
from shards.settings import BuildSettings
from shards.source import Reader

READERS: Final[dict[str, Reader]] = {
    "h36m": human36m.READER,
    "h36m_mks0601": replace(h36m_mks0601.READER, index=stills_index("annotations/*.json")),
    "h36m_eth": replace(h36m_eth.READER, index=stills_index("annot/*.pkl")),
    "h36m_kf": replace(h36m_kf.READER, index=stills_index(h36m_kf.LABELS, f"extra/{h36m_kf.LABELS}")),
    "mpii": replace(mpii.READER, index=MPII_INDEX),
    "mpii_hrnet": replace(mpii_hrnet.READER, index=MPII_INDEX),
    "voc": voc.READER,
}
"""In the order in which a folder is tried; a folder that holds several layouts is read as the first."""

PINHOLE_ONLY: Final = {"h36m_mks0601": "mks0601", "h36m_eth": "ETH"}
"""Layouts that store no distortion, by their names for messages."""


def find_reader(settings: BuildSettings) -> tuple[str, Reader]:
    """The layout's name and its reader for `settings.raw`.

    Raises:
        InputError: the folder is missing, holds nothing that was asked for, or cannot meet the lens setting.
    """
    if not settings.raw.is_dir():
        raise InputError(f"raw: {settings.raw} is not a folder")
    wanted = {
        name: reader
        for name, reader in READERS.items()
        if settings.source in ("auto", reader.source) and settings.layout in ("auto", name)
    }
    if not wanted:
        raise InputError(f"layout: {settings.layout} is no layout of {settings.source}")
    for name, reader in wanted.items():
        if reader.detect(settings.raw):
            if name in PINHOLE_ONLY:
                check_pinhole(settings, PINHOLE_ONLY[name])
            return name, reader
    looked = "; ".join(f"{name}: {reader.looks_for}" for name, reader in wanted.items())
    raise InputError(f"raw: {settings.raw} holds no known layout{_hint(settings, wanted)} (looked for {looked})")


def _hint(settings: BuildSettings, wanted: dict[str, Reader]) -> str:
    """Where a known layout lies instead: in a folder below, or of another kind than was asked for."""
    for name, reader in READERS.items():
        if name not in wanted and reader.detect(settings.raw):
            return f", but looks like {name}"
    for folder in sorted(path for path in settings.raw.iterdir() if path.is_dir()):
        for name, reader in wanted.items():
            if reader.detect(folder):
                return f", but {folder} looks like {name}"
    return ""
