# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import semanir.restoring.tiles as module
import torch
from common_kernels.runtime.images import ImageError, ImageFile, read_image, write_image
from PIL import Image, ImageCms
from semanir import RestoreOptions, SemanIR, SemanIRConfig
from semanir.restorer import Restorer

TINY = {"embed_dims": (8, 8), "num_heads": (1, 1), "window_size": 4, "k": 6, "conv_blocks": ()}
KINDS = [np.uint8, np.uint16, np.float32]


def tiny(**changes):
    torch.manual_seed(0)
    return SemanIR(SemanIRConfig.preset("tiny", **{**TINY, "depths": (1, 1, 1, 1), **changes})).eval()


def enlarging():
    torch.manual_seed(0)
    changes = {"embed_dims": (8,), "num_heads": (1,), "depths": (1, 1), "window_size": 4, "k": 6}
    return Restorer(SemanIR(SemanIRConfig.preset("sr-small", upscale=2, **changes)))


@pytest.fixture(scope="module")
def restorer():
    return Restorer(tiny())


@pytest.fixture(scope="module")
def grid(restorer):
    return restorer.model.config.size_multiple


def noise(shape, dtype=np.uint8, seed=0):
    values = np.random.default_rng(seed).random(shape)
    return values.astype(np.float32) if dtype == np.float32 else (values * np.iinfo(dtype).max).astype(dtype)


def spread(restorer, pixels):
    """The largest change that the network makes, so that a test knows that it made one."""
    return np.abs(restorer.restore(pixels) - pixels).max()


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("shape", [(13, 9), (13, 9, 1), (13, 9, 2), (13, 9, 3), (13, 9, 4), (1, 1, 3)])
def test_kind_and_shape_come_back(restorer, shape, dtype):
    image = noise(shape, dtype)
    before = image.copy()
    out = restorer.restore(image)
    assert (out.dtype, out.shape) == (image.dtype, shape)
    np.testing.assert_array_equal(image, before)
    if shape[2:] in ((2,), (4,)):
        np.testing.assert_array_equal(out[..., -1], image[..., -1])
    out += 1  # a result of its own, which may be written to


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_pillow_images(restorer, mode):
    image = Image.fromarray(noise((13, 9, 4))).convert(mode)
    out = restorer.restore(image)
    assert (out.mode, out.size) == (mode, image.size)
    np.testing.assert_array_equal(np.asarray(out), restorer.restore(np.asarray(image)))


def test_a_pillow_image_is_turned_upright_and_keeps_what_is_beside_its_pixels(restorer, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"  # shown after a quarter turn
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif, icc_profile=profile, dpi=(72, 72))
    with Image.open(tmp_path / "a.png") as image:
        found = restorer.restore(image)
    assert np.array_equal(np.asarray(found), restorer.restore(np.rot90(pixels, -1).copy()))
    found.save(tmp_path / "b.png", exif=found.getexif(), dpi=found.info["dpi"])
    with Image.open(tmp_path / "b.png") as kept:
        assert kept.info["icc_profile"] == profile
        assert kept.getexif()[0x010F] == "maker"
        assert 0x0112 not in kept.getexif()
        assert kept.info["dpi"] == pytest.approx((72, 72), abs=0.1)


def test_depths_agree(restorer):
    image = noise((12, 12, 3))
    real = restorer.restore(image.astype(np.float32) / 255)
    np.testing.assert_allclose(restorer.restore(image) / 255, real.clip(0, 1), atol=0.51 / 255)
    deep = restorer.restore(image.astype(np.uint16) * 257)
    np.testing.assert_allclose(deep / 65535, real.clip(0, 1), atol=0.6 / 65535)


def test_grey_goes_through_as_three_equal_channels(restorer):
    grey = noise((12, 12), np.float32)
    colour = restorer.restore(np.repeat(grey[..., None], 3, -1))
    np.testing.assert_allclose(restorer.restore(grey), colour.mean(-1), atol=1e-6)


def test_colour_goes_through_a_grey_network_channel_by_channel():
    restorer = Restorer(tiny(in_channels=1, out_channels=1, mean=()))
    colour = noise((12, 12, 4), np.float32)
    out = restorer.restore(colour)
    for channel in range(3):
        np.testing.assert_allclose(out[..., channel], restorer.restore(colour[..., channel]), atol=1e-6)
    np.testing.assert_array_equal(out[..., 3], colour[..., 3])
    calls = []
    restorer.restore(colour, progress=lambda *pair: calls.append(pair))
    assert calls == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("shape", [(12, 10), (12, 10, 4)])
