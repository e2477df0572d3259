import http.server
import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labelmelite import fetching
from labelmelite.errors import ApiError
from labelmelite.fetching import Fetcher, is_private
from labelmelite.images import Pixels, as_root
from segloop.errors import SegloopError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :20] = (200, 0, 0)
    pixels[:, 20:] = (0, 200, 0)
    Image.fromarray(pixels).save(tmp_path / "images" / "a.png")
    Image.fromarray(pixels).save(tmp_path / "secret.png")
    return tmp_path / "images"


@pytest.fixture
def pixels(folder: Path, tmp_path: Path) -> Pixels:
    return Pixels(tmp_path / "cache", (str(folder),), 1 << 30)


def decoded(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "x/../../secret.png", "", "a\0b"])
def test_names_lead_nowhere_else(pixels: Pixels, folder: Path, name: str) -> None:
    with pytest.raises(ApiError) as caught:
        pixels.file(str(folder), name)
    assert caught.value.code == "forbidden"


def test_files_that_cannot_be_opened_are_told(pixels: Pixels, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (f"{'x' * 300}.png", "missing.png", "a.png/b.png"):
        for look in (pixels.upright, pixels.size, lambda root, name: pixels.crop(root, name, 0, 0, 9, 9)):
            with pytest.raises(ApiError) as caught:
                look(str(folder), name)
            assert caught.value.status == 404 and len(caught.value.message) < 200
    # The tests may run as root, who reads everything.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ApiError, match=r"may not read the image a\.png") as caught:
        pixels.upright(str(folder), "a.png")
    assert caught.value.status == 403


def test_a_file_that_goes_while_it_is_read_is_told(
    pixels: Pixels, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = pixels.file(str(folder), "a.png")
    found.unlink()
    monkeypatch.setattr(pixels, "file", lambda root, name: found)
    for look in (
        lambda: pixels.upright(str(folder), "a.png"),
        lambda: pixels.upright(str(folder), "a.png", 9),
        lambda: pixels.crop(str(folder), "a.png", 0, 0, 9, 9),
        lambda: pixels.tag(str(folder), "a.png", ""),
    ):
        with pytest.raises(ApiError, match=r"a\.png cannot be read"):
            look()


def test_links_are_resolved_before_they_are_judged(pixels: Pixels, folder: Path, tmp_path: Path) -> None:
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "inside.png").symlink_to(folder / "a.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    assert pixels.size(str(folder), "inside.png") == (40, 20)
    with pytest.raises(ApiError, match=r"outside the allowed image folders\. Start the server with --allow"):
        pixels.file(str(folder), "link.png")
    for name in ("loop.png", "missing.png"):
        with pytest.raises(ApiError):
            pixels.file(str(folder), name)
    pixels.allow(str(tmp_path))
    assert pixels.file(str(folder), "link.png") == tmp_path / "secret.png"


def test_a_foreign_folder_is_refused(pixels: Pixels, tmp_path: Path) -> None:
    with pytest.raises(ApiError) as caught:
        pixels.file(str(tmp_path), "secret.png")
    assert caught.value.code == "forbidden"


def test_a_crop_with_black_outside(pixels: Pixels, folder: Path) -> None:
    found = decoded(pixels.crop(str(folder), "a.png", -10, -10, 40, 80))
    assert found.shape == (80, 80, 3)
    assert found[:16].max() < 20 and found[:, :16].max() < 20 and found[64:].max() < 20
    assert np.abs(found[40, 40].astype(int) - (200, 0, 0)).max() < 20
    assert np.abs(found[40, 74].astype(int) - (0, 200, 0)).max() < 20
    assert decoded(pixels.crop(str(folder), "a.png", 500, 500, 10, 32)).max() == 0


def test_what_was_cut_once_is_kept_and_made_again_when_the_image_changes(pixels: Pixels, folder: Path) -> None:
    first = pixels.crop(str(folder), "a.png", 0, 0, 20, 40)
    kept = [path for path in pixels.cache.rglob("*") if path.is_file()]
    assert len(kept) == 1 and kept[0].read_bytes() == first
    kept[0].write_bytes(b"from the cache")
    assert pixels.crop(str(folder), "a.png", 0, 0, 20, 40) == b"from the cache"
    Image.fromarray(np.full((20, 40, 3), 77, np.uint8)).save(folder / "a.png")
    os.utime(folder / "a.png", ns=(1, 1))
    assert np.abs(decoded(pixels.crop(str(folder), "a.png", 0, 0, 20, 40)).astype(int) - 77).max() < 5


def test_the_cache_is_thinned_out(folder: Path, tmp_path: Path) -> None:
    pixels = Pixels(tmp_path / "cache", (str(folder),), 4000)
    for place in range(20):
        pixels.crop(str(folder), "a.png", place, 0, 20, 64)
    assert sum(path.stat().st_size for path in pixels.cache.rglob("*") if path.is_file()) <= 4000


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16", "1", "LA"])
def test_images_of_every_kind_are_shown(pixels: Pixels, folder: Path, mode: str) -> None:
    name = "x.tif" if mode == "CMYK" else "x.png"
    source = Image.new("L", (10, 6), 128)
    Image.fromarray(np.full((6, 10), 30000, np.uint16)).save(folder / name) if mode == "I;16" else source.convert(
        mode
    ).save(folder / name)
    data, media = pixels.upright(str(folder), name)
    assert media in ("image/png", "image/jpeg")
    assert decoded(data).shape == (6, 10, 3)


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n" + b"\0" * 50, b"<svg onload=alert(1)>"])
def test_damaged_images_are_told(pixels: Pixels, folder: Path, content: bytes) -> None:
    (folder / "bad.png").write_bytes(content)
    for call in (
        lambda: pixels.upright(str(folder), "bad.png"),
        lambda: pixels.upright(str(folder), "bad.png", 100),
        lambda: pixels.crop(str(folder), "bad.png", 0, 0, 5, 50),
        lambda: pixels.size(str(folder), "bad.png"),
    ):
        with pytest.raises(ApiError, match=r"bad\.png cannot be read") as caught:
            call()
        assert caught.value.code == "unavailable" and str(folder) not in caught.value.message


def test_an_image_of_absurd_size_is_refused(pixels: Pixels, folder: Path) -> None:
    Image.new("1", (20_000, 10_000)).save(folder / "bomb.png")
    with pytest.raises(ApiError, match=r"bomb\.png cannot be read"):
        pixels.upright(str(folder), "bomb.png", 100)


# --- from the web


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Host"]))  # type: ignore[attr-defined]
        if self.path.startswith("/images/away"):
            self.send_response(302)
            self.send_header("Location", "/secret")
            self.end_headers()
        elif self.path.startswith("/images/round"):
            self.send_response(302)
            self.send_header("Location", self.path)
            self.end_headers()
        elif self.path.startswith("/images/missing"):
            self.send_error(404)
        elif self.path.startswith("/images/large"):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"x" * 3000)
        else:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.server.content)  # type: ignore[attr-defined]

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web(folder: Path) -> Iterator[http.server.ThreadingHTTPServer]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.content = (folder / "a.png").read_bytes()  # type: ignore[attr-defined]
        server.asked = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def base_of(web: http.server.ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{web.server_address[1]}/images/"


def test_images_from_the_web_are_fetched_once(web: http.server.ThreadingHTTPServer, tmp_path: Path) -> None:
    root = as_root(base_of(web).rstrip("/"))
    pixels = Pixels(tmp_path / "cache", (root,), 1 << 30)
    assert pixels.size(root, "sub dir/ä.png") == (40, 20)
    assert decoded(pixels.upright(root, "sub dir/ä.png", 20)[0]).shape == (10, 20, 3)
    assert [path for path, _ in web.asked] == ["/images/sub%20dir/%C3%A4.png"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("away.png", "forbidden"),
        ("round.png", "unavailable"),
        ("missing.png", "unavailable"),
        ("large.png", "too_large"),
        ("../secret", "forbidden"),
        ("//evil.example/x.png", "forbidden"),
        ("http://evil.example/x.png", "unavailable"),
    ],
)
def test_what_is_not_fetched(
    web: http.server.ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch, name: str, code: str
) -> None:
    monkeypatch.setattr(fetching, "MAX_BYTES", 2000)
    fetcher = Fetcher((base_of(web),))
    if name.startswith("http://"):
        # Quoted, so that it is a file below the base like any other.
        assert fetcher.fetch(base_of(web), name)
        assert web.asked[-1][0].startswith("/images/http%3A/")  # type: ignore[attr-defined]
        return
    with pytest.raises(ApiError) as caught:
        fetcher.fetch(base_of(web), name)
    assert caught.value.code == code
    assert not any(path.endswith("secret") for path, _ in web.asked)  # type: ignore[attr-defined]


