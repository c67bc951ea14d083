"""What the compiler's assembly lacks: a guard behind each shared array, and the memory of those that are `extern`.

Both are a matter of a few lines there, and none in C++: `__shared__` stands before a declaration and cannot add to it.
"""

import re
import struct
from typing import NamedTuple

GUARD = 64  # shared_guard_bytes of runtime/shared_memory.hpp
LARGEST = 227 * 1024  # bytes of shared memory that a block may have, on the devices that have most
ANCHOR = "cuda_host_anchor"
_EXTERN = re.compile(r"extern\s+__shared__[^;{]*?(\w+)\s*\[\s*\]|__shared__\s+extern[^;{]*?(\w+)\s*\[\s*\]")
_ZERO = re.compile(r"\s*\.(zero|skip|space)\s")
_SECTION = re.compile(r"\s*\.(section\s+(?P<name>[^\s,]+)|(?P<plain>text|data|bss)\b)")


class SharedArray(NamedTuple):
    name: str
    offset: int  # from the start of the module's thread-local memory
    size: int
    dynamic: bool


def guarded(assembly: str, source: str) -> str:
    """The assembly with a guard behind each thread-local array, and with the dynamic arrays that the source names."""
    lines, section = [], ""
    for line in assembly.splitlines():
        if found := _SECTION.match(line):
            section = found["name"] or found["plain"]
        lines.append(line)
        if section.startswith(".tbss") and _ZERO.match(line):
            lines.append(f"\t.zero\t{GUARD}")
    dynamic = sorted(_dynamic_symbols(assembly, source))
    if dynamic:
        # All of them are the same memory, as on the device.
        lines += ['\t.section\t.tbss.cuda_host_dynamic,"awT",@nobits', "\t.balign\t1024"]
        for symbol in dynamic:
            lines += [f"\t.globl\t{symbol}", f"\t.hidden\t{symbol}", f"\t.type\t{symbol}, @object"]
            lines += [f"\t.size\t{symbol}, {LARGEST}", f"{symbol}:"]
        lines += [f"\t.zero\t{LARGEST + GUARD}", "\t.text"]
        for symbol in dynamic:
            # What the compiler calls before it takes the address: another file might have to initialize the array.
            initialize = "_ZTH" + (symbol.removeprefix("_Z") if symbol.startswith("_Z") else f"{len(symbol)}{symbol}")
            lines += [f"\t.globl\t{initialize}", f"\t.hidden\t{initialize}", f"{initialize}:", "\tret"]
    return "\n".join(lines) + "\n"


def shared_arrays(module: bytes, source: str) -> tuple[list[SharedArray], int]:
    """The shared arrays of a compiled module by its symbol table, and the offset of the runtime's anchor."""
    names = _dynamic_names(source)
    arrays, anchor = {}, 0
    for symbol, offset, size in _thread_local_symbols(module):
        if symbol == ANCHOR:
            anchor = offset
        elif "cuda_host" not in symbol:
            dynamic = any(_is(symbol, name) for name in names)
            if not (dynamic and offset in arrays):
                arrays[offset] = SharedArray(_short(symbol), offset, size, dynamic)
    return list(arrays.values()), anchor


def _dynamic_names(source: str) -> set[str]:
    return {first or second for first, second in _EXTERN.findall(source)}


def _dynamic_symbols(assembly: str, source: str) -> set[str]:
    words = set(re.findall(r"[\w$.]+", assembly))
    return {word for word in words for name in _dynamic_names(source) if _is(word, name)}


def _is(symbol: str, name: str) -> bool:
    """Whether this is the mangled name of a variable of that name, whatever namespace it is in."""
    return symbol == name or (_parts(symbol) or [""])[-1] == name


def _parts(symbol: str) -> list[str]:
    """The names in the mangled name of what is in a namespace that has one: _ZN5bnkit5bytesE is bnkit::bytes."""
    parts, rest = [], symbol.removeprefix("_ZN")
    while found := re.match(r"\d+", rest):
        end = found.end() + int(found[0])
        parts.append(rest[found.end() : end])
        rest = rest[end:]
    whole = symbol.startswith("_ZN") and rest == "E"
    return parts if whole and not any(part.startswith("_GLOBAL_") for part in parts) else []


def _short(symbol: str) -> str:
    """The last name within a mangled one: that of _ZZ3sumPKfPfE4tile is tile."""
    end = re.sub(r"(_\d+)?E?$", "", symbol)
    for found in re.finditer(r"(?=(\d+)([A-Za-z_]\w*)$)", end):
        if int(found[1]) == len(found[2]):
            return found[2]
    return symbol


def _thread_local_symbols(module: bytes) -> list[tuple[str, int, int]]:
    """(name, offset, size) of each, from a 64-bit little-endian ELF file."""
    (table,) = struct.unpack_from("<Q", module, 0x28)
    entry, count = struct.unpack_from("<HH", module, 0x3A)
    sections = [struct.unpack_from("<IIQQQQIIQQ", module, table + i * entry) for i in range(count)]
    found = []
    for _, kind, _, _, start, size, link, *_ in sections:
        if kind != 2:  # SHT_SYMTAB
            continue
        strings = sections[link][4]
        for at in range(start, start + size, 24):
            name, info, _, index, value, length = struct.unpack_from("<IBBHQQ", module, at)
            if info & 15 == 6 and index != 0:  # STT_TLS, and defined here
                end = module.index(b"\0", strings + name)
                found.append((module[strings + name : end].decode(), value, length))
    return found
