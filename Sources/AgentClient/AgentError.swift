// SPDX-License-Identifier: Apache-2.0

package import AgentProtocol

/// Why the connection to a guest's agent failed.
package enum AgentError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The agent sent what the protocol does not allow; the connection is over.
    case protocolViolation(ProtocolError)
    /// The session's environment does not fit into one frame.
    case environmentTooLarge
    /// The guest did not confirm what must be its own.
    case notPrepared(String)

    package var description: String {
        switch self {
        case .protocolViolation(let error): "Its agent broke the protocol: \(error)"
        case .environmentTooLarge: "The environment is too large"
        case .notPrepared(let what): "The guest did not confirm \(what)"
        }
    }
}
