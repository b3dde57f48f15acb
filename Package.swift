// swift-tools-version: 6.3
// SPDX-License-Identifier: Apache-2.0

import PackageDescription

let settings: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InferIsolatedConformances"),
    .enableUpcomingFeature("ImmutableWeakCaptures"),
    .treatAllWarnings(as: .error),
]

let package = Package(
    name: "swiftlet",
    products: [
        .executable(name: "swiftlet", targets: ["swiftlet"]),
        .executable(name: "swiftlet-agent", targets: ["swiftlet-agent"]),
        .executable(name: "swiftlet-bench", targets: ["swiftlet-bench"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-configuration", from: "1.4.0"),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
        .package(url: "https://github.com/apple/swift-http-types", from: "1.8.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-nio-extras", from: "1.35.2"),
        .package(url: "https://github.com/apple/swift-system", from: "1.8.1"),
        .package(url: "https://github.com/groue/GRDB.swift", from: "7.10.0"),
        .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.1"),
        .package(url: "https://github.com/swift-server/async-http-client", from: "1.37.0"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
        .package(url: "https://github.com/vapor/jwt-kit", from: "5.7.1"),
    ],
    targets: [
        .executableTarget(
            name: "swiftlet",
            dependencies: [
                "SwiftletAccounts",
                "SwiftletClient",
                "SwiftletCore",
                "SwiftletHTTP",
                "SwiftletJSON",
                "SwiftletSessions",
                "SwiftletStore",
                "SwiftletVM",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Configuration", package: "swift-configuration"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
                .product(name: "SystemPackage", package: "swift-system"),
                .product(name: "UnixSignals", package: "swift-service-lifecycle"),
            ],
            swiftSettings: settings
        ),
        .executableTarget(
            name: "swiftlet-bench",
            dependencies: [
                "SwiftletClient",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: settings
        ),
        .target(
            name: "SwiftletClient",
            dependencies: [
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "AsyncHTTPClient", package: "async-http-client"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
            ],
            swiftSettings: settings
        ),
        .target(
            name: "SwiftletHTTP",
            dependencies: [
                "SwiftletAccounts",
                "SwiftletCore",
                "SwiftletJSON",
                "SwiftletMetrics",
                "SwiftletSessions",
                "SwiftletStore",
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "HTTPTypes", package: "swift-http-types"),
                .product(name: "Hummingbird", package: "hummingbird"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOHTTPTypes", package: "swift-nio-extras"),
                .product(name: "NIOPosix", package: "swift-nio"),
            ],
            resources: [
                .embedInCode("Resources")
            ],
            swiftSettings: settings
        ),
        .target(
            name: "SwiftletSessions",
            dependencies: [
                "AgentClient",
                "AgentProtocol",
                "SwiftletAccounts",
                "SwiftletCore",
                "SwiftletJSON",
                "SwiftletMetrics",
                "SwiftletStore",
                "SwiftletVM",
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
            ],
            swiftSettings: settings
        ),
        .target(
            name: "SwiftletAccounts",
            dependencies: [
                "SwiftletCore",
                "SwiftletMetrics",
                "SwiftletStore",
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "CryptoExtras", package: "swift-crypto"),
                .product(name: "JWTKit", package: "jwt-kit"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
            ],
            swiftSettings: settings
        ),
        .target(
            name: "SwiftletVM",
            dependencies: [
                "AgentClient",
                "AgentProtocol",
                "CProcess",
                "SwiftletCore",
                "SwiftletMetrics",
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
            ],
            swiftSettings: settings
        ),
        .target(
            name: "AgentClient",
            dependencies: [
                "AgentProtocol",
                "SwiftletCore",
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
            ],
            swiftSettings: settings
        ),
        .target(
            name: "SwiftletStore",
            dependencies: [
                "SwiftletCore",
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "GRDB", package: "GRDB.swift"),
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: settings
        ),
        .target(
            name: "SwiftletJSON",
            dependencies: [
                .product(name: "NIOCore", package: "swift-nio")
            ],
            swiftSettings: settings
        ),
        .target(
            name: "SwiftletMetrics",
            swiftSettings: settings
        ),
        .target(
            name: "SwiftletCore",
            swiftSettings: settings
        ),
        .target(
            name: "AgentProtocol",
            swiftSettings: settings
        ),
        .target(
            name: "SwiftletAgentCore",
            dependencies: [
                "AgentProtocol",
                "CAgent",
            ],
            swiftSettings: settings
        ),
        .executableTarget(
            name: "swiftlet-agent",
            dependencies: [
                "SwiftletAgentCore"
            ],
            swiftSettings: settings,
            linkerSettings: [
                // The agent is PID 1 in an initramfs that holds no shared library.
                .unsafeFlags(["-static-executable"], .when(platforms: [.linux]))
            ]
        ),
        .target(name: "CAgent"),
        .target(name: "CProcess"),
        .target(
            name: "SwiftletTestSupport",
            dependencies: [
                "SwiftletCore"
            ],
            path: "Tests/SwiftletTestSupport",
            swiftSettings: settings
        ),
        .testTarget(
            name: "AgentProtocolTests",
            dependencies: [
                "AgentProtocol",
                "SwiftletTestSupport",
            ],
            swiftSettings: settings
        ),
        .testTarget(
            name: "AgentClientTests",
            dependencies: [
                "AgentClient",
                "AgentProtocol",
                "SwiftletTestSupport",
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
            ],
            swiftSettings: settings
        ),
        .target(
            name: "CAgentOnHost",
            path: "Tests/CAgentOnHost"
        ),
        .executableTarget(
            name: "AgentOnHost",
            dependencies: [
                "AgentProtocol",
                "CAgentOnHost",
                "SwiftletAgentCore",
            ],
            path: "Tests/AgentOnHost",
            swiftSettings: settings
        ),
        .testTarget(
            name: "SwiftletAgentCoreTests",
            dependencies: [
                "AgentOnHost",
                "AgentProtocol",
                "SwiftletAgentCore",
                "SwiftletTestSupport",
            ],
            swiftSettings: settings
        ),
        .testTarget(
            name: "SwiftletBenchTests",
            dependencies: [
                "swiftlet-bench"
            ],
            swiftSettings: settings
        ),
        .testTarget(
            name: "SwiftletCoreTests",
            dependencies: [
                "SwiftletCore",
                "SwiftletTestSupport",
            ],
            swiftSettings: settings
        ),
        .testTarget(
            name: "SwiftletJSONTests",
            dependencies: [
                "SwiftletJSON",
                "SwiftletTestSupport",
                .product(name: "NIOCore", package: "swift-nio"),
            ],
            swiftSettings: settings
        ),
        .testTarget(
            name: "SwiftletMetricsTests",
            dependencies: [
                "SwiftletMetrics"
            ],
            swiftSettings: settings
        ),
        .testTarget(
            name: "SwiftletStoreTests",
            dependencies: [
                "SwiftletCore",
                "SwiftletStore",
                "SwiftletTestSupport",
            ],
            swiftSettings: settings
        ),
        .testTarget(
            name: "SwiftletAccountsTests",
            dependencies: [
                "SwiftletAccounts",
                "SwiftletCore",
                "SwiftletMetrics",
                "SwiftletStore",
                "SwiftletTestSupport",
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: settings
        ),
        .testTarget(
            name: "SwiftletVMTests",
            dependencies: [
                "AgentClient",
                "AgentProtocol",
                "SwiftletCore",
                "SwiftletTestSupport",
                "SwiftletVM",
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
            ],
            swiftSettings: settings
        ),
        .testTarget(
            name: "SwiftletSessionsTests",
            dependencies: [
                "AgentClient",
                "AgentProtocol",
                "SwiftletAccounts",
                "SwiftletCore",
                "SwiftletMetrics",
                "SwiftletSessions",
                "SwiftletStore",
                "SwiftletTestSupport",
                "SwiftletVM",
                .product(name: "GRDB", package: "GRDB.swift"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
            ],
            swiftSettings: settings
        ),
        .testTarget(
            name: "SwiftletHTTPTests",
            dependencies: [
                "SwiftletTestSupport",
                "SwiftletAccounts",
                "SwiftletCore",
                "SwiftletHTTP",
                "SwiftletJSON",
                "SwiftletMetrics",
                "SwiftletSessions",
                "SwiftletStore",
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "HTTPTypes", package: "swift-http-types"),
                .product(name: "Hummingbird", package: "hummingbird"),
                .product(name: "HummingbirdTesting", package: "hummingbird"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
            ],
            swiftSettings: settings
        ),
    ],
    swiftLanguageModes: [.v6]
)
