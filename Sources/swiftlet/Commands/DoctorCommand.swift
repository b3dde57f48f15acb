// SPDX-License-Identifier: Apache-2.0

import ArgumentParser

struct DoctorCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor",
        abstract: "Says what this host gives to microVMs."
    )

    func run() async throws {}
}
