"""The checksums of a PNG, which decoders pass over where they have pixels enough."""

import struct
import zlib

SIGNATURE_BYTES = 8
INFLATED_AT_ONCE = 1 << 20


def check_png(data: bytes, most_bytes: int) -> None:
    """Raise ValueError or zlib.error unless a PNG is whole and as its checksums say.

    data: from its signature on. most_bytes: what the pixels may take when inflated. Every chunk up
    to IEND has a CRC-32 of its type and content, and the pixels, one zlib stream over all IDAT
    chunks, an Adler-32 of their own.
    """
    view, at, pixels = memoryview(data), SIGNATURE_BYTES, []
    kind = b""
    while kind != b"IEND":
        if at + 12 > len(data):
            raise ValueError("it ends before its last chunk")
        size, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + size
        if end > len(data):
            raise ValueError(f"it ends within its chunk {kind!r}")
        if zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise ValueError(f"the checksum of its chunk {kind!r} is wrong")
        if kind == b"IDAT":
            pixels.append(view[at + 8 : end - 4])
        at = end
    inflater, inflated = zlib.decompressobj(), 0
    for part in (*pixels, b""):  # the last for what is inflated but not yet given out
        while piece := inflater.decompress(part, INFLATED_AT_ONCE):
            part = inflater.unconsumed_tail
            inflated += len(piece)
            if inflated > most_bytes:
                raise ValueError(f"its pixels are more than {most_bytes:,} bytes")
    if not inflater.eof:
        raise ValueError("its pixels end early")