def test_strength_zero_is_the_input(restorer, shape, dtype):
    image = noise(shape, dtype)
    assert restorer.restore(image, RestoreOptions(strength=0)).tobytes() == image.tobytes()


def test_strength_is_linear(restorer):
    image = noise((12, 10, 3), np.float32)
    full, half = restorer.restore(image), restorer.restore(image, RestoreOptions(strength=0.5))
    assert spread(restorer, image) > 1e-3
    np.testing.assert_allclose(half, (full + image) / 2, atol=1e-6)


def test_self_ensemble_makes_eight_passes_and_commutes_with_turns(restorer, monkeypatch):
    image = noise((12, 20, 3), np.float32)
    calls, shapes, run = [], [], SemanIR.forward
    monkeypatch.setattr(
        SemanIR, "forward", lambda self, x, **rest: shapes.append(x.shape) or run(self, x, **rest)
    )
    out = restorer.restore(
        image, RestoreOptions(self_ensemble=True), progress=lambda *pair: calls.append(pair)
    )
    assert len(shapes) == 8
    assert calls == [(n, 8) for n in range(1, 9)]
    for turn in (np.fliplr, np.flipud, np.rot90, lambda a: a.swapaxes(0, 1)):
        turned = np.ascontiguousarray(turn(image))
        np.testing.assert_allclose(
            restorer.restore(turned, RestoreOptions(self_ensemble=True)), turn(out), atol=1e-5
        )
    assert np.abs(restorer.restore(np.ascontiguousarray(image[:, ::-1]))[:, ::-1] - out).max() > 1e-5


def test_a_tile_as_large_as_the_image_is_the_whole_image(grid):
    image = noise((3 * grid + 3, 4 * grid - 1, 3))
    whole = Restorer(tiny()).restore(image, RestoreOptions(tile=None))
    for tile in (4 * grid - 1, 4 * grid, 10 * grid, "auto"):
        np.testing.assert_array_equal(Restorer(tiny()).restore(image, RestoreOptions(tile=tile)), whole)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_tiles_come_close_to_the_whole_image(grid, batch_size):
    image = noise((5 * grid + 3, 6 * grid + 1, 3), np.float32)
    whole = Restorer(tiny()).restore(image, RestoreOptions(tile=None))
    tiled = Restorer(tiny(), batch_size=batch_size).restore(image, RestoreOptions(tile=4 * grid))
    change = np.abs(whole - image).mean()
    assert 0 < np.abs(tiled - whole).mean() < 0.1 * change


def test_progress_counts_every_tile(grid):
    calls = []
    image = noise((6 * grid, 5 * grid, 3))
    restorer = Restorer(tiny(), batch_size=2)
    restorer.restore(image, RestoreOptions(tile=4 * grid), progress=lambda *pair: calls.append(pair))
    done = [pair[0] for pair in calls]
    assert len({pair[1] for pair in calls}) == 1
    assert calls[-1][0] == calls[-1][1] > 1
    assert done == sorted(set(done))


def test_k_reaches_the_network(restorer):
    image = noise((12, 12, 3), np.float32)
    with torch.inference_mode():
        x = torch.from_numpy(image).permute(2, 0, 1)[None]
        expected = restorer.model(x, k=1)[0].permute(1, 2, 0).numpy()
    few = restorer.restore(image, RestoreOptions(k=1))
    np.testing.assert_allclose(few, expected, atol=1e-5)
    assert np.abs(few - restorer.restore(image)).max() > 1e-7


def test_bfloat16_network():
    image = noise((12, 12, 4))
    out = Restorer(tiny().to(torch.bfloat16)).restore(image)
    np.testing.assert_allclose(out.astype(float), Restorer(tiny()).restore(image), atol=8)


@pytest.mark.parametrize("dtype", [np.int32, np.bool_, np.complex64, ">u2"])
def test_other_dtypes_are_refused(restorer, dtype):
    with pytest.raises(TypeError, match="image must be uint8, uint16 or floating"):
        restorer.restore(np.zeros((4, 4), dtype))


