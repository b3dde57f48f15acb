// SPDX-License-Identifier: Apache-2.0

import AgentProtocol
import Glibc

/// Sends a page of a directory's entries to the host, sorted by the bytes of their names.
final class FileListing: FileOperation {
    private struct Page: Sendable {
        var frames: [[UInt8]] = []
        var hasMore = false
    }

    /// Bytes of a page at most: long names and long links make it shorter in entries.
    private static let pageLimit = 4 << 20
    private static let frameLimit = 48 * 1024

    private var page: Page?
    private var next = 0

    override func start() {
        let path = path
        let request = request
        attempt { () throws(FileFailure) -> Page in
            try FileListing.page(of: path, after: request.after, limit: Int(request.limit))
        } then: { [self] page in
            self.page = page
            resume()
        }
    }

    override func resume() {
        guard let page, !isOver else { return }
        while next < page.frames.count {
            let frame = page.frames[next]
            guard stream.canSend, stream.available >= frame.count else { return }
            _ = stream.take(upTo: frame.count)
            next += 1
            frame.withUnsafeBytes { stream.send($0, channel: .content) }
            // Sending may have made room, which calls back to here.
            if isOver { return }
        }
        end(FileDone(flags: page.hasMore ? .more : []))
    }

    private static func page(of path: GuestPath, after: [UInt8], limit: Int) throws(FileFailure) -> Page {
        let (names, more) = try names(in: path, after: after, limit: limit)
        var page = Page(hasMore: more)
        var frame: [UInt8] = []
        var size = 0
        for name in names {
            let file = path.appending(name)
            // The entry was removed meanwhile.
            guard let status = try? file.status(following: false) else { continue }
            let target = status.kind == .symbolicLink ? file.link ?? [] : []
            let entry = FileEntry(name: name, status: status, target: target).payload
            if size + entry.count > pageLimit {
                page.hasMore = true
                break
            }
            size += entry.count
            if frame.count + entry.count > frameLimit {
                page.frames.append(frame)
                frame = []
            }
            frame += entry
        }
        if !frame.isEmpty { page.frames.append(frame) }
        return page
    }

    /// The first names behind one, sorted, and whether there are more. Holds twice as many at most, however large the directory is.
    private static func names(
        in path: GuestPath,
        after: [UInt8],
        limit: Int
    ) throws(FileFailure) -> ([[UInt8]], hasMore: Bool) {
        let descriptor = try path.open(O_RDONLY | O_DIRECTORY)
        guard let directory = fdopendir(descriptor) else {
            close(descriptor)
            throw .last
        }
        defer { closedir(directory) }
        var names: [[UInt8]] = []
        var hasMore = false
        while let entry = readdir(directory) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                pointer.withMemoryRebound(to: UInt8.self, capacity: FileEntry.maximumName + 1) { bytes in
                    Array(UnsafeBufferPointer(start: bytes, count: Int(strlen(pointer.bytes))))
                }
            }
            let isItself = name.allSatisfy { $0 == UInt8(ascii: ".") } && name.count <= 2
            guard !isItself, after.isEmpty || after.lexicographicallyPrecedes(name) else { continue }
            names.append(name)
            if names.count > 2 * limit {
                names.sort { $0.lexicographicallyPrecedes($1) }
                names.removeLast(names.count - limit)
                hasMore = true
            }
        }
        names.sort { $0.lexicographicallyPrecedes($1) }
        return (Array(names.prefix(limit)), hasMore || names.count > limit)
    }
}

extension UnsafePointer {
    /// The same memory as characters.
    fileprivate var bytes: UnsafePointer<CChar> { UnsafeRawPointer(self).assumingMemoryBound(to: CChar.self) }
}
