// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Glibc

@main
struct Swiftlet: AsyncParsableCommand {
    /// The version of this server and its command line.
    static let version = "0.1.0"

    static let configuration = CommandConfiguration(
        commandName: "swiftlet",
        abstract: "Runs code in microVMs behind one HTTP call, on machines that you own.",
        discussion: """
            A first session:

              swiftlet image build          build the guest image, once
              swiftlet serve                start the server; it prints a key
              swiftlet exec 'print(1 + 1)'  run code in a microVM

            Every option can also be given in the environment (SWIFTLET_PORT=9000) or in a file (--config); \
            docs/configuration.md lists them all.
            """,
        version: version,
        subcommands: [
            ServeCommand.self, ExecCommand.self, DoctorCommand.self, ImageCommand.self, TemplateCommand.self,
            UserCommand.self, KeyCommand.self, AuditCommand.self, BenchCommand.self,
        ]
    )

    static func main() async {
        // Whatever is written (database, keys, outputs, disks of VMs) is nobody else's to read, unless its maker says otherwise.
        umask(0o077)
        guard let arguments = BenchCommand.arguments(in: Array(CommandLine.arguments.dropFirst())) else {
            return await main(nil)
        }
        do {
            try BenchCommand.become(arguments)
        } catch {
            exit(withError: error)
        }
    }
}
