"""The report contains medians, void loads and ratios, and changes nothing outside its section."""

from pathlib import Path

import pytest

from tests.bench.compare_peers import PeerResults, constant_rates
from tests.bench.errors import CannotMeasure
from tests.bench.load_generators.closed_loop import LoadResult
from tests.bench.microbenchmark import SIZES
from tests.bench.photographs import PhotographResults
from tests.bench.report import markdown, sections
from tests.bench.stage_timing.timers import STAGES
from tests.bench.throughput import ThroughputResults, median_result


def _load_result(requests_per_s: float, failed: int = 0) -> LoadResult:
    return LoadResult(
        requests_per_s, p50_ms=1000 / requests_per_s, p99_ms=5000 / requests_per_s, requests=1, failed=failed
    )


@pytest.fixture
def throughput_results() -> ThroughputResults:
    results = ThroughputResults({"CPU": "a processor"}, batch=64)
    results.images |= {"image": 1, "v2 json x64": 64}
    results.unsupported = ["v2 binary x64"]
    for round_number in range(3):
        for size in SIZES:
            results.microbenchmark[1, size].append(1000.0 * size + round_number)
        results.decode_us.append(100.0)
        results.ready_s.append(1.5)
        results.resident_bytes.append(120e6)
        for connections in (1, 32):
            results.closed_loop["image", connections].append(_load_result(1000 * connections + round_number))
            results.closed_loop["v2 json x64", connections].append(
                _load_result(10 * connections, failed=connections // 32)
            )
        results.open_loop["image"].append(_load_result(600))
        results.stages["image"].append({stage: 10.0 * at for at, stage in enumerate(STAGES, 1)})
    return results


@pytest.fixture
def peer_results() -> PeerResults:
    results = PeerResults({"CPU": "a processor"}, batch=64)
    for server, load, requests_per_s in (
        ("convoy", "image", 3000),
        ("convoy", "v2 json", 4000),
        ("triton", "v2 json", 2000),
        ("litserve", "image", 300),
        ("triton", "v2 json x64", 100),
    ):
        results.closed_loop[load, server] += [
            _load_result(requests_per_s),
            _load_result(requests_per_s * 3),
            _load_result(requests_per_s * 2),
        ]
    late = _load_result(180)._replace(missing=2)
    results.open_loop["image", "litserve"] = {"convoy": [_load_result(180)], "litserve": [late]}
    return results


def _row(content: str, start: str) -> list[str]:
    (line,) = [line for line in content.splitlines() if line.startswith(start)]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_median_is_computed_per_figure() -> None:
    result = median_result([LoadResult(10, 1, 9, 100, 0), LoadResult(30, 3, 5, 300, 1), LoadResult(20, 2, 7, 200, 2)])
    assert result == LoadResult(20, 2, 7, 200, 3)


def test_loads_of_convoy_alone(throughput_results: ThroughputResults) -> None:
    content = sections.throughput(throughput_results, "make bench", "plot.svg")
    assert _row(content, "| image | 32 |")[2:] == ["32,001", "32,001", "0.03", "0.16"]
    assert _row(content, "| v2 json x64 | 1 |")[2:4] == ["10", "640"]
    assert "Not offered by this Convoy: v2 binary x64." in content
    assert "`make bench`" in content
    assert "](plot.svg)" in content


def test_a_load_with_a_failed_request_has_no_figures(throughput_results: ThroughputResults) -> None:
    content = sections.throughput(throughput_results, "make bench", "plot.svg")
    assert _row(content, "| v2 json x64 | 32 |")[2:] == ["void: 3 failed", "", "", ""]
    assert throughput_results.voids() == ["v2 json x64 at 32 connections: 3 failed"]


def test_stages_and_the_floor(throughput_results: ThroughputResults) -> None:
    content = sections.throughput(throughput_results, "make bench", "plot.svg")
    stages = content[content.index("Processor time") :]
    assert _row(stages, "| image |")[1:] == ["10", "20", "30", "40", "50", "60", "210"]
    assert _row(content, "| 128 |") == ["128", "128,001"]
    # Decoding takes 100 us, onnxruntime reaches 1001 images/s at a batch of one, and p50 of the second of three rounds
    # is 1000/1001 ms.
    assert (
        "minimum is 1099 us. A single client waits 999 us (p50), so the service and the connection add -100 us"
        in content
    )
    assert "120 MB" in content


def test_stages_that_could_not_be_measured_are_void(throughput_results: ThroughputResults) -> None:
    throughput_results.stages_void.add("v2 json x64")
    content = sections.throughput(throughput_results, "make bench", "plot.svg")
    assert _row(content[content.index("Processor time") :], "| v2 json x64 |")[1] == "void"
    assert any(text.startswith("stages of v2 json x64") for text in throughput_results.voids())


def test_ratios_are_convoy_divided_by_the_peer(peer_results: PeerResults) -> None:
    content = sections.peers(peer_results, "make bench-peers", "peers.svg")
    ratios = content[content.index("Ratio of Convoy to each peer") :]
    assert _row(ratios, "| v2 json | Triton")[2] == "2.00"
    assert _row(ratios, "| image | LitServe")[2] == "10.00"
    assert _row(ratios, "| image, against v2 json | Triton")[2] == "1.50"
    assert "x64" not in ratios


def test_a_void_load_has_no_ratio(peer_results: PeerResults) -> None:
    peer_results.closed_loop["v2 json", "triton"].append(_load_result(2000, failed=1))
    content = sections.peers(peer_results, "make bench-peers", "peers.svg")
    assert _row(content[content.index("Ratio of Convoy to each peer") :], "| v2 json | Triton")[2] == "void"
    assert "v2 json at triton: 1 failed" in peer_results.voids()
    assert ("v2 json", "triton") not in constant_rates(peer_results)


def test_the_same_rate_is_part_of_the_slower_ones_peak(peer_results: PeerResults) -> None:
    assert constant_rates(peer_results) == {("v2 json", "triton"): 0.6 * 4000, ("image", "litserve"): 0.6 * 600}
    content = sections.peers(peer_results, "make bench-peers", "peers.svg")
    assert _row(content, "| image, against LitServe | **Convoy**")[2:] == ["180", "5.56", "27.78"]
    assert _row(content, "| image, against LitServe | LitServe")[2:] == ["void: 2 not answered in time", "", ""]


def test_photographs_are_reported_beside_a_loop_without_a_service() -> None:
    results = PhotographResults({"CPU": "a"})
    for served_per_s, loop_per_s in ((18.0, 20.0), (19.0, 20.0), (27.0, 30.0)):
        results.served["resnet50"].append(LoadResult(served_per_s, 800.0, 900.0, 100, 0))
        results.loop_per_s["resnet50"].append(loop_per_s)
    assert "| resnet50 | 19.0 | 20.0 | 0.90 | 800 | 900 |" in sections.photographs(results, "a command")
    assert not results.voids()
    results.served["resnet50"].append(LoadResult(18.0, 800.0, 900.0, 100, 1))
    assert results.voids() == ["resnet50"]


def test_only_the_section_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_text("before\n<!-- a: begin -->\nold\n<!-- a: end -->\nafter\n<!-- b: begin --><!-- b: end -->\n")
    markdown.replace_section(file, "a", "new \\1")
    markdown.replace_section(file, "a", "newer \\1")
    assert file.read_text() == (
        "before\n<!-- a: begin -->\n\nnewer \\1\n\n<!-- a: end -->\nafter\n<!-- b: begin --><!-- b: end -->\n"
    )


def test_a_report_without_the_section_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(CannotMeasure, match="has no lines <!-- alone: begin -->"):
        markdown.replace_section(tmp_path / "README.md", "alone", "figures")
