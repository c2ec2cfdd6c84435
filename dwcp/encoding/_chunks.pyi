from dwcp.transport.frames import Buffer

def split(
    data: Buffer, gear: bytes, sizes: tuple[int, int, int, int, int, int], inside: bool, final: bool, /
) -> list[int]: ...
