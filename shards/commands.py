"""`pose studio` and `pose shards check`, `build` and `verify`: the work, and the last line that says what was made."""

from pathlib import Path

from rich.console import Console

import shards.studio.make
from shards.build import build
from shards.check import check_raw, check_share, describe
from shards.make import Unfinished
from shards.manifest import ShardSet
from shards.settings import BuildSettings, CheckSettings, StudioSettings, VerifySettings
from shards.verify import DamagedSet, verify


def make_studio(settings: StudioSettings) -> None:
    """Write the embedded data."""
    shards.studio.make.make_studio(settings)
    Console().print(
        f"synthetic raw data: {settings.out}/h36m, mpii, voc;"
        f" next: pose shards build {settings.out}/h36m data/shards/h36m",
        soft_wrap=True,
        highlight=False,
    )


def check_shards(settings: CheckSettings) -> None:
    """Say what a raw folder holds and how it is understood."""
    console = Console()
    report = check_raw(settings)
    for piece in describe(report):
        console.print(piece, soft_wrap=isinstance(piece, str), highlight=False, markup=False)
    check_share(report)


def build_shards(settings: BuildSettings) -> None:
    """Build or finish a shard set, or make a share of it."""
    try:
        line = describe_set(settings.out, build(settings))
    except Unfinished as others:
        if not settings.share:
            raise
        line = str(others)
    Console().print(line, soft_wrap=True, highlight=False, markup=False)


def describe_set(out: Path, shards: ShardSet) -> str:
    """One line on a finished set."""
    manifest = shards.manifest
    size = sum(shard.bytes for shard in manifest.shards) / 1e6
    return (
        f"{out}: {manifest.samples} samples of {manifest.source} in {len(manifest.shards)} shards,"
        f" {size:.1f} MB, {len(manifest.skipped)} skipped; next: pose shards verify {out}"
    )


def verify_shards(settings: VerifySettings) -> None:
    """Read every byte of a shard set and compare it with its manifest; each damaged sample on a line of its own."""
    console = Console()
    try:
        manifest = verify(settings.folder, settings.storage)
    except DamagedSet as found:
        for entry in found.damage:
            for key in entry.keys:
                console.print(f"damaged: {entry.file}: {key}", soft_wrap=True, highlight=False, markup=False)
        raise
    console.print(
        f"{settings.folder}: {manifest.samples} samples in {len(manifest.shards)} shards are whole,"
        f" set {manifest.set_hash[:12]}",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )
