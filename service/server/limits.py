"""The limits of one connection, from the settings."""

from dataclasses import dataclass

from service.settings import Settings

MAX_TRAILING_BYTES = 65536  # more than twice the largest body, for the framing of chunks and pipelined requests


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits of one connection."""

    header_timeout_s: float
    body_timeout_s: float
    body_bytes_per_s: int
    max_header_bytes: int
    max_body_bytes: int
    max_request_bytes: int
    max_requests: int

    @classmethod
    def from_settings(cls, settings: Settings) -> "ConnectionLimits":
        return cls(
            header_timeout_s=settings.header_timeout_s,
            body_timeout_s=settings.body_timeout_s,
            body_bytes_per_s=settings.body_bytes_per_s,
            max_header_bytes=settings.max_header_bytes,
            max_body_bytes=settings.max_body_bytes,
            max_request_bytes=2 * settings.max_body_bytes + settings.max_header_bytes + MAX_TRAILING_BYTES,
            max_requests=settings.keep_alive_requests,
        )