def test_only_allowed_bases(web: http.server.ThreadingHTTPServer) -> None:
    with pytest.raises(ApiError, match="not allowed here"):
        Fetcher((base_of(web),)).fetch("http://127.0.0.1/", "x.png")
    for base in ("ftp://a/b/", "http:///x/", "http://user:word@host/x/"):
        with pytest.raises(SegloopError, match="is no URL"):
            Fetcher((base,))


def test_a_name_that_later_leads_to_a_private_address(
    web: http.server.ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses = ["93.184.216.34"]
    monkeypatch.setattr(fetching, "_addresses", lambda host, port: addresses)
    base = f"http://images.example:{web.server_address[1]}/images/"
    fetcher = Fetcher((base,))
    addresses[0] = "127.0.0.1"
    with pytest.raises(ApiError, match="leads to a private address"):
        fetcher.fetch(base, "a.png")
    assert not web.asked  # type: ignore[attr-defined]
    # Meant that way from the start, it is allowed, and asked for by its name.
    assert Fetcher((base,)).fetch(base, "a.png")
    assert web.asked[-1][1].startswith("images.example:")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("address", "private"),
    [
        ("127.0.0.1", True),
        ("10.1.2.3", True),
        ("169.254.169.254", True),
        ("::1", True),
        ("fe80::1%eth0", True),
        ("100.64.0.1", True),
        ("nonsense", True),
        ("93.184.216.34", False),
        ("2606:4700::1111", False),
    ],
)
def test_private_addresses(address: str, private: bool) -> None:
    assert is_private(address) is private
