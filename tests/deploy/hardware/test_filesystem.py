"""The disk behind a folder, from small trees of /proc and /sys with links as the kernel makes them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from deploy.hardware import filesystem
from tests.deploy.hardware.stub import tree


def mounts(root: Path, *lines: str) -> Path:
    return tree(root, {"proc/self/mountinfo": "\n".join(lines)})


def block(root: Path, number: str, name: str, rotational: str, partition: str | None = None) -> None:
    folder = f"sys/devices/pci0000:00/block/{name}"
    tree(root, {f"{folder}/queue/rotational": rotational})
    target = root / folder / (partition or "")
    target.mkdir(exist_ok=True)
    for link in (root / "sys/dev/block" / number, root / "sys/class/block" / (partition or name)):
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)


@pytest.mark.parametrize(("flag", "rotational"), [("0", False), ("1", True), ("?", None)])
def test_a_partition_spins_as_its_disk_does(tmp_path: Path, flag: str, rotational: bool | None) -> None:
    mounts(tmp_path, "27 1 8:2 / / rw,relatime shared:1 - ext4 /dev/sda2 rw")
    block(tmp_path, "8:2", "sda", flag, "sda2")
    disk, _ = filesystem.disk(tmp_path, tmp_path)
    assert (disk.filesystem, disk.rotational) == ("ext4", rotational)


@pytest.mark.parametrize(("flag", "rotational"), [("1", None), ("0", False)])
def test_a_hypervisors_disk_that_says_it_spins_is_not_believed(
    tmp_path: Path, flag: str, rotational: bool | None
) -> None:
    mounts(tmp_path, "27 1 254:0 / / rw - ext4 /dev/vda rw")
    block(tmp_path, "254:0", "vda", flag)
    assert filesystem.disk(tmp_path, tmp_path)[0].rotational is rotational


def test_btrfs_counts_for_itself_and_is_found_by_name(tmp_path: Path) -> None:
    mounts(tmp_path, "27 1 0:31 /@home / rw - btrfs /dev/nvme0n1p3 rw,subvol=/@home")
    block(tmp_path, "259:3", "nvme0n1", "0", "nvme0n1p3")
    disk, _ = filesystem.disk(tmp_path, tmp_path)
    assert (disk.filesystem, disk.rotational) == ("btrfs", False)


@pytest.mark.parametrize(("kind", "source"), [("overlay", "overlay"), ("tmpfs", "tmpfs"), ("nfs4", "server:/models")])
def test_what_lies_on_no_block_device_is_not_said_to_spin(tmp_path: Path, kind: str, source: str) -> None:
    mounts(tmp_path, f"27 1 0:45 / / rw - {kind} {source} rw")
    disk, _ = filesystem.disk(tmp_path, tmp_path)
    assert (disk.filesystem, disk.rotational) == (kind, None)


def test_the_deepest_mount_counts_and_on_one_point_the_last(tmp_path: Path) -> None:
    folder = tmp_path / "with blank"
    point = str(folder).replace(" ", "\\040")
    mounts(
        tmp_path,
        "27 1 8:1 / / rw - ext4 /dev/sda1 rw",
        f"28 27 8:2 / {point} rw - xfs /dev/sdb1 rw",
        f"29 27 0:9 / {point} rw - tmpfs tmpfs rw",
        f"30 27 8:3 / {point}s rw - vfat /dev/sdc1 rw",
        f"31 27 8:4 / {tmp_path} rw - ext3 /dev/sdd1 rw",
    )
    assert filesystem.disk(folder / "not" / "yet", tmp_path)[0].filesystem == "ext3", "it is not there: its parent is"
    folder.mkdir()
    assert filesystem.disk(folder / "not" / "yet", tmp_path)[0].filesystem == "tmpfs"
    (tmp_path / "link").symlink_to(folder)
    assert filesystem.disk(tmp_path / "link" / "not", tmp_path)[0].filesystem == "tmpfs", "it leads to another disk"


def test_size_and_room_are_those_of_the_nearest_folder_that_exists(tmp_path: Path) -> None:
    disk, free = filesystem.disk(tmp_path / "not" / "yet", tmp_path)
    assert disk.total_bytes == shutil.disk_usage(tmp_path).total
    assert free is not None
    assert 0 < free <= shutil.disk_usage(tmp_path).total
    assert (disk.filesystem, disk.rotational) == (None, None)


def test_this_box(tmp_path: Path) -> None:
    assert filesystem.disk(tmp_path, Path("/"))[0].filesystem
