// SPDX-License-Identifier: Apache-2.0

import Crypto
package import Foundation
import SwiftletCore

/// All that a template depends on: a clone of it is right only where each part is the same.
package struct TemplateIdentity: Codable, Equatable, Sendable {
    /// Raised when the files of a template change their meaning.
    package static let currentFormat = 2

    package var format = TemplateIdentity.currentFormat
    package var image: String
    /// Digests of the image's files.
    package var imageDigests: [String: String]
    /// The initramfs's name, which has its digest.
    package var initramfs: String
    package var shape: VMShape
    package var accelerator: Accelerator
    /// QEMU's version and build, its firmware included.
    package var qemu: String
    /// The host's processor with its features.
    package var processor: String
    /// All of QEMU's arguments, for the template and for its clones.
    package var arguments: [String]

    package init(
        image: String,
        imageDigests: [String: String],
        initramfs: String,
        shape: VMShape,
        accelerator: Accelerator,
        qemu: String,
        processor: String,
        arguments: [String]
    ) {
        self.image = image
        self.imageDigests = imageDigests
        self.initramfs = initramfs
        self.shape = shape
        self.accelerator = accelerator
        self.qemu = qemu
        self.processor = processor
        self.arguments = arguments
    }

    /// What the names of its templates' directories begin with.
    package var name: String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = .sortedKeys
        // Strings and numbers always encode.
        let bytes = (try? encoder.encode(self)) ?? Data()
        let digest = SHA256.hash(data: bytes).prefix(6).hexadecimal
        return "\(image.split(separator: "-").first ?? "image")-\(shape.tag)-\(digest)"
    }
}

/// What is written beside a template's files.
package struct TemplateManifest: Codable, Equatable, Sendable {
    package var identity: TemplateIdentity
    package var createdAt: Date
    /// The host's time stamp counter in kHz when it was built: the guest counts its time in these ticks.
    package var tscKHz: UInt64
    /// Bytes of the memory file, holes included.
    package var memorySize: Int
    /// SHA-256 of the files that are small enough to be checked at each load, in hexadecimal.
    package var stateDigest: String
    package var diskDigest: String

    /// Whether a guest that counts its time in this template's ticks is right where they come at another rate.
    func keepsTime(at tscKHz: UInt64) -> Bool {
        abs(Double(self.tscKHz) - Double(tscKHz)) <= Double(tscKHz) * 0.000_2
    }

    /// Why the template is not what was asked for; nil when it is.
    func mismatch(with wanted: TemplateIdentity) -> String? {
        if identity != wanted { return "it was built for something else" }
        if memorySize != wanted.shape.memoryMB << 20 { return "its memory has the wrong size" }
        return nil
    }
}
