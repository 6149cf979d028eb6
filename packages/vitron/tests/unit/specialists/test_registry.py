# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys
import threading
from dataclasses import replace
from importlib.metadata import EntryPoint

import numpy as np
import pytest
from vitron.errors import (
    MemoryBudgetError,
    SpecialistError,
    SpecialistTimeoutError,
    UnsupportedRequestError,
)
from vitron.protocol.contract import SpecialistSpec
from vitron.protocol.media import Artefact
from vitron.specialists import (
    Action,
    Request,
    Result,
    Specialist,
    SpecialistOptions,
    SpecialistRegistry,
    check_specialist,
)
from vitron.specialists import registry as module

REQUEST = Request(module="text_to_image", actions=(Action("generate", "a dog"),))
INSTALLED = SpecialistRegistry().discover()


class Fake:
    """A specialist that writes down what happens to it."""

    def __init__(self, name, log=None, *, memory=0, fails=None, tasks=("text_to_image",), answer=None):
        self.log = [] if log is None else log
        self.fails, self.answer = fails, answer
        self.spec = SpecialistSpec(
            name=name,
            summary="s",
            tasks=tasks,
            outputs=("image",),
            memory_bytes=memory,
            licence="Apache-2.0",
        )

    def load(self, device, dtype):
        self.log.append(f"load {self.spec.name}")

    def run(self, request, *, signal=None, seed=0):
        self.log.append(f"run {self.spec.name}")
        if isinstance(self.fails, Exception):
            raise self.fails
        if self.fails is not None:
            self.fails.wait(30)
        if self.answer is not None:
            return self.answer
        return Result(Artefact("image", np.full((2, 2, 3), seed, dtype=np.uint8)))

    def unload(self):
        self.log.append(f"unload {self.spec.name}")


def registry(*fakes, **options):
    made = SpecialistRegistry(**options)
    for fake in fakes:
        made.register(fake.spec.name, lambda fake=fake: fake)
    return made


# what those work with here that have no model of their own
MODELS = {
    "diffusers-image-to-video": "image_to_video",
    "diffusers-inpaint": "stable_diffusion",
    "diffusers-instruct": "instruct",
    "diffusers-text-to-image": "stable_diffusion",
    "diffusers-text-to-video": "text_to_video",
    "grounded-sam": "grounding_dino",
    "grounding-dino": "grounding_dino",
    "sam": "sam",
    "sam3": "sam3",
    "sam3-video": "sam3_video",
    "sam-video": "sam_video",
}


@pytest.mark.filterwarnings("ignore")  # of the libraries about their own changes
@pytest.mark.parametrize("name", INSTALLED.names)
def test_every_installed_specialist_keeps_the_contract(name, models, monkeypatch):
    if name in MODELS:
        monkeypatch.setenv(f"VITRON_{name.upper().replace('-', '_')}_MODEL", models[MODELS[name]])
        monkeypatch.setenv("VITRON_STEPS", "1")
    if name == "grounded-sam":
        monkeypatch.setenv("VITRON_GROUNDING_DINO_MODEL", models["grounding_dino"])
        monkeypatch.setenv("VITRON_SAM_MODEL", models["sam2"])
    registry = SpecialistRegistry().discover()
    assert registry.problems == {}
    specialist = registry.create(name)
    assert isinstance(specialist, Specialist)
    assert check_specialist(specialist) == []
    assert registry.spec(name).name == name


def test_a_module_without_a_specialist_says_so_in_one_sentence():
    from vitron.protocol import MODULES

    missing = [each.name for each in MODULES if not INSTALLED.for_module(each.name)]
    assert missing == ["text_to_video"]
    with pytest.raises(SpecialistError, match=r"^no specialist serves text_to_video: `vitron specialists`"):
        INSTALLED.run(Request(module="text_to_video", actions=()))


def test_importing_the_package_imports_no_specialist():
    code = "import sys, vitron; print([m for m in sys.modules if 'specialist' in m or m in 'torch PIL'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_discovery_imports_nothing_and_a_broken_plug_in_is_only_reported(monkeypatch):
    points = [
        EntryPoint("missing", "no_such_module_of_ours:Thing", module.GROUP),
        EntryPoint("number", "math:pi", module.GROUP),
        EntryPoint("list", "builtins:list", module.GROUP),
        EntryPoint("quits", "sys:exit", module.GROUP),
        EntryPoint("toy", "vitron.demo.painters:ToyPainter", module.GROUP),
    ]
    monkeypatch.setattr(module, "entry_points", lambda group: points)
    found = SpecialistRegistry().discover()
    assert [entry.specialist for entry in found._entries.values()] == [None] * 5
    assert found.for_module("text_to_image") == ("toy",)
    assert list(found.problems) == ["list", "missing", "number", "quits"]
    assert found.problems["missing"] == (
        "missing (no_such_module_of_ours:Thing) cannot be used: ModuleNotFoundError: "
        "No module named 'no_such_module_of_ours'"
    )
    assert "lacks spec, load, run or unload" in found.problems["list"]
    with pytest.raises(SpecialistError, match=r"number .* cannot be used"):
        found.spec("number")
    assert (
        found.run(Request(module="text_to_image", actions=(Action("generate", "a red star"),))).specialist
        == "toy"
    )