@pytest.mark.parametrize(
    ("mode", "becomes"),
    [("1", "L"), ("P", "RGB"), ("CMYK", "RGB"), ("LAB", "RGB"), ("I;16", "I;16"), ("F", "F")],
)
def test_pillow_images_of_other_modes(restorer, mode, becomes):
    image = Image.fromarray(noise((13, 9)))
    if mode in ("I;16", "F"):
        image = Image.fromarray(noise((13, 9), np.uint16 if mode == "I;16" else np.float32))
    elif mode == "LAB":
        image = Image.frombytes("LAB", (9, 13), noise((13, 9, 3)).tobytes())
    else:
        image = image.convert(mode)
    out = restorer.restore(image)
    assert (out.mode, out.size) == (becomes, image.size)


@pytest.mark.parametrize("shape", [(4,), (4, 4, 5), (4, 4, 0), (0, 4, 3), (1, 4, 4, 3)])
def test_other_shapes_are_refused(restorer, shape):
    with pytest.raises(ValueError, match="image must be"):
        restorer.restore(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_must_be_finite(restorer, value):
    image = noise((4, 4, 3), np.float32)
    image[1, 2, 0] = value
    with pytest.raises(ValueError, match="finite"):
        restorer.restore(image)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"strength": -0.1}, "strength must lie in"),
        ({"strength": 1.1}, "strength must lie in"),
        ({"strength": float("nan")}, "strength must lie in"),
        ({"k": 0}, "k must be at least 1"),
        ({"tile": 0}, "tile must be at least 1"),
        ({"overlap": -1}, "overlap must be at least 0"),
    ],
)
def test_options_out_of_range(options, match):
    with pytest.raises(ValueError, match=match):
        RestoreOptions(**options)


def test_batch_size_out_of_range():
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        Restorer(tiny(), batch_size=0)


def test_tiles_that_are_too_small(grid):
    with pytest.raises(ValueError, match=r"tile must be at least overlap \+ "):
        Restorer(tiny()).restore(noise((4 * grid, 5, 3)), RestoreOptions(tile=3 * grid - 1))
    fits = RestoreOptions(tile=3 * grid)
    assert Restorer(tiny()).restore(noise((4 * grid, 5, 3)), fits).shape == (4 * grid, 5, 3)
    few = RestoreOptions(tile=grid, overlap=0)
    assert Restorer(tiny()).restore(noise((4 * grid, 5, 3)), few).shape == (4 * grid, 5, 3)


def test_networks_of_other_channels():
    restorer = Restorer(tiny(in_channels=4, out_channels=4, mean=()))
    with pytest.raises(ValueError, match="takes 4 channels"):
        restorer.restore(noise((4, 4, 3)))


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 2), (9, 7, 3), (9, 7, 4)])
def test_enlarging(shape, dtype):
    image = noise(shape, dtype)
    if shape[2:] in ((2,), (4,)):
        image[..., -1] = 0
        image[:, 4:, -1] = 1 if dtype == np.float32 else np.iinfo(dtype).max
    out = enlarging().restore(image)
    assert (out.shape, out.dtype) == ((18, 14, *shape[2:]), image.dtype)
    if shape[2:] in ((2,), (4,)):
        assert out[..., -1].min() == image[..., -1].min()
        assert out[..., -1].max() == image[..., -1].max()
        np.testing.assert_array_equal(out[:, 12:, -1], np.full((18, 2), image[..., -1].max()))


def test_enlarging_in_tiles():
    image = noise((40, 44, 3), np.float32)
    a, b = enlarging().restore(image), enlarging().restore(image, RestoreOptions(tile=24))
    assert a.shape == b.shape == (80, 88, 3)
    assert np.abs(a - b).mean() < 0.1 * a.std()


def test_no_strength_for_networks_that_enlarge():
    with pytest.raises(ValueError, match="strength must be 1 for a network that enlarges"):
        enlarging().restore(noise((4, 4, 3)), RestoreOptions(strength=0.5))


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory"),
    MemoryError(),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
]


