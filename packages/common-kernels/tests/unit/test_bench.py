# SPDX-License-Identifier: Apache-2.0
"""Measuring: parity before time, turns, memory; on operators small enough to be read."""

from dataclasses import replace

import pytest
import torch
from common_kernels._dispatch import BackendUnavailableError
from common_kernels._native import why_no_native
from common_kernels.bench import Case, Contender, Inputs, Machine, run_cases
from common_kernels.bench import attention_cases as attention_cases_module
from common_kernels.bench import dictionary_cases as dictionary_cases_module
from common_kernels.bench import run as run_module
from common_kernels.bench.attention_cases import (
    attention_cases,
    boolean_mask,
    gather_attention,
    gather_reference,
    make_attention_inputs,
    memory_cases,
)
from common_kernels.bench.clock import Clock, take_turns
from common_kernels.bench.dictionary_cases import dictionary_cases, selection_cases, stage_cases
from common_kernels.bench.flex import cluster_order
from common_kernels.bench.phase_cases import phase_cases
from common_kernels.testing import clustered_features, values_and_gradients

CPU = torch.device("cpu")
CASES = (attention_cases, dictionary_cases, selection_cases, stage_cases, phase_cases)
MACHINE = Machine(
    device="Toy (R) CPU",
    kind="cpu",
    threads=1,
    load=0.0,
    copy_gb_s=10.0,
    matmul_tflop_s=0.1,
    python="3",
    torch="2",
    triton=None,
    common_kernels="0",
    commit=None,
    date="2026-01-01",
)


def square(x):
    return x["x"] * x["x"]


def make_inputs(seed, device, dtype):
    generator = torch.Generator().manual_seed(seed)
    x, grad_output = (torch.rand(64, 64, generator=generator).to(device, dtype) for _ in range(2))
    return Inputs({"x": x.requires_grad_()}, None, grad_output)


def reference(inputs):
    return values_and_gradients(lambda x: x * x, inputs.leaves) | {
        "x": 2 * inputs.leaves["x"] * inputs.grad_output
    }


def toy(*contenders, **changes):
    auto = Contender("auto", "auto", lambda x, _: square(x), describe=lambda inputs: "fast")
    case = Case(
        op="toy",
        name="N64",
        shape={"N": 64},
        dtype=torch.float32,
        make_inputs=make_inputs,
        contenders=(auto, *contenders),
        reference=reference,
        flop={"forward": 1e5},
    )
    return replace(case, **changes)


def measure(*contenders, **changes):
    rows = run_cases([toy(*contenders, **changes)], machine=MACHINE, budget=0.01)
    return {(row.contender, row.mode): row for row in rows}


def test_every_contender_is_measured_in_every_mode():
    rows = measure(Contender("peer", "peer", lambda x, _: x["x"].pow(2)))
    assert rows.keys() == {
        (name, mode) for name in ("auto", "peer") for mode in ("forward", "backward", "both")
    }
    for row in rows.values():
        assert row.status == "measured"
        assert row.runs >= 3
        assert 0 < row.low_ms <= row.median_ms <= row.high_ms
        assert row.error < 1e-6
        assert row.ratio > 0
    assert rows["auto", "both"].ratio == rows["auto", "forward"].ratio == 1
    assert rows["auto", "both"].median_ms >= rows["auto", "backward"].median_ms
    assert rows["auto", "forward"].note == "fast"
    least_ms = 1e3 * 1e5 / 0.1e12
    assert rows["auto", "forward"].roofline == pytest.approx(least_ms / rows["auto", "forward"].median_ms)
    assert rows["auto", "both"].roofline is None


def test_a_wrong_output_is_not_timed():
    rows = measure(Contender("wrong", "peer", lambda x, _: 1.01 * square(x)))
    for mode in ("forward", "backward", "both"):
        row = rows["wrong", mode]
        assert (row.status, row.runs, row.median_ms) == ("failed", 0, None)
        assert row.note.startswith("output: relative error 1.00e-02")
        assert row.error == pytest.approx(0.01, rel=1e-3)
    assert rows["auto", "both"].status == "measured"


def test_a_wrong_gradient_fails_where_it_matters():
    rows = measure(Contender("stopped", "backend", lambda x, _: x["x"] * x["x"].detach()))
    assert rows["stopped", "forward"].status == "measured"
    assert rows["stopped", "backward"].status == rows["stopped", "both"].status == "failed"
    assert rows["stopped", "both"].note.startswith("x: relative error")


def test_nan_is_wrong():
    row = measure(Contender("wrong", "peer", lambda x, _: square(x) * float("nan")))["wrong", "forward"]
    assert row.status == "failed"
    assert row.error is None


