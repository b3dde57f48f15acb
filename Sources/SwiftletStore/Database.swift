// SPDX-License-Identifier: Apache-2.0

import Foundation
import GRDB
import Glibc

/// The reason why the database cannot be used, and its remedy.
package struct StoreError: Error, Equatable, Sendable, CustomStringConvertible {
    package let description: String

    package init(_ description: String) {
        self.description = description
    }
}

/// The server's database: one SQLite file, or memory for tests.
///
/// Statements stay in the subset of SQL that PostgreSQL understands too: `$1` parameters, used in order, `ON CONFLICT`,
/// `RETURNING`. Times are stored as microseconds since 1970.
package struct Database: Sendable {
    let writer: any DatabaseWriter

    /// Opens the file, makes it if it is not there, and brings its tables to this version.
    ///
    /// - Throws: `StoreError` when the file is unusable or was written by a later version.
    package static func open(path: String) throws -> Database {
        let directory = URL(filePath: path).deletingLastPathComponent().path
        do {
            try FileManager.default.createDirectory(
                atPath: directory,
                withIntermediateDirectories: true,
                attributes: [.posixPermissions: 0o700]
            )
            var configuration = Configuration()
            configuration.busyMode = .timeout(10)
            configuration.prepareDatabase { try $0.execute(sql: "PRAGMA synchronous = NORMAL") }
            try makePrivate(path)
            let pool = try DatabasePool(path: path, configuration: configuration)
            return try Database(migrating: pool)
        } catch let error as DatabaseError {
            throw StoreError("The database \(path) cannot be used: \(error.message ?? "\(error.resultCode)")")
        } catch let error as CocoaError {
            throw StoreError("The database \(path) cannot be made: \(error.localizedDescription)")
        }
    }

    /// Creates the file, if it does not exist, with mode 0600 before SQLite opens it: SQLite gives the files beside it the same mode, so
    /// other users can read none of them at any time. Files of an earlier version get the mode too.
    private static func makePrivate(_ path: String) throws {
        let files = FileManager.default
        if !files.fileExists(atPath: path) {
            // Another process may have created it meanwhile; if it cannot be created, SQLite reports why.
            let descriptor = Glibc.open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
            if descriptor >= 0 { close(descriptor) }
        }
        for file in [path, "\(path)-wal", "\(path)-shm"] where files.fileExists(atPath: file) {
            try files.setAttributes([.posixPermissions: 0o600], ofItemAtPath: file)
        }
    }

    /// A database in memory, of this process alone.
    package static func inMemory() throws -> Database {
        try Database(migrating: try DatabaseQueue())
    }

    private init(migrating writer: any DatabaseWriter) throws {
        self.writer = writer
        try Schema.migrate(writer)
    }
}
