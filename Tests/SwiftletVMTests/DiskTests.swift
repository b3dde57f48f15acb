// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwiftletVM
import Testing

@Suite struct DiskBudgetTests {
    private static let megabyte: UInt64 = 1 << 20
    private let quota = DiskQuota(bytes: 64 << 20)

    @Test(arguments: [64, 256, 1_024, 4_096, 1_048_576] as [UInt64])
    func aQEMUMayWriteLittleMoreThanItsGuest(megabytes: UInt64) {
        let quota = DiskQuota(bytes: megabytes << 20)
        #expect(quota.fileSize >= quota.bytes + (32 << 20))
        #expect(quota.fileSize <= quota.bytes + quota.bytes / 10 + (64 << 20))
    }

    @Test func aBudgetPromisesNoMoreThanItHasAndGetsBackWhatWasPromised() throws {
        var budget = DiskBudget(limit: 2 * quota.fileSize + Self.megabyte)
        try budget.admit(quota, free: nil)
        try budget.admit(quota, free: nil)
        let before = budget
        let error = #expect(throws: MicroVMError.self) { try budget.admit(quota, free: nil) }
        #expect("\(error as Any)".contains("1 of 233 MiB of disk left") && "\(error as Any)".contains("diskBudgetMb"))
        #expect(budget == before)
        budget.release(quota)
        try budget.admit(quota, free: nil)
        #expect(budget.promised == 2 * quota.fileSize)
    }

    @Test func withoutALimitTheFileSystemsFreeSpaceDecides() throws {
        var budget = DiskBudget(limit: nil)
        for _ in 0..<10_000 { try budget.admit(quota, free: quota.fileSize) }
        let error = #expect(throws: MicroVMError.self) { try budget.admit(quota, free: quota.fileSize - 1) }
        #expect("\(error as Any)".contains("115 MiB free"))
        #expect(budget.promised == 10_000 * quota.fileSize)
    }
}

@Suite struct ImageCapacityTests {
    /// An image whose root file system begins with a superblock of these fields.
    private func withImage(_ fields: [(offset: Int, bytes: [UInt8])], _ body: (Image) throws -> Void) throws {
        let directory = NSTemporaryDirectory() + "swiftlet-image-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: directory) }
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        var file = [UInt8](repeating: 0, count: 4_096)
        for (offset, bytes) in fields {
            file.replaceSubrange((1_024 + offset)..<(1_024 + offset + bytes.count), with: bytes)
        }
        try Data(file).write(to: URL(filePath: "\(directory)/rootfs.ext4"))
        let manifest = """
            {"format":1,"id":"minimal-1","variant":"minimal","createdAt":0,"digests":{}}
            """
        let decoded = try JSONDecoder().decode(ImageManifest.self, from: Data(manifest.utf8))
        try body(Image(directory: directory, manifest: decoded))
    }

    private static let magic: (offset: Int, bytes: [UInt8]) = (0x38, [0x53, 0xef])
    private static let blocksOf4KiB: (offset: Int, bytes: [UInt8]) = (0x18, [2, 0, 0, 0])
    private static let hundredThousandFree: (offset: Int, bytes: [UInt8]) = (0x0c, [0xa0, 0x86, 0x01, 0])

    @Test func theRoomForAQuotaIsWhatTheFileSystemHasFree() throws {
        let small = [Self.magic, Self.blocksOf4KiB, Self.hundredThousandFree]
        try withImage(small) { image in
            let largest = try image.largestDiskQuota()
            #expect(largest == 100_000 * 4_096 - (64 << 20))
        }
        // The upper half of the number counts only where the file system is said to have one.
        let high: (offset: Int, bytes: [UInt8]) = (0x158, [1, 0, 0, 0])
        try withImage(small + [high]) { image in
            let largest = try image.largestDiskQuota()
            #expect(largest == 100_000 * 4_096 - (64 << 20))
        }
        try withImage(small + [high, (0x60, [0x80, 0, 0, 0])]) {
            let largest = try $0.largestDiskQuota()
            #expect(largest == (1 << 32 + 100_000) * 4_096 - (64 << 20))
        }
        try withImage([Self.magic, Self.blocksOf4KiB]) { image in
            let largest = try image.largestDiskQuota()
            #expect(largest == 0)
        }
    }

    @Test func whatIsNoExt4IsRefused() throws {
        try withImage([Self.blocksOf4KiB, Self.hundredThousandFree]) { image in
            #expect(throws: ImageError.self) { try image.largestDiskQuota() }
        }
        try withImage([Self.magic, (0x18, [7, 0, 0, 0])]) { image in
            #expect(throws: ImageError.self) { try image.largestDiskQuota() }
        }
    }
}