def test_low_precision_may_err_as_eager_does():
    def coarse(x, _):
        return (x["x"].to(torch.bfloat16) ** 2).to(x["x"].dtype)

    assert measure(Contender("coarse", "peer", coarse))["coarse", "forward"].status == "failed"

    def eager_errs(inputs):
        exact = reference(inputs)
        return exact if inputs.leaves["x"].dtype == torch.float64 else {k: 1.01 * v for k, v in exact.items()}

    rows = measure(Contender("coarse", "peer", coarse), reference=eager_errs)
    assert rows["coarse", "forward"].status == "measured"


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (BackendUnavailableError("needs a better machine\nand more"), "backend", "skipped"),
        (NotImplementedError("needs a better machine"), "backend", "skipped"),
        (torch.OutOfMemoryError("needs a better machine"), "auto", "skipped"),
        (RuntimeError("needs a better machine"), "peer", "skipped"),
        (RuntimeError("needs a better machine"), "backend", "failed"),
    ],
)
def test_what_cannot_run_says_why(error, kind, status):
    def refuse(x, _):
        raise error

    contender = Contender("shy", kind, refuse)
    if kind == "auto":
        rows = measure(contenders=(contender, Contender("peer", "peer", lambda x, _: square(x))))
        assert rows["peer", "forward"].status == "measured"
        assert rows["peer", "forward"].ratio is None
    else:
        rows = measure(contender)
    assert (rows["shy", "both"].status, rows["shy", "both"].note) == (status, "needs a better machine")


def test_reasons_known_beforehand_spare_the_run():
    def never(x, _):
        raise AssertionError("was run")

    rows = measure(
        Contender("large", "peer", never, why_not=lambda inputs: f"{inputs.leaves['x'].shape[0]} rows"),
        Contender("inference", "peer", lambda x, _: square(x), trains=False),
    )
    assert (rows["large", "forward"].status, rows["large", "forward"].note) == ("skipped", "64 rows")
    assert rows["inference", "forward"].status == "measured"
    assert rows["inference", "both"].status == "skipped"


def test_preparation_counts_for_the_first_call_only():
    made = []

    def prepare(inputs):
        made.append(torch.zeros(1 << 16))
        return made.pop()

    def run(x, ready):
        return square(x) + ready[0]

    rows = measure(Contender("prepared", "peer", run, prepare))
    extra = rows["prepared", "forward"].peak_bytes - rows["auto", "forward"].peak_bytes
    assert extra >= 4 << 16
    assert rows["prepared", "forward"].first_ms > 0
    assert rows["auto", "both"].peak_bytes > rows["auto", "forward"].peak_bytes >= 64 * 64 * 4


def test_modes_can_be_chosen():
    rows = run_cases([toy()], machine=MACHINE, budget=0.01, modes=("both",))
    assert [row.mode for row in rows] == ["both"]
    lines = []
    run_cases([toy(), toy()], machine=MACHINE, budget=0.01, modes=("forward",), progress=lines.append)
    assert lines[0] == "[1/2] toy N64"
    assert lines[1].startswith("[2/2] toy N64, about ")


def test_a_case_needs_one_auto_and_different_names():
    with pytest.raises(ValueError, match="exactly one of kind 'auto', got \\[\\]"):
        toy(contenders=())
    with pytest.raises(ValueError, match="different names"):
        toy(Contender("auto", "peer", lambda x, _: square(x)))


def test_turns_are_shared_out_and_the_leader_runs_in_every_round():
    log = []

    def runner(name, ms):
        def run(number):
            log.append((number, name))
            return [ms]

        return run

    runners = {"auto": runner("auto", 10.0), "fast": runner("fast", 1.0), "slow": runner("slow", 100.0)}
    estimates = {"auto": 10.0, "fast": 1.0, "slow": 100.0}
    times = take_turns(runners, "auto", 0.5, estimates_ms=estimates)
    assert list(times["auto"]) == list(times["fast"]) == list(range(50))
    assert len(times["slow"]) == 5
    assert max(times["slow"]) >= 40, "slow ones are spread over all rounds"
    assert times["fast"][7] == [1.0]
    orders = {tuple(name for number, name in log[-100:] if number == turn) for turn in range(10, 50)}
    assert len(orders) > 1, "the order changes"


def test_what_takes_seconds_runs_once():
    calls = []
    takes = {"auto": 3000.0, "peer": 2500.0}
    runners = {name: lambda number, name=name: calls.append(name) or [takes[name]] for name in takes}
    times = take_turns(runners, "auto", 0.5, estimates_ms=takes)
    assert sorted(calls) == ["auto", "peer"]
    assert times == {"auto": {0: [3000.0]}, "peer": {0: [2500.0]}}
    assert take_turns({}, "auto", 0.5, estimates_ms={}) == {}


def test_clock_counts_each_step():
    order = []
    laps = Clock(CPU).laps(lambda: order.append(1), lambda: order.append(2))
    assert order == [1, 2]
    assert len(laps) == 2
    assert all(lap >= 0 for lap in laps)


