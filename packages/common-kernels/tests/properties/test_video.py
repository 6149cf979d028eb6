# SPDX-License-Identifier: Apache-2.0
"""Damaged videos: an answer or one sentence, whatever the bytes."""

import numpy as np
import pytest
from common_kernels.runtime.images import ImageError
from common_kernels.runtime.video import VideoLimits, encode_video, equally_spaced, read_video
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("av")
RNG = np.random.default_rng(0)
CONTENTS = {
    suffix: encode_video(RNG.integers(0, 256, (6, 16, 16, 3), dtype=np.uint8), 10, suffix)
    for suffix in (".mp4", ".gif")
}
LIMITS = VideoLimits(max_frames=64, max_pixels=1 << 20, max_decoded=1000)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([".mp4", ".gif"]),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=12),
    st.floats(0.05, 1),
)
def test_damaged_bytes_give_frames_or_one_sentence(suffix, changes, kept):
    content = bytearray(CONTENTS[suffix])
    for place, value in changes:
        content[int(place * len(content))] = value
    error, video = "the video ", None
    try:
        video = read_video(bytes(content[: int(kept * len(content))]), frames=4, limits=LIMITS)
    except ImageError as caught:
        error = str(caught)
    assert "\n" not in error
    assert error.startswith("the video ")
    if video is not None:
        assert video.frames.shape[0] == 4
        assert video.frames.shape[1:3] == video.size
        assert list(video.timestamps) == sorted(video.timestamps)


@given(st.integers(1, 10_000), st.integers(1, 600))
def test_equally_spaced_frames(num_frames, count):
    indices = equally_spaced(num_frames, count)
    assert len(indices) == count
    assert indices[0] == 0
    assert indices[-1] == (num_frames - 1 if count > 1 else 0)
    assert indices == sorted(indices)
    steps = np.diff(indices)
    assert count == 1 or steps.max() - steps.min() <= 1
