"""An export replaces its own bundles and nothing else, and a kill at any step loses neither."""

from __future__ import annotations

import errno
import functools
import itertools
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

import export.bundle
from device_runtime.model.bundle import GRAPH, MANIFEST, Check, load_bundle
from export import ExportError, quantize, source
from export.bundle import export_bundle
from export.stage import Stage

PASSED = Check(True, 1, 0.0, 1.0, 1.0, 0.0, "built-in")


@pytest.fixture
def quick(model_folder, monkeypatch):
    """A function that exports within milliseconds: the model is loaded, the graph is a few bytes.

    ``word``: what stands in the graph, which tells one bundle from another.
    """
    loaded = source.load(model_folder("llama"))
    word = b""
    monkeypatch.setattr(source, "load", lambda model: loaded)
    monkeypatch.setattr(export.bundle, "traced", lambda *_, **__: onnx.ModelProto())
    monkeypatch.setattr(Stage, "check", lambda *_: PASSED)
    monkeypatch.setattr(quantize, "write", lambda model, path: path.write_bytes(word))

    def make(out: Path, text: str = "new") -> None:
        nonlocal word
        word = text.encode()
        export_bundle(model_folder("llama"), out, "fp32")

    return make


def holds(folder: Path) -> str:
    """The word of a whole bundle."""
    return (load_bundle(folder).path / GRAPH).read_text()


def in_a_child(work: Callable[[], None], at: int | None = None, root: Path | None = None) -> int:
    """Do some work in a process of its own, which may be killed; its exit code.

    ``at``: before which of its changes to names below ``root``, counted from 0; it ends with 9.
    """
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code, seen = 1, 0

    def count(event: str, arguments: tuple) -> None:
        nonlocal seen
        changes = event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link")
        if event == "open" and isinstance(arguments[2], int):
            changes = bool(arguments[2] & (os.O_CREAT | os.O_WRONLY | os.O_RDWR))
        if changes and str(arguments[0]).startswith((str(root), f"b'{root}")):
            if seen == at:
                os._exit(9)
            seen += 1

    try:
        if at is not None:
            sys.addaudithook(count)
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def web_app(folder: Path) -> Path:
    (folder / ".git").mkdir(parents=True)
    (folder / ".git" / "HEAD").write_text("ref: refs/heads/main")
    (folder / MANIFEST).write_text(json.dumps({"name": "An app", "icons": [], "files": {}}))
    return folder


