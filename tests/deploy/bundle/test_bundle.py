"""Bundles: one archive, the same bytes wherever it is made, and nothing of it believed that does not hash."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import random
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy import bundle, cli, digests, environment, lockfile, paths
from deploy.bundle import Member, packing, pieces, unpacking
from deploy.bundle.packing import Source
from deploy.changes import history
from deploy.errors import LockError, UserError, WeightsError
from deploy.lockfile import Lock, Model, Variant
from deploy.weights import cache, puller, verify
from tests import locked, tiny
from tests.deploy.test_environment import Toy, wheel
from tests.hubserver import Repo, hub

WISHES = b'[[model]]\nname = "chat"\n'
REPO = Repo("org/tiny", files={"config.json": b'{"a": 1}', "model.gguf": locked.noise(2_500_000)})
VARIANT = locked.of(REPO)
Move = Callable[[str], Path]


def lock_of(*variants: Variant, generator: str = "test") -> Lock:
    return Lock(
        generator=generator, inputs="sha256:0", models=(Model(name="chat", requested="test", variants=variants),)
    )


@pytest.fixture
def move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Move:
    """To another box: its own cache, state, empty project folder, and no Hub."""

    def move(name: str) -> Path:
        box = tmp_path / name
        monkeypatch.setenv("OWNWEIGHTS_HOME", str(box / "home"))
        monkeypatch.setenv("HF_HUB_CACHE", str(box / "hub"))
        (box / "project").mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(box / "project")
        return box / "project"

    return move


@pytest.fixture
def sources(tmp_path: Path, move: Move, monkeypatch: pytest.MonkeyPatch) -> tuple[Source, ...]:
    """What a box that pulled from a Hub puts into a bundle: an earlier lock, one wheel of each kind, two files."""
    move("first")
    with hub([REPO]) as server, monkeypatch.context() as context:
        context.setenv("HF_ENDPOINT", server.url)
        puller.pull((VARIANT,))
    wheel(tmp_path / "index")
    found = tuple((tmp_path / "index").glob("*.whl"))
    return packing.contents(
        lock_of(VARIANT), WISHES, [lock_of(VARIANT, generator="older")], [VARIANT], core=found, wheels=found
    )


@pytest.fixture
def archive(tmp_path: Path, sources: tuple[Source, ...]) -> Path:
    packing.pack(tmp_path / "b.tar", lock_of(VARIANT), sources)
    return tmp_path / "b.tar"


def layout(path: Path) -> tuple[bundle.Slot, ...]:
    with tarfile.open(path) as archive:
        member = archive.extractfile(bundle.MANIFEST)
        assert member
        text = member.read()
    return bundle.slots(text, bundle.decode(text, "here"))


def below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


# The archive


def test_tar_reads_it_in_the_promised_order(archive: Path, tmp_path: Path) -> None:
    with tarfile.open(archive) as found:
        names = found.getnames()
        assert {(entry.mtime, entry.uid, entry.mode, entry.isreg()) for entry in found} == {(0, 0, 0o644, True)}
        # Python 3.11.4 is the first that knows the filter.
        found.extractall(tmp_path / "out", **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    assert names[:3] == ["manifest.json", "models.lock", "models.toml"]
    assert [name.partition("/")[0] for name in names[3:]] == ["history", "core", "wheels", "hub", "hub"]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_bytes())
    for member in manifest["members"]:
        content = (tmp_path / "out" / member["name"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (member["size"], member["sha256"])
    assert manifest["lock"] == lock_of(VARIANT).digest
    assert (tmp_path / "out" / "models.lock").read_text() == lockfile.write(lock_of(VARIANT))


def test_headers_are_the_same_bytes_on_every_python() -> None:
    large = bundle.header("hub/models--org--name/blobs/" + "a" * 64, 9 << 30)
    assert hashlib.sha256(bundle.header("models.lock", 7)).hexdigest()[:16] == "21a775c5ff638bf0"
    assert hashlib.sha256(large).hexdigest()[:16] == "c0c52e98cd498c7a"


def test_the_same_deployment_is_the_same_archive(archive: Path, sources: tuple[Source, ...], tmp_path: Path) -> None:
    whole = archive.read_bytes()
    packing.pack(tmp_path / "again.tar", lock_of(VARIANT), sources)
    assert (tmp_path / "again.tar").read_bytes() == whole
    packed = packing.pack(tmp_path / "split.tar", lock_of(VARIANT), sources, piece=1_000_000)
    found = [Path(name).read_bytes() for name in packed.files]
    assert [len(content) for content in found[:-1]] == [1_000_000] * (len(found) - 1)
    assert b"".join(found) == whole
    assert not list(tmp_path.glob("*.part"))


def test_an_export_that_is_there_is_not_written_again(archive: Path, sources: tuple[Source, ...]) -> None:
    before = archive.stat()
    packing.pack(archive, lock_of(VARIANT), sources)
    assert (archive.stat().st_ino, archive.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    with pytest.raises(UserError, match="another file lies there"):
        packing.pack(archive, lock_of(VARIANT, generator="newer"), sources)
    assert [path.name for path in archive.parent.glob("b.tar*")] == ["b.tar"]


@pytest.mark.parametrize("piece", [None, 1_000_000])
@pytest.mark.parametrize("share", [0.0001, 0.4, 0.999, 1.0])
def test_an_interrupted_export_goes_on(
    archive: Path, sources: tuple[Source, ...], tmp_path: Path, piece: int | None, share: float
) -> None:
    whole = archive.read_bytes()
    begun = int(len(whole) * share)
    base = tmp_path / "c.tar"
    for start in range(0, begun, piece or begun):
        path = pieces.numbered(base, start // piece) if piece else base
        pieces.part(path).write_bytes(whole[start : min(begun, start + (piece or begun))])
    packed = packing.pack(base, lock_of(VARIANT), sources, piece=piece)
    assert b"".join(Path(name).read_bytes() for name in packed.files) == whole
    # Inside the manifest there is nothing yet that says whose bytes these are.
    assert packed.resumed_bytes == (begun if begun > layout(archive)[0].end else 0)
    assert not list(tmp_path.glob("*.part"))


def test_what_lies_there_of_the_unfinished_member_is_not_trusted(
    archive: Path, sources: tuple[Source, ...], tmp_path: Path
) -> None:
    whole = archive.read_bytes()
    blob = layout(archive)[-1]
    for number, position in enumerate((blob.begin, blob.start, blob.start + 999_999)):
        begun = bytearray(whole[: blob.start + 1_000_000])
        begun[position] ^= 1
        (tmp_path / f"{number}.tar.part").write_bytes(begun)
        packing.pack(tmp_path / f"{number}.tar", lock_of(VARIANT), sources)
        assert (tmp_path / f"{number}.tar").read_bytes() == whole


def test_parts_of_another_state_or_size_are_begun_anew(
    archive: Path, sources: tuple[Source, ...], tmp_path: Path
) -> None:
    whole = archive.read_bytes()
    (tmp_path / "c.tar.part").write_bytes(b"x" * len(whole) * 2)
    for number in range(4):
        (tmp_path / f"c.tar.{number:03d}.part").write_bytes(whole[:1_500_000])
    packing.pack(tmp_path / "c.tar", lock_of(VARIANT), sources)
    assert (tmp_path / "c.tar").read_bytes() == whole
    assert not list(tmp_path.glob("*.part"))


def test_a_source_that_changes_meanwhile_is_refused(sources: tuple[Source, ...], tmp_path: Path) -> None:
    blob = cache.blob(VARIANT, VARIANT.files[1])
    with blob.open("r+b") as file:
        file.write(b"other")
    with pytest.raises(WeightsError, match=rf"{blob.name}. changed while it was exported: expected .* found") as caught:
        packing.pack(tmp_path / "c.tar", lock_of(VARIANT), sources)
    assert caught.value.where == str(blob)
    assert not (tmp_path / "c.tar").exists()
    blob.write_bytes(REPO.blobs["model.gguf"].content)  # type: ignore[arg-type]
    packed = packing.pack(tmp_path / "c.tar", lock_of(VARIANT), sources)
    assert packed.resumed_bytes > 0


def test_pieces_of_another_bundle_are_not_overwritten(sources: tuple[Source, ...], tmp_path: Path) -> None:
    base = tmp_path / "s.tar"
    packing.pack(base, lock_of(VARIANT), sources, piece=1_000_000)
    # The first is gone, so that nothing says whose they are.
    (tmp_path / "s.tar.000").unlink()
    before = {path: path.read_bytes() for path in tmp_path.glob("s.tar*")}
    for piece in (1_000_000, 1_500_000, 5_000_000):
        with pytest.raises(UserError, match=r"2 file\(s\) of another bundle lie there") as caught:
            packing.pack(base, lock_of(VARIANT), sources, piece=piece)
        assert caught.value.hint == f"rm '{base}'*  # or export to another name"
        assert {path: path.read_bytes() for path in tmp_path.glob("s.tar*")} == before
    # What lies under the name that all pieces share is what an import by that name would take.
    (tmp_path / "other.tar").write_bytes(b"whole")
    with pytest.raises(UserError, match=r"1 file\(s\) of another bundle lie there"):
        packing.pack(tmp_path / "other.tar", lock_of(VARIANT), sources, piece=1_000_000)


def test_pieces_behind_a_finished_export_are_told(sources: tuple[Source, ...], tmp_path: Path, move: Move) -> None:
    packed = packing.pack(tmp_path / "s.tar", lock_of(VARIANT), sources, piece=1_000_000)
    pieces.numbered(tmp_path / "s.tar", len(packed.files)).write_bytes(b"left over")
    with pytest.raises(UserError, match="another file lies there"):
        packing.pack(tmp_path / "s.tar", lock_of(VARIANT), sources, piece=1_000_000)
    with pytest.raises(WeightsError, match=rf"9 bytes too many: {packed.size + 9} lie in {len(packed.files) + 1} file"):
        unpacking.unpack(tmp_path / "s.tar", move("second"))


def test_an_export_whose_last_renames_are_missing_goes_on(sources: tuple[Source, ...], tmp_path: Path) -> None:
    packed = packing.pack(tmp_path / "s.tar", lock_of(VARIANT), sources, piece=1_000_000)
    before = [Path(name).read_bytes() for name in packed.files]
    for begun in range(1, len(before)):
        for name in packed.files[:begun]:
            Path(name).replace(pieces.part(Path(name)))
        again = packing.pack(tmp_path / "s.tar", lock_of(VARIANT), sources, piece=1_000_000)
        assert again.resumed_bytes == packed.size
        assert [Path(name).read_bytes() for name in again.files] == before


@pytest.mark.parametrize("piece", [None, 1_000_000])
def test_a_name_that_ends_like_a_piece_is_refused(
    sources: tuple[Source, ...], tmp_path: Path, piece: int | None
) -> None:
    with pytest.raises(UserError, match=r"`v1\.100` ends like a piece") as caught:
        packing.pack(tmp_path / "v1.100", lock_of(VARIANT), sources, piece=piece)
    assert "v1.100.tar" in (caught.value.hint or "")
    assert not list(tmp_path.glob("v1*"))


def test_too_many_pieces_leave_nothing(sources: tuple[Source, ...], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="pieces are too many"):
        packing.pack(tmp_path / "s.tar", lock_of(VARIANT), sources, piece=1000)
    assert not list(tmp_path.glob("s.tar*"))


def test_too_little_room_is_told_with_numbers(
    archive: Path, sources: tuple[Source, ...], tmp_path: Path, move: Move
) -> None:
    with pytest.raises(UserError, match=rf"no room: .*{archive.stat().st_size} bytes\).*\(7 bytes\)"):
        packing.pack(tmp_path / "c.tar", lock_of(VARIANT), sources, free=lambda _: 7)
    assert not list(tmp_path.glob("c.tar*"))
    folder = move("second")
    with pytest.raises(UserError, match=r"no room: .*\(7 bytes\)"):
        unpacking.unpack(archive, folder, free=lambda _: 7)
    assert below(folder.parent) == []


@pytest.mark.parametrize(("text", "count"), [("4GB", 4 * 10**9), ("1.5 GiB", 3 << 29), ("1MB", 10**6)])
def test_sizes(text: str, count: int) -> None:
    assert pieces.size(text) == count


@pytest.mark.parametrize("text", ["4", "4G", "-1GB", "999kB", "GB", "1e3GB"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(UserError) as caught:
        pieces.size(text)
    assert "--split 4GB" in (caught.value.hint or "")


# Taking it in


def test_it_brings_all_that_a_deployment_needs(archive: Path, move: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = move("second")
    unpacked = unpacking.unpack(archive, folder)
    assert (unpacked.models, unpacked.blobs, unpacked.wheels) == (("chat",), 2, 1)
    assert (folder / "models.toml").read_bytes() == WISHES
    assert lockfile.read(folder / "models.lock") == lock_of(VARIANT)
    assert verify.check(VARIANT, full=True) == ()
    assert verify.provenance(VARIANT) == "bundle b.tar"
    # The Hub's address leads nowhere: nothing is asked of it.
    assert {file.place for file in puller.pull((VARIANT,))} == {"cache"}
    assert [history.read(entry.digest).generator for entry in history.entries(folder)] == ["test", "older"]


def test_its_wheels_make_an_environment_without_an_index(
    archive: Path, move: Move, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requirements = tmp_path / "requirements.txt"
    toy = (tmp_path / "index" / "toy-1.0-py3-none-any.whl").read_bytes()
    requirements.write_text(f"toy==1.0 --hash=sha256:{digests.of_bytes(toy)}\n")
    shutil.rmtree(tmp_path / "index")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    unpacking.unpack(archive, move("second"))
    assert (environment.install(Toy(requirements).engine) / "bin" / "toy").exists()


@pytest.mark.parametrize("name", ["s.tar", "s.tar.000"])
def test_pieces_are_taken_in_by_either_name(sources: tuple[Source, ...], tmp_path: Path, move: Move, name: str) -> None:
    packing.pack(tmp_path / "s.tar", lock_of(VARIANT), sources, piece=1_000_000)
    unpacking.unpack(tmp_path / name, move("second"))
    assert verify.check(VARIANT, full=True) == ()


def test_missing_pieces_are_named(sources: tuple[Source, ...], tmp_path: Path, move: Move) -> None:
    packing.pack(tmp_path / "s.tar", lock_of(VARIANT), sources, piece=1_000_000)
    (tmp_path / "s.tar.001").rename(tmp_path / "kept")
    folder = move("second")
    with pytest.raises(WeightsError, match=r"not all here: `s\.tar\.001` is missing, 1000000 bytes"):
        unpacking.unpack(tmp_path / "s.tar", folder)
    assert not (folder / "models.lock").exists()
    (tmp_path / "kept").rename(tmp_path / "s.tar.001")
    unpacking.unpack(tmp_path / "s.tar", folder)
    assert verify.check(VARIANT, full=True) == ()
    (tmp_path / "s.tar.000").unlink()
    with pytest.raises(UserError, match=r"neither `s\.tar` nor `s\.tar\.000`"):
        unpacking.unpack(tmp_path / "s.tar", folder)


def test_a_cut_archive_is_gone_on_with(archive: Path, tmp_path: Path, move: Move) -> None:
    whole, blob = archive.read_bytes(), layout(archive)[-1]
    (tmp_path / "cut.tar").write_bytes(whole[: blob.start + 1_500_000])
    folder = move("second")
    with pytest.raises(WeightsError, match=rf"`cut\.tar` lacks {len(whole) - blob.start - 1_500_000} of {len(whole)}"):
        unpacking.unpack(tmp_path / "cut.tar", folder)
    weights = VARIANT.files[1]
    assert cache.blob(VARIANT, VARIANT.files[0]).exists()
    assert cache.part(VARIANT, weights).stat().st_size == 1_500_000
    assert not cache.snapshot(VARIANT).exists()
    # Other bytes where those lie that are here already: they are not read again.
    again = bytearray(whole)
    again[blob.start] ^= 1
    (tmp_path / "cut.tar").write_bytes(again)
    unpacking.unpack(tmp_path / "cut.tar", folder)
    assert verify.check(VARIANT, full=True) == ()


def test_a_part_that_is_wrong_is_begun_again(archive: Path, move: Move) -> None:
    folder = move("second")
    part = cache.part(VARIANT, VARIANT.files[1])
    part.parent.mkdir(parents=True)
    part.write_bytes(b"something else")
    unpacking.unpack(archive, folder)
    assert verify.check(VARIANT, full=True) == ()


@pytest.mark.parametrize("number", range(1, 8))
def test_a_flipped_byte_is_told_by_member_and_digests(archive: Path, move: Move, number: int) -> None:
    slot = layout(archive)[number]
    content = bytearray(archive.read_bytes())
    content[slot.start + slot.member.size // 2] ^= 1
    archive.write_bytes(content)
    folder = move("second")
    with pytest.raises(WeightsError) as caught:
        unpacking.unpack(archive, folder)
    found = hashlib.sha256(content[slot.start : slot.stop]).hexdigest()
    assert f"`{slot.member.name}` was damaged" in caught.value.message
    assert f"expected sha256 {slot.member.sha256}, found {found}" in caught.value.message
    assert below(folder) == []
    assert not cache.snapshot(VARIANT).exists()
    assert found not in {
        hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.parent.rglob("*") if path.is_file()
    }


def test_no_damage_anywhere_is_believed(archive: Path, move: Move, tmp_path: Path) -> None:
    """A byte flipped or an end cut off, wherever it is: an error, or all that was taken in is right."""
    whole, dice = archive.read_bytes(), random.Random(5)
    headers = [position for slot in layout(archive) for position in range(slot.begin, slot.start)]
    for number in range(60):
        position = dice.choice(headers) if number % 2 else dice.randrange(len(whole))
        content = bytearray(whole)
        content[position] ^= 1 << dice.randrange(8)
        (tmp_path / "d.tar").write_bytes(content[: position if number % 3 == 0 else None])
        folder = move(f"box{number}")
        try:
            unpacking.unpack(tmp_path / "d.tar", folder)
        except UserError:
            assert below(folder) == [], position
            assert not cache.snapshot(VARIANT).exists()
        else:
            assert verify.check(VARIANT, full=True) == ()
            assert lockfile.read(folder / "models.lock") == lock_of(VARIANT)
        shutil.rmtree(folder.parent)


def test_many_missing_pieces_are_told_briefly(sources: tuple[Source, ...], tmp_path: Path, move: Move) -> None:
    packed = packing.pack(tmp_path / "s.tar", lock_of(VARIANT), sources, piece=100_000)
    for name in packed.files[2:]:
        Path(name).unlink()
    with pytest.raises(WeightsError, match=rf"`s\.tar\.002` is missing.*; and {len(packed.files) - 12} more") as caught:
        unpacking.unpack(tmp_path / "s.tar", move("second"))
    assert caught.value.message.count("is missing") == 10


def test_what_one_piece_does_not_tell_is_not_guessed(sources: tuple[Source, ...], tmp_path: Path, move: Move) -> None:
    packed = packing.pack(tmp_path / "s.tar", lock_of(VARIANT), sources, piece=1_000_000)
    for name in packed.files[1:]:
        Path(name).unlink()
    with (tmp_path / "s.tar.000").open("r+b") as file:
        file.truncate(400_000)
    with pytest.raises(WeightsError, match=rf"400000 of {packed.size} bytes are here.*how many follow is not known"):
        unpacking.unpack(tmp_path / "s.tar", move("second"))


def test_what_was_appended_is_refused(archive: Path, tmp_path: Path, move: Move) -> None:
    """For `tar -xf`, which would take a link from there."""
    whole, link = archive.read_bytes(), tarfile.TarInfo("core/evil")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc"
    for number, appended in enumerate((whole[:-1024] + link.tobuf() + bytes(1024), whole + b"x")):
        (tmp_path / "d.tar").write_bytes(appended)
        folder = move(f"box{number}")
        with pytest.raises(WeightsError, match=f"{len(appended) - len(whole)} bytes too many"):
            unpacking.unpack(tmp_path / "d.tar", folder)
        assert below(folder.parent) == []


def test_what_lies_between_the_members_is_compared(archive: Path, move: Move) -> None:
    """Even where the blobs are here already, and are not read again."""
    whole, slots = archive.read_bytes(), layout(archive)
    folder = move("second")
    unpacking.unpack(archive, folder)
    padded = next(slot for slot in slots[3:] if slot.padding)
    places = {
        padded.stop: f"the padding behind `{padded.member.name}`",
        slots[-1].end + 1023: "the end",
        slots[-1].begin: f"the header of `{slots[-1].member.name}`",
    }
    for position, name in places.items():
        content = bytearray(whole)
        content[position] ^= 1
        archive.write_bytes(content)
        with pytest.raises(WeightsError, match=f"{name} was damaged on its way"):
            unpacking.unpack(archive, folder)


# Archives that nobody of ours made


def made(path: Path, *members: tuple[str, bytes], lock: str | None = None, wishes: bytes = WISHES) -> Path:
    """A bundle with these members behind the lock and the wishes, all hashes right."""
    text = lockfile.write(lock_of(VARIANT)).encode()
    content = [("models.lock", text), ("models.toml", wishes), *members]
    listed = [Member(name=name, size=len(data), sha256=digests.of_bytes(data)) for name, data in content]
    manifest = bundle.encode(bundle.manifest(lock or lock_of(VARIANT).digest, listed))
    with path.open("wb") as file:
        for name, data in [(bundle.MANIFEST, manifest), *content]:
            file.write(bundle.header(name, len(data)) + data + bytes(-len(data) % 512))
        file.write(bundle.END)
    return path


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "/etc/evil",
        "hub/models--a--b/blobs/../../../evil",
        "hub/models--a--b/snapshots/evil",
        "wheels/../evil.whl",
        "wheels/.evil.whl",
        "core/a/b.whl",
        "models.lock",
        "manifest.json",
        "history/x.lock",
        "wheels/a.whl\n",
    ],
)
def test_a_member_by_a_name_that_no_bundle_has_is_refused(tmp_path: Path, move: Move, name: str) -> None:
    folder = move("second")
    with pytest.raises(WeightsError, match=r"impossible member|names a member twice"):
        unpacking.unpack(made(tmp_path / "e.tar", (name, b"evil")), folder)
    assert below(folder.parent) == []


def test_links_and_devices_cannot_be_in_a_bundle(archive: Path, move: Move) -> None:
    slot = layout(archive)[-1]
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE):
        entry = tarfile.TarInfo(slot.member.name)
        entry.type, entry.linkname, entry.size = kind, "../../evil", slot.member.size
        content = bytearray(archive.read_bytes())
        content[slot.begin : slot.start] = entry.tobuf(tarfile.PAX_FORMAT)
        archive.write_bytes(content)
        folder = move("second")
        with pytest.raises(WeightsError, match=f"the header of `{slot.member.name}` was damaged"):
            unpacking.unpack(archive, folder)
        assert not [path for path in folder.parent.rglob("*") if path.is_symlink()]


def test_weights_that_the_lock_does_not_name_are_refused(tmp_path: Path, move: Move) -> None:
    folder = move("second")
    name = f"hub/models--org--tiny/blobs/{'0' * 64}"
    with pytest.raises(WeightsError, match="is not what the lock inside says"):
        unpacking.unpack(made(tmp_path / "e.tar", (name, b"evil")), folder)
    right = bundle.blob(VARIANT, VARIANT.files[1])
    with pytest.raises(WeightsError, match="is not what the lock inside says"):
        unpacking.unpack(made(tmp_path / "e.tar", (right, b"evil")), folder)
    assert below(folder.parent) == []


def test_a_lock_that_is_not_the_manifests_is_refused(tmp_path: Path, move: Move) -> None:
    with pytest.raises(WeightsError, match=f"expected {'0' * 64}, found {lock_of(VARIANT).digest}"):
        unpacking.unpack(made(tmp_path / "e.tar", lock="0" * 64), move("second"))


@pytest.mark.parametrize("content", [b"", b"x" * 600, bytes(2048)])
def test_what_is_no_bundle_is_told(tmp_path: Path, move: Move, content: bytes) -> None:
    (tmp_path / "e.tar").write_bytes(content)
    with pytest.raises(UserError, match="no bundle of ownweights"):
        unpacking.unpack(tmp_path / "e.tar", move("second"))


def test_a_tar_that_was_packed_again_is_told(archive: Path, tmp_path: Path, move: Move) -> None:
    with tarfile.open(archive) as old, tarfile.open(tmp_path / "e.tar", "w") as new:
        for entry in old:
            entry.mtime = 1
            new.addfile(entry, io.BytesIO(old.extractfile(entry).read()))  # type: ignore[union-attr]
    with pytest.raises(UserError, match="no bundle of ownweights") as caught:
        unpacking.unpack(tmp_path / "e.tar", move("second"))
    assert "packed again" in (caught.value.hint or "")


def test_a_manifest_that_claims_the_world_costs_nothing(tmp_path: Path, move: Move) -> None:
    (tmp_path / "e.tar").write_bytes(bundle.header(bundle.MANIFEST, 8 << 30) + bytes(4096))
    with pytest.raises(UserError, match="no bundle of ownweights"):
        unpacking.unpack(tmp_path / "e.tar", move("second"))


def claiming(path: Path, *extra: Member) -> None:
    """The beginning of a bundle whose manifest names these members too."""
    text = lockfile.write(lock_of(VARIANT)).encode()
    listed = [
        Member(name=name, size=len(data), sha256=digests.of_bytes(data))
        for name, data in (("models.lock", text), ("models.toml", WISHES))
    ]
    manifest = bundle.encode(bundle.manifest(lock_of(VARIANT).digest, (*listed, *extra)))
    with path.open("wb") as file:
        for name, data in ((bundle.MANIFEST, manifest), ("models.lock", text), ("models.toml", WISHES)):
            file.write(bundle.header(name, len(data)) + data + bytes(-len(data) % 512))


@pytest.mark.parametrize("size", [(1 << 50) + 1, 10**18, 10**30, -1])
def test_a_member_of_an_impossible_size_is_refused(tmp_path: Path, move: Move, size: int) -> None:
    claiming(tmp_path / "e.tar", Member(name="core/x.whl", size=1, sha256="0" * 64))
    content = (tmp_path / "e.tar").read_bytes()
    length = tarfile.TarInfo.frombuf(content[:512], "ascii", "strict").size
    manifest = content[512 : 512 + length].replace(b'"size": 1,', b'"size": %d,' % size)
    padded = manifest + bytes(-len(manifest) % 512)
    (tmp_path / "e.tar").write_bytes(bundle.header(bundle.MANIFEST, len(manifest)) + padded)
    with pytest.raises(WeightsError, match=r"no bundle that this ownweights reads: .*members\[2\]\.size"):
        unpacking.unpack(tmp_path / "e.tar", move("second"))


def test_more_members_than_any_bundle_has_are_refused() -> None:
    listed = [Member(name=f"core/{number}.whl", size=0, sha256="0" * 64) for number in range(bundle.MEMBERS + 1)]
    with pytest.raises(WeightsError, match=r"no bundle that this ownweights reads: .*100000"):
        bundle.decode(bundle.encode(bundle.manifest("0" * 64, listed)), "here")


@pytest.mark.parametrize("name", ["e.tar", "e.tar.000"])
def test_a_claimed_size_is_never_allocated(tmp_path: Path, move: Move, name: str) -> None:
    claiming(tmp_path / name, *(Member(name=f"core/{i}.whl", size=1 << 50, sha256="0" * 64) for i in range(3)))
    if name.endswith(".000"):
        # A second, so that a size of pieces follows: there would be billions of them.
        (tmp_path / "e.tar.001").write_bytes(b"")
    with pytest.raises(WeightsError, match="the bundle is not all here") as caught:
        unpacking.unpack(tmp_path / "e.tar", move("second"))
    assert len(caught.value.message) < 200


def test_texts_are_bounded_before_they_are_read(tmp_path: Path, move: Move) -> None:
    comment = b"#" * (unpacking.WISHES_BYTES + 1)
    with pytest.raises(WeightsError, match=rf"`models.toml` has {len(comment)} bytes, must have at most"):
        unpacking.unpack(made(tmp_path / "e.tar", wishes=comment), move("second"))
    text = b"#" * (lockfile.MOST_BYTES + 1)
    with pytest.raises(WeightsError, match=rf"`history/{'0' * 64}\.lock` has {len(text)} bytes, must have at most"):
        unpacking.unpack(made(tmp_path / "e.tar", (f"history/{'0' * 64}.lock", text)), move("third"))


# The folder it comes into


def test_another_lock_is_replaced_only_when_told_to(archive: Path, move: Move) -> None:
    folder = move("second")
    other = lock_of(VARIANT, generator="mine")
    (folder / "models.lock").write_text(lockfile.write(other))
    with pytest.raises(LockError) as caught:
        unpacking.unpack(archive, folder)
    assert other.digest in caught.value.message
    assert lock_of(VARIANT).digest in caught.value.message
    assert below(folder.parent) == ["project/models.lock"]
    unpacking.unpack(archive, folder, replace=True)
    assert lockfile.read(folder / "models.lock") == lock_of(VARIANT)
    # A rollback leads to what lay here, whose weights are here, not to what the other box had before.
    assert [history.read(entry.digest).generator for entry in history.entries(folder)] == ["test", "mine", "older"]


def test_many_earlier_locks_do_not_push_out_the_one_that_lay_here(
    sources: tuple[Source, ...], tmp_path: Path, move: Move
) -> None:
    earlier = [lock_of(VARIANT, generator=f"older {number}") for number in range(5)]
    packing.pack(tmp_path / "c.tar", lock_of(VARIANT), packing.contents(lock_of(VARIANT), WISHES, earlier, [VARIANT]))
    folder = move("second")
    (folder / "models.lock").write_text(lockfile.write(lock_of(VARIANT, generator="mine")))
    unpacking.unpack(tmp_path / "c.tar", folder, replace=True)
    assert [kept.generator for kept in history.kept()] == ["test", "mine", "older 0"]


def test_the_wishes_that_lay_here_are_kept_beside(archive: Path, move: Move) -> None:
    folder = move("second")
    mine = b'# mine\n[[model]]\nname = "other"\n'
    (folder / "models.toml").write_bytes(mine)
    unpacked = unpacking.unpack(archive, folder, replace=True)
    assert unpacked.kept == str(folder / "models.toml.before-import")
    assert (folder / "models.toml.before-import").read_bytes() == mine
    assert (folder / "models.toml").read_bytes() == WISHES
    # Where it is the same, nothing is replaced, and what was kept stays.
    assert unpacking.unpack(archive, folder, replace=True).kept is None
    assert (folder / "models.toml.before-import").read_bytes() == mine


def test_a_second_import_changes_nothing(archive: Path, move: Move) -> None:
    folder = move("second")
    unpacking.unpack(archive, folder)
    before = {path: path.stat().st_ino for path in folder.parent.rglob("*") if path.suffix != ".sqlite"}
    unpacking.unpack(archive, folder)
    blobs = {path: inode for path, inode in before.items() if path.parent.name in ("blobs", "wheelhouse")}
    assert blobs
    assert {path: path.stat().st_ino for path in blobs} == blobs
    assert len(history.entries(folder)) == 2


def test_another_platform_takes_the_weights_only(
    sources: tuple[Source, ...],
    tmp_path: Path,
    move: Move,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as context:
        context.setattr(platform, "machine", lambda: "vax")
        packing.pack(tmp_path / "c.tar", lock_of(VARIANT), sources)
    unpacked = unpacking.unpack(tmp_path / "c.tar", move("second"))
    assert unpacked.wheels == 0
    assert "the bundle's engines are for linux-vax" in capsys.readouterr().err
    assert verify.check(VARIANT, full=True) == ()
    assert not list(paths.wheelhouse_dir().glob("*.whl"))


def test_the_commands(tmp_path: Path, move: Move, capsys: pytest.CaptureFixture[str]) -> None:
    folder = move("first")
    tiny.gguf(folder / "tiny.gguf")
    (folder / "models.toml").write_text(
        '[[model]]\nname = "chat"\nsource = "file:tiny.gguf"\ncontext = 1024\n[engines]\ngpu = "none"\n'
    )
    assert cli.run(["lock"]) == 0
    assert cli.run(["bundle", "export", str(tmp_path / "c.tar"), "--no-engines"]) == WeightsError.exit_code
    assert "hint: ownweights pull" in capsys.readouterr().err
    assert cli.run(["pull"]) == 0
    assert cli.run(["bundle", "export", str(tmp_path / "c.tar"), "nobody"]) == 1
    assert cli.run(["bundle", "export", str(tmp_path / "c.tar"), "--split", "1kB"]) == 1
    capsys.readouterr()
    assert cli.run(["bundle", "export", str(tmp_path / "c.tar"), "chat", "--no-engines", "--json"]) == 0
    packed = json.loads(capsys.readouterr().out)
    move("second")
    assert cli.run(["bundle", "import", str(tmp_path / "c.tar"), "--json"]) == 0
    unpacked = json.loads(capsys.readouterr().out)
    assert unpacked["manifest"] == packed["manifest"]
    assert unpacked["models"] == ["chat"]
    assert cli.run(["verify", "--full"]) == 0
    (tmp_path / "second" / "project" / "models.toml").write_text("# mine")
    assert cli.run(["bundle", "import", str(tmp_path / "c.tar"), "--replace"]) == 0
    assert "models.toml.before-import" in capsys.readouterr().err
