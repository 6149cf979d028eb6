# SPDX-License-Identifier: Apache-2.0
"""What is kept of a run: JSON, requirements, page, chart, command."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from common_kernels.bench import (
    Machine,
    Measurement,
    Report,
    check_requirements,
    describe_machine,
    to_markdown,
)
from common_kernels.bench.__main__ import main, page, read_reports
from common_kernels.bench.chart import draw_chart, draw_memory
from torch import device

PACKAGE = Path(__file__).parents[2]
DOCS = PACKAGE.parents[1] / "docs" / "common-kernels"
MACHINE = Machine(
    device="Toy (R) CPU",
    kind="cpu",
    threads=2,
    load=0.25,
    copy_gb_s=10.0,
    matmul_tflop_s=0.1,
    python="3.11.0",
    torch="2.15.0",
    triton=None,
    common_kernels="0.1.0",
    commit="abc1234",
    date="2026-01-01",
)
SHAPE = {"B": 1, "heads": 6, "N": 1024, "head_dim": 32, "k": 128}


def row(
    contender, ratio, *, op="knn_attention", case="B1 H6 N1024 d32 k128", mode="forward", peak=100, **changes
):
    kinds = {"auto": "auto", "backend csr": "backend", "backend triton": "backend", "layers": "part"}
    values = {
        "op": op,
        "case": case,
        "shape": dict(SHAPE),
        "dtype": "float32",
        "contender": contender,
        "kind": kinds.get(contender, "peer"),
        "mode": mode,
        "status": "measured",
        "error": 2e-7,
        "median_ms": 10.0 * ratio,
        "low_ms": 9.0 * ratio,
        "high_ms": 11.0 * ratio,
        "runs": 7,
        "ratio": ratio,
        "first_ms": 12.0,
        "peak_bytes": peak,
    }
    return Measurement(**(values | changes))


def failed(contender, note="output: relative error 1", **changes):
    times = dict.fromkeys(("median_ms", "low_ms", "high_ms", "ratio", "first_ms", "peak_bytes", "error"))
    status = {"status": "failed", "note": note, "runs": 0}
    return replace(row(contender, 1.0), **(times | status | changes))


def report(*rows, **changes):
    return Report(schema=1, machine=MACHINE, is_quick=False, measurements=list(rows), **changes)


GOOD = (
    row("auto", 1.0, peak=4, note="native", roofline=0.4),
    row("gather", 61.0, peak=900),
    row("SDPA, float mask", 2.5),
    row("layers", 0.1),
    row("backend triton", 0.1),
    row("auto", 1.0, op="fuse_phase", case="B1 C4 64x64"),
    row("angles", 3.0, op="fuse_phase", case="B1 C4 64x64"),
)


def test_json_comes_back_as_it_went(tmp_path):
    file = tmp_path / "deep" / "run.json"
    report(*GOOD).write(file)
    assert Report.read(file) == report(*GOOD)
    assert sorted(path.name for path in file.parent.iterdir()) == ["run.json"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: d.update(schema=2), "report.schema must be 1, got 2"),
        (lambda d: d.update(extra=1), "report must have the keys"),
        (lambda d: d["machine"].pop("torch"), "report.machine must have the keys"),
        (lambda d: d["machine"].update(threads="2"), "report.machine.threads must be int, got '2'"),
        (lambda d: d["machine"].update(threads=True), "report.machine.threads must be int"),
        (lambda d: d["machine"].update(commit=7), "report.machine.commit must be str"),
        (lambda d: d["machine"].update(copy_gb_s=float("nan")), "copy_gb_s must be float"),
        (lambda d: d.update(is_quick=0), "report.is_quick must be bool"),
        (lambda d: d.update(measurements={}), "report.measurements must be"),
        (lambda d: d["measurements"][1].update(mode="sideways"), r"measurements\[1\]\.mode must be"),
        (lambda d: d["measurements"][1]["shape"].update(N=1.5), r"measurements\[1\]\.shape\.N must be int"),
        (
            lambda d: d["measurements"][0].update(median_ms=None),
            r"measurements\[0\] must have times exactly if",
        ),
        (
            lambda d: d["measurements"][0].update(status="failed"),
            r"measurements\[0\] must have times exactly if",
        ),
    ],
)
def test_a_spoiled_report_is_refused_with_the_place(spoil, message):
    data = report(*GOOD).to_dict()
    assert Report.from_dict(json.loads(json.dumps(data))) == report(*GOOD)
    spoil(data)
    with pytest.raises(ValueError, match=message):
        Report.from_dict(data)


SMALL = {"B": 64, "heads": 2, "N": 64, "head_dim": 32, "k": 32}
LONG = {"B": 1, "heads": 6, "N": 4096, "head_dim": 32, "k": 64}


def outcomes(*rows, kind="cpu"):
    made = report(*rows)
    found = check_requirements(replace(made, machine=replace(MACHINE, kind=kind)))
    return {requirement.name: requirement for requirement in found}


def test_requirements_met():
    results = {name: found.result for name, found in outcomes(*GOOD).items()}
    assert {name for name, result in results.items() if result == "met"} == {
        "`knn_attention`: time of auto over the best alternative in torch",
        "gather over auto, forward",
        "k/N up to 1/4, N 256 and 1024: the better SDPA over auto",
        "peak memory of auto over gather's, forward, k from 128",
        "`fuse_phase`: angle formula over auto",
    }
    assert set(results.values()) == {"met", "not measured"}
    assert outcomes(*GOOD)["gather over auto, forward"].worst == 61.0


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (row("csr", 0.9), "`knn_attention`: time of auto over the best alternative in torch"),
        (row("gather", 59.0, peak=900), "gather over auto, forward"),
        (row("gather", 33.0, mode="both"), "gather over auto, forward and backward"),
        (row("SDPA, boolean mask", 2.2), "k/N up to 1/4, N 256 and 1024: the better SDPA over auto"),
        (row("SDPA, float mask", 14.0, shape=LONG), "N = 4096, k = 64: the better SDPA over auto"),
        (row("backend csr", 1.9, shape=LONG), "N = 4096, k = 64: `csr` over auto"),
        (
            row("SDPA, no mask", 0.9, shape=SMALL, mode="both", kind="part", error=None),
            "N = 64, k = 32: unmasked SDPA over auto",
        ),
        (row("gather", 61.0, peak=799), "peak memory of auto over gather's, forward, k from 128"),
        (
            row("torch.topk, unsorted", 2.4, op="selection", shape={"B": 1, "N": 1024, "k": 128}),
            "selection, N from 1024, k up to 128: `torch.topk` over auto",
        ),
        (
            row("matmul, unsorted top-k", 0.96, op="knn_dictionary"),
            "`knn_dictionary`: matmul and unsorted top-k over auto",
        ),
        (row("angles", 2.7, op="fuse_phase", case="96x96"), "`fuse_phase`: angle formula over auto"),
    ],
)
def test_requirements_missed(change, name):
    missed = [found for found in outcomes(*GOOD, change).values() if found.result == "missed"]
    assert [found.name for found in missed] == [name]
    assert missed[0].misses == 1
    assert change.case in missed[0].where


def test_a_bias_is_held_against_the_alternatives_only():
    rows = (row("gather", 20.0, shape={**SHAPE, "bias": 1}), row("backend csr", 0.9, case="bias"))
    missed = [name for name, found in outcomes(*GOOD, *rows).items() if found.result == "missed"]
    assert missed == ["`knn_attention`: time of auto over the best alternative in torch"]


def test_requirements_of_the_compiled_kernels_are_not_measured_without_them():
    rows = (row("auto", 1.0, note="sdpa"), row("gather", 20.0), row("SDPA, float mask", 0.97))
    results = [found.result for found in outcomes(*rows).values()]
    assert results == ["met"] + ["not measured"] * (len(results) - 1)


def test_requirements_on_a_gpu():
    rows = (
        row("auto", 1.0, median_ms=0.19, shape={**SHAPE, "B": 64}),
        row("auto", 1.0, median_ms=0.57, shape={**SHAPE, "B": 64}, mode="backward"),
        row("SDPA, boolean mask", 0.95),
        row("gather", 20.0, peak=10_000),
    )
    found = outcomes(*rows, kind="cuda")
    results = {name: one.result for name, one in found.items() if one.result != "not measured"}
    assert results == {
        "`knn_attention`: time of auto over the best alternative in torch": "missed",
        "N = 1024, k = 128, 65536 tokens: microseconds, forward": "met",
        "backward over forward": "missed",
        "the better SDPA over auto, forward": "met",
        "N = 1024: peak memory of auto over gather's, forward": "met",
    }
    assert found["backward over forward"].worst == pytest.approx(3.0)


def test_requirements_on_a_gpu_leave_other_tokens_out_of_the_times():
    shape = {**SHAPE, "B": 64}
    rows = [row("auto", 1.0, median_ms=0.19, shape=shape)]
    slow = {"median_ms": 0.4, "shape": {**shape, "unclustered": 1}, "case": "unclustered"}
    rows += [row("auto", 1.0, **slow), row("SDPA, float mask", 0.5, **slow)]
    found = outcomes(*rows, kind="cuda")
    assert found["N = 1024, k = 128, 65536 tokens: microseconds, forward"].result == "met"
    assert found["the better SDPA over auto, forward"].result == "missed"


def test_requirements_on_dictionaries_and_phases_on_a_gpu():
    S5 = {"B": 4, "N": 16384, "C": 192, "k": 64}
    patch, batch = ({"B": B, "C": 4, "H": 128, "W": 128} for B in (1, 64))
    rows = [
        row("auto", 1.0, op="knn_dictionary", shape=S5, median_ms=2.4, peak=4 * 4 * 16384**2 // 10),
        row("matmul, sorted top-k", 6.0, op="knn_dictionary", shape=S5),
        row("auto", 1.0, op="fuse_phase", shape=patch, median_ms=0.011),
        row("angles", 4.0, op="fuse_phase", shape=patch),
        row("auto", 1.0, op="fuse_phase", case="64", shape=batch, median_ms=0.064),
        row("angles", 9.0, op="fuse_phase", case="64", shape=batch),
    ]
    found = outcomes(*rows, kind="cuda")
    measured = {name: (one.result, one.worst) for name, one in found.items() if one.worst is not None}
    assert measured == {
        "`knn_dictionary`: time of auto over the best alternative in torch": ("met", pytest.approx(1 / 6)),
        "`knn_dictionary`, N = 16384, k = 64: microseconds": ("met", 2400),
        "`knn_dictionary`, N = 16384, k = 64: peak memory over an array of all pairs": (
            "missed",
            pytest.approx(0.1),
        ),
        "`knn_dictionary`, N = 16384, k = 64: matmul and top-k over auto": ("met", 6.0),
        "`fuse_phase`, a patch of 128x128: microseconds": ("met", pytest.approx(11)),
        "`fuse_phase`, 64 patches of 128x128: microseconds a patch": ("missed", pytest.approx(1.0)),
        "`fuse_phase`, a patch of 128x128: angle formula over auto": ("missed", 4.0),
        "`fuse_phase`, 64 patches of 128x128: angle formula over auto": ("met", 9.0),
    }


def test_memory_has_a_table_and_a_chart_of_its_own(tmp_path):
    grid = [
        row(
            name,
            1.0,
            op="memory",
            case=f"N{N} k{k}",
            mode=mode,
            peak=N * k * 2**10,
            shape={**SHAPE, "N": N, "k": k},
        )
        for N in (256, 1024)
        for k in (16, 64)
        for name in ("auto", "gather")
        for mode in ("forward", "both")
    ]
    grid[-1] = failed("gather", "out of memory", op="memory", case="N1024 k64", mode="both", status="skipped")
    chart = tmp_path / "memory.png"
    draw_memory(report(*GOOD), chart)
    assert not chart.exists()
    draw_memory(report(*GOOD, *grid), chart)
    assert chart.stat().st_size > 5000
    text = to_markdown([report(*GOOD, *grid)], {}, {"toy-cpu-2-threads": "memory.png"})
    assert "](memory.png)" in text
    assert "| N256 k16 | 4, 4 | 4, 4 |" in text
    assert "| N1024 k64 | 64, 64 | 64, - |" in text
    assert "### `memory`" not in text


def test_only_torch_alternatives_count():
    rows = [row("auto", 1.0), row("backend triton", 0.5), row("layers", 0.1)]
    assert check_requirements(report(*rows))[0].result == "not measured"
    rows.append(row("backend csr", 0.5))
    assert check_requirements(report(*rows))[0].worst == pytest.approx(2.0)


def test_page_shows_times_failures_and_requirements():
    rows = [*GOOD[:4], failed("bad | peer"), failed("bad | peer", mode="both")]
    rows.insert(0, failed("backend csr", "is what auto runs", status="skipped"))
    text = to_markdown([report(*rows)], {"toy-cpu-2-threads": "chart.png"})
    assert "## Toy (R) CPU, 2 threads" in text
    assert "commit abc1234" in text
    assert "](chart.png)" in text
    assert "| **auto** (native) | 10 (9 to 11) |" in text
    assert "| gather | 610 (549 to 671) *61.00* |" in text
    assert "| 40 % | 2e-07 |" in text
    assert text.count("failed: output: relative error 1") == 1, "a shared reason is given once"
    assert "backend csr" not in text
    assert "| at least 60 | 61 |" in text
    assert "**met**" in text
    assert "Other work was running" not in text
    assert "Nothing has been measured" in to_markdown([])


def test_slug_names_device_and_threads():
    assert MACHINE.slug == "toy-cpu-2-threads"
    here = describe_machine(device("cpu"))
    assert here.copy_gb_s > 0
    assert here.matmul_tflop_s > 0
    assert here.slug.endswith("-threads")
    Report.from_dict(Report(schema=1, machine=here, is_quick=True, measurements=[]).to_dict())


def test_chart_is_drawn(tmp_path):
    draw_chart(report(*GOOD), tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
    draw_chart(report(), tmp_path / "empty.png")


def test_command_writes_the_page_again(tmp_path, capsys):
    for threads in ("1", "2"):
        report(*GOOD).write(tmp_path / "results" / f"{threads}.json")
    out = tmp_path / "docs" / "page.md"
    code = main(["--from", str(tmp_path / "results"), "--chart", str(out.parent), "--markdown", str(out)])
    assert code == 0
    chart = out.parent / "benchmarks-toy-cpu-2-threads.png"
    assert chart.is_file()
    assert f"]({chart.name})" in out.read_text("utf-8")
    assert out.read_text("utf-8").count("## Toy (R) CPU") == 2
    assert "## Toy (R) CPU" in capsys.readouterr().out


def test_command_measures_keeps_and_draws(tmp_path, capsys):
    args = ["--op", "fuse_phase", "--quick", "--device", "cpu", "--budget", "0.05"]
    assert main([*args, "--json", str(tmp_path), "--markdown", str(tmp_path / "page.md")]) == 0
    (kept,) = read_reports(tmp_path)
    assert kept.is_quick
    assert {m.op for m in kept.measurements} == {"fuse_phase"}
    assert (tmp_path / kept.machine.common_kernels / f"{kept.machine.slug}.json").is_file()
    assert (tmp_path / "page.md").read_text("utf-8") == to_markdown([kept])
    assert "[1/" in capsys.readouterr().err


def test_command_fails_if_one_of_ours_is_wrong(tmp_path, capsys):
    report(*GOOD, failed("backend csr", "q: relative error 1")).write(tmp_path / "a.json")
    assert main(["--from", str(tmp_path / "a.json")]) == 1
    assert "backend csr failed, forward: q: relative error 1" in capsys.readouterr().err
    report(*GOOD, failed("a peer")).write(tmp_path / "a.json")
    assert main(["--from", str(tmp_path / "a.json")]) == 0


def test_command_fails_if_a_requirement_is_missed(tmp_path, capsys):
    slow = report(*GOOD[:1], row("gather", 14.0, peak=900), *GOOD[2:])
    slow.write(tmp_path / "a.json")
    assert main(["--from", str(tmp_path / "a.json")]) == 1
    assert "missed: gather over auto, forward, wanted at least 60" in capsys.readouterr().err
    replace(slow, is_quick=True).write(tmp_path / "a.json")
    assert main(["--from", str(tmp_path / "a.json")]) == 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--budget", "0"], "must be above 0"),
        (["--op", "nothing"], "invalid choice"),
        (["--from", "."], "holds no JSON"),
    ],
)
def test_wrong_usage_is_explained(args, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(args)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_help_teaches(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert "examples:" in text
    assert "exit code: 0" in text


def test_the_page_in_the_docs_is_what_the_kept_results_say():
    if not DOCS.is_dir():
        pytest.skip("the pages are not part of this distribution")
    results = PACKAGE / "benchmarks" / "results"
    reports = read_reports(results)
    assert page(reports, DOCS) == (DOCS / "benchmarks.md").read_text("utf-8")
    for kept in reports:
        expected = results / kept.machine.common_kernels / f"{kept.machine.slug}.json"
        assert Report.read(expected) == kept, "a result lies where its version and device say"
        assert not [m for m in kept.measurements if m.status == "failed" and m.kind in ("auto", "backend")]
