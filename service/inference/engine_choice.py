"""Lists the engines and graphs that may serve a version on the CPU, and chooses one by their measured times.

Pure functions: the callers pass in the properties of the machine and the measurements.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from service.errors import BrokenVersion
from service.inference.providers import (
    BF16_FLAGS,
    FAST_INT8_FLAGS,
    ON_CPU,
    ON_OPENVINO,
    ON_OPENVINO_BF16,
    SHORT_NAMES,
    Placement,
)
from service.model_store.manifest import Manifest, Variant
from service.settings import PrecisionChoice

MIN_SPEEDUP = 1.2
"""Minimum speed, relative to the first candidate, that another candidate needs to be chosen."""
TIE_RATIO = 1.25
"""Candidates that take at most this many times as long as the fastest candidate count as equally fast. The most exact
of these is chosen. Restarts and replicas of a service then make the same choice although their measurements differ."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """One graph of a version on one engine."""

    variant: Variant
    placement: Placement

    @property
    def engine(self) -> str:
        """Name of the execution provider as in the setting `providers`; `cpu` is onnxruntime's own provider."""
        provider = self.placement.preferred_provider
        return next((short for short, name in SHORT_NAMES.items() if name == provider), provider)

    @property
    def precision(self) -> str:
        """Precision of the graph, or `bfloat16` for a float32 graph that is computed in bfloat16."""
        is_bfloat16 = self.placement.hint == "bf16" and self.variant.precision == "float32"
        return "bfloat16" if is_bfloat16 else self.variant.precision

    @property
    def hint(self) -> str:
        """Precision hint of the OpenVINO plugin; empty for all other engines."""
        return self.placement.hint or ""

    @property
    def name(self) -> str:
        """A name that is unique among the candidates of a version, such as `openvino int8 with bf16`."""
        hint = " with bf16" if self.placement.hint == "bf16" and self.precision != "bfloat16" else ""
        return f"{self.engine} {self.precision}{hint}"

    @property
    def inexactness(self) -> int:
        """Rank by exactness, with 0 for the most exact."""
        order = ("float32", "float16", "bfloat16", "int8")
        return 2 * order.index(self.precision) + (self.name != f"{self.engine} {self.precision}")


def precision_of(name: str) -> str:
    """Returns the precision part of a candidate's name; empty for other strings."""
    _, _, rest = name.partition(" ")
    return rest.partition(" ")[0]


def list_candidates(
    manifest: Manifest, precision: PrecisionChoice, engines: Sequence[str], cpu_flags: Collection[str]
) -> list[Candidate]:
    """Returns the candidates that may serve the version on the CPU, with the baseline first.

    `engines` names the engines that this machine can use: `cpu`, `openvino` or both. With `auto`, only graphs that the
    manifest marks `automatic` may serve, or the first graph if there are none. On OpenVINO, a graph that the export
    compared and did not accept is left out, and the hint bf16 needs an acceptance. Raises BrokenVersion, with advice,
    if the version or the machine lacks the configured precision.
    """
    if precision == "bfloat16":
        return [_bfloat16_candidate(manifest, engines, cpu_flags)]
    variants = sorted(manifest.variants, key=lambda variant: Candidate(variant, ON_CPU).inexactness)
    if precision != "auto":
        variants = [variant for variant in variants if variant.precision == precision]
        if not variants:
            existing = " and ".join(variant.precision for variant in manifest.variants)
            hint = "Set CONVOY_PRECISION to auto or to an existing precision, or export that graph into a new version."
            raise BrokenVersion(f"There is no {precision} graph; there is {existing}.", hint)
    elif allowed := [variant for variant in variants if _may_serve(variant, variants, cpu_flags)]:
        variants = allowed
    else:
        variants = manifest.variants[:1]
    placements = [*([ON_CPU] * ("cpu" in engines)), *([ON_OPENVINO, ON_OPENVINO_BF16] * ("openvino" in engines))]
    return [
        Candidate(variant, placement)
        for placement in placements
        for variant in variants
        if _is_allowed(variant, placement, cpu_flags) or placement is placements[0]
    ]


def choose(times_ms: Mapping[Candidate, float]) -> Candidate:
    """Returns the candidate to use. `times_ms` has the milliseconds per run of one batch, with the baseline first."""
    first = next(iter(times_ms))
    fastest_ms = min(times_ms.values())
    equal = [candidate for candidate, ms in times_ms.items() if ms <= TIE_RATIO * fastest_ms]
    winner = min(equal, key=lambda candidate: (candidate.inexactness, times_ms[candidate]))
    return winner if times_ms[first] >= MIN_SPEEDUP * times_ms[winner] else first


def _bfloat16_candidate(manifest: Manifest, engines: Sequence[str], cpu_flags: Collection[str]) -> Candidate:
    variant = manifest.variant("float32")
    if variant is None:
        raise BrokenVersion("There is no float32 graph to compute in bfloat16.", "Set CONVOY_PRECISION=auto.")
    if "openvino" not in engines or BF16_FLAGS.isdisjoint(cpu_flags):
        missing = "a processor with AMX or AVX512-BF16" if "openvino" in engines else "the OpenVINO plugin"
        raise BrokenVersion(f"bfloat16 needs {missing}.", "Set CONVOY_PRECISION=auto, or install what bfloat16 needs.")
    return Candidate(variant, ON_OPENVINO_BF16)


def _may_serve(variant: Variant, variants: Sequence[Variant], cpu_flags: Collection[str]) -> bool:
    if not variant.automatic or (variant.precision == "int8" and FAST_INT8_FLAGS.isdisjoint(cpu_flags)):
        return False
    # float16 is for GPUs: CPUs compute it more slowly than float32.
    return variant.precision != "float16" or all(other.precision == "float16" for other in variants)


def _is_allowed(variant: Variant, placement: Placement, cpu_flags: Collection[str]) -> bool:
    if placement.hint == "bf16":
        return not BF16_FLAGS.isdisjoint(cpu_flags) and variant.accepts("openvino", "bf16")
    if placement is ON_OPENVINO:
        return variant.precision != "float16" and not variant.refuses("openvino", "f32")
    return True
