// SPDX-License-Identifier: Apache-2.0

package import Foundation
import Glibc

/// Which packages a guest has.
package enum ImageVariant: String, Sendable, Codable, CaseIterable {
    /// What code-execution clients expect: scientific Python, Node.js, a compiler.
    case standard
    /// Python and bash, for quick tests.
    case minimal
}

/// What is written beside an image's files.
package struct ImageManifest: Codable, Equatable, Sendable {
    /// Raised when the files of an image change their meaning.
    package static let currentFormat = 1

    package var format: Int
    package var id: String
    package var variant: ImageVariant
    package var createdAt: Date
    /// SHA-256 of the root file system, of the kernel and of the list of packages, in hexadecimal.
    package var digests: [String: String]
}

/// A kernel and a root file system that microVMs start from.
package struct Image: Equatable, Sendable {
    package let directory: String
    package let manifest: ImageManifest

    package init(directory: String, manifest: ImageManifest) {
        self.directory = directory
        self.manifest = manifest
    }

    /// The first twelve digits of the digest of the recipe that it was built from, behind the variant's name.
    package var id: String { manifest.id }
    package var kernel: String { "\(directory)/vmlinuz" }
    package var rootFileSystem: String { "\(directory)/rootfs.ext4" }
    package var modules: String { "\(directory)/modules" }

    /// Bytes on the disk; holes do not count.
    package var sizeOnDisk: Int {
        var status = stat()
        return stat(rootFileSystem, &status) == 0 ? Int(status.st_blocks) * 512 : 0
    }
}

/// Why an image could not be had, and what to do.
package struct ImageError: Error, Equatable, Sendable, CustomStringConvertible {
    package let description: String

    package init(_ description: String) {
        self.description = description
    }
}
