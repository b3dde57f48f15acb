// SPDX-License-Identifier: Apache-2.0

/// The body of `POST /execute`.
package struct ExecuteBody: Encodable, Sendable {
    package var command: String
    package var language: String
    package var sessionID: String?
    /// Seconds.
    package var timeout: Int

    package init(command: String, language: String, sessionID: String?, timeout: Int) {
        self.command = command
        self.language = language
        self.sessionID = sessionID
        self.timeout = timeout
    }

    enum CodingKeys: String, CodingKey {
        case command, language, timeout
        case sessionID = "session_id"
    }
}

/// The fields of its response that the command line uses.
package struct ExecuteReply: Decodable, Sendable {
    package var stdout: String
    package var stderr: String
    package var exitCode: Int
    package var executionTime: Double
    package var sessionID: String
    package var vmID: String
    package var outcome: String

    enum CodingKeys: String, CodingKey {
        case stdout, stderr, outcome
        case exitCode = "exit_code"
        case executionTime = "execution_time"
        case sessionID = "session_id"
        case vmID = "vm_id"
    }
}
