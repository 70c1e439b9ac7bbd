"""The choice of graphs and engines for the processor, for every machine and manifest. No graph is loaded or timed."""

from collections.abc import Sequence

import pytest

from service.errors import BrokenVersion
from service.inference.engine_choice import Candidate, choose, list_candidates
from service.inference.providers import CUDA_PROVIDER, ON_CPU, ON_OPENVINO, ON_OPENVINO_BF16, Placement
from service.model_store.manifest import Acceptance, File, Input, Manifest, Precision, Provenance, Variant
from service.settings import PrecisionChoice

BOTH = ("cpu", "openvino")
AMX = {"avx512_vnni", "avx512_bf16", "amx_bf16"}
VNNI = {"avx512_vnni"}
ACCEPTED = Acceptance(
    engine="openvino",
    hint="bf16",
    images=1500,
    lost=2,
    gained=2,
    upper_loss=0.003,
    same_class=0.999,
    max_abs_difference=0.02,
    automatic=True,
)


def variant(precision: Precision, *acceptances: Acceptance, automatic: bool = True) -> Variant:
    return Variant(
        file=f"{precision}.onnx",
        sha256="0" * 64,
        precision=precision,
        bytes=1,
        automatic=automatic,
        acceptances=list(acceptances),
    )


def manifest(*variants: Variant) -> Manifest:
    return Manifest(
        input=Input(height=1, width=1, channels=1),
        classes=2,
        labels=File(file="labels.txt", sha256="0" * 64),
        variants=list(variants),
        provenance=Provenance(source="test", created_utc="2026-01-01"),
    )


F32, INT8, FP16 = variant("float32"), variant("int8"), variant("float16")


@pytest.mark.parametrize(
    ("variants", "precision", "engines", "flags", "names"),
    [
        ([F32], "auto", ["cpu"], AMX, ["cpu float32"]),
        ([F32], "auto", BOTH, AMX, ["cpu float32", "openvino float32"]),
        ([F32], "auto", ["openvino"], AMX, ["openvino float32"]),
        ([variant("float32", ACCEPTED)], "auto", BOTH, AMX, ["cpu float32", "openvino float32", "openvino bfloat16"]),
        ([variant("float32", ACCEPTED)], "auto", BOTH, VNNI, ["cpu float32", "openvino float32"]),
        ([variant("float32", ACCEPTED)], "float32", ["cpu"], AMX, ["cpu float32"]),
        ([INT8, F32], "auto", BOTH, VNNI, ["cpu float32", "cpu int8", "openvino float32", "openvino int8"]),
        ([INT8, F32], "auto", BOTH, set(), ["cpu float32", "openvino float32"]),  # int8 sums may overflow
        ([variant("int8", automatic=False), F32], "auto", BOTH, AMX, ["cpu float32", "openvino float32"]),
        ([F32, INT8], "int8", BOTH, set(), ["cpu int8", "openvino int8"]),
        ([F32, variant("int8", ACCEPTED)], "int8", ["openvino"], AMX, ["openvino int8", "openvino int8 with bf16"]),
        ([F32, FP16], "auto", BOTH, AMX, ["cpu float32", "openvino float32"]),
        ([FP16], "auto", BOTH, AMX, ["cpu float16"]),
        ([variant("int8", automatic=False)], "auto", ["cpu"], set(), ["cpu int8"]),  # there is no other graph
        ([F32, INT8], "bfloat16", BOTH, AMX, ["openvino bfloat16"]),  # selected by the user
    ],
)
def test_engines_and_precisions_that_may_serve_a_version(
    variants: list[Variant], precision: PrecisionChoice, engines: Sequence[str], flags: set[str], names: list[str]
) -> None:
    candidates = list_candidates(manifest(*variants), precision, engines, flags)
    assert [candidate.name for candidate in candidates] == names


def test_int8_that_was_rejected_on_openvino_runs_on_the_other_engine() -> None:
    refused = ACCEPTED.model_copy(update={"hint": "f32", "automatic": False})
    candidates = list_candidates(manifest(F32, variant("int8", refused)), "auto", BOTH, AMX)
    assert [candidate.name for candidate in candidates] == ["cpu float32", "cpu int8", "openvino float32"]


