"""What browsers are told about pages: they load nothing from elsewhere, and nobody puts them into a frame."""

from service.api.http.responses import Headers

CONTENT_SECURITY = (
    b"default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    b"frame-ancestors 'none'"
)
SECURITY: Headers = [
    (b"content-security-policy", CONTENT_SECURITY),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
]
PAGE_TYPES = (b"text/html", b"text/css", b"text/javascript", b"application/javascript", b"image/")


def security_headers(headers: Headers) -> Headers:
    """What is missing in the headers of an answer that is a page or a part of one; nothing for any other."""
    given = dict(headers)
    if not given.get(b"content-type", b"").startswith(PAGE_TYPES):
        return []
    return [header for header in SECURITY if header[0] not in given]
