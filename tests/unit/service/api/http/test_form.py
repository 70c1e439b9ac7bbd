"""Files of multipart forms are parsed correctly for any bytes and any size of the searched slices."""

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.api.http import form
from service.api.http.form import parse_form
from service.errors import BadRequest

FORM = b"multipart/form-data; boundary=x"


def encode(files: list[tuple[str, tuple[str, bytes]]], fields: dict[str, str] | None = None) -> tuple[bytes, bytes]:
    request = httpx.Request("POST", "http://x", files=files, data=fields)
    return request.headers["content-type"].encode(), request.read()


pieces = st.lists(st.sampled_from([b"\r\n", b"--", b"x", b"\r", b"\n--", b"abc", b"\0"]), max_size=12).map(b"".join)


@settings(deadline=None, max_examples=60)
@given(st.lists(pieces, min_size=1, max_size=4), st.sampled_from([1, 7, 64, 10_000]))
def test_files_are_parsed_completely(contents: list[bytes], slice_bytes: int) -> None:
    names = [f"{at}.png" for at in range(len(contents))]
    content_type, body = encode(
        [("files", (name, content)) for name, content in zip(names, contents, strict=True)]
        + [("other", ("o.png", b"other"))],
        {"text": "a field"},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(form, "SLICE_BYTES", slice_bytes)
        parsed = parse_form(content_type, body, "files", 5)
    assert parsed.files == list(zip(names, contents, strict=True))
    assert parsed.fields == [("text", "a field")]


@pytest.mark.parametrize("count", [2, 3])
def test_more_files_than_allowed_are_rejected(count: int) -> None:
    content_type, body = encode([("files", ("a", b"1"))] * count)
    if count == 2:
        assert len(parse_form(content_type, body, "files", 2).files) == 2
    else:
        with pytest.raises(BadRequest, match="more than 2 files") as error:
            parse_form(content_type, body, "files", 2)
        assert error.value.hint == "Send at most 2 files per request, in the field 'files'."


def test_a_second_file_where_one_is_allowed_is_rejected() -> None:
    content_type, body = encode([("file", ("a", b"1")), ("photo", ("b", b"2"))])
    with pytest.raises(BadRequest, match=r"The multipart body has more than one file\.") as error:
        parse_form(content_type, body, "file", 1)
    assert error.value.hint == "Send at most one file per request, in the field 'file'."


EMPTY_INPUT = b'--x\r\nContent-Disposition: form-data; name="file"; filename=""\r\n\r\n'


@pytest.mark.parametrize("empty_first", [True, False])
def test_an_empty_file_input_of_a_form_is_ignored(empty_first: bool) -> None:
    parts = [EMPTY_INPUT + b"\r\n", HEAD + b"bytes\r\n"]
    body = b"".join(parts if empty_first else reversed(parts)) + b"--x--\r\n"
    assert parse_form(FORM, body, "file", 1) == ([("a", b"bytes")], [])


def test_a_file_without_a_name_counts_as_a_file() -> None:
    unnamed = EMPTY_INPUT + b"bytes\r\n"
    assert parse_form(FORM, unnamed + b"--x--\r\n", "file", 1).files == [("", b"bytes")]
    with pytest.raises(BadRequest, match="more than one file"):
        parse_form(FORM, unnamed + HEAD + b"bytes\r\n--x--\r\n", "file", 1)


def test_empty_file_inputs_count_as_fields() -> None:
    with pytest.raises(BadRequest, match=f"more than {form.MAX_FIELDS} fields"):
        parse_form(FORM, (EMPTY_INPUT + b"\r\n") * (form.MAX_FIELDS + 1) + b"--x--\r\n", "file", 1)


@pytest.mark.parametrize("count", [form.MAX_FIELDS, form.MAX_FIELDS + 1])
def test_unknown_text_fields_are_allowed_within_a_limit(count: int) -> None:
    content_type, body = encode([("file", ("a", b"1"))], {str(n): "" for n in range(count)})
    if count == form.MAX_FIELDS:
        assert len(parse_form(content_type, body, "file", 1).fields) == count
    else:
        with pytest.raises(BadRequest, match=f"more than {form.MAX_FIELDS} fields"):
            parse_form(content_type, body, "file", 1)


def test_of_a_long_text_field_only_the_beginning_is_kept() -> None:
    content_type, body = encode([("file", ("a", b"1"))], {"caption": "x\r\n" * 5000})
    assert parse_form(content_type, body, "file", 1).fields == [("caption", ("x\r\n" * 5000)[: form.MAX_FIELD_BYTES])]


@pytest.mark.parametrize("kind", [b"Multipart/Form-Data; boundary=x", b"MULTIPART/FORM-DATA ;boundary=x", FORM])
def test_the_media_type_is_compared_without_regard_to_case(kind: bytes) -> None:
    assert form.is_form(kind)
    assert parse_form(kind, HEAD + b"bytes\r\n--x--\r\n", "file", 1).files == [("a", b"bytes")]
    assert not form.is_form(b"multipart/form-data-x")
    assert form.media_type(b"Application/JSON; charset=UTF-8") == b"application/json"


HEAD = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'


@pytest.mark.parametrize(
    ("content_type", "body", "message"),
    [
        (b"multipart/form-data", HEAD + b"bytes\r\n--x--", "no boundary"),
        (b"multipart/form-data; boundary=" + b"x" * 257, b"", "boundary of the multipart body has more than 256 bytes"),
        (FORM, b"", "cut off before its last boundary"),
        (FORM, HEAD + b"bytes", "cut off before its last boundary"),
        (FORM, HEAD + b"bytes\r\n--x\r\n", "cut off before its last boundary"),
        (FORM, b"no form", r"^The multipart body is malformed\.$"),
        (FORM, b"--x\r\nContent-Type: image/png\r\n\r\nbytes\r\n--x--", "no name in its Content-Disposition"),
        (FORM, HEAD.replace(b"file", b"fifo") + b"bytes\r\n--x--", "no file in a field named 'file'"),
        (FORM, HEAD.replace(b'; filename="a"', b"") + b"bytes\r\n--x--", "no file in a field named 'file'"),
    ],
)
def test_a_body_that_is_not_a_form_with_files_is_rejected(content_type: bytes, body: bytes, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        parse_form(content_type, body, "file", 1)


def test_a_name_that_is_not_utf8_is_read_as_latin_1() -> None:
    body = HEAD.replace(b'"a"', b'"\xe9.png"') + b"bytes\r\n--x--\r\n"
    assert parse_form(FORM, body, "file", 1).files == [("\xe9.png", b"bytes")]


@pytest.mark.parametrize("codec", ["", "undefined", "unicode_escape", "punycode", "utf-7"])
@pytest.mark.parametrize("name", ["sieben.png", "é.png", r"\ud800", "+2AA-"])
def test_names_in_a_form_are_utf8_whatever_it_claims(codec: str, name: str) -> None:
    part = f'--x\r\ncontent-disposition: form-data; name="file"; filename="{name}"\r\n\r\nbytes\r\n--x--\r\n'
    kind = b"multipart/form-data; boundary=x; charset=" + codec.encode()
    assert parse_form(kind, part.encode(), "file", 1).files == [(name, b"bytes")]


@pytest.mark.parametrize("boundary", [rb'"a;b=c"', rb'"a b"', rb'"a\"\\b"'])
def test_a_boundary_may_be_quoted(boundary: bytes) -> None:
    mark = boundary[1:-1].replace(rb"\"", b'"').replace(rb"\\", b"\\")
    head = b'content-disposition: form-data; name="file"; filename="a"'
    part = b"--%s\r\n%s\r\n\r\nbytes\r\n--%s--\r\n" % (mark, head, mark)
    assert parse_form(b"multipart/form-data; boundary=" + boundary, part, "file", 1).files == [("a", b"bytes")]
