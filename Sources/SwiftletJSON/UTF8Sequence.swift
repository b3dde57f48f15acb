// SPDX-License-Identifier: Apache-2.0

/// The sequence at an index of bytes that should be UTF-8: a well-formed one, or the maximal part of one.
/// Source: Unicode 15, table 3-7.
struct UTF8Sequence {
    /// Its bytes.
    let length: Int
    let isWellFormed: Bool
    /// Whether bytes behind the last one may complete it.
    let mayContinue: Bool

    @inline(__always)
    init(at index: Int, in bytes: UnsafeBufferPointer<UInt8>) {
        let lead = bytes[index]
        let needed: Int
        var range: ClosedRange<UInt8> = 0x80...0xbf
        switch lead {
        case 0x00...0x7f: needed = 0
        case 0xc2...0xdf: needed = 1
        case 0xe0: (needed, range) = (2, 0xa0...0xbf)
        case 0xed: (needed, range) = (2, 0x80...0x9f)
        case 0xe1...0xef: needed = 2
        case 0xf0: (needed, range) = (3, 0x90...0xbf)
        case 0xf4: (needed, range) = (3, 0x80...0x8f)
        case 0xf1...0xf3: needed = 3
        default:
            (length, isWellFormed, mayContinue) = (1, false, false)
            return
        }
        var length = 1
        while length <= needed {
            guard index + length < bytes.count else {
                (self.length, isWellFormed, mayContinue) = (length, false, true)
                return
            }
            guard range.contains(bytes[index + length]) else {
                (self.length, isWellFormed, mayContinue) = (length, false, false)
                return
            }
            range = 0x80...0xbf
            length += 1
        }
        (self.length, isWellFormed, mayContinue) = (length, true, false)
    }
}