class Limited(torch.nn.Module):
    """A network that lacks memory for what is larger than a side."""

    def __init__(self, model, side, error, *, batch=99):
        super().__init__()
        self.model, self.config, self.side, self.error, self.batch = model, model.config, side, error, batch
        self.seen = []

    def forward(self, x, *, k=None):
        self.seen.append((len(x), max(x.shape[-2:])))
        if max(x.shape[-2:]) > self.side or len(x) > self.batch:
            raise self.error
        return self.model(x, k=k)


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("tile", [None, "auto"])
def test_tiles_are_halved_when_memory_runs_out(grid, tile, error):
    limited = Limited(tiny(), 3 * grid, error)
    image = noise((8 * grid, 6 * grid, 3), np.float32)
    calls = []
    out = Restorer(limited).restore(
        [image, image], RestoreOptions(tile=tile), progress=lambda *pair: calls.append(pair)
    )
    sides = [side for _, side in limited.seen]
    assert list(dict.fromkeys(sides)) == [8 * grid, 4 * grid, 3 * grid]
    assert sides.count(8 * grid) == 1  # the second image begins with what the first found out
    assert calls == [(1, 2), (2, 2)]
    whole = Restorer(tiny()).restore(image, RestoreOptions(tile=None))
    assert np.abs(out[0] - whole).mean() < 0.2 * np.abs(whole - image).mean()
    np.testing.assert_array_equal(out[0], out[1])


def test_a_batch_becomes_single_tiles_before_these_get_smaller(grid):
    limited = Limited(tiny(), 4 * grid, ERRORS[0], batch=1)
    images = [noise((4 * grid, 4 * grid, 3), np.float32, seed=seed) for seed in range(4)]
    out = Restorer(limited, batch_size=2).restore(images)
    assert limited.seen == [(2, 4 * grid), *[(1, 4 * grid)] * 4]
    for image, found in zip(images, out, strict=True):
        np.testing.assert_allclose(found, Restorer(tiny()).restore(image), atol=1e-6)


@pytest.mark.parametrize("error", ERRORS)
def test_memory_that_lacks_for_the_smallest_tile(grid, error):
    limited = Limited(tiny(), 1, error)
    with pytest.raises(type(error)):
        Restorer(limited).restore(noise((8 * grid, 8 * grid, 3)))
    assert limited.seen == [(1, 8 * grid), (1, 4 * grid), (1, 3 * grid)]


def test_other_errors_are_not_taken_for_lack_of_memory():
    limited = Limited(tiny(), 1, RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes"):
        Restorer(limited).restore(noise((64, 64, 3)))
    assert len(limited.seen) == 1


def test_auto_tiles_follow_free_memory(grid, monkeypatch):
    runner = Restorer(tiny()).runner(RestoreOptions())

    def tallest():
        return max(bottom - top for top, bottom in runner.plan(5000, 5000).rows)

    assert 3 * grid < tallest() <= 1024
    assert module._memory_for(torch.device("cpu")) <= 1 << 30
    monkeypatch.setattr(module, "_memory_for", lambda device: 0)
    assert tallest() == 3 * grid


def test_lists_keep_order_kind_and_size(restorer):
    images = [noise((12, 12, 3)), noise((9, 14)), noise((12, 12, 4)), noise((12, 12, 3), seed=1)]
    calls = []
    found = restorer.restore(images, progress=lambda *pair: calls.append(pair))
    for image, each in zip(images, found, strict=True):
        np.testing.assert_array_equal(each, restorer.restore(image))
    assert calls == [(n, 4) for n in range(1, 5)]
    mixed = [Image.fromarray(images[0]), torch.from_numpy(images[1])[None]]
    pillow, tensor = restorer.restore(mixed)
    np.testing.assert_array_equal(np.asarray(pillow), found[0])
    np.testing.assert_array_equal(tensor[0].numpy(), found[1])
    assert restorer.restore([]) == []


def test_images_of_one_size_go_through_the_network_together():
    limited = Limited(tiny(), 999, ERRORS[0])
    images = [noise((12, 14, 3), seed=seed) for seed in range(5)]
    together = Restorer(limited, batch_size=4).restore(images)
    assert [count for count, _ in limited.seen] == [4, 1]
    for image, found in zip(images, together, strict=True):
        np.testing.assert_array_equal(found, Restorer(tiny()).restore(image))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(3, 12, 10), (2, 3, 12, 10), (1, 12, 10), (4, 12, 10)])
def test_tensors_come_back_as_they_were(restorer, shape, dtype):
    values = torch.from_numpy(noise(shape, np.float32))
    image = (values * 255).to(dtype) if dtype == torch.uint8 else values.to(dtype)
    out = restorer.restore(image)
    assert (out.shape, out.dtype, out.device) == (image.shape, dtype, image.device)
    one = (image if image.ndim == 3 else image[1]).float() / (255 if dtype == torch.uint8 else 1)
    expected = restorer.restore(one.permute(1, 2, 0).numpy())
    found = (out if out.ndim == 3 else out[1]).float() / (255 if dtype == torch.uint8 else 1)
    tolerance = {torch.uint8: 0.01, torch.bfloat16: 0.02, torch.float16: 2e-3}.get(dtype, 1e-6)
    limits = (0, 1) if dtype == torch.uint8 else (None, None)
    expected = expected.clip(*limits) if dtype == torch.uint8 else expected
    np.testing.assert_allclose(found.permute(1, 2, 0).numpy(), expected, atol=tolerance)


