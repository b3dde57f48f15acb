// SPDX-License-Identifier: Apache-2.0

import HTTPTypes
import SwiftletCore
import SwiftletJSON
import SwiftletSessions

/// The operations on `/v1/sessions/{id}/files` and what is behind it. The guest's `/` has no path behind `files`.
struct FileOperations: Sendable {
    let isRoot: Bool

    private static let pathNote = """
        Behind `files` stands the guest's absolute path, percent-encoded; `path` may have slashes, as they are or as `%2F`. `..` and links \
        are followed by the guest and never leave it. A session without a living VM gets one.
        """

    /// The errors that any path can have.
    private static let refusals: Set<ErrorResponse> = [.badRequest, .forbidden, .notFound, .conflict, .full, .tooLarge]

    private func operation(
        _ id: String,
        _ summary: String,
        _ description: String,
        parameters: [Parameter] = [],
        body: Content? = nil,
        replies: [Reply],
        refusals: Set<ErrorResponse> = []
    ) -> Operation {
        Operation(
            isRoot ? id + "AtRoot" : id,
            .files,
            isRoot ? summary + ", of `/`" : summary,
            description + (isRoot ? "" : "\n\n" + Self.pathNote),
            parameters: (isRoot ? [.session] : [.session, .file]) + parameters,
            body: body,
            replies: replies,
            refusals: Self.refusals.union(refusals)
        )
    }

    var read: Operation {
        operation(
            "readFile",
            "Reads a file, or lists a directory",
            "A directory is listed, or with `recursive=true` answered as a tar archive.",
            parameters: [
                .flag("recursive", "The directory as a tar archive."),
                .query(
                    "limit",
                    "Entries of a page.",
                    .integer("", Limits.directoryPageItems).orElse(.integer(Defaults.directoryPageItems))
                ),
                .query("after", "`next` of the page before.", .string()),
                .header("Range", "One range of bytes.", .string().example("bytes=0-99")),
                .header("If-Range", "An `ETag` or `Last-Modified`: the range counts if it is still so.", .string()),
                .header("If-None-Match", "`ETag`s that the client has.", .string()),
            ],
            replies: [
                Reply(
                    .ok,
                    "The file, the listing or the archive.",
                    .bytes().or(.json(.directory)).or(.bytes("application/x-tar")),
                    headers: Header.ofFile
                ),
                Reply(
                    .partialContent,
                    "A part of the file.",
                    .bytes(),
                    headers: Header.ofFile + [Header("Content-Range", "Which part.", isRequired: true)]
                ),
                Reply(.notModified, "The client has it.", headers: Header.ofFile),
            ],
            refusals: [.rangeNotSatisfiable]
        )
    }

    var head: Operation {
        operation(
            "headFile",
            "What `GET` would say without the content",
            "And how far a partial upload is, also where there is no file yet.",
            replies: [
                Reply(
                    .ok,
                    "It is there.",
                    headers: Header.ofFile + [Header("X-Upload-Offset", "Bytes that a partial upload has.", .count())]
                )
            ]
        )
    }

    var write: Operation {
        operation(
            "writeFile",
            "Writes a file, makes a directory or unpacks an archive",
            """
            The file gets its name when it is whole: until then the old one is there. Directories above are made. A path with a slash at its end \
            is a directory. With `offset` and `size`, or `Content-Range`, an upload goes on in parts.
            """,
            parameters: [
                .query("mode", "Octal digits, `0755`.", .string().with("pattern", "^0?[0-7]{0,4}$")),
                .flag("directory", "Make a directory."),
                .flag("recursive", "The body is a tar archive, gzip or not, to be unpacked into the directory."),
                .query("offset", "Where the body goes in a partial upload; 0 begins anew.", .count()),
                .query("size", "Bytes of the whole file, with `offset`.", .count()),
                .header("Content-Range", "`bytes N-M/TOTAL`, in place of `offset` and `size`.", .string()),
            ],
            body: Content(types: Content.bytes().types, isRequired: false),
            replies: [
                .ok("Replaced, or unpacked.", .written),
                Reply(.created, "New.", .json(.written)),
                Reply(.accepted, "A part of it is there.", .json(.partialUpload)),
            ]
        )
    }

