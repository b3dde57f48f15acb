// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Foundation
import SwiftletAccounts

/// Reads a new password: from the terminal, unseen and twice, or from standard input when that is none.
enum PasswordInput {
    private static let shortest = 8

    static func hash() throws -> PasswordHash {
        guard isatty(STDIN_FILENO) == 1 else { return try hashFromInput() }
        let first = try ask("New password: ")
        guard try ask("Again: ") == first else { throw ValidationError("The two are not the same") }
        return try hash(of: first)
    }

    /// The first line of standard input.
    static func hashFromInput() throws -> PasswordHash {
        try hash(of: readLine(strippingNewline: true) ?? "")
    }

    private static func hash(of password: String) throws -> PasswordHash {
        guard (shortest...PasswordHash.maximumLength).contains(password.utf8.count) else {
            throw ValidationError("A password has \(shortest) to \(PasswordHash.maximumLength) bytes")
        }
        return try PasswordHash(of: password)
    }

    private static func ask(_ prompt: String) throws -> String {
        var before = termios()
        guard tcgetattr(STDIN_FILENO, &before) == 0 else { throw ValidationError("The terminal cannot be read") }
        var silent = before
        silent.c_lflag &= ~tcflag_t(ECHO)
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &silent)
        // An interruption would leave the terminal silent; an empty answer ends the command just as well.
        let onInterrupt = signal(SIGINT, SIG_IGN)
        defer {
            signal(SIGINT, onInterrupt)
            tcsetattr(STDIN_FILENO, TCSAFLUSH, &before)
            FileHandle.standardError.write(Data("\n".utf8))
        }
        FileHandle.standardError.write(Data(prompt.utf8))
        return readLine(strippingNewline: true) ?? ""
    }
}
