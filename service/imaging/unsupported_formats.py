"""Recognizes formats that are not decoded by their first bytes, for a more precise error than "not an image".

Runs no decoder. The signatures come from Pillow's plugins, and from formats that clients are likely to send.
"""

import re

_SIGNATURES = {
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"%PDF": "PDF",
    b"8BPS": "PSD",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"icns": "ICNS",
    b"DDS ": "DDS",
    b"qoif": "QOI",
    b"BLP1": "BLP",
    b"BLP2": "BLP",
    b"FTEX": "FTEX",
    b"SIMPLE": "FITS",
    b"%!PS": "EPS",
    b"\xc5\xd0\xd3\xc6": "EPS",
    b"\x01\xda": "SGI",
    b"\x59\xa6\x6a\x95": "Sun raster",
    b"\xb1\x68\xde\x3a": "DCX",
    b"DanM": "MSP",
    b"LinS": "MSP",
    b"P7 332": "XV thumbnail",
    b"/* XPM */": "XPM",
    b"\xd7\xcd\xc6\x9a\0\0": "WMF",
    b"\x01\0\0\0": "EMF",
    b"\x89HDF\r\n\x1a\n": "HDF5",
    b"GRIB": "GRIB",
    b"BUFR": "BUFR",
    b"ZCZC": "BUFR",
    b"\0\0\1\xb3": "MPEG",
    b"\x80\xe8\0\0": "PIXAR",
    b"\0\0\0\0\0\0\0\4": "McIDAS",
    b"Image type: ": "IM",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "FPX or MIC",
}
_PATTERNS = {
    re.compile(rb"\0\0\x01\0(?!\0\0)"): "ICO",  # followed by the number of its images
    re.compile(rb"\0\0\x02\0(?!\0\0)"): "CUR",
    re.compile(rb"P[0-7fFyY][ \t\r\n#]"): "PNM",
    re.compile(rb"\n[\x00\x02\x03\x05]\x01[\x01\x02\x04\x08]"): "PCX",
    re.compile(rb"[\0-\xff]{4}[\x11\x12]\xaf"): "FLI",
    re.compile(rb"[\0-\xff]{20}GIMP"): "GIMP brush",
    re.compile(rb"\s*#define[ \t]+\w+_width[ \t]"): "XBM",
    re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<[\0-\xff]{0,1000}?)?<svg"): "SVG",
    re.compile(rb"[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0"): "DIB",
    re.compile(rb"[\0-\xff]{2048}PCD_"): "PCD",
    # A format of electron microscopes. Its header begins with float32 numbers, two of which are 1.0.
    re.compile(rb"(?s:\x3f\x80\0\0.{12}\x3f\x80\0\0|\0\0\x80\x3f.{12}\0\0\x80\x3f)"): "SPIDER",
    # Header: types of palette and image, palette, origin, width and height above 0, bits per pixel, orientation.
    re.compile(
        rb"(?s:.[\0\x01][\x01-\x03\x09-\x0b].{9}(?!\0\0)..(?!\0\0)..[\x01\x08\x0f\x10\x18\x20][\0-\x3f])"
    ): "TGA",
}


def unsupported_format(data: bytes) -> str | None:
    """Returns the name of the file's format; None if the format is unknown."""
    name = next((name for signature, name in _SIGNATURES.items() if data.startswith(signature)), None)
    if name is None and data[4:8] == b"ftyp":
        return "HEIC, AVIF or video"
    return name or next((name for pattern, name in _PATTERNS.items() if pattern.match(data)), None)
