"""`samples.npy`: one row per sample, in the order of the manifest's shards.

Offsets and sizes are bytes within the tar; `crc32` covers a sample from the start of its first member's content to the
end of its last one's. Names are codes into the manifest's lists.
"""

import tarfile
import zlib
from pathlib import Path
from typing import Final

import numpy as np

from shards.sample import Names

MEMBERS: Final = {"people": ("jpg", "json", "npy"), "occluders": ("json", "png")}
"""The members of a sample in the order in which they stand in the tar."""

CODED: Final = ("subject", "action", "camera", "part")
"""Columns that are codes; the manifest's list for `subject` is called `subjects`, and so on."""

BLOCK: Final = 512
"""Every member's header takes one tar block."""


def row_type(kind: str) -> np.dtype:
    """The type of one row of `samples.npy`."""
    places = [(f"{end}_{what}", code) for end in MEMBERS[kind] for what, code in (("offset", "<u8"), ("size", "<u4"))]
    names = [(name, "<u2") for name in CODED]
    return np.dtype([("shard", "<u4"), *places, ("crc32", "<u4"), *names, ("subaction", "<u2"), ("frame", "<u4")])


def read_table(tar: Path, kind: str, names: list[Names]) -> tuple[np.ndarray, dict[str, list[str]], str]:
    """Look through a finished tar.

    Args:
        tar: the shard.
        kind: `people` or `occluders`.
        names: of its samples, in order.

    Returns:
        rows of `row_type` with `shard` 0; the lists behind their codes; the text of DALI's index file.
    """
    endings = MEMBERS[kind]
    rows = np.zeros(len(names), row_type(kind))
    lines = [f"v1.2 {len(names)}"]
    with tarfile.open(tar) as archive, tar.open("rb") as stream:
        members = archive.getmembers()
        for row, start in zip(rows, range(0, len(members), len(endings)), strict=True):
            group = members[start : start + len(endings)]
            for ending, member in zip(endings, group, strict=True):
                row[f"{ending}_offset"], row[f"{ending}_size"] = member.offset_data, member.size
            stream.seek(group[0].offset_data)
            row["crc32"] = zlib.crc32(stream.read(group[-1].offset_data + group[-1].size - group[0].offset_data))
            lines.append(
                " ".join(f"{end} {m.offset_data} {m.size} {m.name}" for end, m in zip(endings, group, strict=True))
            )
    rows["subaction"] = [name.subaction for name in names]
    rows["frame"] = [name.frame for name in names]
    lists = {}
    for column in CODED:
        values, codes = np.unique([getattr(name, column) for name in names], return_inverse=True)
        lists[column], rows[column] = values.tolist(), codes
    return rows, lists, "\n".join(lines) + "\n"


def merge_tables(tables: list[tuple[np.ndarray, dict[str, list[str]]]]) -> tuple[np.ndarray, dict[str, list[str]]]:
    """The tables of several shards as one: `shard` numbered from 0, codes into common lists."""
    lists = {
        column: sorted({name for _, lists in tables for name in lists[column]}, key=natural_order) for column in CODED
    }
    merged = []
    for number, (rows, own) in enumerate(tables):
        rows = rows.copy()
        rows["shard"] = number
        for column in CODED:
            rows[column] = np.array([lists[column].index(name) for name in own[column]])[rows[column]]
        merged.append(rows)
    return np.concatenate(merged), lists


def natural_order(name: str) -> tuple[int, str]:
    """A sorting key that puts S9 before S11."""
    digits = "".join(filter(str.isdigit, name))
    return int(digits) if digits else 0, name
