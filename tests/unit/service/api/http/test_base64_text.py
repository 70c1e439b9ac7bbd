"""Base64 is decoded as clients write it; errors name the position."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.http import large_json
from service.api.http.base64_text import decode_base64
from service.api.http.large_json import LargeText


def large(text: str, *, escaped_slash: bool = False) -> LargeText:
    """Returns the text as a long string of a JSON document."""
    content = json.dumps(text).encode()
    content = content.replace(b"/", b"\\/") if escaped_slash else content
    return LargeText(content, 1, len(content) - 1)


@given(st.binary(max_size=200), st.sampled_from([4, 7, 64, 76]), st.sampled_from(["", "\n", "\r\n", " ", "\t"]))
def test_lines_white_space_and_missing_padding_change_nothing(data: bytes, width: int, end: str) -> None:
    text = base64.b64encode(data).decode()
    lines = end.join(text[at : at + width] for at in range(0, len(text), width)) + end
    for form in (text, text.rstrip("="), lines, lines.replace("=", "")):
        assert decode_base64(form) == data
        assert decode_base64(large(form)) == data
        assert decode_base64(large(form, escaped_slash=True)) == data


@pytest.mark.parametrize("slice_bytes", [5, 8, 13])
def test_long_texts_are_decoded_across_slices(slice_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_json, "SLICE_BYTES", slice_bytes)
    data = bytes(range(256))
    lines = base64.encodebytes(data).decode()
    assert decode_base64(large(lines, escaped_slash=True)) == decode_base64(large(lines.strip("=\n"))) == data
    with pytest.raises(ValueError, match="character 'A' at position 344"):
        decode_base64(large(base64.b64encode(data).decode() + "AAAA"))


@pytest.mark.parametrize("slice_bytes", [1, 5, 8, 13, 1000])
@pytest.mark.parametrize(
    "escapes", [{"=": r"\u003d"}, {"+": r"\u002B", "/": r"\u002f"}, {"\\n": r"\f", "/": r"\/"}], ids=str
)
def test_escapes_of_json_encoders_change_nothing(
    escapes: dict[str, str], slice_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gson escapes "=" and .NET escapes "+". Bodies above 256 KB, which are cut into slices, must accept these escapes
    as smaller bodies do."""
    monkeypatch.setattr(large_json, "SLICE_BYTES", slice_bytes)
    data = bytes(range(255, -1, -1))
    content = json.dumps(base64.encodebytes(data).decode())
    for character, escape in escapes.items():
        assert character in content
        content = content.replace(character, escape)
    assert decode_base64(LargeText(content.encode(), 1, len(content) - 1)) == decode_base64(json.loads(content)) == data


@pytest.mark.parametrize("slice_bytes", [1, 5, 1000])
@pytest.mark.parametrize(
    "end", [rb"\\u003d", rb"\\\u003d", rb"\\/", rb"\u003", rb"\u013d", rb"\b", b"\n", b"\x00"], ids=repr
)
def test_other_escapes_and_control_characters_are_not_base64(
    end: bytes, slice_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large_json, "SLICE_BYTES", slice_bytes)
    content = b'"QUJDQUI' + end + b'"'
    with pytest.raises(ValueError, match=r"character"):
        decode_base64(LargeText(content, 1, len(content) - 1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("!AAA", "character '!' at position 0"),
        ("AAAA\nAA-A", "character '-' at position 7"),
        ("AA_A", "character '_' at position 2"),
        ("AAé=", r"character '\xe9' at position 2"),
        ("AAAA\ud83d\ude00", r"character '\ud83d' at position 4"),
        ("QQ==QQ==", "character 'Q' at position 4"),
        ("Q=Q=", "character 'Q' at position 2"),
        ("QUJDQ", "it is cut off or wrongly padded at its end, position 5"),
        ("QQ===", "it is cut off or wrongly padded at its end, position 5"),
        ("=", "character '=' at position 0"),
    ],
)
def test_the_first_wrong_character_is_reported(text: str, message: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011 -- the message is compared as a whole
        decode_base64(text)
    assert str(raised.value) == message
    if text.isascii():
        with pytest.raises(ValueError) as raised:  # noqa: PT011
            decode_base64(large(text))
        assert str(raised.value) == message


@pytest.mark.parametrize("text", ["data:image/png;base64,iVBORw0KGgo=", " DATA:,AAAA"])
def test_a_data_url_is_named(text: str) -> None:
    for form in (text, large(text)):
        with pytest.raises(ValueError, match="it is a data URL: send only the text after its comma"):
            decode_base64(form)


@pytest.mark.parametrize("is_escaped", [True, False])
def test_the_first_invalid_character_of_a_long_text_is_named(is_escaped: bool) -> None:
    content = json.dumps("AAAAä", ensure_ascii=is_escaped).encode()
    with pytest.raises(ValueError, match=r"character '\\xe4' at position 4"):
        decode_base64(LargeText(content, 1, len(content) - 1))
