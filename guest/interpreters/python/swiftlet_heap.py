# SPDX-License-Identifier: Apache-2.0
"""Moves memory of this process into a file's pages, which the kernel can drop and read again.

What is preloaded is 50 MiB of objects, and most sessions use few of them. As anonymous memory they would take it from every guest; as a private
mapping of a file they are page cache, which counts as available, and a page that is written to becomes anonymous again.
"""

import ctypes
import mmap
import os
import re
import struct

DIRECTORY = "/var/tmp"
PAGE = mmap.PAGESIZE
# Pages without content between two with it are moved too, up to so many: each separate range costs the kernel a mapping.
MAXIMUM_GAP = 16
LARGEST_DYNAMIC_THRESHOLD = 32 << 20
MADV_POPULATE_READ = 22
MAP_LINE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \S+ *(.*)")
RANGE = struct.Struct("<QQQ")

# For each of `count` ranges (address, length, offset in the file): pwrite64, then mmap with MAP_PRIVATE | MAP_FIXED over the same place.
# Between the two nothing may be written to the range, and Python code writes with each of its steps. Returns how many were left over.
#
#     push rbx; push rbp; push r12; push r13; mov rbx, rdi; mov rbp, rsi; movsxd r12, edx
#  1: test rbp, rbp; jz 9f
#     mov eax, 18; mov rdi, r12; mov rsi, [rbx]; mov rdx, [rbx + 8]; mov r10, [rbx + 16]; syscall; cmp rax, [rbx + 8]; jne 8f
#     mov eax, 9; mov rdi, [rbx]; mov rsi, [rbx + 8]; mov edx, 3; mov r10d, 0x12; mov r8, r12; mov r9, [rbx + 16]; syscall
#     cmp rax, [rbx]; jne 8f
#     add rbx, 24; dec rbp; jmp 1b
#  8: mov rax, rbp; jmp 7f
#  9: xor eax, eax
#  7: pop r13; pop r12; pop rbp; pop rbx; ret
MOVE = bytes.fromhex(
    "5355415441554889fb4889f54c63e24885ed744eb8120000004c89e7488b33488b53084c8b53100f05483b4308752eb809000000488b3b488b7308"
    "ba0300000041ba120000004d89e04c8b4b100f05483b0375094883c31848ffcdebb24889e8eb0231c0415d415c5d5bc3"
)


class HeapMark:
    """What a process's anonymous memory was; `move_growth` moves what has come since."""

    def __init__(self):
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.malloc.restype, self.libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        self.libc.free.argtypes = [ctypes.c_void_p]
        # Large blocks of malloc would be mappings of their own, which realloc grows in place: behind the file's end. Freeing one as
        # large as this raises the limit for them, as in any process that has done so.
        self.libc.free(self.libc.malloc(LARGEST_DYNAMIC_THRESHOLD - 2 * PAGE))
        self.before = anonymous_ranges()

    def move_growth(self):
        """Moves what was allocated since into a file without a name. Returns how many bytes; after an `OSError` the rest is where it was."""
        ranges = [part for whole in self.growth() for part in present_parts(*whole)]
        if not ranges or os.uname().machine != "x86_64":
            return 0
        file = os.open(DIRECTORY, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            self.move(ranges, file)
            os.fdatasync(file)
        finally:
            os.close(file)
        # Clones find the pages in their page tables.
        for start, end in ranges:
            self.libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_POPULATE_READ)
        return sum(end - start for start, end in ranges)

    def growth(self):
        for start, end in anonymous_ranges():
            for known_start, known_end in self.before:
                if known_start < end and start < known_end:
                    # A range grows at either end.
                    if start < known_start:
                        yield start, known_start
                    start = max(start, known_end)
            if start < end:
                yield start, end

    @staticmethod
    def move(ranges, file):
        table = mmap.mmap(-1, len(ranges) * RANGE.size)
        offset = 0
        for start, end in ranges:
            table.write(RANGE.pack(start, end - start, offset))
            offset += end - start
        code = mmap.mmap(-1, len(MOVE), prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        code.write(MOVE)
        move = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_void_p, ctypes.c_long, ctypes.c_int)(address_of(code))
        left = move(address_of(table), len(ranges), file)
        if left:
            raise OSError("%d of %d ranges of memory could not be moved into a file" % (left, len(ranges)))


def address_of(mapping):
    return ctypes.addressof(ctypes.c_char.from_buffer(mapping))


def anonymous_ranges():
    """Ranges of private anonymous memory, in order; without threads' stacks, whose threads may write at any time."""
    found = []
    with open("/proc/self/maps") as maps:
        guard_end = None
        for line in maps:
            start, end, permissions, name = MAP_LINE.match(line).groups()
            start, end = int(start, 16), int(end, 16)
            if permissions == "rw-p" and name in ("", "[heap]") and start != guard_end:
                found.append((start, end))
            guard_end = end if permissions == "---p" else None
    return found


def present_parts(start, end):
    """Parts of a range whose pages have content."""
    with open("/proc/self/pagemap", "rb") as pagemap:
        pagemap.seek(start // PAGE * 8)
        entries = pagemap.read((end - start) // PAGE * 8)
    parts = []
    for index, (entry,) in enumerate(struct.iter_unpack("<Q", entries)):
        # Bit 63: the page is present.
        if entry >> 63:
            address = start + index * PAGE
            if parts and address - parts[-1][1] <= MAXIMUM_GAP * PAGE:
                parts[-1][1] = address + PAGE
            else:
                parts.append([address, address + PAGE])
    return parts
