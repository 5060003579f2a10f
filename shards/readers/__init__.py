"""Raw layouts: one file per layout, all listed in `READERS`."""

from typing import Final

from poselib.errors import InputError
from shards.readers import h36m_eth, h36m_kf, h36m_mks0601, human36m, mpii, mpii_hrnet, voc
from shards.settings import BuildSettings
from shards.source import Reader

READERS: Final[dict[str, Reader]] = {
    "h36m": human36m.READER,
    "h36m_mks0601": h36m_mks0601.READER,
    "h36m_eth": h36m_eth.READER,
    "h36m_kf": h36m_kf.READER,
    "mpii": mpii.READER,
    "mpii_hrnet": mpii_hrnet.READER,
    "voc": voc.READER,
}
"""In the order in which a folder is tried; a folder that holds several layouts is read as the first."""


def find_reader(settings: BuildSettings) -> tuple[str, Reader]:
    """The layout's name and its reader for `settings.raw`.

    Raises:
        InputError: the folder is missing, or holds nothing that was asked for.
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
            return name, reader
    looked = "; ".join(f"{name}: {reader.looks_for}" for name, reader in wanted.items())
    raise InputError(f"raw: {settings.raw} holds no known layout (looked for {looked})")