    var remove: Operation {
        operation(
            "deleteFile",
            "Deletes a file, a link or a directory",
            isRoot ? "`/` cannot be removed: 400." : "A directory that is not empty needs `recursive=true`.",
            parameters: [.flag("recursive", "With all that is in it.")],
            replies: isRoot
                ? []
                : [
                    .ok(
                        "It is gone.",
                        .named("FileDeleted", .object(["status": .word(["success"]), "path": .string()]))
                    )
                ]
        )
    }

    static let upload = Operation(
        "upload",
        .files,
        "Uploads a file as a form",
        "All fields must stand before `file`, whose own name is not looked at.",
        body: Content(types: [
            (
                "multipart/form-data",
                .named(
                    "UploadForm",
                    .object(
                        [
                            "remote_path": .string("The guest's path; relative to `/app`.", length: Limits.pathBytes),
                            "session_id": .uuid(), "file": .bytes,
                        ],
                        optional: [
                            "recursive": .string("`true` if the file is an archive to unpack there."),
                            "api_key": .string("A key, in place of a header."),
                        ]
                    )
                )
            )
        ]),
        replies: [
            .ok(
                "It is there.",
                .named(
                    "Uploaded",
                    .object(
                        ["status": .word(["success"]), "remote_path": .string(), "size": .count()],
                        optional: ["created": .flag("Whether it is new."), "mode": .mode]
                    )
                )
            )
        ],
        refusals: refusals.union([.invalid])
    )

    static let download = Operation(
        "download",
        .files,
        "Downloads a file as Base64 in JSON",
        body: Content(
            types: Content.form(.downloadRequest).types + Content.json(.downloadRequest).types
        ),
        replies: [
            .ok(
                "The file.",
                .named(
                    "Downloaded",
                    .object([
                        "status": .word(["success"]), "filename": .string(), "size": .count(), "mode": .mode,
                        "content": .string("Base64; an empty file's is a line's end."),
                    ])
                )
            )
        ],
        refusals: refusals
    )
}

extension Parameter {
    fileprivate static let file = path(
        "path",
        "The guest's path; it may have slashes.",
        .string(length: Limits.pathBytes)
    )

    fileprivate static func flag(_ name: String, _ description: String) -> Parameter {
        query(name, description, .flag().orElse(.bool(false)))
    }
}

extension Header {
    fileprivate static let ofFile = [
        Header("ETag", "A file's; changes with its content."), Header("Last-Modified", "When it was changed."),
        Header("X-File-Mode", "Octal digits."), Header("X-File-Type", "What it is.", .fileKind),
        Header("Accept-Ranges", "A file's: `bytes`."),
    ]
}

extension Schema {
    fileprivate static let mode = string("Octal digits.").with("pattern", "^[0-7]{4,5}$")
    fileprivate static let fileKind = word([
        "file", "directory", "symlink", "pipe", "socket", "character_device", "block_device",
    ])

    private static let fileInfo = named(
        "FileInfo",
        .object([
            "path": .string(), "type": .fileKind, "size": .count(), "mode": .mode, "modified_at": .moment(),
            "uid": .count(), "gid": .count(),
        ])
    )

    fileprivate static let directory = named(
        "Directory",
        .object([
            "path": .string(), "type": .word(["directory"]), "next": .string("`after` of the next page.").nullable,
            "entries": .array(
                of: .named(
                    "DirectoryEntry",
                    .all([
                        .fileInfo,
                        .object(
                            ["name": .string(), "href": .string("Where the API has it.")],
                            optional: [
                                "name_base64": .string("The name, where it is no UTF-8."),
                                "target": .string("Where a link leads."),
                            ]
                        ),
                    ])
                ),
                "Sorted by the names' bytes."
            ),
        ])
    )

    fileprivate static let written = any([
        .named("Written", .all([.fileInfo, .object(["complete": .flag()])])),
        .named("Unpacked", .object(["status": .word(["success"]), "path": .string()])),
        .object(["complete": .flag()]),
    ])

    fileprivate static let partialUpload = named(
        "PartialUpload",
        .object(["path": .string(), "complete": .flag(), "offset": .count("Where to go on.")])
    )

    fileprivate static let downloadRequest = named(
        "DownloadRequest",
        .object(
            ["filename": .string("The guest's path; relative to `/app`."), "session_id": .uuid()],
            optional: ["api_key": .string("A key, in place of a header.")]
        )
    )
}
