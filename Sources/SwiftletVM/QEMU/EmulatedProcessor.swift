// SPDX-License-Identifier: Apache-2.0

/// The processor that software emulation shows to a guest.
package enum EmulatedProcessor: String, Codable, CaseIterable, Sendable {
    /// An Intel Westmere: x86-64-v2 with AES and without AVX, AVX2, FMA and F16C. Libraries then choose code that is fast under
    /// emulation, and code that QEMU 7.2 emulates rightly: its AVX2 ends numpy's sort and polars with a segmentation fault.
    case fast
    /// All that QEMU can emulate, AVX2 among it.
    case full

    /// QEMU's `-cpu`.
    package var model: String {
        switch self {
        // Version 1, as later ones ask for what QEMU does not emulate.
        case .fast: "Westmere-v1,rdrand=on,rdtscp=on,fsgsbase=on,pdpe1gb=on"
        case .full: "max"
        }
    }
}
