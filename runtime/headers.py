"""What a photo's file says of itself, before a pixel is decoded: format, size, orientation, and whether it is whole.

The content decides, never the name. A decoder takes a header at its word: it may ask for gigabytes because 44 bytes say
so, and fill what is cut off with grey. Sizes are checked here first, and a file that ends early is refused.

Each reader takes the file's bytes and raises PhotoError for what is damaged; where it reads past the end, `read` does.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

UPRIGHT = 1
# Of a PNG's text, unpacked: a few hundred bytes may claim gigabytes.
LONGEST_TEXT = 1 << 20
# Directory entries, boxes and strips of one file: more is no photo, and looking at each takes time.
MOST_PARTS = 100_000


class PhotoError(Exception):
    """A photo that cannot be read; the message is the reason, fit for a row of the table."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """What is known of a photo before it is decoded."""

    format: str
    width: int
    height: int
    """In pixels, as stored: before it is turned upright."""
    orientation: int = UPRIGHT
    """As EXIF has it, 1-8."""
    bits: int = 8
    """Of a sample: the decoders of AVIF and JPEG 2000 give 10 or 12 as they are, in 16."""
    premultiplied: bool = False
    """Whether decoded colours are multiplied by their alpha already."""
    picture: bytes | None = None
    """What of the file is its first picture, whole; None for all of it. A decoder that is never shown an animation can
    not stumble over one: OpenCV 5.0 frees memory twice for an APNG with one bit flipped."""


def read(content: bytes) -> Header:
    """The header of a whole photo; PhotoError with the reason for anything else."""
    if reader := _reader(content):
        try:
            header = reader(content)
        except (struct.error, IndexError, OverflowError):  # each of the end
            raise PhotoError(_CUT) from None
        if header.width < 1 or header.height < 1:
            raise PhotoError(f"damaged: its header says {header.width} x {header.height} px")
        return header
    if name := _other(content):
        raise PhotoError(f"{name}, which is not read: save it as JPEG")
    raise PhotoError("not an image: it begins like no format that is read")


_CUT = "cut short: the end of the file is missing"


def _require(whole: bool) -> None:
    if not whole:
        raise PhotoError(_CUT)


def _jpeg(content: bytes) -> Header:
    """JPEG (ITU T.81): the segments up to the first scan, behind which an end must come."""
    exif = xmp = UPRIGHT
    size: tuple[int, int, int] | None = None
    at = 2
    while True:
        at = content.find(b"\xff", at)  # what lies between two segments says nothing
        _require(at >= 0)
        kind = content[at + 1]
        if kind == 0xD9:
            raise PhotoError("damaged: it holds no picture")
        if kind in (0x00, 0x01, 0xFF) or 0xD0 <= kind <= 0xD8:  # padding, and markers with nothing behind them
            at += 1
            continue
        (length,) = struct.unpack_from(">H", content, at + 2)
        body = content[at + 4 : at + 2 + length]
        if kind == 0xDA:
            break
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            bits, height, width = struct.unpack_from(">BHH", body)
            size = size or (bits, height, width)
        elif kind == 0xE1 and body.startswith(b"Exif\0\0"):
            exif = exif if exif != UPRIGHT else _exif(body[6:])
        elif kind == 0xE1 and body.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
            xmp = _xmp(body)
        at += 2 + length
    # A thumbnail in the segments has an end of its own.
    _require(content.find(b"\xff\xd9", at) >= 0)
    if size is None:
        raise PhotoError("damaged: it holds no picture")
    bits, height, width = size
    if bits != 8:
        raise PhotoError(f"a JPEG of {bits} bits a sample, which is not read: save it with 8")
    return Header(format="JPEG", width=width, height=height, orientation=exif if exif != UPRIGHT else xmp)


_PNG_PICTURE = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}


def _png(content: bytes) -> Header:
    """PNG and APNG (W3C): every chunk up to the last, IEND."""
    width, height = struct.unpack_from(">II", content, 16)
    exif = xmp = UPRIGHT
    picture, at = [content[:8]], 8
    for kind, body in _chunks(content, 8, ">I4s", trailer=4):
        end = at + 12 + len(body)
        if kind in _PNG_PICTURE:
            picture.append(content[at:end])
        at = end
        if kind == b"IEND":
            break
        if kind == b"eXIf":
            exif = _exif(body)
        elif kind == b"iCCP":
            _require_deflated(body.partition(b"\0")[2][:1])
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            keyword, text = _png_text(kind, body)
            if keyword == b"XML:com.adobe.xmp":
                xmp = _xmp(text)
            elif keyword in (b"Raw profile type exif", b"Raw profile type APP1") and exif == UPRIGHT:
                exif = _exif(_raw_profile(text))
    else:
        raise PhotoError(_CUT)
    return Header(
        format="PNG",
        width=width,
        height=height,
        orientation=exif if exif != UPRIGHT else xmp,
        picture=b"".join(picture),
    )


def _png_text(kind: bytes, body: bytes) -> tuple[bytes, bytes]:
    """The keyword and the text of a chunk, unpacked; PhotoError where that is a bomb."""
    keyword, _, rest = body.partition(b"\0")
    if kind == b"tEXt":
        return keyword, rest
    packed = kind == b"zTXt"
    if packed:
        method, rest = rest[:1], rest[1:]
    else:
        packed, method, rest = rest[:1] == b"\1", rest[1:2], rest[2:].split(b"\0", 2)[-1]
    if not packed:
        return keyword, rest
    _require_deflated(method)
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(rest, LONGEST_TEXT)
    except zlib.error:
        return keyword, b""  # a remark that nobody can read spoils no picture
    if unpacker.unconsumed_tail:
        raise PhotoError(f"its text unpacks to more than {LONGEST_TEXT >> 20} MiB")
    return keyword, text


def _require_deflated(method: bytes) -> None:
    if method != b"\0":
        raise PhotoError("damaged: a part of it is packed in a way that does not exist")


def _raw_profile(text: bytes) -> bytes:
    """EXIF as ImageMagick writes it: a name, a length, and hexadecimal digits in lines."""
    digits = b"".join(text.split()[2:])
    try:
        return bytes.fromhex(digits.decode("ascii")).removeprefix(b"Exif\0\0")
    except ValueError:
        return b""


def _gif(content: bytes) -> Header:
    """GIF: every block up to the trailer; a frame may be larger than the screen that it is on."""
    width, height, flags = struct.unpack_from("<HHB", content, 6)
    at = 13 + _gif_colours(flags)
    picture = b""
    while (kind := content[at]) != 0x3B:
        if kind == 0x2C:
            left, top, across, down, flags = struct.unpack_from("<HHHHB", content, at + 1)
            if not across or not down:
                raise PhotoError(f"damaged: its header says {across} x {down} px")
            at = _gif_blocks(content, at + 11 + _gif_colours(flags))
            picture = picture or content[:at] + b";"
            if width and height:
                width, height = max(width, left + across), max(height, top + down)
        elif kind == 0x21:  # an extension
            at = _gif_blocks(content, at + 2)
        else:
            raise PhotoError("damaged: a block of it is of no known kind")
    if not picture:
        raise PhotoError("damaged: it holds no picture")
    return Header(format="GIF", width=width, height=height, picture=picture)


def _gif_colours(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _gif_blocks(content: bytes, at: int) -> int:
    """Where a row of blocks ends, each with its length before it."""
    while length := content[at]:
        at += 1 + length
    return at + 1


def _webp(content: bytes) -> Header:
    """WebP (Google): the chunks of its RIFF container."""
    (length,) = struct.unpack_from("<I", content, 4)
    _require(len(content) >= 8 + length)
    exif = xmp = UPRIGHT
    size: tuple[int, int] | None = None
    for kind, body in _chunks(content[: 8 + length], 12, "<4sI", even=True):
        if kind == b"VP8X":
            size = 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
        elif kind == b"VP8 " and size is None:
            across, down = struct.unpack_from("<HH", body, 6)
            size = across & 0x3FFF, down & 0x3FFF
        elif kind == b"VP8L" and size is None:
            (packed,) = struct.unpack_from("<I", body, 1)
            size = 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
        elif kind == b"EXIF":
            exif = _exif(body.removeprefix(b"Exif\0\0"))
        elif kind == b"XMP ":
            xmp = _xmp(body)
    if size is None:
        raise PhotoError("damaged: it holds no picture")
    return Header(format="WebP", width=size[0], height=size[1], orientation=exif if exif != UPRIGHT else xmp)


def _bmp(content: bytes) -> Header:
    """BMP: what its pixels need is known where they are not packed."""
    start, size = struct.unpack_from("<II", content, 10)
    if size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", content, 18)
        packing = 0
    else:
        width, height, _, bits, packing, packed_bytes = struct.unpack_from("<iiHHII", content, 18)
        if packing not in (0, 3, 6):
            _require(len(content) >= start + packed_bytes)
    if packing in (0, 3, 6):
        _require(len(content) >= start + (width * bits + 31) // 32 * 4 * abs(height))
    return Header(format="BMP", width=width, height=abs(height))


# Of TIFF's types the bytes that one value takes, and how struct reads it; the others hold nothing that is asked for.
_TIFF_TYPES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}
_WIDTH, _HEIGHT, _BITS, _COLOURS, _STRIPS, _ORIENTATION, _STRIP_BYTES = 256, 257, 258, 262, 273, 274, 279
_TILES, _TILE_BYTES, _EXTRA, _SAMPLE_FORMAT = 324, 325, 338, 339


def _tiff(content: bytes) -> Header:
    """TIFF 6.0 and BigTIFF: the first directory, and whether its strips or tiles are all there.

    OpenCV turns a TIFF upright, whatever it is asked for, so no orientation is given; and it shifts 12 bits into 16.
    """
    order = "<" if content[:1] == b"I" else ">"
    big = content[2:4] in (b"+\0", b"\0+")
    (at,) = struct.unpack_from(order + ("Q" if big else "I"), content, 8 if big else 4)
    tags = _tags(content, at, order, big=big)
    if _WIDTH not in tags or _HEIGHT not in tags:
        raise PhotoError("damaged: it does not say its size")
    for places, lengths in ((_STRIPS, _STRIP_BYTES), (_TILES, _TILE_BYTES)):
        ends = map(sum, zip(tags.get(places, ()), tags.get(lengths, ()), strict=False))
        _require(max(ends, default=0) <= len(content))
    if tags.get(_SAMPLE_FORMAT, (1,))[0] == 3:
        raise PhotoError("its pixels are floating-point numbers, which is not read: save it as JPEG")
    if tags.get(_COLOURS, (2,))[0] in (8, 9, 10):
        raise PhotoError("its colours are CIELAB, which is not read: save it as JPEG")
    bits = max(tags.get(_BITS, (8,)))
    return Header(
        format="TIFF",
        width=tags[_WIDTH][0],
        height=tags[_HEIGHT][0],
        # libtiff multiplies bytes itself.
        premultiplied=bits <= 8 or tags.get(_EXTRA, (2,))[0] == 1,
    )


def _tags(content: bytes, at: int, order: str, *, big: bool = False) -> dict[int, tuple[int, ...]]:
    """Tag -> values of one TIFF directory, for the types above."""
    word, room = ("Q", 8) if big else ("I", 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), content, at)
    at += 8 if big else 2
    if count > MOST_PARTS:
        raise PhotoError("damaged: its directory has no end")
    found: dict[int, tuple[int, ...]] = {}
    for _ in range(count):
        tag, kind, values = struct.unpack_from(f"{order}HH{word}", content, at)
        if (code := _TIFF_TYPES.get(kind)) and 0 < values <= MOST_PARTS:
            place = at + 4 + room
            if struct.calcsize(f"={values}{code}") > room:
                (place,) = struct.unpack_from(order + word, content, place)
            found.setdefault(tag, struct.unpack_from(f"{order}{values}{code}", content, place))
        at += 4 + 2 * room
    return found


def _heif(content: bytes) -> Header:
    """AVIF (ISO/IEC 23000-22): size and turns are properties of the primary item; HEIC is the same box by box."""
    boxes: dict[bytes, tuple[int, int]] = {}
    for name, span in _boxes(content, 0, len(content)):
        boxes.setdefault(name, span)
    start, end = boxes[b"ftyp"]
    brands = {content[at : at + 4] for at in (start, *range(start + 8, end, 4))}
    if not brands & {b"avif", b"avis"}:
        raise PhotoError("HEIC, which is not read: save it as JPEG, or set the phone's camera to Most Compatible")
    if b"meta" not in boxes:
        raise PhotoError("damaged: it holds no picture")
    start, end = boxes[b"meta"]
    meta = dict(_boxes(content, start + 4, end))
    properties = [
        (kind, content[begin:stop])
        for name, (start, end) in _boxes(content, *meta.get(b"iprp", (0, 0)))
        if name == b"ipco"
        for kind, (begin, stop) in _boxes(content, start, end)
    ]
    mine = _associated(content, meta)
    size, bits, quarters = (0, 0), 8, 0
    mirrored: int | None = None
    for index in mine:
        kind, body = properties[index - 1] if 0 < index <= len(properties) else (b"", b"")
        if kind == b"ispe":
            width, height = struct.unpack_from(">II", body, 4)
            size = (width, height)
        elif kind == b"av1C":
            bits = 12 if body[2] & 0x20 else 10 if body[2] & 0x40 else 8
        elif kind == b"irot":
            quarters = body[0] & 3
        elif kind == b"imir":
            mirrored = body[0] & 1
    return Header(format="AVIF", width=size[0], height=size[1], orientation=_TURNS[mirrored][quarters], bits=bits)


# EXIF's orientation for 0-3 quarter turns against the clock and then a mirror: none, top to bottom, left to right.
_TURNS: dict[int | None, tuple[int, int, int, int]] = {None: (1, 8, 3, 6), 0: (4, 5, 2, 7), 1: (2, 7, 4, 5)}


def _associated(content: bytes, meta: dict[bytes, tuple[int, int]]) -> list[int]:
    """The numbers, from 1, of the primary item's properties."""
    if b"pitm" not in meta or b"iprp" not in meta:
        raise PhotoError("damaged: it holds no picture")
    start, _ = meta[b"pitm"]
    (primary,) = struct.unpack_from(">I" if content[start] else ">H", content, start + 4)
    for kind, (start, _) in _boxes(content, *meta[b"iprp"]):
        if kind != b"ipma":
            continue
        version, wide = content[start], content[start + 3] & 1
        (count,) = struct.unpack_from(">I", content, start + 4)
        at = start + 8
        for _ in range(min(count, MOST_PARTS)):
            (item,) = struct.unpack_from(">I" if version else ">H", content, at)
            at += 4 if version else 2
            length = content[at]
            numbers = struct.unpack_from(f">{length}{'H' if wide else 'B'}", content, at + 1)
            if item == primary:
                return [number & (0x7FFF if wide else 0x7F) for number in numbers]
            at += 1 + length * (2 if wide else 1)
    raise PhotoError("damaged: its picture has no size")