def test_loading_happens_at_the_first_run_and_once():
    fake = Fake("a")
    made = registry(fake)
    assert made.for_module("text_to_image") == ("a",)
    assert fake.log == []
    assert made.run(REQUEST, seed=4).result.artefact.data.max() == 4
    made.run(REQUEST)
    made.unload()
    made.run(REQUEST)
    assert fake.log == ["load a", "run a", "run a", "unload a", "load a", "run a"]


def test_the_one_used_longest_ago_is_unloaded():
    log = []
    fakes = [Fake(name, log, memory=40, tasks=(f"task_{name}",)) for name in "abc"]
    made = registry(*fakes, memory_bytes=100)
    for name in "abac":
        made.run(Request(module=f"task_{name}", actions=()))
    assert log == ["load a", "run a", "load b", "run b", "run a", "unload b", "load c", "run c"]
    assert made.loaded == {"a": 40, "c": 40}


def test_more_than_the_budget_is_refused_and_nothing_is_lost():
    made = registry(Fake("a", memory=40), Fake("b", memory=101, tasks=("big",)), memory_bytes=100)
    made.run(REQUEST)
    with pytest.raises(MemoryBudgetError, match="b needs 101 bytes and 100 of 100 are free: raise"):
        made.run(Request(module="big", actions=()))
    assert made.loaded == {"a": 40}


def test_the_next_one_is_asked_when_one_cannot():
    fakes = [
        Fake("a", fails=UnsupportedRequestError("no dogs")),
        Fake("b", fails=ZeroDivisionError("1/0")),
        Fake("c", answer="an image"),
        Fake("d", answer=Result(Artefact("video", np.zeros((1, 2, 2, 3), dtype=np.uint8)))),
        Fake("e"),
    ]
    outcome = registry(*fakes).run(REQUEST)
    assert outcome.specialist == "e"
    assert outcome.failures == (
        "no dogs",
        "b failed: ZeroDivisionError: 1/0",
        "c must return a Result, got str",
        "d declares image, got video",
    )
    with pytest.raises(SpecialistError, match="no dogs; then b failed: ZeroDivisionError: 1/0"):
        registry(*fakes[:2]).run(REQUEST)
    with pytest.raises(UnsupportedRequestError, match="no dogs"):
        registry(fakes[0]).run(REQUEST)


def test_preferred_ones_are_asked_first():
    made = registry(Fake("a"), Fake("b"), prefer=["b", "z"])
    assert made.names == ("b", "a")
    assert made.run(REQUEST).specialist == "b"
    assert made.problems == {"z": "z is preferred, but does not exist"}


def test_a_specialist_may_be_preferred_for_one_module():
    tasks = ("text_to_image", "image_editing")
    made = registry(*(Fake(name, tasks=tasks) for name in "abc"), prefer=["image_editing=c", "b"])
    assert made.for_module("image_editing") == ("c", "b", "a")
    assert made.for_module("text_to_image") == ("b", "a", "c")
    assert made.names == ("c", "b", "a")


def test_options_name_specialists_for_all_modules_or_for_one():
    def applied(*named):
        fakes = [Fake("a"), Fake("b", tasks=("text_to_image", "image_editing"))]
        return SpecialistOptions(specialist=named).apply(registry(*fakes))

    assert applied("b").for_module("text_to_image") == ("b", "a")
    # any spelling of a module
    for spelling in ("text_to_image", "A", "image generation"):
        assert applied(f"{spelling}=b").for_module("text_to_image") == ("b", "a")
    assert applied().prefer == ()
    for named, message in (
        ("z", "there is no specialist 'z': choose one of a, b"),
        ("image_editing=a", "a does not serve 'image_editing': it serves text_to_image"),
        ("singing=a", "a does not serve 'singing'"),
    ):
        with pytest.raises(ValueError, match=message):
            applied(named)
    with pytest.raises(
        SpecialistError, match="sam is not set up: set the environment variable VITRON_SAM_MODEL"
    ):
        SpecialistOptions(specialist=("image_segmentation=sam",)).apply(SpecialistRegistry().discover())


