// SPDX-License-Identifier: Apache-2.0

package import AgentProtocol
package import NIOCore

/// What the host asks of a guest's agent; ``AgentConnection`` is the real one.
package protocol GuestAgent: AnyObject, Sendable {
    /// Sends code to the guest. The events end with `exited` or `refused`, or throw when the VM is lost.
    ///
    /// - Parameter timeout: how long the agent lets the code run.
    func execute(_ language: GuestLanguage, source: [UInt8], timeout: Duration) -> any GuestExecution

    /// Begins an operation on a file in the guest.
    func open(_ request: FileRequest) -> any GuestFile
}

/// Code that runs in a guest.
package protocol GuestExecution: Sendable {
    /// What happens, in order; to be read by one task, which must report what it used with ``consumed(_:)``.
    var events: AsyncThrowingStream<AgentExecution.Event, any Error> { get }

    /// Asks the agent to end it; the `exited` event follows.
    func cancel(_ reason: CancelReason)

    /// Bytes of output were used up: the guest may send as many more.
    func consumed(_ bytes: Int)

    /// Sends a `deadline` event after a time, unless the execution has ended by then.
    func setDeadline(_ delay: TimeAmount)
}

/// One operation on a file in the guest. It is cancelled there when the last reference to it goes, and when a task is cancelled that
/// reads its events or writes.
package protocol GuestFile: AnyObject, Sendable {
    /// What happens, in order; to be read by one task.
    var events: AsyncThrowingStream<AgentFile.Event, any Error> { get }

    /// Asks for bytes of a file that is open for reading; once.
    func read(_ range: FileRange)

    /// Sends content. Returns when the guest has taken, or has room for, all of it.
    ///
    /// - Throws: `AgentFile.Over` when the operation has ended; the connection's error when the VM is lost; `CancellationError`
    ///   when the task is cancelled.
    func write(_ bytes: ByteBuffer) async throws

    /// Tells that the content is complete.
    func finish()

    /// Bytes were used up: the guest may send as many more.
    func consumed(_ bytes: Int)

    /// Ends it; what was written and not finished is discarded.
    func cancel()
}

extension AgentConnection: GuestAgent {}
extension AgentExecution: GuestExecution {}
extension AgentFile: GuestFile {}
