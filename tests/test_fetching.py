"""Files are fetched from a server of the test's own: whole and right, or not at all."""

import bz2
import gzip
import hashlib
import http.server
import io
import lzma
import os
import random
import sys
import tarfile
import threading
import time
import zipfile

import pytest

from mibench.errors import FetchError
from mibench.planning.sources import downloads_of
from mibench.storage import fetching
from mibench.storage.fetching import Download, fetch, found

CONTENT = bytes(range(256)) * 5000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.server.asked.append(self.path)
        self.wfile.write(content[: len(content) // 2] if self.path == "/cut" else content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    """A server on 127.0.0.1; ``files`` is what it has, ``asked`` what it gave."""
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.files, made.asked = {"/file": CONTENT, "/cut": CONTENT}, []
    made.url = f"http://127.0.0.1:{made.server_port}"
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def zipped(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as pack:
        for name, content in members.items():
            pack.writestr(name, content)
    return buffer.getvalue()


def tarred(*members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as pack:
        for member in members:
            pack.addfile(member, io.BytesIO(b"x" * member.size))
    return buffer.getvalue()


def member(name, size=1, **facts):
    made = tarfile.TarInfo(name)
    made.size = size
    for key, value in facts.items():
        setattr(made, key, value)
    return made


def everything(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("promise", [{"sha256": SHA256}, {"sha256": SHA256[:8]}, {"md5": MD5}])
def test_a_file_is_fetched_once_and_checked(server, tmp_path, promise):
    wanted = Download(path="set/raw/file.bin", url=f"{server.url}/file", **promise)
    assert "was fetched" in fetch(wanted, tmp_path)
    assert (tmp_path / "set/raw/file.bin").read_bytes() == CONTENT
    said = fetch(wanted, tmp_path)
    assert "is there, and its" in said and "published one" in said and server.asked == ["/file"]
    assert everything(tmp_path) == ["set/raw/file.bin"]


def test_without_a_published_checksum_the_one_it_got_is_said(server, tmp_path):
    said = fetch(Download(path="file", url=f"{server.url}/file"), tmp_path)
    assert SHA256 in said and "no published one" in said


@pytest.mark.parametrize(
    ("address", "promise", "said"),
    [
        ("/file", {"sha256": "0" * 64}, f"SHA-256 is {SHA256} instead of {'0' * 64}"),
        ("/file", {"md5": "0" * 32}, f"MD5 is {MD5} instead of"),
        ("/none", {}, "answered 404"),
        ("/cut", {}, f"broke off after {len(CONTENT) // 2} of {len(CONTENT)} bytes"),
    ],
)
def test_what_is_not_whole_and_right_leaves_nothing_behind(server, tmp_path, address, promise, said):
    with pytest.raises(FetchError, match=said) as caught:
        fetch(Download(path="set/file", url=server.url + address, **promise), tmp_path)
    assert "\n" not in str(caught.value) and everything(tmp_path) == []


def test_no_network_is_said_with_the_way_around_it(tmp_path):
    with pytest.raises(FetchError, match=r"could not be reached .*put it at .*set/file"):
        fetch(Download(path="set/file", url="http://127.0.0.1:9/file"), tmp_path)


@pytest.mark.parametrize("there", [b"mine", b"", CONTENT[:-1]])
def test_what_is_not_the_published_file_is_fetched_again_and_kept(server, tmp_path, there):
    (tmp_path / "file").write_bytes(there)
    wanted = Download(path="file", url=f"{server.url}/file", sha256=SHA256)
    for broken in (Download(path="file", url=f"{server.url}/cut", sha256=SHA256), Download(path="file", sha256=SHA256)):
        with pytest.raises(FetchError):
            fetch(broken, tmp_path)
        assert (tmp_path / "file").read_bytes() == there, "it stays until the right one has come"
    said = fetch(wanted, tmp_path)
    assert "was fetched" in said and "what was there before is kept as" in said and said.count("file") > 1
    assert everything(tmp_path) == [".damaged-file", "file"] and (tmp_path / ".damaged-file").read_bytes() == there
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_file_that_a_person_has_to_fetch_is_never_touched(tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(FetchError, match=r"not the published file.*remove"):
        fetch(Download(path="file", by_hand="get it", sha256=SHA256), tmp_path)
    assert everything(tmp_path) == ["file"] and (tmp_path / "file").read_bytes() == b"mine"


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_whose_unpacking_was_killed_is_fetched_again(server, tmp_path, kind, monkeypatch):
    """The file by which it is known to be there comes after all others."""
    server.files["/pack"] = (
        zipped(**{"set/a": "x", "set/b": "x", "set/c": "x"})
        if kind == "zip"
        else tarred(member("set/a"), member("set/b"), member("set/c"))
    )
    wanted, move = Download(path="set/a", url=f"{server.url}/pack", unpack=kind), fetching.shutil.move
    for stop in range(3):
        moved = iter(range(9))

        def killed(source, target, moved=moved, stop=stop):
            if next(moved) == stop:
                raise KeyboardInterrupt
            return move(source, target)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(fetching.shutil, "move", killed)
            fetch(wanted, tmp_path)
        assert found(wanted, tmp_path) is None
    assert "unpacked" in fetch(wanted, tmp_path) and everything(tmp_path) == ["set/a", "set/b", "set/c"]


def test_what_killed_downloads_left_is_removed_and_what_others_do_is_not(server, tmp_path):
    for name, age in ((".fetch-old", 2 * fetching.STALE), (".fetch-now", 0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
        os.utime(tmp_path / name, (0, time.time() - age))
    fetch(Download(path="file", url=f"{server.url}/file"), tmp_path)
    assert everything(tmp_path) == [".fetch-now/file", "file"]


@pytest.mark.parametrize("pack", [bz2.compress, gzip.compress, lzma.compress])
def test_a_damaged_archive_is_one_sentence(server, tmp_path, pack):
    inside = io.BytesIO()
    with tarfile.open(fileobj=inside, mode="w") as tar:
        tar.addfile(member("set/a", 90_000), io.BytesIO(random.Random(0).randbytes(90_000)))
    whole = pack(inside.getvalue())
    for damaged in (whole[:20], whole[: len(whole) // 2], bytes(50), whole[:10] + bytes(9) + whole[19:]):
        server.files["/pack"] = damaged
        with pytest.raises(FetchError, match="not the expected archive"):
            fetch(Download(path="set/a", url=f"{server.url}/pack", unpack="tar"), tmp_path)
        assert everything(tmp_path) == []


def test_what_serves_instead_is_enough(server, tmp_path):
    wanted = Download(path="file.gz", url=f"{server.url}/file", instead=("file",))
    (tmp_path / "file").write_bytes(b"unpacked")
    assert found(wanted, tmp_path) == tmp_path / "file"
    assert "not checked" in fetch(wanted, tmp_path) and server.asked == []


def test_what_a_person_must_do_is_one_sentence_that_says_where(tmp_path):
    wanted = Download(path="faces/s1/1.pgm", by_hand="download it from https://example.org and unpack it there")
    with pytest.raises(FetchError, match="by hand") as caught:
        fetch(wanted, tmp_path)
    assert "https://example.org" in str(caught.value) and str(tmp_path / "faces/s1/1.pgm") in str(caught.value)
    (tmp_path / "faces/s1").mkdir(parents=True)
    (tmp_path / "faces/s1/1.pgm").touch()
    assert "is there" in fetch(wanted, tmp_path)


def test_a_file_is_taken_out_of_a_zip_in_a_zip(server, tmp_path):
    server.files["/zip"] = zipped(**{"inner.zip": zipped(**{"table.csv": CONTENT, "other": "x"}), "readme": "x"})
    wanted = {"path": "table.csv", "url": f"{server.url}/zip", "sha256": SHA256}
    fetch(Download(members=("inner.zip", "table.csv"), **wanted), tmp_path)
    assert everything(tmp_path) == ["table.csv"] and (tmp_path / "table.csv").read_bytes() == CONTENT
    (tmp_path / "table.csv").unlink()
    for wrong in (("inner.zip", "gone.csv"), ("readme", "table.csv")):
        with pytest.raises(FetchError, match="not the expected archive"):
            fetch(Download(members=wrong, **wanted), tmp_path)
    assert everything(tmp_path) == []


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """Stands in for npm: puts a package into the folder that it is told, or fails; returns what it was asked."""
    tools = tmp_path / "tools"
    tools.mkdir()
    monkeypatch.setenv("PATH", str(tools), prepend=os.pathsep)

    def make(content, status=0):
        (tools / "package.tgz").write_bytes(content)
        script = tools / "npm"
        script.write_text(
            f"#!{sys.executable}\nimport shutil, sys\nwords = sys.argv[1:]\n"
            f'open({str(tools / "asked")!r}, "w").write(" ".join(words))\n'
            f'if {status}:\n    sys.exit("404 no such package")\n'
            f'shutil.copy({str(tools / "package.tgz")!r}, words[words.index("--pack-destination") + 1])\n'
        )
        script.chmod(0o700)
        return tools / "asked"

    return make


def test_a_file_is_taken_out_of_a_package_and_nothing_in_it_is_run(npm, tmp_path):
    content, inside = io.BytesIO(), tarfile.TarInfo("package/model/net.bin")
    inside.size = len(CONTENT)
    with tarfile.open(fileobj=content, mode="w:gz") as pack:
        pack.addfile(inside, io.BytesIO(CONTENT))
    asked = npm(content.getvalue())
    wanted = {"path": "net/net.bin", "package": "npm:@some/net@1.2.3", "sha256": SHA256}
    member = ("package/model/net.bin",)
    assert "was fetched" in fetch(Download(members=member, **wanted), tmp_path / "data")
    assert everything(tmp_path / "data") == ["net/net.bin"]
    assert (tmp_path / "data/net/net.bin").read_bytes() == CONTENT
    words = asked.read_text().split()
    assert words[0] == "pack" and words[-1] == "@some/net@1.2.3" and "--ignore-scripts" in words
    asked.unlink()
    assert "is there, and its" in fetch(Download(members=member, **wanted), tmp_path / "data") and not asked.exists()
    for wrong, said in (
        ({"members": ("package/gone",)}, "npm:@some/net@1.2.3 gave is not the expected archive"),
        ({"members": member, "sha256": "0" * 64}, "not the published file"),
    ):
        with pytest.raises(FetchError, match=said):
            fetch(Download(**{**wanted, **wrong}), tmp_path / "other")
    assert everything(tmp_path / "other") == []


def test_a_package_that_is_not_there_and_a_missing_manager_are_said(npm, tmp_path, monkeypatch):
    npm(b"", status=1)
    wanted = Download(path="net.bin", package="npm:net@1", members=("net.bin",))
    with pytest.raises(
        FetchError, match=r"npm:net@1 was not fetched \(404 no such package\).*put the file at .*net\.bin"
    ):
        fetch(wanted, tmp_path / "data")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FetchError, match="fetched with npm, which is not installed"):
        fetch(wanted, tmp_path / "data")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_is_unpacked_beside_what_is_there(server, tmp_path, kind):
    packed = zipped(**{"set/a": "x", "set/b/c": "x"}) if kind == "zip" else tarred(member("set/a"), member("set/b/c"))
    server.files["/pack"] = packed
    (tmp_path / "set").mkdir()
    (tmp_path / "set/mine").touch()
    promise = hashlib.sha256(packed).hexdigest()
    said = fetch(Download(path="set/b/c", url=f"{server.url}/pack", unpack=kind, sha256=promise), tmp_path)
    assert "unpacked" in said and everything(tmp_path) == ["set/a", "set/b/c", "set/mine"]
    with pytest.raises(FetchError, match="holds no set/z"):
        fetch(Download(path="set/z", url=f"{server.url}/pack", unpack=kind), tmp_path)


@pytest.mark.parametrize(
    ("kind", "packed"),
    [
        ("zip", zipped(**{"good": "x", "../evil": "x"})),
        ("zip", zipped(**{"good": "x", "/evil": "x"})),
        ("tar", tarred(member("good"), member("../evil"))),
        ("tar", tarred(member("good"), member("evil", 0, type=tarfile.SYMTYPE, linkname="/etc/passwd"))),
    ],
)
def test_an_archive_that_reaches_outside_is_refused(server, tmp_path, kind, packed):
    server.files["/pack"] = packed
    root = tmp_path / "data"
    with pytest.raises(FetchError, match="was not unpacked"):
        fetch(Download(path="good", url=f"{server.url}/pack", unpack=kind), root)
    assert everything(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_an_error_of_the_file_system(server, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        fetch(Download(path="set/file", url=f"{server.url}/file"), tmp_path)


def test_downloads_are_read_from_the_source_alone(tmp_path):
    source = tmp_path / "component.py"
    source.write_text(
        "import nothing_of_that_name\n"
        "class Set:\n"
        "    downloads = (Download(path='a', url='b' 'c', instead=('d',)), Download(path='e'))\n"
        "class Heir(Set):\n"
        "    pass\n"
        "class Bare:\n"
        "    pass\n"
    )
    assert downloads_of(source, "Set") == (Download(path="a", url="bc", instead=("d",)), Download(path="e"))
    assert downloads_of(source, "Heir") == downloads_of(source, "Set")
    assert downloads_of(source, "Bare") == ()