def test_one_that_takes_too_long_is_given_up_and_made_anew():
    gate, log = threading.Event(), []
    made = SpecialistRegistry(timeout=0.05, memory_bytes=100)
    made.register("slow", lambda: Fake("slow", log, memory=60, fails=None if log else gate))
    with pytest.raises(SpecialistTimeoutError, match=r"slow was given up after 0\.05 s"):
        made.run(REQUEST)
    assert made.loaded == {}
    # its thread still holds its memory
    with pytest.raises(MemoryBudgetError, match="slow needs 60 bytes and 40 of 100"):
        made.run(REQUEST)
    worker = made._given_up[0][0]
    gate.set()
    worker._thread.join()
    made.timeout = None
    assert made.run(REQUEST).specialist == "slow"
    assert log == ["load slow", "run slow", "load slow", "run slow"]


class OwnError(SpecialistError):
    """Of a plug-in, with a constructor of its own."""

    def __init__(self, code, reason):
        super().__init__(f"{code}: {reason}")


@pytest.mark.parametrize(
    ("error", "message"), [(SystemExit(3), "a failed: SystemExit: 3"), (OwnError(7, "no"), "7: no; then")]
)
def test_one_that_fails_in_its_own_way_stops_nothing(error, message):
    class Failing(Fake):
        def run(self, request, *, signal=None, seed=0):
            raise error

    with pytest.raises(SpecialistError, match=message):
        registry(Fake("b", fails=OwnError(7, "no")), Failing("a")).run(REQUEST)


def test_any_integer_is_a_seed():
    seen = []

    class Watcher(Fake):
        def run(self, request, *, signal=None, seed=0):
            seen.append(seed)
            return super().run(request)

    for seed in (-3, 3, 2**70 + 5):
        registry(Watcher("a")).run(REQUEST, seed=seed)
    assert seen == [2**63 - 3, 3, 5]


def test_one_that_cannot_be_loaded_takes_no_memory():
    class NoWeights(Fake):
        def load(self, device, dtype):
            raise FileNotFoundError("no weights")

    made = registry(NoWeights("a", memory=60), memory_bytes=100)
    with pytest.raises(SpecialistError, match="a failed: FileNotFoundError: no weights"):
        made.run(REQUEST)
    assert made.loaded == {}


def test_who_needs_a_region_gets_what_the_signals_mean():
    image = Artefact("image", np.zeros((4, 6, 3), dtype=np.uint8))
    signal = np.ones((8, 2), dtype=np.float32)
    found, drawn = np.eye(4, 6, dtype=bool), np.ones((4, 6), dtype=bool)
    asked, seen = [], []

    class Inpainter(Fake):
        def run(self, request, *, signal=None, seed=0):
            seen.append(request.mask)
            return super().run(request, signal=signal, seed=seed)

    def locate(name, media, signals):
        asked.append((name, media, signals))
        return found

    one = Inpainter("one", tasks=("image_editing",))
    made = registry(one, locate=locate)
    request = Request(module="image_editing", actions=(Action("remove", "the dog"),), media=image)
    made.run(request, signal=signal)  # says not that it needs one
    assert seen == [None]
    assert not asked
    one.spec = one.spec.model_copy(update={"needs_region": True})
    made = registry(one, locate=locate)
    made.run(request, signal=signal)
    assert seen[-1] is found
    assert asked == [("image_editing", image, signal)]
    made.run(replace(request, mask=drawn), signal=signal)  # what the user drew is what counts
    assert seen[-1] is drawn
    assert len(asked) == 1
    made.run(request)  # whoever wrote this call gave no signals
    assert seen[-1] is None
    assert len(asked) == 1


def test_a_name_is_taken_once():
    with pytest.raises(ValueError, match="already a specialist called 'a'"):
        registry(Fake("a"), Fake("a"))


def test_nobody_serves_an_unknown_task():
    with pytest.raises(SpecialistError, match="no specialist serves singing: "):
        INSTALLED.run(Request(module="singing", actions=()))


class Moody(Fake):
    """Breaks the contract in every way that can be seen."""

    def run(self, request, *, signal=None, seed=0):
        self.log.append(0)
        if request.media is not None:
            request.media.data[:] = 0
        if request.module == "image_editing":
            raise KeyError("x")
        if request.module == "restoration":
            return 3
        if request.module == "video_editing":
            return Result(Artefact("video", np.zeros((1, 2, 2, 3), dtype=np.uint8)))
        return Result(Artefact("image", np.full((2, 2, 3), len(self.log), dtype=np.uint8)))


def test_the_contract_can_be_broken():
    tasks = ("text_to_image", "image_editing", "restoration", "video_editing", "image_to_video")
    assert check_specialist(Moody("moody", tasks=tasks)) == [
        "text_to_image: the same seed gives another result",
        "image_editing: KeyError: 'x'",
        "restoration: the input is changed",
        "restoration: run must return a Result, got int",
        "video_editing: the input is changed",
        "video_editing: it declares image, got video",
        "image_to_video: the input is changed",
        "image_to_video: the task makes video, got image",
    ]