@pytest.mark.parametrize(
    "case",
    [
        # the builders of the cases at sizes that take no seconds
        attention_cases_module._case((2, 2, 49, 8, 12), False),
        attention_cases_module._case((1, 2, 25, 4, 5), False, with_bias=True),
        dictionary_cases_module._case(2, 49, 12, torch.float32),
        dictionary_cases_module._selection(2, 49, 12),
        dictionary_cases_module._stage((1, 2, 49, 8, 12), 2, torch.float32),
        phase_cases(CPU, quick=True)[0],
    ],
    ids=lambda case: f"{case.op} {case.name}",
)
def test_cases_agree_with_their_references(case):
    rows = run_cases([case], machine=MACHINE, budget=1e-3)
    left_out = {"is what auto runs", "has no backward here", why_no_native()}
    assert {row.status for row in rows if row.note not in left_out} == {"measured"}, rows
    assert all(row.error is None or row.error < 1e-5 for row in rows)
    assert {row.kind for row in rows if row.status == "measured" and row.error is None} <= {"part"}


def test_a_bound_is_timed_and_not_compared():
    bound = Contender("bound", "part", lambda x, _: x["x"] + 1, trains=False, is_same=False)
    rows = measure(bound)
    assert rows["bound", "forward"].status == "measured"
    assert rows["bound", "forward"].error is None
    assert rows["bound", "forward"].ratio > 0


def test_cases_have_names_of_their_own():
    for device in (CPU, torch.device("cuda")):
        for quick in (False, True):
            made = [c for f in CASES for c in f(device, quick=quick)]
            names = [(c.op, c.name) for c in made]
            assert len(set(names)) == len(names)
            assert all(set(c.flop) == set(c.traffic) == set(c.modes) for c in made)
    assert not memory_cases(CPU)
    grid = memory_cases(torch.device("cuda"))
    assert len({c.name for c in grid}) == len(grid) == 12
    assert {c.shape["B"] * c.shape["N"] for c in grid} == {16384}
    assert all(set(c.flop) == set(c.traffic) == set(c.modes) for c in grid)
    flex = attention_cases(CPU, flex=True)
    assert [c.name for c in flex if "FlexAttention" in [x.name for x in c.contenders]] != []
    assert all("FlexAttention" not in [x.name for x in c.contenders] for c in attention_cases(CPU))


def test_order_of_clusters_is_a_permutation_that_brings_similar_tokens_together():
    features = clustered_features(256, B=2, seed=1)
    order = cluster_order(features)
    assert torch.equal(order.sort(dim=-1).values, torch.arange(256).expand(2, -1))
    ordered = features.gather(1, order.unsqueeze(-1).expand_as(features))
    # tokens 8 places apart: the next ones are alike in an image as well
    before, after = (torch.cosine_similarity(x[:, 8:], x[:, :-8], dim=-1).mean() for x in (features, ordered))
    assert after > before + 0.1


def test_order_of_the_tokens_decides_how_many_blocks_hold_a_listed_pair():
    def share_of_blocks(tokens):
        inputs = make_attention_inputs((1, 1, 4096, 1, 128), 0, CPU, torch.float32, tokens=tokens)
        blocks = inputs.shared.allowed().unflatten(1, (64, 64)).unflatten(3, (64, 64))
        return blocks.any(dim=4).any(dim=2).float().mean()

    assert share_of_blocks("reordered") < 0.95 * share_of_blocks("raster")
    assert share_of_blocks("unclustered") == 1


def test_slices_of_the_reference_add_up(monkeypatch):
    inputs = make_attention_inputs((2, 2, 16, 4, 5), 0, CPU, torch.float64)
    whole = gather_reference(inputs)
    monkeypatch.setattr("common_kernels.bench.attention_cases._SLICE", 2 * 2 * 5 * 4 * 3)
    sliced = gather_reference(inputs)
    for name in whole:
        torch.testing.assert_close(sliced[name], whole[name], rtol=1e-12, atol=1e-12)
    q, k, v = inputs.leaves.values()
    dense = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=boolean_mask(inputs))
    gathered = gather_attention(q, k, v, inputs.shared.index.long())
    torch.testing.assert_close(gathered, dense, rtol=1e-12, atol=1e-12)


def test_a_repeated_or_poor_choice_is_found():
    case = dictionary_cases(CPU)[0]
    inputs = case.make_inputs(0, CPU, torch.float32)
    best = case.reference(inputs.to(torch.float64))["output"]
    index = case.contenders[0].run(inputs.leaves, inputs.shared)
    assert torch.equal(case.comparable(inputs, index.flip(-1)), best)
    repeated = index.clone()
    repeated[0, 0, 0] = repeated[0, 0, 1]
    assert case.comparable(inputs, repeated).isnan().any()
    absent = next(j for j in range(64) if j not in index[0, 0].tolist())
    poor = index.clone()
    poor[0, 0, 0] = absent
    assert not torch.equal(case.comparable(inputs, poor), best)


def test_gpu_inputs_take_turns(monkeypatch):
    monkeypatch.setattr(run_module, "_GPU_SETS", 3)
    run = run_module._Run(toy(), CPU, ("forward",))
    assert len(run.sets) == 1
    run.sets = [toy().make_inputs(seed, CPU, torch.float32) for seed in range(3)]
    seen = []
    contender = Contender("spy", "peer", lambda x, _: seen.append(x["x"]) or square(x))
    laps = run._runner(contender, "forward")
    for number in range(6):
        laps(number)
    assert [next(i for i, s in enumerate(run.sets) if s.leaves["x"] is x) for x in seen] == [0, 1, 2] * 2