def _jp2(content: bytes) -> Header:
    """JPEG 2000 (ITU T.800), in its boxes or bare: the first codestream says the size, and has an end."""
    at = content.find(b"\xff\x4f\xff\x51")
    if at < 0:
        raise PhotoError("damaged: it holds no picture")
    right, bottom, left, top = struct.unpack_from(">IIII", content, at + 8)
    _require(content.find(b"\xff\xd9", at) >= 0)
    bits = (content[at + 42] & 0x7F) + 1
    return Header(format="JPEG 2000", width=right - left, height=bottom - top, bits=bits)


# Blanks and remarks, one at a time: of runs of blanks there would be as many readings as ways to part them.
_BETWEEN = rb"(?:\s|#[^\n]*\n)+"
_PNM = rb"P([1-6])%(b)b(\d{1,9})%(b)b(\d{1,9})(?:%(b)b(\d{1,5}))?\s" % {b"b": _BETWEEN}


def _pnm(content: bytes) -> Header:
    """PBM, PGM and PPM: the numbers in the first lines."""
    found = re.match(_PNM, content[:4096])
    if found is None:
        raise PhotoError("damaged: it does not say its size")
    kind, width, height = (int(found[group]) for group in (1, 2, 3))
    if kind in (4, 5, 6):
        bits = 1 if kind == 4 else 8 if int(found[4] or 255) < 256 else 16
        start = found.start(4) - 1 if kind == 4 and found[4] else found.end()
        _require(len(content) >= start + (width * bits * (3 if kind == 6 else 1) + 7) // 8 * height)
    return Header(format="PNM", width=width, height=height)


def _chunks(
    content: bytes, at: int, head: str, *, trailer: int = 0, even: bool = False
) -> Iterator[tuple[bytes, bytes]]:
    """Name and body of each chunk from `at` on; PhotoError where one ends behind the file.

    Args:
        head: as struct reads it, a length and a name in either order.
        trailer: bytes behind each body.
        even: bodies are padded to an even length.
    """
    size = struct.calcsize(head)
    for _ in range(MOST_PARTS):
        if at + size > len(content):
            return
        first, second = struct.unpack_from(head, content, at)
        length, name = (first, second) if isinstance(first, int) else (second, first)
        _require(at + size + length + trailer <= len(content))
        yield name, content[at + size : at + size + length]
        at += size + length + trailer + (length & 1 if even else 0)


def _boxes(content: bytes, at: int, end: int) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Name, and where the body starts and ends, of each box of an ISO base media file (ISO/IEC 14496-12)."""
    for _ in range(MOST_PARTS):
        if at + 8 > end:
            return
        length, name = struct.unpack_from(">I4s", content, at)
        head = 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", content, at + 8)
            head = 16
        length = length or end - at  # to the end of the file
        if length < head:
            raise PhotoError("damaged: one of its boxes has no length")
        _require(at + length <= end)
        yield name, (at + head, at + length)
        at += length


def _exif(block: bytes) -> int:
    """The orientation in a block of EXIF; upright where it says none, or is damaged: then it is a remark like any."""
    if block[:4] not in (b"II*\0", b"MM\0*"):
        return UPRIGHT
    order = "<" if block[:1] == b"I" else ">"
    try:
        (at,) = struct.unpack_from(order + "I", block, 4)
        (count,) = struct.unpack_from(order + "H", block, at)
        for index in range(count):
            tag, kind, _ = struct.unpack_from(order + "HHI", block, at + 2 + 12 * index)
            if tag == _ORIENTATION and kind in (3, 4):
                (value,) = struct.unpack_from(order + ("H" if kind == 3 else "I"), block, at + 10 + 12 * index)
                return value if 1 <= value <= 8 else UPRIGHT
    except struct.error:
        pass
    return UPRIGHT


_XMP_ORIENTATION = rb"tiff:Orientation(?:\s*=\s*[\"']|\s*>\s*)([1-8])\s*[\"'<]"


def _xmp(packet: bytes) -> int:
    found = re.search(_XMP_ORIENTATION, packet)
    return int(found[1]) if found else UPRIGHT


def _reader(content: bytes) -> Callable[[bytes], Header] | None:
    """Who reads what begins so."""
    for signatures, reader in (
        ((b"\xff\xd8\xff",), _jpeg),
        ((b"\x89PNG\r\n\x1a\n",), _png),
        ((b"GIF87a", b"GIF89a"), _gif),
        ((b"II*\0", b"II+\0", b"MM\0*", b"MM\0+"), _tiff),
        ((b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"), _jp2),
    ):
        if content.startswith(signatures):
            return reader
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return _webp
    if content[:2] == b"BM" and (content[6:10] == bytes(4) or content[14:18] in _BMP_HEADS):
        return _bmp
    if content[4:8] == b"ftyp" and content[8:11] in _HEIF_BRANDS:
        return _heif
    if content[:1] == b"P" and content[1:2] in b"123456" and content[2:3] in b" \t\r\n#" and len(content) > 2:
        return _pnm
    return None


# Lengths of its second header, in bytes, each of another age.
_BMP_HEADS = {length.to_bytes(4, "little") for length in (12, 40, 52, 56, 64, 108, 124)}
_HEIF_BRANDS = {b"avi", b"hei", b"hev", b"mif", b"mia", b"msf"}
_OTHERS = (
    ((b"8BPS",), "Photoshop's PSD"),
    ((b"\0\0\1\0", b"\0\0\2\0"), "an icon (ICO)"),
    ((b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"), "JPEG XL"),
    ((b"%PDF",), "PDF"),
    ((b"%!PS", b"\xc5\xd0\xd3\xc6"), "PostScript"),
    ((b"\x76\x2f\x31\x01",), "OpenEXR"),
    ((b"#?RADIANCE", b"#?RGBE"), "Radiance HDR"),
    ((b"P7", b"PF", b"Pf"), "PAM or PFM"),
)


def _other(content: bytes) -> str:
    """What people send that no decoder here reads, by name; empty for anything else."""
    text = content[:4096].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(b"<"):
        return "SVG" if b"<svg" in text and b"<html" not in text else "a web page" if b"<html" in text else ""
    if content[4:8] == b"ftyp":
        return "a film"
    return next((name for signatures, name in _OTHERS if content.startswith(signatures)), "")