def tree(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def test_a_web_apps_folder_is_not_replaced(quick, tmp_path):
    app = web_app(tmp_path / "app")
    before = tree(tmp_path)
    with pytest.raises(ExportError, match="is not a bundle; choose another folder"):
        quick(app)
    assert tree(tmp_path) == before


def test_what_a_user_put_into_a_bundle_is_named_and_stays(quick, tmp_path):
    out = tmp_path / "out"
    quick(out, "old")
    (out / "notes.txt").write_text("mine")
    (out / "runs").mkdir()
    before = tree(tmp_path)
    with pytest.raises(ExportError, match=r"also holds 'notes.txt', 'runs': move that away"):
        quick(out)
    assert tree(tmp_path) == before


def test_what_comes_into_a_bundle_while_another_is_made_stays(quick, tmp_path, monkeypatch):
    out = tmp_path / "out"
    quick(out, "old")

    def slow(*_):
        (out / "notes.txt").write_text("mine")
        return PASSED

    monkeypatch.setattr(Stage, "check", slow)
    with pytest.raises(ExportError, match=r"also holds 'notes.txt'"):
        quick(out)
    assert holds(out) == "old" and (out / "notes.txt").read_text() == "mine"
    assert list(tmp_path.iterdir()) == [out]


def test_what_comes_at_the_last_moment_goes_back(quick, tmp_path, monkeypatch, without_exchange):
    """After the last look at the folder, before it is moved: it is looked at again, moved."""
    out = tmp_path / "out"
    quick(out, "old")
    whole = Path.rename

    def rename(path: Path, to: Path) -> Path:
        if path.name == "new" and to.name == "old" and not (out / "notes.txt").exists():
            (out / "notes.txt").write_text("mine")
        return whole(path, to)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(ExportError, match=r"also holds 'notes.txt'"):
        quick(out)
    assert holds(out) == "old" and (out / "notes.txt").read_text() == "mine"
    assert list(tmp_path.iterdir()) == [out]


@pytest.fixture(params=["exchange", "two renames"])
def without_exchange(request, monkeypatch):
    """Whether the system can exchange names, as Linux can, or not, as others cannot."""
    if request.param == "two renames":
        monkeypatch.setattr(export.place, "exchange", lambda a, b: False)
    elif not sys.platform.startswith("linux"):
        pytest.skip("Linux alone exchanges names")
    return request.param == "two renames"


@pytest.mark.parametrize("old", [True, False], ids=["replaces", "is the first"])
def test_a_kill_at_any_step_loses_nothing(quick, tmp_path, without_exchange, old):
    """The bundle is the old or the new, whole; the next export heals what is left, and so does one
    that fails."""
    for steps in itertools.count():
        root = tmp_path / f"{steps}" / "deep"
        out = root / "out"
        if old:
            quick(out, "old")
        code = in_a_child(functools.partial(quick, out, "new"), steps, root.parent)
        found = out.exists()
        if found:
            assert holds(out) in ("new", "old")
        assert found or not old or without_exchange
        if code == 0:
            assert holds(out) == "new"
            break
        assert code == 9
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(quantize, "write", full_disk)
            with pytest.raises(ExportError):
                quick(out)
        if old:
            assert holds(out) in ("new", "old") and list(root.iterdir()) == [out]
        elif out.exists():
            assert holds(out) == "new"
        quick(out, "newest")
        assert holds(out) == "newest" and list(root.iterdir()) == [out]
    assert steps > 8


def test_a_kill_while_a_bundle_is_healed(quick, tmp_path):
    """The scratch folder of one that was killed, with the old bundle in it half deleted."""
    out = tmp_path / "out"
    for steps in itertools.count():
        quick(out, "old")
        left = tmp_path / ".out.draftlink-abcdefgh"
        left.mkdir()
        out.rename(left / "old")
        (left / "new").mkdir()
        (left / "new" / GRAPH).write_text("half")
        code = in_a_child(lambda: quick(out, "new"), steps, tmp_path)
        quick(out, "newest")
        assert holds(out) == "newest" and list(tmp_path.iterdir()) == [out]
        if code == 0:
            break
    assert steps > 8


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/somewhere/model.onnx")


@pytest.mark.parametrize("step", ["_traced", "write"])
def test_a_full_disk_is_one_line_and_leaves_the_old(quick, tmp_path, monkeypatch, step):
    out = tmp_path / "out"
    quick(out, "old")
    if step == "_traced":
        monkeypatch.undo()
        monkeypatch.setattr(export.bundle, "export_shared", full_disk)
    else:
        monkeypatch.setattr(quantize, "write", full_disk)
    with pytest.raises(ExportError) as caught:
        quick(out)
    assert str(caught.value) == f"cannot write {out}: No space left on device"
    assert holds(out) == "old" and list(tmp_path.iterdir()) == [out]


def test_a_living_export_is_left_alone(quick, tmp_path, monkeypatch):
    """Its scratch folder is no leftover."""
    out = tmp_path / "out"

    def another(*_):
        monkeypatch.setattr(Stage, "check", lambda *_: PASSED)
        assert in_a_child(lambda: quick(out, "other")) == 0
        return PASSED

    monkeypatch.setattr(Stage, "check", another)
    quick(out)
    assert holds(out) == "new" and list(tmp_path.iterdir()) == [out]


def test_many_exports_to_one_place_at_once(quick, tmp_path, without_exchange):
    """Each comes in; the last one stays, whole."""
    out, rounds, processes = tmp_path / "out", 10, 4

    def work() -> None:
        for number in range(rounds):
            quick(out, f"{os.getpid()} {number}")

    pids = []
    for _ in range(processes):
        if (pid := os.fork()) == 0:
            os._exit(in_a_child(work))
        pids.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * processes
    assert holds(out).endswith(str(rounds - 1)) and list(tmp_path.iterdir()) == [out]


def test_a_place_that_is_no_folder(quick, tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(ExportError, match=r"is a file; name a folder"):
        quick(file)
    with pytest.raises(ExportError, match=r"cannot write .*: (Not a directory|File exists)"):
        quick(file / "out")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ExportError, match=r"cannot (read|write)"):
        quick(tmp_path / "loop")
    assert file.read_text() == "mine" and len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_cannot_be_written_to(quick, tmp_path, monkeypatch):
    """Known before the model is loaded. Root may write everywhere, hence the fake."""

    def refused(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("tempfile.mkdtemp", refused)
    monkeypatch.setattr(source, "load", lambda model: pytest.fail("loaded"))
    with pytest.raises(ExportError, match=r"cannot write .*new/out: Permission denied"):
        quick(tmp_path / "new" / "out")
    assert list(tmp_path.iterdir()) == []


def test_through_a_link_its_target_is_replaced(quick, tmp_path):
    out, link = tmp_path / "elsewhere" / "out", tmp_path / "link"
    link.symlink_to(out)
    for word in ("old", "new"):
        quick(link, word)
        assert link.is_symlink() and holds(link) == holds(out) == word
    assert list(out.parent.iterdir()) == [out]
    app = web_app(tmp_path / "app")
    link.unlink()
    link.symlink_to(app)
    with pytest.raises(ExportError, match="is not a bundle"):
        quick(link)
    assert (app / ".git" / "HEAD").exists()


def test_a_link_in_a_bundle_is_no_reason_to_delete_what_it_leads_to(quick, tmp_path):
    out, kept = tmp_path / "out", tmp_path / "kept.onnx"
    quick(out, "old")
    (out / GRAPH).rename(kept)
    (out / GRAPH).symlink_to(kept)
    quick(out, "new")
    assert holds(out) == "new" and kept.read_text() == "old"


def test_file_systems_without_locks(quick, tmp_path, monkeypatch):
    def none(*_, **__):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr("draftlink.host.files.lock", none)
    out = tmp_path / "out"
    (tmp_path / ".out.draftlink-abcdefgh").mkdir()  # whose it is, nobody can tell
    for word in ("old", "new"):
        quick(out, word)
        assert holds(out) == word
    assert len(list(tmp_path.iterdir())) == 2
