// SPDX-License-Identifier: Apache-2.0

/// What stands around each QEMU besides the virtual machine itself.
package enum Jail: Equatable, Sendable {
    /// bubblewrap: namespaces of its own, no network, no privileges, a root directory with QEMU alone.
    case bubblewrap(executable: String, root: JailRoot)
    /// Nothing: QEMU has the server's rights.
    case none

    /// What a VM's QEMU may see of the host's files.
    package struct View: Sendable {
        /// The image's directory.
        var image: String
        /// The template's directory, for a clone.
        var template: String?
        /// The VM's disk; the only file that it may write.
        var disk: String
        /// Whether it needs /dev/kvm.
        var usesKVM: Bool

        package init(image: String, template: String? = nil, disk: String, usesKVM: Bool) {
            self.image = image
            self.template = template
            self.disk = disk
            self.usesKVM = usesKVM
        }
    }

    /// How to start QEMU: the executable and what precedes QEMU's own arguments.
    ///
    /// - Parameter filter: the number of the descriptor on which bubblewrap gets a ``SystemCallFilter``.
    package func command(qemu: String, view: View, filter: Int32) -> (executable: String, arguments: [String]) {
        guard case .bubblewrap(let executable, let root) = self else { return (qemu, []) }
        var arguments = [
            // No namespace can be made in it, and so no part of the kernel be reached that only its owner reaches.
            "--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--new-session", "--as-pid-1",
            "--cap-drop", "ALL",
            "--seccomp", "\(filter)", "--uid", "65534", "--gid", "65534", "--hostname", "jail", "--clearenv",
            // Started by root, QEMU is root's user id to the kernel's settings: /proc must not be writable.
            "--ro-bind", root.directory, "/", "--proc", "/proc", "--remount-ro", "/proc",
            "--ro-bind", view.image, "/image",
            "--bind", view.disk, "/vm/disk.qcow2", "--dev-bind", "/dev/null", "/dev/null",
        ]
        for (name, value) in root.environment.sorted(by: { $0.key < $1.key }) {
            arguments += ["--setenv", name, value]
        }
        if let template = view.template { arguments += ["--ro-bind", template, "/template"] }
        if view.usesKVM { arguments += ["--dev-bind", "/dev/kvm", "/dev/kvm"] }
        return (executable, arguments + ["--chdir", "/", "--", root.qemu])
    }

    /// The files of a VM as its QEMU sees them.
    package func files(_ view: View, kernel: String, initramfs: String) -> QEMUCommand.Files {
        let isJailed = self != .none
        let image = isJailed ? "/image" : view.image
        return QEMUCommand.Files(
            kernel: "\(image)/\(kernel)",
            initramfs: "\(image)/\(initramfs)",
            rootFileSystem: "\(image)/rootfs.ext4",
            templateDisk: "\(isJailed ? "/template" : view.template ?? "")/disk.qcow2",
            disk: isJailed ? "/vm/disk.qcow2" : view.disk
        )
    }
}
