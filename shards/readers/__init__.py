"""Raw layouts: one file per source, all listed in `READERS`."""

from typing import Final

from poselib.errors import InputError
from shards.readers import human36m, mpii, voc
from shards.settings import BuildSettings
from shards.source import Reader

READERS: Final[dict[str, Reader]] = {"h36m": human36m.READER, "mpii": mpii.READER, "voc": voc.READER}


def find_reader(settings: BuildSettings) -> tuple[str, Reader]:
    """The reader's name and the reader for `settings.raw`.

    Raises:
        InputError: the folder is missing, or holds nothing that was asked for.
    """
    if not settings.raw.is_dir():
        raise InputError(f"raw: {settings.raw} is not a folder")
    wanted = READERS if settings.source == "auto" else {settings.source: READERS[settings.source]}
    for name, reader in wanted.items():
        if reader.detect(settings.raw):
            return name, reader
    looked = "; ".join(f"{name}: {reader.looks_for}" for name, reader in wanted.items())
    raise InputError(f"raw: {settings.raw} holds no known layout (looked for {looked})")