@pytest.mark.parametrize(
    ("image", "error", "match"),
    [
        (torch.zeros(3, 4, 4, dtype=torch.int64), TypeError, "a tensor must be uint8 or floating"),
        (torch.zeros(5, 4, 4), ValueError, r"a tensor must be \(1 to 4, H, W\)"),
        ("a.png", TypeError, "got str; restore_file takes paths"),
        (None, TypeError, "a list of these, got NoneType"),
    ],
)
def test_other_kinds_are_refused(restorer, image, error, match):
    with pytest.raises(error, match=match):
        restorer.restore(image)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats_come_back_as_they_were(restorer, dtype):
    image = noise((12, 10, 3), np.float32).astype(dtype)
    out = restorer.restore(image)
    assert out.dtype == dtype
    np.testing.assert_allclose(out, restorer.restore(image.astype(np.float32)), atol=2e-3)


def test_memory_mapped_images_are_read_in_parts(restorer, tmp_path):
    image = noise((40, 30, 3))
    mapped = np.memmap(tmp_path / "raw", np.uint8, "w+", shape=image.shape)
    mapped[:] = image
    np.testing.assert_array_equal(restorer.restore(mapped), restorer.restore(image))


def test_the_result_may_go_to_a_mapped_file(restorer, tmp_path):
    image = noise((40, 30, 3), np.uint16)
    out = np.memmap(tmp_path / "raw", np.uint16, "w+", shape=image.shape)
    assert restorer.restore(image, out=out) is out
    np.testing.assert_array_equal(out, restorer.restore(image))
    for wrong in (np.empty((40, 30), np.uint16), np.empty(image.shape, np.uint8)):
        with pytest.raises(ValueError, match=r"out must have shape \(40, 30, 3\) and dtype uint16"):
            restorer.restore(image, out=wrong)
    for other in (Image.fromarray(noise((4, 4))), []):
        with pytest.raises(ValueError, match="out takes the result of one array, got"):
            restorer.restore(other, out=np.empty((4, 4), np.uint8))


def test_self_ensemble_holds_one_tile_not_eight_images(grid, monkeypatch):
    sizes, turned = [], module._turn
    monkeypatch.setattr(module, "_turn", lambda x, number: sizes.append(x.shape) or turned(x, number))
    image = noise((8 * grid, 8 * grid, 3))
    Restorer(tiny()).restore(image, RestoreOptions(tile=4 * grid, self_ensemble=True))
    assert len(sizes) == 8 * 9
    assert max(max(shape) for shape in sizes) == 4 * grid


def test_from_pretrained(tmp_path, restorer):
    tiny().save_pretrained(tmp_path / "model")
    loaded = Restorer.from_pretrained(tmp_path / "model", device="cpu", batch_size=2)
    assert loaded.batch_size == 2
    image = noise((12, 12, 3))
    np.testing.assert_array_equal(loaded.restore(image), restorer.restore(image))


def test_files_keep_what_is_beside_the_pixels(tmp_path, restorer):
    exif = Image.Exif()
    exif[271] = "A camera"
    image = ImageFile(noise((12, 10, 4), np.uint16), b"profile", exif.tobytes(), (300.0, 300.0))
    write_image(image, tmp_path / "a.png")
    done = restorer.restore_file(tmp_path / "a.png", tmp_path / "b.png", compare=tmp_path / "c.png")
    before, after = read_image(tmp_path / "a.png"), read_image(tmp_path / "b.png")
    np.testing.assert_array_equal(after.pixels, restorer.restore(image.pixels))
    assert (done.width, done.height) == (10, 12)
    assert (after.icc_profile, after.exif) == (b"profile", before.exif)
    assert after.dpi == pytest.approx((300, 300), abs=0.1)
    assert read_image(tmp_path / "c.png").width > 800


def test_files_that_are_too_large(tmp_path, restorer):
    write_image(noise((12, 10, 3)), tmp_path / "a.png")
    with pytest.raises(ImageError, match="raise max_pixels"):
        restorer.restore_file(tmp_path / "a.png", tmp_path / "b.png", max_pixels=100)
