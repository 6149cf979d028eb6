# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

import pytest
import torch
from common_kernels._dispatch import BackendUnavailableError
from common_kernels.bench import Case, Problem, run_cases, to_json, to_markdown
from common_kernels.bench.__main__ import main
from common_kernels.bench.bars import judge
from common_kernels.bench.cases import attention_cases, dictionary_cases, fusion_cases
from common_kernels.bench.report import draw_chart

CPU = torch.device("cpu")
REPORTS = sorted((Path(__file__).parents[2] / "benchmarks" / "results").rglob("*.json"))
PAGES = Path(__file__).parents[4] / "docs" / "common-kernels"


def toy(**contenders) -> Case:
    x = torch.rand(64, 64, requires_grad=True)

    def make(device: torch.device) -> Problem:
        calls = {"auto": lambda: x @ x, "slow": lambda: (x @ x) + 0, **contenders}
        return Problem(calls, lambda: x.double() @ x.double(), (x,))

    return Case("toy", "toy", {"N": 64}, make, "slow", ("forward", "both"), flop=2 * 64**3)


def row(results, mode, contender):
    return next(r for r in results if (r.mode, r.contender) == (mode, contender))


def test_measures_every_contender_in_every_mode():
    results = run_cases([toy()], seconds_per_case=0.05, log=False)
    assert {(r.mode, r.contender) for r in results} == {
        (mode, name) for mode in ("forward", "both") for name in ("auto", "slow")
    }
    for r in results:
        assert r.status == "ok"
        assert len(r.times_ms) >= 3
        assert r.quantile(0.2) <= r.median_ms <= r.quantile(0.8)
    assert row(results, "forward", "slow").peak_mib >= row(results, "forward", "auto").peak_mib
    assert row(results, "forward", "auto").roofline > 0
    assert row(results, "both", "auto").roofline is None


def test_a_wrong_result_is_not_timed():
    results = run_cases([toy(wrong=lambda: torch.zeros(64, 64))], seconds_per_case=0.05, log=False)
    for mode in ("forward", "both"):
        wrong = row(results, mode, "wrong")
        assert wrong.status == "failed"
        assert wrong.error == pytest.approx(1)
        assert wrong.times_ms == []


def test_nan_is_wrong():
    results = run_cases(
        [toy(wrong=lambda: torch.full((64, 64), float("nan")))], seconds_per_case=0.05, log=False
    )
    assert row(results, "forward", "wrong").status == "failed"


def test_a_backend_that_refuses_is_shown_with_its_reason():
    def refuse():
        raise BackendUnavailableError("needs a better machine\nand more")

    results = run_cases([toy(shy=refuse)], seconds_per_case=0.05, log=False)
    shy = row(results, "forward", "shy")
    assert (shy.status, shy.note) == ("refused", "needs a better machine")


def test_report_tables_show_times_failures_and_speed_ups():
    results = run_cases([toy(wrong=lambda: torch.zeros(64, 64))], seconds_per_case=0.05, log=False)
    report = json.loads(json.dumps(to_json(results, baselines={"toy": "slow"})))
    assert report["schema"] == 1
    assert report["machine"]["torch"] == torch.__version__
    text = to_markdown(report, [{"name": "promise", "value": 2, "limit": "at least 1", "held": True}])
    assert "| promise | 2 | at least 1 | yes |" in text
    assert "| toy | wrong | failed" in text
    assert text.count("### `toy`") == 2
    slow = next(line for line in text.splitlines() if line.startswith("| toy | slow |"))
    assert slow.split("|")[4].strip() == "1.0"


def test_bars_hold_and_break():
    def entry(op, case, contender, ms, peak=100.0):
        return {
            "op": op,
            "case": case,
            "mode": "forward",
            "contender": contender,
            "status": "ok",
            "median_ms": ms,
            "peak_mib": peak,
        }

    anchor = "B1 H6 N1024 d32 k128"
    rows = [
        entry("knn_attention", anchor, "auto", 10.0, 1.0),
        entry("knn_attention", anchor, "gather", 200.0),
        entry("knn_attention", anchor, "SDPA, float mask", 9.0),
        entry("fuse_phase", "1x4x64x64", "auto", 1.0),
        entry("fuse_phase", "1x4x64x64", "angles", 1.5),
    ]
    held = {
        bar["name"].split(",")[0]: bar["held"] for bar in judge({"machine": {"device": "x"}, "results": rows})
    }
    assert held == {
        "slowest auto over the best alternative": False,
        "auto over gather": True,
        "memory of auto over gather's": True,
        "fuse_phase over angles": False,
    }
    assert judge({"machine": {"device": "NVIDIA H100"}, "results": rows}) == []


def test_smallest_real_cases_agree_with_their_references():
    cases = [attention_cases(CPU, quick=True)[0], dictionary_cases(CPU, quick=True)[0], fusion_cases(CPU)[0]]
    for case in cases:
        results = run_cases([case], seconds_per_case=0.0, log=False)
        assert {r.status for r in results} == {"ok"}, case.name


def test_command_reports_on_an_earlier_run(tmp_path, capsys):
    results = run_cases([toy()], seconds_per_case=0.02, log=False)
    source = tmp_path / "run.json"
    source.write_text(json.dumps(to_json(results, baselines={"toy": "slow"})))
    out, chart = tmp_path / "run.md", tmp_path / "run.png"
    assert main(["--from", str(source), "--markdown", str(out), "--chart", str(chart)]) == 0
    assert out.read_text().endswith(capsys.readouterr().out)
    assert "(run.png)" in out.read_text()
    assert chart.read_bytes().startswith(b"\x89PNG")


def test_command_explains_itself(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "examples:" in capsys.readouterr().out


@pytest.mark.parametrize("file", REPORTS, ids=lambda file: file.stem)
def test_kept_reports_are_whole(file, tmp_path):
    report = json.loads(file.read_text())
    assert report["schema"] == 1
    assert {"device", "torch", "commit", "threads"} <= report["machine"].keys()
    names = {r["case"] for r in report["results"]}
    assert report["baselines"].keys() == names
    for r in report["results"]:
        assert r["status"] in ("ok", "failed", "refused")
        assert ("median_ms" in r) == (r["status"] == "ok")
    draw_chart(report, tmp_path / "chart.png")


def test_the_page_is_what_the_report_says():
    page = PAGES / "benchmarks.md"
    report = json.loads(
        (Path(__file__).parents[2] / "benchmarks" / "results" / "0.1.0" / "cpu.json").read_text()
    )
    assert to_markdown(report, judge(report)).strip() in page.read_text()