def test_a_rejected_acceptance_allows_nothing() -> None:
    refused = ACCEPTED.model_copy(update={"automatic": False})
    other_engine = ACCEPTED.model_copy(update={"engine": "cpu"})
    candidates = list_candidates(manifest(variant("float32", refused, other_engine)), "auto", BOTH, AMX)
    assert [candidate.name for candidate in candidates] == ["cpu float32", "openvino float32"]


@pytest.mark.parametrize(
    ("variants", "precision", "engines", "flags", "message"),
    [
        ([F32], "bfloat16", ["cpu"], AMX, "bfloat16 needs the OpenVINO plugin"),
        ([F32], "bfloat16", BOTH, VNNI, "bfloat16 needs a processor with AMX or AVX512-BF16"),
        ([INT8], "bfloat16", BOTH, AMX, "no float32 graph"),
        ([F32, FP16], "int8", BOTH, AMX, "There is no int8 graph; there is float32 and float16"),
    ],
)
def test_an_unavailable_precision_is_rejected_with_the_reason(
    variants: list[Variant], precision: PrecisionChoice, engines: Sequence[str], flags: set[str], message: str
) -> None:
    with pytest.raises(BrokenVersion, match=message):
        list_candidates(manifest(*variants), precision, engines, flags)


CPU, CPU_INT8 = Candidate(F32, ON_CPU), Candidate(INT8, ON_CPU)
OV, OV_BF16, OV_INT8 = Candidate(F32, ON_OPENVINO), Candidate(F32, ON_OPENVINO_BF16), Candidate(INT8, ON_OPENVINO)
OV_INT8_BF16 = Candidate(INT8, ON_OPENVINO_BF16)


@pytest.mark.parametrize(
    ("times_ms", "winner"),
    [
        ({CPU: 10.0}, CPU),
        ({CPU: 10.0, OV: 8.4}, CPU),  # 1.19 times as fast
        ({CPU: 10.0, OV: 8.3}, OV),  # 1.205 times
        ({CPU: 10.0, OV: 12.0, OV_BF16: 3.0}, OV_BF16),
        ({CPU: 10.0, OV: 3.7, OV_BF16: 3.0}, OV),  # within 25%: the more exact one
        ({CPU: 10.0, OV: 3.8, OV_BF16: 3.0}, OV_BF16),
        ({CPU: 10.0, OV_BF16: 3.0, OV_INT8: 2.5}, OV_BF16),
        ({CPU: 10.0, OV_BF16: 3.2, OV_INT8: 2.5}, OV_INT8),
        ({CPU: 10.0, OV_INT8: 2.9, OV_INT8_BF16: 2.5}, OV_INT8),
        ({CPU: 10.0, CPU_INT8: 2.6, OV_INT8: 2.5}, OV_INT8),  # equally exact: the faster one
        ({CPU: 10.0, OV: 8.4, OV_BF16: 8.0}, CPU),  # within 25%, and OV is not 1.2 times as fast
        ({CPU: 10.0, OV_INT8: 8.2}, CPU),  # within 25%
        ({CPU: 10.0, OV_INT8: 7.9}, OV_INT8),
    ],
)
def test_the_most_exact_of_the_fastest_wins(times_ms: dict[Candidate, float], winner: Candidate) -> None:
    assert choose(times_ms) == winner


def test_candidates_are_named_as_in_the_settings() -> None:
    assert (CPU.engine, CPU.precision, CPU.hint, CPU.name) == ("cpu", "float32", "", "cpu float32")
    assert (OV_BF16.engine, OV_BF16.precision, OV_BF16.hint) == ("openvino", "bfloat16", "bf16")
    assert (OV_INT8_BF16.precision, OV_INT8_BF16.name) == ("int8", "openvino int8 with bf16")
    assert Candidate(FP16, Placement((CUDA_PROVIDER,))).name == "cuda float16"
