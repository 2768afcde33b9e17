"""explorer.html, and what it does in a browser: headless Chromium, driven over its own protocol."""

import base64
import contextlib
import copy
import io
import json
import os
import re
import select
import shutil
import subprocess
import time

import numpy as np
import pytest
import torch
from PIL import Image

from factorvae.datasets import Dataset, FactorSpace
from factorvae.datasets.dsprites import load_dsprites
from factorvae.datasets.dsprites_drawing import DSPRITES
from factorvae.datasets.dsprites_variants import load_color_dsprites, load_noisy_dsprites
from factorvae.datasets.images import Preparation, decode
from factorvae.datasets.table import Pixels
from factorvae.models import VAE
from factorvae.pages.explorer import (
    conditional_means,
    drawing,
    explorer_page,
    known_shares,
    latent_role,
    marked_ranges,
    start_images,
)

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """A Chromium of its own, spoken to over a pair of pipes: JSON, each message ended by a NUL."""

    def __init__(self, profile):
        """Started with its profile in an empty folder, and without a network."""
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        flags = (
            "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
            "--disable-background-networking --disable-component-update --disable-sync "
            "--disable-dev-shm-usage --remote-debugging-pipe"
        ).split()
        # The browser listens on descriptor 3 and answers on 4.
        command = f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}'
        self._process = subprocess.Popen(
            ["bash", "-c", command, CHROMIUM, *flags, f"--user-data-dir={profile}"],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._buffer, self._number, self._session = b"", 0, None
        self.complaints = []  # errors and warnings in the page's console, and requests that fail
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def close(self):
        with contextlib.suppress(OSError):
            self.call("Browser.close")
        self._process.wait(60)
        os.close(self._write)
        os.close(self._read)

    def call(self, method, **params):
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def _next(self):
        while b"\0" not in self._buffer:
            assert select.select([self._read], [], [], 60)[0], "the browser says nothing"
            part = os.read(self._read, 1 << 20)
            assert part, "the browser is gone"
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(message)
        method, params = message.get("method"), message.get("params")
        if method == "Runtime.exceptionThrown":
            self.complaints.append(str(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.complaints.append(str(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.complaints.append(str(params["entry"]))
        return message

    def evaluate(self, expression):
        """The value of a JavaScript expression, of what it promises where it is a promise."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, condition):
        end = time.monotonic() + 300
        while not self.evaluate(condition):
            assert time.monotonic() < end, f"still not {condition}"
            time.sleep(0.02)

    def open(self, path, fragment=""):
        """A page from the disk, from the start, until it is ready."""
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=path.as_uri() + fragment)
        self.until("Boolean(window.explorer && explorer.stage.frames)")

    def press(self, key, **more):
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, **KEYS[key], **more)

    def window(self, width, height=800, scheme="light", touch=False):
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=touch,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def screenshot(self, whole=False):
        return base64.b64decode(
            self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        )


KEYS = {
    "ArrowRight": {"windowsVirtualKeyCode": 39},
    "ArrowLeft": {"windowsVirtualKeyCode": 37},
    "PageUp": {"windowsVirtualKeyCode": 33},
    "Tab": {"windowsVirtualKeyCode": 9},
}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip(f"none of {', '.join(NAMES)} is installed; CHROMIUM=/path names another")
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(autouse=True)
def no_complaints(request):
    """Every test in the browser ends without an error or a warning in its console."""
    yield
    if "browser" in request.fixturenames:
        browser = request.getfixturevalue("browser")
        complaints, browser.complaints = browser.complaints, []
        assert complaints == []


# --- models and images ---------------------------------------------------------------------------

SPACE = FactorSpace(
    DSPRITES.names,
    (3, 2, 5, 4, 4),
    [
        [values[int(place)] for place in np.linspace(0, len(values) - 1, count)]
        for values, count in zip(DSPRITES.values, (3, 2, 5, 4, 4), strict=True)
    ],
)


def wild_vae(dataset, latent_dim=4, dead=1):
    """A VAE with random weights whose pictures have contrast, and its last latents dead."""
    vae = VAE(dataset.image_shape, latent_dim, 32, torch.Generator().manual_seed(0)).eval()
    with torch.inference_mode():
        z = torch.randn(64, latent_dim, generator=torch.Generator().manual_seed(1))
        vae.decoder.upconvs[-1].weight.mul_(3 / vae.decode(z).std())
        mu = vae.encode(dataset.batch(np.arange(0, len(dataset), len(dataset) // 20)))[0]
        head = vae.encoder.head.weight
        head.mul_(1 / mu.square().mean().sqrt())
        head[latent_dim - dead : latent_dim] = 0
        head[2 * latent_dim - dead :] = 0
    return vae


def photos(size, count=20, name="photos", **known):
    """Smooth random images in colour."""
    coarse = np.random.default_rng(0).random((count, 3, 5, 5), dtype=np.float32)
    smooth = torch.nn.functional.interpolate(torch.from_numpy(coarse), size=size, mode="bicubic")
    pixels = smooth.clamp(0, 1).mul(255).round().byte().numpy()
    return Dataset(name, "made", Pixels(pixels), **known)


def rounded(vae):
    """The same model with its weights rounded to float16."""
    twin = copy.deepcopy(vae)
    with torch.no_grad():
        for weight in twin.parameters():
            weight.copy_(weight.half().float())
    return twin


def page_of(vae, dataset, **options):
    @torch.inference_mode()
    def posterior(index):
        mu, logvar = vae.encode(dataset.batch(index))
        return mu.numpy(), logvar.numpy()

    return explorer_page(vae, dataset, np.arange(len(dataset)), posterior, **options)


@pytest.fixture(scope="module")
def sprites(tmp_path_factory):
    """dSprites with few values of each factor, a model for it, and the path of its page."""
    folder = tmp_path_factory.mktemp("sprites")
    dataset = load_dsprites(folder, space=SPACE)
    vae = wild_vae(dataset)
    path = folder / "explorer.html"
    path.write_text(page_of(vae, dataset, title="Sprites"), encoding="utf-8")
    return dataset, vae, path


def description_of(page):
    return json.loads(re.search(r'id="description">(.*?)</script>', page, re.S)[1])


# --- what the page is told -----------------------------------------------------------------------


def test_the_page_is_whole_and_small(sprites):
    page = sprites[2].read_text(encoding="utf-8")
    assert "{{" not in page
    assert not re.findall(r'(?:src|href)="(?!data:)|url\(|@import|fetch\(|XMLHttp', page)
    largest = page_of(VAE((1, 64, 64), 10, 128), sprites[0])
    assert len(largest) < 4_000_000


def test_text_from_elsewhere_stays_text(browser, tmp_path):
    evil = '</script><script>document.title = "taken"</script><b>&amp;'
    factors = np.arange(20)[:, None] % 2
    known = {"factors": factors, "factor_names": (evil,), "factor_sizes": (2,)}
    path = tmp_path / "evil #1.html"
    dataset = photos(32, name=evil, **known)
    path.write_text(page_of(wild_vae(dataset), dataset, title=evil), encoding="utf-8")
    browser.open(path)
    assert browser.evaluate("document.title") == evil
    assert browser.evaluate("document.querySelector('h1').textContent") == evil
    assert browser.evaluate("explorer.model.responses.factors[0].name") == evil
    assert browser.evaluate("document.querySelector('.charts .name').textContent") == evil
    assert browser.evaluate("document.querySelectorAll('b').length") == 0


def test_ranges_and_roles_have_their_known_values():
    normal = marked_ranges(np.zeros((20_000, 2), np.float32), np.zeros((20_000, 2), np.float32), 0)
    np.testing.assert_allclose(normal, [[-2.326] * 2, [2.326] * 2], atol=0.1)
    names, grid = ("posX", "posY", "one"), np.indices((8, 8)).reshape(2, -1).T
    factors = np.column_stack([grid, np.zeros(64, int)])
    codes = np.column_stack([grid[:, 0], grid.sum(axis=1), np.zeros(64)]).astype(np.float32)
    shares = known_shares(codes, factors)
    assert shares[0].tolist() == pytest.approx([1, 0, 0])
    assert shares[1, 0] == pytest.approx(shares[1, 1]) and not shares[2].any()
    roles = [latent_role(row, names) for row in shares]
    assert roles == ["mostly posX", "posX and posY", "no one factor"]
    means = conditional_means(codes, factors[:, 0], 9)
    assert means[:8, 0].tolist() == list(range(8)) and means[:8, 1].tolist() == [
        x + 3.5 for x in range(8)
    ]
    assert np.isnan(means[8]).all() and conditional_means(codes, factors[:, 2], 1).shape == (1, 3)


def test_latents_are_sorted_and_curves_are_those_of_the_encoder(sprites):
    dataset, vae, path = sprites
    model = description_of(path.read_text(encoding="utf-8"))
    kl = [latent["kl"] for latent in model["latents"]]
    assert kl == sorted(kl, reverse=True) and kl[-2] > 0.01
    assert [latent["dead"] for latent in model["latents"]] == [False, False, False, True]
    assert model["latents"][-1]["index"] == 3 and model["latents"][-1]["role"] == ""
    with torch.inference_mode():
        mu = vae.encode(dataset.batch(np.arange(len(dataset))))[0].numpy()
    everywhere = mu.reshape(*SPACE.sizes, 4)
    curves = {factor["name"]: factor for factor in model["responses"]["factors"]}
    pos_x = everywhere.mean(axis=(1, 2, 4))  # all scales, orientations and posY: [3, 4, 4]
    np.testing.assert_allclose(curves["posX"]["lines"], pos_x, atol=0.25 * mu.std())
    assert curves["shape"]["labels"] == ["square", "ellipse", "heart"]
    assert curves["orientation"]["labels"][-1] == "2π"


def test_start_images_are_a_dozen_and_begin_with_those_asked_for(sprites):
    dataset = sprites[0]
    chosen = start_images(dataset, [7, 3], seed=0).tolist()
    assert chosen[:2] == [7, 3] and len(set(chosen)) == len(chosen) == 12
    assert len(start_images(photos(32, count=5), [4], seed=0)) == 5


# --- what a browser makes of it ------------------------------------------------------------------


DECODE = "explorer.client.ask('picture', 'decode', {}).then((pixels) => Array.from(pixels))"
ENCODE = "explorer.client.ask('encode', 'encode', {}).then((codes) => Array.from(codes))"


LARGE = [pytest.param(shape, marks=pytest.mark.slow) for shape in ((3, 128, 128), (1, 256, 256))]


@pytest.mark.parametrize("image_shape", [(3, 32, 32), (1, 64, 64), *LARGE], ids=str)
def test_the_browser_computes_what_pytorch_does(browser, tmp_path, image_shape):
    channels, size, _ = image_shape
    dataset = photos(size)
    if channels == 1:
        dataset = Dataset("grey", "made", Pixels(dataset.table.pixels[:, :1].copy()))
    vae = wild_vae(dataset)
    path = tmp_path / "explorer.html"
    path.write_text(page_of(vae, dataset), encoding="utf-8")
    browser.open(path)
    z = torch.randn(3, 4, generator=torch.Generator().manual_seed(2))
    found = [browser.evaluate(DECODE.format(code.tolist())) for code in z]
    found = torch.tensor(found).view(3, size, size, channels).permute(0, 3, 1, 2)
    with torch.inference_mode():
        exact, close = (model.decode(z).sigmoid() for model in (rounded(vae), vae))
    assert exact.std() > 0.2  # there is something to see
    assert (found - exact).abs().max() < 1 / 255
    assert (found - close).abs().max() < 2 / 255

    image = dataset.batch(np.array([2]))
    pixels = image[0].permute(1, 2, 0).flatten().tolist()
    with torch.inference_mode():
        mu, logvar = vae.encode(image)
    codes = browser.evaluate(ENCODE.format(pixels))
    assert mu.abs().max() > 0.1
    np.testing.assert_allclose(codes, torch.cat([mu, logvar], 1)[0], atol=1e-2)


CANVAS = """Array.from(document.getElementById('{}').getContext('2d')
    .getImageData(0, 0, {size}, {size}).data.filter((_, place) => place % 4 === 0))"""


def seen(browser, canvas, size=64):
    """Red levels of a canvas: uint8 [size, size]."""
    levels = browser.evaluate(CANVAS.format(canvas, size=size))
    return np.array(levels, np.uint8).reshape(size, size)


def latents(browser):
    return browser.evaluate("Array.from(explorer.state.z)")


@torch.inference_mode()
def decoded(vae, z):
    return vae.decode(torch.tensor([z])).sigmoid()[0, 0].numpy() * 255


@pytest.mark.parametrize("worker", [True, False], ids=["in a worker", "without workers"])
def test_keys_move_a_latent_and_the_picture(browser, sprites, worker):
    _, vae, path = sprites
    script = "Object.defineProperty(window, 'Worker', { value() { throw new Error('none'); } });"
    if not worker:
        identifier = browser.call("Page.addScriptToEvaluateOnNewDocument", source=script)
    browser.open(path)
    assert browser.evaluate("explorer.client.worker !== null") == worker
    first = browser.evaluate("explorer.model.latents[0].index")
    browser.evaluate(f"document.getElementById('z{first}').focus()")
    before, z = seen(browser, "decoded"), latents(browser)
    assert abs(before - decoded(vae, z)).max() < 2
    for key, more in (("ArrowRight", {}), ("PageUp", {}), ("ArrowLeft", {"modifiers": 8})):
        frames = browser.evaluate("explorer.stage.frames")
        browser.press(key, **more)
        browser.until(f"explorer.stage.frames > {frames}")
    z[first] = round(z[first] + 0.1, 2) + 1 - 0.01
    np.testing.assert_allclose(latents(browser), z, atol=1e-6)
    after = seen(browser, "decoded")
    assert abs(after - decoded(vae, latents(browser))).max() < 2
    assert abs(after.astype(int) - before).max() > 20
    if not worker:
        browser.call("Page.removeScriptToEvaluateOnNewDocument", **identifier)


def test_tab_goes_from_latent_to_latent_and_dead_ones_are_folded(browser, sprites):
    browser.open(sprites[2])
    order = browser.evaluate("explorer.model.latents.map(({ index }) => index)")
    browser.evaluate(f"document.getElementById('z{order[0]}').focus()")
    for latent in order[1:3]:
        browser.press("Tab")
        assert browser.evaluate("document.activeElement.id") == f"z{latent}"
        assert browser.evaluate("explorer.state.hand") == latent
    browser.press("Tab")
    assert browser.evaluate("document.activeElement.tagName") == "SUMMARY"
    assert browser.evaluate("document.getElementById('dead').open") is False
    unnamed = """Array.from(document.querySelectorAll('input, button, select, canvas, svg'))
        .filter((one) => !(one.labels?.length || one.ariaLabel || one.textContent.trim() ||
            one.ariaHidden || one.closest('button')?.textContent)).map((one) => one.outerHTML)"""
    assert browser.evaluate(unnamed) == []


def test_a_link_holds_the_state(browser, sprites):
    _, _, path = sprites
    asked = "#z=0.5,-1.25,0,2&hand=1&image=4&from=i2&to=1,2,3,4&factors=2,1,0,3,1"
    browser.open(path, asked)
    assert latents(browser) == [0.5, -1.25, 0, 2]
    assert browser.evaluate("explorer.state.toHash()") == asked
    assert (
        browser.evaluate("document.getElementById('original-name').textContent")
        == (description_of(path.read_text(encoding="utf-8"))["images"][4]["name"])
    )
    browser.evaluate("explorer.state.setLatent(2, 1.5)")
    browser.until("location.hash.startsWith('#z=0.5,-1.25,1.5,2&hand=2&')")
    browser.evaluate("location.hash = '#z=1,1,1,1'")
    browser.until("explorer.state.z[1] === 1")
    for broken in ("#z=1,2", "#z=1,2,3,x", "#z=", "#z=1,2,3,4e999"):
        browser.open(path, broken)
        start = browser.evaluate("explorer.model.images[0].code")
        np.testing.assert_allclose(latents(browser), start, atol=1e-6)


def drop(browser, name, data):
    text = base64.b64encode(data).decode()
    browser.evaluate(
        f"""(() => {{
            const bytes = Uint8Array.from(atob("{text}"), (one) => one.charCodeAt(0));
            const data = new DataTransfer();
            data.items.add(new File([bytes], "{name}"));
            document.dispatchEvent(new DragEvent("drop", {{ dataTransfer: data }}));
        }})()"""
    )


def test_an_image_of_ones_own_is_prepared_and_encoded(browser, tmp_path):
    dataset = photos(32)
    vae = wild_vae(dataset)
    path = tmp_path / "explorer.html"
    path.write_text(page_of(vae, dataset), encoding="utf-8")
    browser.open(path)
    levels = photos(100).table.pixels[3].transpose(1, 2, 0)[10:90]  # 80x100
    alpha = np.linspace(0, 255, 80).astype(np.uint8)[:, None].repeat(100, 1)
    for name, image in (
        ("photo.png", Image.fromarray(levels)),
        ("glass.png", Image.fromarray(np.dstack([levels, alpha]))),
        ("small.png", Image.fromarray(levels).resize((20, 17))),
        ("exact.png", Image.fromarray(dataset.table.pixels[1].transpose(1, 2, 0))),
    ):
        file = io.BytesIO()
        image.save(file, "PNG")
        expected = decode(file.getvalue(), Preparation(32))
        drop(browser, name, file.getvalue())
        browser.until(f"document.getElementById('status').textContent === '{name} is encoded.'")
        shown = seen(browser, "original", 32)
        assert abs(shown.astype(int) - expected[0]).max() <= (0 if "exact" in name else 2)
        with torch.inference_mode():
            mu = vae.encode(torch.tensor(expected)[None].float() / 255)[0][0]
        np.testing.assert_allclose(latents(browser), mu, atol=1e-2)
    drop(browser, "words.txt", b"no image")
    browser.until("document.getElementById('status').textContent.startsWith('words.txt is no')")


@pytest.mark.parametrize(
    "load", [load_dsprites, load_color_dsprites, load_noisy_dsprites], ids=lambda f: f.__name__
)
def test_sprites_are_drawn_as_the_dataset_has_them(browser, sprites, tmp_path, load):
    dataset = load(tmp_path, space=SPACE)
    browser.open(sprites[2])
    index = np.arange(0, len(SPACE), 1 if load is load_dsprites else 97)
    factors = SPACE.factors_of(index).tolist()
    told = json.dumps(drawing(dataset))
    found = browser.evaluate(
        f"{json.dumps(factors)}.map((each) => btoa(String.fromCharCode("
        f"...drawSprite({told}, each).map((value) => 255 * value))))"
    )
    size = (len(index), 64, 64, -1)
    images = np.frombuffer(b"".join(map(base64.b64decode, found)), np.uint8).reshape(size)
    np.testing.assert_array_equal(images.transpose(0, 3, 1, 2), dataset.images(index).numpy())


def test_true_factors_draw_an_image_and_take_its_code(browser, sprites):
    dataset, vae, path = sprites
    browser.open(path)
    factors = browser.evaluate("explorer.state.factors")
    factors[3] = (factors[3] + 1) % 4
    browser.evaluate(
        f"""(() => {{ const input = document.getElementById("factor-3");
            input.value = {factors[3]}; input.dispatchEvent(new Event("input")); }})()"""
    )
    browser.until("explorer.state.source.name === 'true picture'")
    index = SPACE.index_of(np.array([factors]))
    np.testing.assert_array_equal(seen(browser, "true-picture"), dataset.images(index)[0, 0])
    np.testing.assert_array_equal(seen(browser, "original"), dataset.images(index)[0, 0])
    with torch.inference_mode():
        mu = vae.encode(dataset.batch(index))[0][0]
    np.testing.assert_allclose(latents(browser), mu, atol=1e-2)
    expected = decoded(vae, latents(browser))
    for canvas in ("reconstruction", "decoded"):
        assert abs(seen(browser, canvas) - expected).max() < 2


def test_images_random_reset_and_between_two(browser, sprites):
    browser.open(sprites[2])
    codes = browser.evaluate("explorer.model.images.map(({ code }) => code)")
    assert len(codes) == 12
    browser.evaluate("document.querySelectorAll('#bases button')[5].click()")
    np.testing.assert_allclose(latents(browser), codes[5], atol=1e-6)
    browser.evaluate("document.getElementById('random').click()")
    assert abs(np.subtract(latents(browser), codes[5])).min() > 0
    browser.evaluate("document.getElementById('reset').click()")
    np.testing.assert_allclose(latents(browser), codes[5], atol=1e-6)
    browser.evaluate("document.querySelectorAll('#strip button')[6].click()")
    hand = browser.evaluate("explorer.state.hand")
    assert latents(browser)[hand] == browser.evaluate("explorer.model.limit")
    browser.evaluate(
        """(() => { const select = document.querySelector("#end-b select");
            select.value = "7"; select.dispatchEvent(new Event("change"));
            document.querySelectorAll("#blend-strip button")[3].click(); })()"""
    )
    np.testing.assert_allclose(latents(browser), np.add(codes[0], codes[7]) / 2, atol=1e-5)


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_its_window(browser, sprites, width, scheme):
    browser.window(width, 800, scheme)
    browser.open(sprites[2])
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    beyond = """Array.from(document.querySelectorAll("main *")).filter((one) =>
        one.getBoundingClientRect().right > innerWidth && !one.closest("svg")).length"""
    assert browser.evaluate(beyond) == 0
    picture = np.asarray(Image.open(io.BytesIO(browser.screenshot())).convert("L"))
    assert (picture[-1, 0] < 60) == (scheme == "dark")
